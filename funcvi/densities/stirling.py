"""Log Gamma functions, and what is left of densities once their large terms have cancelled.

With ``log Gamma(a) = (a - 1/2) log a - a + log(2 pi) / 2 + error(a)``, densities of the Gamma kind
are made of deviances, which vanish at the mode (Loader 2000, "Fast and accurate computation of
binomial probabilities").
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln

from funcvi.sampling.polynomials import horner

__all__ = [
    "log_beta_density",
    "log_dirichlet_density",
    "log_gamma_density",
    "log_poisson",
    "log_rising",
]

_HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2
#: Of 1/a, 1/a**3, ...
_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def _error(a: Array) -> Array:
    """Of Stirling's formula."""
    far = a > 8
    large, small = jnp.where(far, a, 8.0), jnp.where(far, 1.0, a)
    series = horner(_SERIES, 1 / large**2) / large
    direct = gammaln(small) - (small - 0.5) * jnp.log(small) + small - _HALF_LOG_TWO_PI
    return jnp.where(far, series, direct)


def _excess(v: Array) -> Array:
    """``v - log(1 + v)``, without cancellation."""
    near = jnp.abs(v) < 0.4
    large = jnp.where(near, 0.0, v)
    return jnp.where(near, _small_excess(jnp.where(near, v, 0.0)), large - jnp.log1p(large))


def _small_excess(v: Array) -> Array:
    """The same of at most 0.4."""
    s = v / (2 + v)
    count = 14 if v.dtype == jnp.float64 else 6
    odd = horner([1 / (2 * k + 3) for k in range(count)], s * s)
    return v * s - 2 * s**3 * odd


@jax.custom_jvp
def _deviance(a: Array, x: Array, log_x: Array, scale: Array) -> Array:
    """``a log(a / y) + y - a``, never negative, plus log x, of y = x scale."""
    y, v, near, log_x = _near_the_mode(a, x, log_x, scale)
    power = (a - 1) * jnp.where(near, 0.0, log_x)
    far = a * (jnp.log(a) - jnp.log(scale)) + jnp.where(near, 0.0, y - a) - power
    return jnp.where(near, a * _small_excess(v) + log_x, far)


@_deviance.defjvp
def _deviance_jvp(
    primals: tuple[Array, Array, Array, Array], tangents: tuple[Array, Array, Array, Array]
) -> tuple[Array, Array]:
    """By hand: a quarter of the work of differentiating both branches.

    Near the mode the value moves with x alone and far from it with log x, each as it is computed.
    """
    a, x, log_x, scale = primals
    da, dx, dlog_x, dscale = tangents
    y, v, near, log_x = _near_the_mode(a, x, log_x, scale)
    by_a = jnp.where(near, -jnp.log1p(v), jnp.log(a) - jnp.log(scale) - log_x)
    by_x = jnp.where(near, (y - a) / jnp.where(near, y, 1.0), 1.0) * scale
    by_log_x = jnp.where(near, 1.0, 1 - a)
    slope = by_a * da + by_x * dx + by_log_x * dlog_x + (y - a) / scale * dscale
    return _deviance(*primals), slope


def _near_the_mode(
    a: Array, x: Array, log_x: Array, scale: Array
) -> tuple[Array, Array, Array, Array]:
    """y, ``(y - a) / a`` where that is small and else 0, where it is, and log x where it counts."""
    y = x * scale
    v = (y - a) / a
    near = jnp.abs(v) < 0.4
    counts = near | ~((a == 1) & jnp.isinf(log_x))
    return y, jnp.where(near, v, 0.0), near, jnp.where(counts, log_x, 0.0)


@jax.jit
def log_gamma_density(a: Array, rate: Array, x: Array, log_x: Array) -> Array:
    """``a log rate + (a - 1) log x - rate x - log Gamma(a)``.

    Example:
        >>> one, a = jnp.float32(1.0), jnp.float32(1e7)
        >>> print(log_gamma_density(a, a, one, 0 * one))
        7.140109
    """
    return jnp.log(a) / 2 - _HALF_LOG_TWO_PI - _error(a) - _deviance(a, x, log_x, rate)


@jax.jit
def log_beta_density(
    one: Array, zero: Array, parts: tuple[Array, Array], logs: tuple[Array, Array]
) -> Array:
    """Of a Beta(one, zero) variable x.

    Args:
        one: concentration of x.
        zero: of 1 - x.
        parts: x and 1 - x.
        logs: of x and of 1 - x.
    """
    n = one + zero
    falls = _deviance(one, parts[0], logs[0], n) + _deviance(zero, parts[1], logs[1], n)
    scale = (jnp.log(one) + jnp.log(zero) - jnp.log(n)) / 2 - _HALF_LOG_TWO_PI
    return scale + _error(n) - _error(one) - _error(zero) - falls


@jax.jit
def log_dirichlet_density(a: Array, x: Array, log_x: Array) -> Array:
    """Of a Dirichlet variable x, whose entries sum to one."""
    n = jnp.sum(a, axis=-1)
    terms = jnp.log(a) / 2 - _HALF_LOG_TWO_PI - _error(a)
    terms = terms - _deviance(a, x, log_x, n[..., None])
    return jnp.sum(terms, axis=-1) - jnp.log(n) / 2 + _HALF_LOG_TWO_PI + _error(n)


@jax.jit
def log_poisson(k: Array, rate: Array, log_rate: Array) -> Array:
    """``k log rate - rate - log k!``; a rate of zero has the count zero."""
    large = k > 8
    empty = rate == 0
    safe, log_safe = jnp.where(empty, 1.0, rate), jnp.where(empty, 0.0, log_rate)
    near = log_gamma_density(jnp.where(large, k, 9.0) + 1, jnp.ones_like(safe), safe, log_safe)
    factorial = jnp.where(k <= 1, 0.0, gammaln(jnp.where(large, 2.0, k) + 1))  # XLA: not quite zero
    few = jnp.where(k == 0, 0.0, k * log_safe) - rate - factorial
    few = jnp.where(empty & (k > 0), -jnp.inf, few)
    return jnp.where(large & ~empty, near, few)


@jax.jit
def log_rising(a: Array, h: Array) -> Array:
    """``log(Gamma(a + h) / Gamma(a)) - h log a``, which vanishes as a grows."""
    far = a > 1
    b = jnp.where(far, a, 1.0)
    series = h * (h - 0.5) / b - (b + h - 0.5) * _excess(h / b) + _error(b + h) - _error(b)
    return jnp.where(far, series, gammaln(a + h) - gammaln(a) - h * jnp.log(a))
