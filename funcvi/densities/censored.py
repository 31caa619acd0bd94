"""Log densities of censored distributions, exact in both tails.

numpyro's end at log(eps), 16 nats in float32, beyond which a censored time says nothing: its
gradient is zero. Here the logarithms of the distribution function and of what is above it are
written for each family; of other families, digits that their own cdf does not have give minus
infinity, and not a number that looks right.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import betainc, erf, log_ndtr
from numpyro.distributions.util import validate_sample

from funcvi._numpyro import named
from funcvi.densities.truncated_gamma import log_prob_truncated_gamma
from funcvi.sampling.points import Value, value_of

__all__ = ["CENSORED", "log_tails"]

#: The logarithms of P(X <= x) and of P(X > x), of the distribution and x.
LogTails: TypeAlias = Callable[..., tuple[Array, Array]]


def log_tails(d: dist.Distribution, x: Array) -> tuple[Array, Array]:
    """The logarithms of ``P(X <= x)`` and of ``P(X > x)``, each to all digits.

    Args:
        d: a univariate distribution that has a cdf.
        x: values, broadcast with the batch shape.

    Example:
        >>> import numpyro.distributions as dist
        >>> below, above = log_tails(dist.Weibull(1.0, 2.0), jnp.array(10.0))
        >>> float(above)
        -100.0
    """
    if isinstance(d, dist.ExpandedDistribution):
        below, above = log_tails(d.base_dist, x)
        shape = jnp.broadcast_shapes(below.shape, d.batch_shape)
        return jnp.broadcast_to(below, shape), jnp.broadcast_to(above, shape)
    if type(d) in _TAILS:
        return _TAILS[type(d)](d, jnp.asarray(x))
    if type(d).cdf is dist.TransformedDistribution.cdf:
        return _transformed(d, jnp.asarray(x))
    share = jnp.asarray(d.cdf(x))
    return jnp.log(share), jnp.log1p(-share)


def _transformed(d: dist.TransformedDistribution, x: Array) -> tuple[Array, Array]:
    sign = jnp.ones(())
    for transform in reversed(d.transforms):
        sign = sign * transform.sign
        x = transform.inv(x)
    below, above = log_tails(d.base_dist, x)
    return jnp.where(sign < 0, above, below), jnp.where(sign < 0, below, above)


def _symmetric(standard: Callable[[Array], Array]) -> LogTails:
    """``standard`` is the logarithm of P(X <= x) of the law with its centre at zero."""

    def tails(d: dist.Distribution, x: Array) -> tuple[Array, Array]:
        z = (x - d.loc) / d.scale
        return standard(z), standard(-z)

    return tails


def _decaying(log_above: Callable[..., Array], lowest: Callable[..., Array | float]) -> LogTails:
    """Of a law on a half line, of whose P(X > x) the logarithm is known; all is above its edge."""

    def tails(d: dist.Distribution, x: Array) -> tuple[Array, Array]:
        inside = x > lowest(d)
        # Where nothing is below, the slope of what is not taken must be finite.
        above = log_above(d, jnp.where(inside, x, lowest(d) + jnp.ones_like(x)))
        below = jax.nn.log1mexp(-above)
        return jnp.where(inside, below, -jnp.inf), jnp.where(inside, above, 0.0)

    return tails


def _half(log_below: Callable[[Array], Array], log_above: Callable[[Array], Array]) -> LogTails:
    """Of a law folded at zero, both in standard form."""

    def tails(d: dist.Distribution, x: Array) -> tuple[Array, Array]:
        inside = x > 0
        z = jnp.where(inside, x, 1.0) / d.scale
        return jnp.where(inside, log_below(z), -jnp.inf), jnp.where(inside, log_above(z), 0.0)

    return tails


def _laplace(z: Array) -> Array:
    left, right = jnp.minimum(z, 0.0), jnp.maximum(z, 0.0)
    return jnp.where(z < 0, left - math.log(2), jnp.log1p(-jnp.exp(-right) / 2))


def _cauchy(z: Array) -> Array:
    return jnp.log(jnp.arctan2(jnp.ones_like(z), -z) / math.pi)


def _soft_laplace(z: Array) -> Array:
    near = jnp.maximum(z, -20.0)
    return jnp.log(jnp.arctan(jnp.exp(near)) * (2 / math.pi)) + (z - near)


def _student(d: dist.StudentT, x: Array) -> tuple[Array, Array]:
    z = (x - d.loc) / d.scale
    share = d.df / (d.df + jnp.square(z))
    outer = jnp.log(betainc(d.df / 2, 0.5, share) / 2)
    inner = jnp.log1p(-jnp.exp(outer))
    return jnp.where(z < 0, outer, inner), jnp.where(z < 0, inner, outer)


def _gumbel(d: dist.Gumbel, x: Array) -> tuple[Array, Array]:
    hazard = jnp.exp(-(x - d.loc) / d.scale)
    return -hazard, jax.nn.log1mexp(hazard)


def _gamma(d: dist.Gamma, x: Array) -> tuple[Array, Array]:
    """By the density between bounds: at a bound it is that of the whole over what is inside."""
    inside = x > 0
    x = jnp.where(inside, x, 1.0)
    whole = _gamma_between(d, x, 0.0, math.inf)
    below = whole - _gamma_between(d, x, 0.0, x)
    above = whole - _gamma_between(d, x, x, math.inf)
    return jnp.where(inside, below, -jnp.inf), jnp.where(inside, above, 0.0)


def _gamma_between(d: dist.Gamma, x: Array, low: Any, high: Any) -> Array:
    base = dist.Gamma(d.concentration, d.rate, validate_args=False)
    shape = jnp.broadcast_shapes(base.batch_shape, x.shape)
    between: Any = SimpleNamespace(base_dist=base, low=low, high=high)
    return log_prob_truncated_gamma(between, jnp.broadcast_to(x, shape))


def _inverse_gamma(d: dist.InverseGamma, x: Array) -> tuple[Array, Array]:
    inside = x > 0
    above, below = _gamma(d, 1 / jnp.where(inside, x, 1.0))
    return jnp.where(inside, below, -jnp.inf), jnp.where(inside, above, 0.0)


def _uniform(d: dist.Uniform, x: Array) -> tuple[Array, Array]:
    width = d.high - d.low
    share = jnp.clip((x - d.low) / width, 0.0, 1.0), jnp.clip((d.high - x) / width, 0.0, 1.0)
    return jnp.log(share[0]), jnp.log(share[1])


_TAILS: dict[type, LogTails] = {
    dist.Normal: _symmetric(log_ndtr),
    dist.Logistic: _symmetric(jax.nn.log_sigmoid),
    dist.Laplace: _symmetric(_laplace),
    dist.Cauchy: _symmetric(_cauchy),
    dist.SoftLaplace: _symmetric(_soft_laplace),
    dist.StudentT: _student,
    dist.Gumbel: _gumbel,
    dist.Uniform: _uniform,
    dist.Gamma: _gamma,
    dist.Chi2: _gamma,
    dist.InverseGamma: _inverse_gamma,
    dist.Exponential: _decaying(lambda d, x: -d.rate * x, lambda d: 0.0),
    dist.Weibull: _decaying(lambda d, x: -jnp.power(x / d.scale, d.concentration), lambda d: 0.0),
    dist.Gompertz: _decaying(lambda d, x: -d.concentration * jnp.expm1(d.rate * x), lambda d: 0.0),
    dist.HalfNormal: _half(
        lambda z: jnp.log(erf(z / math.sqrt(2))), lambda z: log_ndtr(-z) + math.log(2)
    ),
    dist.HalfCauchy: _half(
        lambda z: jnp.log(jnp.arctan(z) * (2 / math.pi)),
        lambda z: jnp.log(jnp.arctan2(jnp.ones_like(z), z) * (2 / math.pi)),
    ),
    dist.Pareto: _decaying(lambda d, x: -d.alpha * jnp.log(x / d.scale), lambda d: d.scale),
}


# ---- what is censored ----------------------------------------------------------------------------

Density: TypeAlias = Callable[[dist.Distribution, Value], Array]


def _of_value(d: dist.Distribution, x: Array, log_prob: Density) -> Array:
    """The density where nothing is censored; elsewhere at a point where its slope is finite."""
    usual = d.base_dist.support.feasible_like(x)
    return log_prob(d.base_dist, jnp.where(d.censored, usual, x))


def _right(d: dist.Distribution, x: Value, log_prob: Density) -> Array:
    above = log_tails(d.base_dist, value_of(x))[1]
    return jnp.where(d.censored, above, _of_value(d, value_of(x), log_prob))


def _left(d: dist.Distribution, x: Value, log_prob: Density) -> Array:
    below = log_tails(d.base_dist, value_of(x))[0]
    return jnp.where(d.censored, below, _of_value(d, value_of(x), log_prob))


def _interval(d: dist.Distribution, x: Value, log_prob: Density) -> Array:
    """Below the second value, above the first, between both, or not between them (both flags)."""
    low, high = value_of(x)[..., 0], value_of(x)[..., 1]
    usual = d.base_dist.support.feasible_like(low)
    left, right = d.left_censored, d.right_censored
    exact = ~(left | right) & (low == high)
    between = ~(left | right) & ~exact
    below_low, above_low = log_tails(d.base_dist, jnp.where(left & ~right, usual, low))
    below_high, above_high = log_tails(d.base_dist, jnp.where(right & ~left, usual, high))
    # A difference of two tails of the side that has less.
    upper = below_low > -math.log(2)
    more, less = jnp.where(upper, above_low, below_high), jnp.where(upper, above_high, below_low)
    gap = jnp.where(between & (more > less), more - less, 1.0)
    inside = jnp.where(more > less, more + jax.nn.log1mexp(gap), -jnp.inf)
    outside = jnp.logaddexp(below_low, above_high)
    value = log_prob(d.base_dist, jnp.where(exact, low, usual))
    return jnp.select(
        [left & right, left, right, exact], [outside, below_high, above_low, value], inside
    )


#: By the ``log_prob`` of the class.
CENSORED = {
    kind.log_prob: validate_sample(density)
    for name, density in (
        ("LeftCensoredDistribution", _left),
        ("RightCensoredDistribution", _right),
        ("IntervalCensoredDistribution", _interval),
    )
    for kind in named(name)
}
