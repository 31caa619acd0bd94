"""Log densities of truncated Gammas (numpyro 0.22), right in either tail.

As truncated.py, in ``y = log(rate x)``, of which ``a y - exp(y)`` is the log density, concave with
its mode at log a: with the point Y of the interval nearest to the mode, and s the distance from it,
the density falls by ``(Y - a) s + Y (exp(s) - 1 - s)``.
"""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from funcvi._numpyro import named
from funcvi.densities.quadrature import log_integral, negligible
from funcvi.sampling.dtypes import own_dtype
from funcvi.sampling.polynomials import horner

__all__ = ["TRUNCATED_GAMMAS", "log_prob_truncated_gamma"]

TRUNCATED_GAMMAS = named("LeftTruncatedGamma", "RightTruncatedGamma", "TwoSidedTruncatedGamma")


def log_prob_truncated_gamma(d: Any, x: Array) -> Array:
    """The log density; a missing bound is zero or infinite."""
    own = jnp.result_type(x, own_dtype(d))
    dtype = jnp.promote_types(own, jnp.float32)
    base = d.base_dist
    given = (x, base.concentration, base.rate, getattr(d, "low", 0.0), getattr(d, "high", math.inf))
    x, a, rate, low, high = jnp.broadcast_arrays(*(jnp.asarray(v, dtype) for v in given))
    has_low, has_high = low > 0, jnp.isfinite(high)
    # Bounds that are missing stand at the mode here, and what they give is not used.
    low, high = jnp.where(has_low, low, a / rate), jnp.where(has_high, high, a / rate)
    right, left = has_low & (low * rate > a), has_high & (high * rate < a)
    end = jnp.where(right, low, jnp.where(left, high, stop_gradient(a / rate)))
    point = jnp.where(right | left, end * rate, stop_gradient(a))
    step = jnp.where(right | left, _log_ratio(x, end), _log_ratio(x * rate, stop_gradient(a)))
    width = _log_ratio(high, low)
    below = jnp.where(left, width, _log_ratio(stop_gradient(a), low * rate))
    below = jnp.where(right, 0.0, jnp.where(has_low, below, jnp.inf))
    above = jnp.where(right, width, _log_ratio(high * rate, stop_gradient(a)))
    above = jnp.where(left, 0.0, jnp.where(has_high, above, jnp.inf))
    wide = a[..., None], point[..., None]
    reach = _reach(stop_gradient(a), stop_gradient(point), negligible(dtype))
    log_mass = log_integral(lambda s: _fall(*wide, s), below, above, reach)
    return (-_fall(a, point, step) - jnp.log(x) - log_mass).astype(own)


def _fall(a: Array, point: Array, s: Array) -> Array:
    near = jnp.abs(s) < 0.5
    small, large = jnp.where(near, s, 0.0), jnp.where(near, 0.0, s)
    terms = 15 if s.dtype == jnp.float64 else 8
    series = small**2 * horner([1 / math.factorial(k + 2) for k in range(terms)], small)
    return (point - a) * s + point * jnp.where(near, series, jnp.expm1(large) - large)


def _reach(a: Array, point: Array, e: float) -> tuple[Array, Array]:
    """How far below and above the point the density is negligible.

    From ``exp(s) - 1 - s >= s**2 / 2``, and ``>= (exp(s) - 1) / 2`` for s above 1.3, on one side;
    and ``exp(-q) - 1 + q >= q**2 / (2 + q)``, on the other.
    """
    up, down = jnp.maximum(point - a, 0), jnp.maximum(a - point, 0)
    above = 2 * e / (up + jnp.sqrt(up**2 + 2 * e * point))
    above = jnp.minimum(above, jnp.maximum(1.3, jnp.log1p(2 * e / point)))
    half = e - 2 * down
    root = jnp.sqrt(half**2 + 8 * e * (down + point))
    below = jnp.where(half > 0, (half + root) / (2 * (down + point)), 4 * e / (root - half))
    return below, above


def _log_ratio(x: Array, y: Array) -> Array:
    """log(x / y), from the difference where it is small."""
    share = (x - y) / y
    near = jnp.abs(share) < 0.5
    return jnp.where(near, jnp.log1p(jnp.where(near, share, 0.0)), jnp.log(x) - jnp.log(y))
