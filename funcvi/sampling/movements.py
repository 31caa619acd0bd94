"""Univariate laws, and normal vectors, whose draws move with their parameters in a known way.

A value x is ``place(d, z)`` of a latent z whose law does not change when the parameters do. So x
moves with them as ``place`` does at a fixed z, which needs no derivative of a distribution function
and no division by a density.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import erf, gammainc, gammaincc, ndtr
from numpyro.distributions import transforms as nt

from funcvi.sampling.gamma import gamma_elasticity
from funcvi.sampling.multivariate import times_vector

__all__ = [
    "MOVEMENTS",
    "TRANSFORMS",
    "Movement",
    "into_support",
    "is_normal_vector",
    "loc_and_factor",
    "parts_of",
    "values_before",
    "whitened",
]

# Latents beyond this have no density left in any law below that has tails thinner than Cauchy's;
# clipped, they keep every derivative finite, also where its weight is zero.
_FAR = 1e15


class Movement(NamedTuple):
    """How one type of distribution draws.

    Attributes:
        kind: its support: "real", "positive" or "unit".
        latent: ``(d, x) -> z``.
        place: ``(d, z) -> x``, differentiable in d.
        tails: ``(d, z) -> (F, 1 - F)`` at x, each without cancellation.
    """

    kind: str
    latent: Callable[[Any, Array], Array]
    place: Callable[[Any, Array], Array]
    tails: Callable[[Any, Array], tuple[Array, Array]]


def _clipped(z: Array) -> Array:
    return jnp.clip(z, -_FAR, _FAR)


def _standardised(d: Any, x: Array) -> Array:
    return _clipped((x - d.loc) / d.scale)


def _located(d: Any, z: Array) -> Array:
    return d.loc + d.scale * z


def _laplace(d: Any, z: Array) -> tuple[Array, Array]:
    small = jnp.exp(-jnp.abs(z)) / 2
    return jnp.where(z < 0, small, 1 - small), jnp.where(z < 0, 1 - small, small)


def _cauchy(d: Any, z: Array) -> tuple[Array, Array]:
    one = jnp.ones_like(z)
    return jnp.arctan2(one, -z) / math.pi, jnp.arctan2(one, z) / math.pi


def _half_cauchy(d: Any, z: Array) -> tuple[Array, Array]:
    return jnp.arctan(z) * (2 / math.pi), jnp.arctan2(jnp.ones_like(z), z) * (2 / math.pi)


def _gumbel(d: Any, z: Array) -> tuple[Array, Array]:
    e = jnp.exp(-z)
    return jnp.exp(-e), -jnp.expm1(-e)


def _soft_laplace(d: Any, z: Array) -> tuple[Array, Array]:
    return jnp.arctan(jnp.exp(z)) * (2 / math.pi), jnp.arctan(jnp.exp(-z)) * (2 / math.pi)


def _exponential(d: Any, e: Array) -> tuple[Array, Array]:
    return -jnp.expm1(-e), jnp.exp(-e)


def _log_exponential(d: Any, log_e: Array) -> tuple[Array, Array]:
    return _exponential(d, jnp.exp(log_e))


def _weibull_latent(d: Any, x: Array) -> Array:
    return jnp.clip(d.concentration * (jnp.log(x) - jnp.log(d.scale)), -80, 30)


def _kumaraswamy_latent(d: Any, x: Array) -> Array:
    # (1 - x**a)**b is uniform, so -b log(1 - x**a) is exponential; its log, for the lower tail.
    logs = jnp.log(x) * d.concentration1
    log_e = jnp.log(d.concentration0) + jnp.log(-jnp.log1p(-jnp.exp(logs)))
    return jnp.clip(log_e, -80, 30)


def _kumaraswamy_place(d: Any, log_e: Array) -> Array:
    share = -jnp.expm1(-jnp.exp(log_e - jnp.log(d.concentration0)))
    return jnp.exp(jnp.log(share) / d.concentration1)


@jax.custom_jvp
def _at_quantile(concentration: Array, g: Array) -> Array:
    """g, moving with the concentration of the Gamma that it is drawn from."""
    return g


@_at_quantile.defjvp
def _at_quantile_rule(primals: Any, tangents: Any) -> Any:
    a, g = primals[0], _at_quantile(*primals)
    slope = g * gamma_elasticity(a, jnp.log(g)) / a
    return g, slope * tangents[0] + tangents[1]


def _gamma_latent(d: Any, x: Array) -> Array:
    g = jnp.clip(x * d.rate, jnp.finfo(x.dtype).tiny, 1e30)
    return jnp.broadcast_to(g, jnp.broadcast_shapes(jnp.shape(g), jnp.shape(d.concentration)))


def _gamma_place(d: Any, g: Array) -> Array:
    a = jnp.broadcast_to(jnp.asarray(d.concentration, g.dtype), g.shape)
    return _at_quantile(a, g) / d.rate


def _gamma_tails(d: Any, g: Array) -> tuple[Array, Array]:
    # In the dtype of g: gammainc of two widths would fail.
    a = jnp.broadcast_to(jnp.asarray(d.concentration, g.dtype), g.shape)
    return gammainc(a, g), gammaincc(a, g)


_GAMMA = Movement("positive", _gamma_latent, _gamma_place, _gamma_tails)


def _symmetric(tail: Callable[[Array], Array]) -> Movement:
    return Movement("real", _standardised, _located, lambda d, z: (tail(z), tail(-z)))


def _scaled(tails: Callable[[Any, Array], tuple[Array, Array]]) -> Movement:
    return Movement("positive", lambda d, x: _clipped(x / d.scale), lambda d, z: d.scale * z, tails)


MOVEMENTS: dict[type, Movement] = {
    dist.Normal: _symmetric(ndtr),
    dist.Logistic: _symmetric(jax.nn.sigmoid),
    dist.Laplace: Movement("real", _standardised, _located, _laplace),
    dist.Cauchy: Movement("real", _standardised, _located, _cauchy),
    dist.Gumbel: Movement("real", _standardised, _located, _gumbel),
    dist.SoftLaplace: Movement("real", _standardised, _located, _soft_laplace),
    dist.HalfNormal: _scaled(lambda d, z: (erf(z / math.sqrt(2)), 2 * ndtr(-z))),
    dist.HalfCauchy: _scaled(_half_cauchy),
    dist.Exponential: Movement(
        "positive", lambda d, x: _clipped(x * d.rate), lambda d, e: e / d.rate, _exponential
    ),
    dist.Weibull: Movement(
        "positive",
        _weibull_latent,
        lambda d, log_e: d.scale * jnp.exp(log_e / d.concentration),
        _log_exponential,
    ),
    dist.Gompertz: Movement(
        "positive",
        lambda d, x: _clipped(d.concentration * jnp.expm1(x * d.rate)),
        lambda d, e: jnp.log1p(e / d.concentration) / d.rate,
        _exponential,
    ),
    dist.Kumaraswamy: Movement("unit", _kumaraswamy_latent, _kumaraswamy_place, _log_exponential),
    dist.Gamma: _GAMMA,
    dist.Chi2: _GAMMA,
}

# Elementwise and monotone, with the support that each leads to. An affine one would carry the edge
# of a half line along with its parameters, so it is missing there.
TRANSFORMS = {
    (nt.AffineTransform, "real"): "real",
    (nt.ExpTransform, "real"): "positive",
    (nt.SoftplusTransform, "real"): "positive",
    (nt.SigmoidTransform, "real"): "unit",
    (nt.PowerTransform, "positive"): "positive",
}


def parts_of(transforms: Any) -> list[Any]:
    """Elementwise transforms, one after the other."""
    parts: list[Any] = []
    for t in transforms:
        if isinstance(t, nt.ComposeTransform):
            parts += parts_of(t.parts)
        elif isinstance(t, nt.IndependentTransform):
            parts += parts_of([t.base_transform])
        elif not isinstance(t, nt.IdentityTransform):
            parts.append(t)
    return parts


def values_before(d: Any, x: Array) -> list[Array]:
    """The value that each transform was given, and x at last."""
    values = [x]
    for transform in reversed(parts_of(d.transforms)):
        values.insert(0, transform.inv(values[0]))
    return values


def into_support(x: Array, kind: str | None) -> Array:
    """Off the ends of the support, where rounding may have put it."""
    info = jnp.finfo(x.dtype)
    if kind == "unit":
        return jnp.clip(x, info.tiny, 1 - info.eps)
    return jnp.clip(x, info.tiny if kind == "positive" else info.min, info.max)


def is_normal_vector(d: Any) -> bool:
    """Each coordinate is normal given those before it."""
    while isinstance(d, dist.ExpandedDistribution):
        d = d.base_dist
    return type(d) in (dist.MultivariateNormal, dist.LowRankMultivariateNormal)


def loc_and_factor(c: Any) -> tuple[Array, Array]:
    """Of such a vector: mean and Cholesky factor."""
    while isinstance(c, dist.ExpandedDistribution):
        c = c.base_dist
    if isinstance(c, dist.LowRankMultivariateNormal):
        return c.loc, jnp.linalg.cholesky(c.covariance_matrix)
    return c.loc, c.scale_tril


def whitened(loc: Array, factor: Array, x: Array) -> Array:
    """The standard normals that x is made of."""
    eye = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    inverse = solve_triangular(factor, eye, lower=True)
    return jnp.clip(times_vector(inverse, x - loc), -_FAR, _FAR)
