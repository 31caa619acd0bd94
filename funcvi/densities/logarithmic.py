"""Log densities that read the logarithms of a value, where an edge of the support is singular."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import betaln, gammaln

from funcvi.sampling.points import Point, log_above, log_below

__all__ = ["LOGARITHMIC"]


def _gamma(d: dist.Gamma, point: Point) -> Array:
    a, rate = d.concentration, d.rate
    log_y = log_above(point) + jnp.log(rate)
    return a * log_y - rate * point.x - gammaln(a) - log_above(point)


def _weibull(d: dist.Weibull, point: Point) -> Array:
    k = d.concentration
    log_y = k * (log_above(point) - jnp.log(d.scale))
    return jnp.log(k) + log_y - log_above(point) - jnp.exp(log_y)


def _beta(d: dist.Beta, point: Point) -> Array:
    one, zero = d.concentration1, d.concentration0
    return (one - 1) * log_above(point) + (zero - 1) * log_below(point) - betaln(one, zero)


def _kumaraswamy(d: dist.Kumaraswamy, point: Point) -> Array:
    """The log of ``1 - x**a`` is that of a (1 - x) where x rounds to one."""
    one, zero = d.concentration1, d.concentration0
    log_power = one * log_above(point)
    close = -log_power < jnp.finfo(point.x.dtype).eps
    safe = jnp.where(close, -1.0, log_power)
    log_rest = jnp.where(close, jnp.log(one) + log_below(point), jnp.log(-jnp.expm1(safe)))
    return (one - 1) * log_above(point) + (zero - 1) * log_rest + jnp.log(one) + jnp.log(zero)


def _dirichlet(d: dist.Dirichlet, point: Point) -> Array:
    a = d.concentration
    norm = jnp.sum(gammaln(a), axis=-1) - gammaln(jnp.sum(a, axis=-1))
    return jnp.sum((a - 1) * log_above(point), axis=-1) - norm


#: By the ``log_prob`` of a class; the others need the value alone.
LOGARITHMIC: dict[object, Callable[[Any, Point], Array]] = {
    dist.Gamma.log_prob: _gamma,
    dist.Chi2.log_prob: _gamma,
    dist.Weibull.log_prob: _weibull,
    dist.Beta.log_prob: _beta,
    dist.BetaProportion.log_prob: _beta,
    dist.Kumaraswamy.log_prob: _kumaraswamy,
    dist.Dirichlet.log_prob: _dirichlet,
}
