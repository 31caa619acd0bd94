"""Log densities that read the logarithms of a value, where an edge of the support is singular."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from funcvi.densities.lkj import log_lkj_density
from funcvi.densities.stirling import (
    log_beta_density,
    log_dirichlet_density,
    log_gamma_density,
)
from funcvi.sampling.dtypes import own_dtype
from funcvi.sampling.points import Point, log_above, log_below

__all__ = ["LOGARITHMIC", "at_value"]


def _gamma(d: dist.Gamma, point: Point) -> Array:
    dtype = point.x.dtype
    a, rate = jnp.asarray(d.concentration, dtype), jnp.asarray(d.rate, dtype)
    return log_gamma_density(a, rate, point.x, log_above(point))


def _weibull(d: dist.Weibull, point: Point) -> Array:
    k, scale, log_x = d.concentration, d.scale, log_above(point)
    ratio = point.x / scale
    near = jnp.abs(ratio - 1) < 0.5
    log_y = k * jnp.where(near, jnp.log(jnp.where(near, ratio, 1.0)), log_x - jnp.log(scale))
    power = (k - 1) * jnp.where(near | ((k == 1) & jnp.isinf(log_x)), 0.0, log_x)
    slope = jnp.where(near, log_y - log_x, power - k * jnp.log(scale))
    return jnp.log(k) + slope - jnp.exp(log_y)


def _beta(d: dist.Beta, point: Point) -> Array:
    rest = 1 - point.x if point.below is None else jnp.exp(log_below(point))
    one, zero = (jnp.asarray(c, rest.dtype) for c in (d.concentration1, d.concentration0))
    return log_beta_density(one, zero, (point.x, rest), (log_above(point), log_below(point)))


def _kumaraswamy(d: dist.Kumaraswamy, point: Point) -> Array:
    """The log of ``1 - x**a`` is that of a (1 - x) where x rounds to one."""
    one, zero = d.concentration1, d.concentration0
    log_power = one * log_above(point)
    close = -log_power < jnp.finfo(point.x.dtype).eps
    safe = jnp.where(close, -1.0, log_power)
    log_rest = jnp.where(close, jnp.log(one) + log_below(point), jax.nn.log1mexp(-safe))
    return (one - 1) * log_above(point) + (zero - 1) * log_rest + jnp.log(one) + jnp.log(zero)


def _dirichlet(d: dist.Dirichlet, point: Point) -> Array:
    concentration = jnp.asarray(d.concentration, point.x.dtype)
    return log_dirichlet_density(concentration, point.x, log_above(point))


def _lkj_cholesky(d: dist.LKJCholesky, point: Point) -> Array:
    logs = jnp.log(point.x) if point.above is None else point.above
    return log_lkj_density(d, jnp.diagonal(logs, axis1=-2, axis2=-1))


def at_value(d: dist.Distribution, x: Array) -> Array:
    """The density of a plain value, whose logarithms are taken here; at an edge it is numpyro's."""
    x = x.astype(jnp.promote_types(jnp.result_type(x, own_dtype(d)), jnp.float32))
    density = LOGARITHMIC[type(d).log_prob]
    if d.support is not constraints.unit_interval:
        return density(d, Point(x, jnp.log(x)))
    edge = (x == 0) | (x == 1)
    safe = jnp.where(edge, 0.5, x)
    values = density(d, Point(safe, jnp.log(safe)))
    return jnp.where(edge, jax.lax.stop_gradient(d.log_prob(x)), values)


#: By the ``log_prob`` of a class; the others need the value alone.
LOGARITHMIC: dict[object, Callable[[dist.Distribution, Point], Array]] = {
    dist.Gamma.log_prob: _gamma,
    dist.Chi2.log_prob: _gamma,
    dist.Weibull.log_prob: _weibull,
    dist.Beta.log_prob: _beta,
    dist.BetaProportion.log_prob: _beta,
    dist.Kumaraswamy.log_prob: _kumaraswamy,
    dist.Dirichlet.log_prob: _dirichlet,
    dist.LKJCholesky.log_prob: _lkj_cholesky,
}
