"""Gamma draws and their derivative, in linear and in log space: no loop, so nothing can hang.

A draw is a smooth function of a normal and of its concentration ``a``. The log of a quantile,
``log(x / a)``, depends on ``u = z / sqrt(a)`` and on ``1 / a`` alone, and smoothly for a of one and
more (Temme 1992, doi:10.1090/S0025-5718-1992-1122079-8), so one polynomial in both serves. Its
quantiles are off by at most 6e-7 standard deviations, which a billion draws would not show. Below
one, ``Gamma(a) = Gamma(a + 1) U**(1 / a)`` (Marsaglia and Tsang 2000, doi:10.1145/358407.358414).

The derivative is the implicit one (Figurnov et al. 2018, arXiv:1805.08498), a function of the draw
and of a: as its elasticity, ``d log x / d log a`` at a fixed quantile, it needs three polynomials,
two below concentration one or x = 1, and one in ``log(x / a)`` and ``1 / a`` elsewhere.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from funcvi._types import Key
from funcvi.sampling import coefficients
from funcvi.sampling.implicit import implicit
from funcvi.sampling.noise import normal_and_exponential
from funcvi.sampling.polynomials import horner_rows
from funcvi.sampling.rounding import rounded
from funcvi.sampling.supports import Ends

__all__ = [
    "gamma_elasticity",
    "gamma_velocity",
    "log_standard_gamma",
    "standard_gamma",
    "standard_gamma_and_log",
]

_LOG_27, _LOG_13 = float(np.log(27.0)), float(np.log(13.0))


def standard_gamma(key: Key, concentration: Array, shape: tuple[int, ...]) -> Array:
    """Draws from Gamma(concentration, 1), with pathwise gradients at any concentration.

    Args:
        key: a key.
        concentration: floats that broadcast to ``shape``; where not positive, the draw is NaN.
        shape: of the draws.

    Returns:
        Array of ``shape``, in the dtype of ``concentration``, positive: a draw below the smallest
        normal number of that dtype is given as that number (see ``log_standard_gamma``).

    Raises:
        ValueError: the concentration does not broadcast to ``shape``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> round(float(standard_gamma(jax.random.key(0), jnp.float32(1e30), ())) / 1e30, 6)
        1.0
    """
    return standard_gamma_and_log(key, concentration, shape)[0]


def log_standard_gamma(
    key: Key, concentration: Array, shape: tuple[int, ...], *, bounded: bool = False
) -> Array:
    """The log of such draws, which does not underflow where concentrations are small.

    At concentration 1e-3 half of all draws are below 1e-300. Arguments as ``standard_gamma``.
    Below concentration 1e-18 the derivative overflows float32; ``bounded`` keeps it finite, for
    what exp makes of these logs, which does not move there.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> bool(log_standard_gamma(jax.random.key(0), jnp.float32(1e-3), ()) < -100)
        True
    """
    dtype, wide, parts = _parts(key, concentration, shape)
    velocity = _bounded_log_velocity if bounded else _log_velocity
    x = implicit(velocity, wide, parts.log)
    return x if dtype == x.dtype else rounded(x, dtype, Ends(-np.inf, np.inf))


def standard_gamma_and_log(
    key: Key, concentration: Array, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """The draws of ``standard_gamma``, and those of ``log_standard_gamma`` with the same key."""
    dtype, wide, parts = _parts(key, concentration, shape)
    # Zero is outside the support: what underflows becomes the smallest positive number.
    tiny = jnp.finfo(wide.dtype).tiny
    draws = jnp.maximum(parts.boosted * jnp.exp(parts.log_ratio), tiny)
    log_x = implicit(_log_velocity, wide, parts.log)
    x = implicit(gamma_velocity, wide, draws)
    if dtype != wide.dtype:
        ends = Ends(0, np.inf), Ends(-np.inf, np.inf)
        return rounded(x, dtype, ends[0]), rounded(log_x, dtype, ends[1])
    return x, log_x


class _Parts(NamedTuple):
    """A draw is ``boosted * exp(log_ratio)``."""

    boosted: Array
    log_ratio: Array
    log: Array


def _parts(
    key: Key, concentration: Array, shape: tuple[int, ...]
) -> tuple[jnp.dtype, Array, _Parts]:
    """The dtype wanted, concentrations of the shape wanted and a dtype to compute in, and draws."""
    concentration = jnp.asarray(concentration)
    dtype = concentration.dtype
    wide = dtype if dtype == jnp.float64 else jnp.dtype("float32")
    try:
        concentration = jnp.broadcast_to(concentration.astype(wide), shape)
    except ValueError:
        raise ValueError(
            f"a concentration of shape {concentration.shape} does not broadcast to draws of "
            f"shape {shape}."
        ) from None
    noise = normal_and_exponential(key, shape, wide)
    boosted, log_ratio = _log_parts(jax.lax.stop_gradient(concentration), *noise)
    return dtype, concentration, _Parts(boosted, log_ratio, jnp.log(boosted) + log_ratio)


@jax.jit  # traced once
def _log_parts(concentration: Array, z: Array, e: Array) -> tuple[Array, Array]:
    """``boosted`` and ``log_ratio``: a draw is ``boosted * exp(log_ratio)``."""
    a = jnp.where(concentration > 0, concentration, jnp.nan)
    small = a < 1
    boosted = jnp.where(small, a + 1, a)
    u = z * jax.lax.rsqrt(boosted)
    inner = u * jax.lax.rsqrt(u * u + coefficients.BEND**2)
    log_ratio = horner_rows(coefficients.LOG_QUANTILE, inner, 1 / boosted)
    return boosted, jnp.where(small, log_ratio - e / a, log_ratio)


def gamma_velocity(x: Array, concentration: Array, dconcentration: Array) -> Array:
    """Of a Gamma(concentration, 1) draw: see ``implicit``."""
    slope = x * gamma_elasticity(concentration, jnp.log(x)) / concentration
    # What underflowed is given as the smallest number, and stands still.
    return jnp.where(x <= jnp.finfo(x.dtype).tiny, 0, slope) * dconcentration


def _log_velocity(log_x: Array, concentration: Array, dconcentration: Array) -> Array:
    return gamma_elasticity(concentration, log_x) / concentration * dconcentration


def _bounded_log_velocity(log_x: Array, concentration: Array, dconcentration: Array) -> Array:
    slope = gamma_elasticity(concentration, log_x) / concentration
    return jnp.minimum(slope, 0.01 * jnp.finfo(slope.dtype).max) * dconcentration


def gamma_elasticity(concentration: Array, log_x: Array) -> Array:
    """``d log x / d log a`` of a Gamma(a, 1) variable at a fixed quantile, elementwise.

    It is ``-a (dF/da) / (x p(x))``, positive; relative error at most 2e-6 for quantiles from 1e-10
    to 1 - 1e-10, beyond which it stays finite.

    Args:
        concentration: a.
        log_x: log of the value, of the same shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(gamma_elasticity(jnp.float32(2.0), jnp.log(jnp.float32(1.7)))), 4)
        1.1764
    """
    a, x = concentration, jnp.exp(log_x)
    low, high = coefficients.LARGE_RANGE
    above = horner_rows(
        coefficients.LARGE, jnp.clip(log_x - jnp.log(a), low, high), 1 / jnp.maximum(a, 1)
    )
    inner = jnp.clip(log_x, 0, _LOG_27) * (2 / _LOG_27) - 1
    tail = horner_rows(coefficients.TAIL, inner, jnp.minimum(a, 1)) / x
    bounded, near = jnp.minimum(a, 12), jnp.minimum(x, 1)
    power = horner_rows(
        coefficients.ORIGIN_SERIES, bounded / (bounded + 1.4) * (2 * 13.4 / 12) - 1, near
    )
    offset = horner_rows(coefficients.ORIGIN_OFFSET, jnp.log1p(bounded) * (2 / _LOG_13) - 1, near)
    origin = offset - power * jnp.clip(log_x, min=-1e37)
    return jnp.where((x < 1) & (a < 12), origin, jnp.where(a < 1, tail, above))
