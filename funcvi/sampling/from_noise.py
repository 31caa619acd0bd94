"""Univariate distributions that are a formula of one or two base draws."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import erf, ndtr

from funcvi._types import Key
from funcvi.sampling import coefficients, noise, tails
from funcvi.sampling.dtypes import bounded_exp, inside, noise_dtype
from funcvi.sampling.points import Point, Value
from funcvi.sampling.polynomials import horner
from funcvi.sampling.record import Draw, Record, Shape, Univariate

__all__ = ["FAR", "RECORDS"]

#: Latents beyond this have no density left in any law below that has tails thinner than Cauchy's;
#: clipped, they keep every derivative finite, also where its weight is zero.
FAR = 1e15

TwoTails = tuple[Array, Array]


# ---- draws ---------------------------------------------------------------------------------------


def _of(base: Callable[..., Array], formula: Callable[[dist.Distribution, Array], Value]) -> Draw:
    def draw(d: dist.Distribution, key: Key, shape: Shape) -> Value:
        return formula(d, base(key, shape, noise_dtype(d)))

    return draw


def _cauchy(key: Key, shape: Shape, dtype: jnp.dtype) -> Array:
    sign, v = noise.signed_tail(key, shape, dtype)
    if dtype == jnp.float64:
        return sign / jnp.tan(v * (math.pi / 2))
    # cot(pi v / 2), which is tan on the other side of the middle: XLA's tan is slow on CPU.
    t = jnp.minimum(v, 1 - v)
    tangent = t * horner(coefficients.TANGENT, 8 * t * t - 1)
    return sign * jnp.where(v < 0.5, 1 / tangent, tangent)


def _laplace(key: Key, shape: Shape, dtype: jnp.dtype) -> Array:
    sign, v = noise.signed_tail(key, shape, dtype)
    return -sign * jnp.log(v)


def _logistic(key: Key, shape: Shape, dtype: jnp.dtype) -> Array:
    sign, v = noise.signed_tail(key, shape, dtype)
    return sign * (jnp.log(2 - v) - jnp.log(v))


def _kumaraswamy(d: dist.Kumaraswamy, e: Array) -> Point:
    # 1 - (1 - u)**(1 / b) with u = 1 - exp(-e), without cancellation.
    t = e / d.concentration0
    log_x = jnp.log(_one_less_exp(t)) / d.concentration1
    # Where exp(-t) rounds away in one less it, x is one less exp(-t) / a.
    far = t > (36 if t.dtype == jnp.float64 else 15)
    near = jnp.where(far, -1.0, log_x)
    log_rest = jnp.where(far, -t - jnp.log(d.concentration1), jnp.log(-jnp.expm1(near)))
    return Point(inside(jnp.exp(log_x)), log_x, log_rest)


def _one_less_exp(t: Array) -> Array:
    """1 - exp(-t) for t not negative: XLA's expm1 is slow on CPU."""
    if t.dtype == jnp.float64:
        return -jnp.expm1(-t)
    series = [(-1) ** k / math.factorial(k + 1) for k in range(8)]
    return jnp.where(t < 0.5, t * horner(series, jnp.minimum(t, 0.5)), 1 - jnp.exp(-t))


def _two_exponentials(d: dist.AsymmetricLaplace, key: Key, shape: Shape) -> Array:
    left, right = noise.exponential(key, (2, *shape), noise_dtype(d))
    return d.loc - d.left_scale * left + d.right_scale * right


def _located(d: dist.Distribution, z: Array) -> Array:
    return d.loc + d.scale * z


def _weibull(d: dist.Weibull, e: Array) -> Point:
    log_x = jnp.log(e) / d.concentration
    return Point(inside(d.scale * bounded_exp(log_x), "positive"), log_x + jnp.log(d.scale))


# ---- latents -------------------------------------------------------------------------------------


def _clipped(z: Array) -> Array:
    return jnp.clip(z, -FAR, FAR)


def _real(two_tails: Callable[[Array], TwoTails]) -> Univariate:
    return Univariate(
        "real", lambda d, x: _clipped((x - d.loc) / d.scale), _located, lambda d, z: two_tails(z)
    )


def _scaled(two_tails: Callable[[Array], TwoTails]) -> Univariate:
    return Univariate(
        "positive",
        lambda d, x: _clipped(x / d.scale),
        lambda d, z: d.scale * z,
        lambda d, z: two_tails(z),
    )


