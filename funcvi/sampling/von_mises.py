"""Von Mises draws and their derivative, elementwise: no rejection, so nothing can hang.

The angle, ``2 sin(x / 2)`` at heart, is close to a normal of variance ``1 / concentration`` cut off
where the circle ends. With ``xi`` in (-1, 1) that normal over its bound, drawn by inversion,

    x = pi xi - xi (1 - xi**2) P(xi, concentration),

where P is smooth; in panels of concentrations it is a polynomial of two variables, finer near the
antipode. Above the last panel, ``x sqrt(concentration) / z`` is one in ``z**2`` and
``1 / concentration``. Quantiles are off by at most 3e-6 standard deviations, and by more only where
fewer than one draw in 1e4 falls, by the root of how few.

The derivative is the implicit one (Figurnov et al. 2018, arXiv:1805.08498), a function of the draw
and of the concentration: with A the mean of the cosine,

    dx/dk = -(dF/dk) / p = -sin(x) pull(x, k),  d/dx (p dx/dk) = -(cos(x) - A) p,

and ``pull (1 + k (1 + cos x))`` between 1 and 2.2 a polynomial in the same panels.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from funcvi._types import Key
from funcvi.sampling import noise
from funcvi.sampling import von_mises_coefficients as tables
from funcvi.sampling.dtypes import noise_dtype
from funcvi.sampling.implicit import implicit
from funcvi.sampling.polynomials import horner_rows
from funcvi.sampling.record import Record

__all__ = ["RECORDS", "centred_von_mises", "von_mises_pull", "wrapped"]

_LARGEST = 1e30


def centred_von_mises(key: Key, concentration: Array, shape: tuple[int, ...]) -> Array:
    """Draws around zero, in [-pi, pi], with pathwise gradients.

    Args:
        key: a key.
        concentration: float32 or float64 that broadcasts to ``shape``; at zero the draw is uniform
            on the circle, and where negative it is NaN.
        shape: of the draws.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = centred_von_mises(jax.random.key(0), jnp.float32(1e8), (1000,))
        >>> bool(jnp.abs(x).max() < 1e-3)
        True
    """
    sign, v = noise.signed_tail(key, shape, concentration.dtype)
    return _angle(jnp.broadcast_to(concentration, shape), sign, v)


def wrapped(x: Array) -> Array:
    """The same angle strictly between -pi and pi, unrounded where it is there already.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(wrapped(jnp.float32(4.0))), 4)
        -2.2832
    """
    end = np.nextafter(np.asarray(math.pi, x.dtype), np.asarray(0, x.dtype))  # of float32, below pi
    return jax.lax.clamp(-end, x - 2 * math.pi * jnp.round(x / (2 * math.pi)), end)


def _angle(concentration: Array, sign: Array, v: Array) -> Array:
    x = _quantile(jax.lax.stop_gradient(concentration), sign, v)
    return implicit(_velocity, concentration, x)


def _quantile(concentration: Array, sign: Array, v: Array) -> Array:
    k = jnp.clip(concentration, 1e-12, _LARGEST)
    root = jnp.sqrt(k)
    z = _cut_normal(root, v)
    xi = jnp.minimum(z / (2 * root), 1)
    value = _in_panels(tables.QUANTILE, _layered(1 - xi * xi, k, tables.LAYER[0]), k)
    spread = xi * (math.pi - (1 - xi * xi) * value)
    square = jnp.minimum(z * z * (2 / tables.MOST_SQUARE) - 1, 1)
    last = tables.PANELS[-1]
    above = jnp.minimum(last / k, 1)
    tight = z / root * horner_rows(tables.QUANTILE_CONCENTRATED, square, above)
    x = sign * jnp.clip(jnp.where(k > last, tight, spread), 0, math.pi)
    return jnp.where(concentration >= 0, x, jnp.nan)


def _velocity(x: Array, concentration: Array, dconcentration: Array) -> Array:
    return -jnp.sin(x) * von_mises_pull(concentration, x) * dconcentration


def von_mises_pull(concentration: Array, x: Array) -> Array:
    """``-(dx / dk) / sin(x)`` of a von Mises variable around zero at a fixed quantile, elementwise.

    Positive and even: it says how fast a draw moves to zero as the concentration k grows.

    Args:
        concentration: k, not negative.
        x: the angle, of the same shape and dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(von_mises_pull(jnp.float32(2.0), jnp.float32(1.0))), 4)   # 0.40223...
        0.4022
    """
    k = jnp.clip(concentration, 0, _LARGEST)
    far = jnp.square(jnp.cos(x / 2))
    value = _in_panels(tables.PULL, _layered(far, k, tables.LAYER[1]), k)
    energy = k * jnp.square(jnp.sin(x / 2)) * (2 / tables.MOST_ENERGY) - 1
    last = tables.PANELS[-1]
    tight = horner_rows(
        tables.PULL_CONCENTRATED, jnp.minimum(energy, 1), jnp.minimum(last / jnp.maximum(k, 1), 1)
    )
    return jnp.where(k > last, tight, value) / (1 + 2 * k * far)


def _cut_normal(root: Array, v: Array) -> Array:
    """|z| of a standard normal that is below ``2 root``, at the probability v to exceed it.

    As noise.normal, except that the probability of being below is kept where it is tiny.
    """
    edge = root * math.sqrt(2)
    outside, inside = jax.lax.erfc(edge), jax.lax.erf(edge)
    below = (1 - v) * inside
    above = outside + v * inside
    if v.dtype == jnp.float64:
        tail = -jax.scipy.special.ndtri(jnp.minimum(above, 0.5) / 2)
        near = jax.lax.erf_inv(jnp.minimum(below, 0.5)) * math.sqrt(2)
        return jnp.where(above < 0.5, tail, near)
    return below * noise.normal_ratio(above)


def _layered(o: Array, k: Array, width: float) -> Array:
    return jnp.clip(2 * o * (k + width) / (k * o + width) - 1, -1, 1)


def _in_panels(panels: Sequence[Sequence[Sequence[float]]], inner: Array, k: Array) -> Array:
    """The polynomial of the panel that k is in, with where k is in it as outer variable."""
    edges = [b / (b + tables.BEND) for b in tables.PANELS]
    bent = k / (k + tables.BEND)
    value = jnp.zeros_like(k)
    for rows, low, high in zip(panels, edges[:-1], edges[1:], strict=True):
        outer = jnp.clip((bent - low) / (high - low), 0, 1)
        value = jnp.where(bent >= low, horner_rows(rows, inner, outer), value)
    return value


def _von_mises(d: dist.VonMises, key: Key, shape: tuple[int, ...]) -> Array:
    concentration = jnp.asarray(d.concentration, noise_dtype(d))
    # Right for functions that are continuous on the circle: a jump at the cut has no derivative.
    return wrapped(d.loc + centred_von_mises(key, concentration, shape))


RECORDS: dict[type, Record] = {dist.VonMises: Record(_von_mises)}
