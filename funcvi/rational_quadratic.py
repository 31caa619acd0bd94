"""Monotone rational-quadratic splines: functions of one number, their slopes, their inverses.

Durkan et al. 2019, arXiv:1906.04032; Gregory and Delbourgo 1982, doi:10.1093/imanum/2.2.123.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["Spline", "inverse", "spline", "value_and_log_slope"]

# A bin's width and height at least, to those of an even one; slopes at knots lie between this and
# its inverse. Splines that bend more sharply make noise of a density's gradient, and float32 loses
# their inverse.
_LEAST = 0.1
_STEEPEST = -float(np.log(_LEAST))


class Spline(NamedTuple):
    """Increasing functions from [-bound, bound] onto itself, the identity outside.

    Attributes:
        x, y: at the knots, (..., bins + 1), increasing from -bound to bound.
        slope: there, positive; 1 at both ends.
    """

    x: Array
    y: Array
    slope: Array


class _Bin(NamedTuple):
    """The pieces that values lie on."""

    x: Array
    y: Array
    width: Array
    height: Array
    left: Array
    right: Array


def spline(raw: Array, bound: float) -> Spline:
    """The splines of unconstrained numbers; of zeros the identity.

    Args:
        raw: shape (..., 3 bins - 1): widths, heights, inner slopes.
        bound: the end of what is bent.
    """
    bins = (raw.shape[-1] + 1) // 3
    widths, heights, slopes = jnp.split(raw, [bins, 2 * bins], axis=-1)
    end = jnp.ones_like(raw[..., :1])
    inner = jnp.exp(_STEEPEST * jnp.tanh(slopes / _STEEPEST))
    slope = jnp.concatenate([end, inner, end], axis=-1)
    return Spline(_knots(widths, bound), _knots(heights, bound), slope)


def _knots(raw: Array, bound: float) -> Array:
    shares = _LEAST / raw.shape[-1] + (1 - _LEAST) * jax.nn.softmax(raw, axis=-1)
    inner = bound * (2 * jnp.cumsum(shares, axis=-1)[..., :-1] - 1)
    end = jnp.full_like(raw[..., :1], bound)
    return jnp.concatenate([-end, inner, end], axis=-1)


def value_and_log_slope(s: Spline, x: Array) -> tuple[Array, Array]:
    r"""The values at x, of shape (...), and the logarithms of the slopes there.

    In a bin of width w, height h, steepness s = h / w and slopes d, at its share t,

    .. math:: y = y_k + h \frac{s t^2 + d_k t (1 - t)}{s + (d_{k+1} + d_k - 2 s) t (1 - t)}

    Example:
        >>> import jax.numpy as jnp
        >>> s = spline(jnp.array([0.5, -0.5, 1.0, 0.0, 2.0]), bound=3.0)
        >>> y, log_slope = value_and_log_slope(s, jnp.array(0.7))
        >>> round(float(inverse(s, y)), 5)
        0.7
    """
    inside, x_in, b = _bin(s, s.x, x)
    t = (x_in - b.x) / b.width
    both, steepness = t * (1 - t), b.height / b.width
    below = steepness + (b.right + b.left - 2 * steepness) * both
    y = b.y + b.height * (steepness * t**2 + b.left * both) / below
    above = b.right * t**2 + 2 * steepness * both + b.left * (1 - t) ** 2
    log_slope = 2 * jnp.log(steepness) + jnp.log(above) - 2 * jnp.log(below)
    return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0)


def inverse(s: Spline, y: Array) -> Array:
    """The x whose values are y."""
    inside, y_in, b = _bin(s, s.y, y)
    rise, steepness = y_in - b.y, b.height / b.width
    bend = rise * (b.right + b.left - 2 * steepness)
    square = b.height * (steepness - b.left) + bend
    linear = b.height * b.left - bend
    # Of the two ways to write the root that one which never takes a difference of like numbers.
    root = jnp.sqrt(linear**2 + 4 * square * steepness * rise)
    return jnp.where(inside, b.x + 2 * steepness * rise / (linear + root) * b.width, y)


def _bin(s: Spline, knots: Array, at: Array) -> tuple[Array, Array, _Bin]:
    """Whether values are between the end knots, they or zero in their place, and their bins."""
    inside = (at > knots[..., 0]) & (at < knots[..., -1])
    at = jnp.where(inside, at, 0)  # outside, what is computed is not used, but must be finite
    number = jnp.sum(at[..., None] >= knots[..., 1:-1], axis=-1)
    # A sum over one-hot vectors: gathers, and their transposes, are slow in loops on CPU.
    hot = jax.nn.one_hot(number, knots.shape[-1] - 1, dtype=knots.dtype)

    def taken(x: Array) -> Array:
        return jnp.sum(hot * x, axis=-1)

    x, y = taken(s.x[..., :-1]), taken(s.y[..., :-1])
    width, height = taken(jnp.diff(s.x)), taken(jnp.diff(s.y))
    return inside, at, _Bin(x, y, width, height, taken(s.slope[..., :-1]), taken(s.slope[..., 1:]))
