"""Log densities of truncated distributions, right in any tail, with all their derivatives.

With p the base's density in standard form and t a point of the interval, at the mode or the nearest
to it,

    log p(x) = -[log p(t) - log p(x)] - log(integral of p / p(t) between the bounds),

where neither term is a difference of large ones. The point t is tied to a bound, so that a shift of
the base moves both terms by what they differ in, not by their slopes at t.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from funcvi.densities.quadrature import log_integral, negligible
from funcvi.sampling import tails
from funcvi.sampling.dtypes import own_dtype
from funcvi.sampling.elementary import elementary_record
from funcvi.sampling.tails import Tails

__all__ = ["log_prob_truncated"]

#: Log of the integral of p / p(t) from t - below to t + above, of (t, below, above).
LogMass: TypeAlias = Callable[[Array, Array, Array], Array]


def _by_quadrature(law: Tails, reach: Callable[[Array, float], Array]) -> LogMass:
    """``reach(|t|, e)`` is where the log density has fallen by e at least, outward from t."""

    def log_mass(t: Array, below: Array, above: Array) -> Array:
        far = reach(stop_gradient(jnp.abs(t)), negligible(t.dtype))
        wide = t[..., None]
        return log_integral(lambda s: law.log_ratio(wide, s, wide + s), below, above, (far, far))

    return log_mass


def _laplace_mass(t: Array, below: Array, above: Array) -> Array:
    at_mode = t == 0  # else one of the lengths is zero
    low, high = jnp.where(at_mode, t - below, -1), jnp.where(at_mode, t + above, 1)
    across = jnp.abs(t) + jnp.log(-jnp.expm1(low) - jnp.expm1(-high))
    return jnp.where(at_mode, across, jnp.log(-jnp.expm1(-below - above)))


def _cauchy_mass(t: Array, below: Array, above: Array) -> Array:
    low, high = t - below, t + above
    whole, open_low, open_high = jnp.isinf(below + above), jnp.isinf(below), jnp.isinf(above)
    low, high = jnp.where(open_low, 0, low), jnp.where(open_high, 0, high)
    width = jnp.where(whole, 1, below + above)
    # The angle between the ends, as the arctan of width / (1 + low high), and nothing overflows.
    size = 1 + jnp.abs(low) + width
    angle = jnp.arctan2(width / size, 1 / size + low * (high / size))
    one = jnp.ones_like(t)
    beyond = jnp.where(open_high, jnp.arctan2(one, low), jnp.arctan2(one, -high))
    beyond = jnp.where(open_low & open_high, math.pi, beyond)
    size = jnp.sqrt(1 + jnp.square(jnp.clip(t, -1e18, 1e18)))
    return 2 * jnp.log(size) + jnp.log(jnp.where(whole, beyond, angle))


_LOG_MASSES: dict[Tails, LogMass] = {
    tails.NORMAL: _by_quadrature(tails.NORMAL, lambda t, e: 2 * e / (t + jnp.sqrt(t * t + 2 * e))),
    tails.LOGISTIC: _by_quadrature(tails.LOGISTIC, lambda t, e: jnp.full_like(t, e + math.log(4))),
    tails.SOFT_LAPLACE: _by_quadrature(
        tails.SOFT_LAPLACE, lambda t, e: jnp.full_like(t, e + math.log(2))
    ),
    tails.LAPLACE: _laplace_mass,
    tails.CAUCHY: _cauchy_mass,
}


def log_prob_truncated(d: Any, x: Array) -> Array:
    """The log density of a truncated distribution whose base has its tails in tails.py."""
    law = elementary_record(d.base_dist).tails
    if law is None:
        return jnp.asarray(d.log_prob(x))
    own = jnp.result_type(x, own_dtype(d))
    dtype = jnp.promote_types(own, jnp.float32)
    given = (x, d.base_dist.loc, d.base_dist.scale, *(getattr(d, b, None) for b in ("low", "high")))
    ends = (math.nan, math.nan, math.nan, -math.inf, math.inf)
    arrays = [jnp.asarray(e if v is None else v, dtype) for v, e in zip(given, ends, strict=True)]
    x, loc, scale, low, high = jnp.broadcast_arrays(*arrays)
    has_low, has_high = jnp.isfinite(low), jnp.isfinite(high)
    # Infinite after standardising, not before: the scale's tangent would be infinite.
    low, high = jnp.where(has_low, low, loc), jnp.where(has_high, high, loc)
    a, b, z = (low - loc) / scale, (high - loc) / scale, (x - loc) / scale
    from_low, from_high, width = (x - low) / scale, (x - high) / scale, (high - low) / scale

    # The point t, how far x is from it, and the bounds: at a bound where the mode is outside.
    right, left = has_low & (a > 0), has_high & (b < 0)
    near_low, near_high = has_low & (a >= -1), has_high & (b <= 1)
    at_low = right | (near_low & ~left & ~(near_high & (b < -a)))
    at_high = ~at_low & near_high
    tie = jnp.where(at_low, a, b)
    loose = jnp.where(at_low | at_high, tie - stop_gradient(tie), 0)
    t = jnp.where(right | left, tie, loose)
    step = jnp.where(at_low, from_low, from_high)
    step = jnp.where(right | left, step, jnp.where(at_low | at_high, _valued(z, step), z))
    below = jnp.where(at_low, stop_gradient(-a), jnp.where(at_high, _valued(-a, width), -a))
    below = jnp.where(has_low, jnp.where(right, 0, jnp.where(left, width, below)), jnp.inf)
    above = jnp.where(at_low, _valued(b, width), jnp.where(at_high, stop_gradient(b), b))
    above = jnp.where(has_high, jnp.where(left, 0, jnp.where(right, width, above)), jnp.inf)
    fall = law.log_ratio(t, step, t + step)
    values = -fall - jnp.log(scale) - _LOG_MASSES[law](t, below, above)
    return values.astype(own)


def _valued(value: Array, mover: Array) -> Array:
    """The first, with the derivative of the second."""
    return stop_gradient(value) + (mover - stop_gradient(mover))