def _half_cauchy_tails(z: Array) -> TwoTails:
    return jnp.arctan(z) * (2 / math.pi), jnp.arctan2(jnp.ones_like(z), z) * (2 / math.pi)


def _gumbel_tails(z: Array) -> TwoTails:
    e = jnp.exp(-z)
    return jnp.exp(-e), -jnp.expm1(-e)


def _exponential_tails(d: dist.Distribution, e: Array) -> TwoTails:
    return -jnp.expm1(-e), jnp.exp(-e)


def _log_exponential_tails(d: dist.Distribution, log_e: Array) -> TwoTails:
    return _exponential_tails(d, jnp.exp(log_e))


def _weibull_latent(d: dist.Weibull, x: Array) -> Array:
    return jnp.clip(d.concentration * (jnp.log(x) - jnp.log(d.scale)), -80, 30)


def _kumaraswamy_latent(d: dist.Kumaraswamy, x: Array) -> Array:
    # (1 - x**a)**b is uniform, so -b log(1 - x**a) is exponential; its log, for the lower tail.
    logs = jnp.log(x) * d.concentration1
    log_e = jnp.log(d.concentration0) + jnp.log(-jnp.log1p(-jnp.exp(logs)))
    return jnp.clip(log_e, -80, 30)


def _kumaraswamy_value(d: dist.Kumaraswamy, log_e: Array) -> Array:
    share = -jnp.expm1(-jnp.exp(log_e - jnp.log(d.concentration0)))
    return jnp.exp(jnp.log(share) / d.concentration1)


# ---- records -------------------------------------------------------------------------------------


def _symmetric(law: tails.Tails, base: Callable[..., Array] | None = None) -> Record:
    """Of a location and a scale around a law that is symmetric."""
    draw = None if base is None else _of(base, _located)
    return Record(draw, univariate=_real(lambda z: (law.tail(-z), law.tail(z))), tails=law)


RECORDS: dict[type, Record] = {
    dist.Normal: _symmetric(tails.NORMAL, noise.normal),
    dist.Cauchy: _symmetric(tails.CAUCHY, _cauchy),
    dist.Laplace: _symmetric(tails.LAPLACE, _laplace),
    dist.Logistic: _symmetric(tails.LOGISTIC, _logistic),
    dist.SoftLaplace: _symmetric(tails.SOFT_LAPLACE),
    dist.Gumbel: Record(
        _of(noise.exponential, lambda d, e: d.loc - d.scale * jnp.log(e)),
        univariate=_real(_gumbel_tails),
    ),
    dist.HalfNormal: Record(
        _of(noise.normal, lambda d, z: d.scale * jnp.abs(z)),
        univariate=_scaled(lambda z: (erf(z / math.sqrt(2)), 2 * ndtr(-z))),
    ),
    dist.HalfCauchy: Record(
        _of(_cauchy, lambda d, x: d.scale * jnp.abs(x)), univariate=_scaled(_half_cauchy_tails)
    ),
    dist.Exponential: Record(
        _of(noise.exponential, lambda d, e: e / d.rate),
        univariate=Univariate(
            "positive",
            lambda d, x: _clipped(x * d.rate),
            lambda d, e: e / d.rate,
            _exponential_tails,
        ),
    ),
    dist.Weibull: Record(
        _of(noise.exponential, _weibull),
        univariate=Univariate(
            "positive",
            _weibull_latent,
            lambda d, log_e: d.scale * jnp.exp(log_e / d.concentration),
            _log_exponential_tails,
        ),
    ),
    dist.Gompertz: Record(
        univariate=Univariate(
            "positive",
            lambda d, x: _clipped(d.concentration * jnp.expm1(x * d.rate)),
            lambda d, e: jnp.log1p(e / d.concentration) / d.rate,
            _exponential_tails,
        ),
    ),
    dist.Kumaraswamy: Record(
        _of(noise.exponential, _kumaraswamy),
        univariate=Univariate(
            "unit", _kumaraswamy_latent, _kumaraswamy_value, _log_exponential_tails
        ),
    ),
    dist.Uniform: Record(_of(noise.uniform, lambda d, u: d.low + (d.high - d.low) * u)),
    dist.AsymmetricLaplace: Record(_two_exponentials),
}
