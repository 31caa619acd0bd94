"""Draws of truncated distributions, right in any tail, with pathwise gradients in every parameter.

By inversion of the truncated cdf, from whichever end has less mass, in logs and differences that
do not cancel (tails.py); where the interval is so narrow that its mass is all rounding, the density
there is an exponential. At a fixed quantile u of the truncated law, with p the base's density and
v(x) its own velocity at a fixed base quantile, differentiating

    F(x) = F(low) + u (F(high) - F(low))

gives the implicit derivative (Figurnov et al. 2018, arXiv:1805.08498)

    dx = v(x) + [(1 - u) p(low) (dlow - v(low)) + u p(high) (dhigh - v(high))] / p(x).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi._types import Key
from funcvi.sampling import noise
from funcvi.sampling.dtypes import noise_dtype
from funcvi.sampling.elementary import elementary_record
from funcvi.sampling.implicit import implicit
from funcvi.sampling.record import Record, Shape
from funcvi.sampling.tails import Tails
from funcvi.sampling.wrappers import base_of

__all__ = ["RECORDS", "between", "exponential_quantile", "passed", "truncation_obstacle"]


def between(tails: Tails, low: Array, high: Array, u: Array, rest: Array) -> tuple[Array, ...]:
    """The truncated law's quantile u, differentiable in both bounds.

    Args:
        tails: of a standard symmetric tails.
        low: of the interval, or -inf; all arrays of one shape and dtype.
        high: of the interval, or inf; below ``low`` the draw is NaN.
        u: the fraction of the interval's mass that is below the draw.
        rest: 1 - u.

    Returns:
        The quantile t, and its distances to ``low`` and to ``high``, each of which is
        accurate also where it is small next to ``|t|``. The distances carry no gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcvi.sampling.tails import NORMAL
        >>> half = jnp.float32(0.5)
        >>> low, high = jnp.float32(1e3), jnp.float32(jnp.inf)
        >>> t, gap, _ = between(NORMAL, low, high, half, half)
        >>> round(float(gap) * 1e3, 4)  # log 2
        0.6931
    """
    t, *gaps = _between(tails, jax.lax.stop_gradient(low), jax.lax.stop_gradient(high), u, rest)
    return implicit(partial(_velocity, tails), (low, high), t, *gaps, u, rest), *gaps


def _between(
    tails: Tails, low: Array, high: Array, u: Array, rest: Array
) -> tuple[Array, Array, Array]:
    # Mirrored so that it is the lower bound that is nearer to the middle.
    flip = low + high < 0
    a, b = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    p, q = jnp.where(flip, rest, u), jnp.where(flip, u, rest)
    width = b - a
    start = jnp.maximum(a, 0)
    beside = tails.rise(start, passed(tails.drop(start, width), p, q))
    below, above = tails.tail(jnp.maximum(-a, 0)), tails.tail(jnp.maximum(b, 0))
    mass = 1 - below - above
    left, right = below + p * mass, above + q * mass
    edge = jnp.finfo(a.dtype).tiny
    across = jnp.where(
        left < right,
        -tails.from_tail(jnp.clip(left, edge, 0.5)),
        tails.from_tail(jnp.clip(right, edge, 0.5)),
    )
    middle = jnp.where(jnp.isinf(width), 0, a + width / 2)
    limit = float(jnp.finfo(a.dtype).eps) ** tails.narrow * tails.unit(middle)
    narrow = width < limit
    thin = width * exponential_quantile(-tails.slope(middle) * jnp.where(narrow, width, 0), p, q)
    gap = jnp.where(narrow, thin, jnp.where(a < 0, across - a, beside))
    gap = jnp.clip(gap, 0, width)
    t = jnp.where(narrow | (a >= 0), a + gap, jnp.clip(across, a, b))
    t = jnp.where(low <= high, t, jnp.nan)
    other = jnp.maximum(b - t, 0)
    return jnp.where(flip, -t, t), jnp.where(flip, other, gap), jnp.where(flip, gap, other)


def _velocity(
    tails: Tails,
    t: Array,
    bounds: tuple[Array, Array],
    dbounds: tuple[Array, Array],
    from_low: Array,
    from_high: Array,
    u: Array,
    rest: Array,
) -> Array:
    by_low = rest * _density_ratio(tails, bounds[0], from_low, t)
    by_high = u * _density_ratio(tails, bounds[1], -from_high, t)
    return by_low * dbounds[0] + by_high * dbounds[1]


def _density_ratio(tails: Tails, bound: Array, gap: Array, t: Array) -> Array:
    """p(bound) / p(t), zero at an infinite bound."""
    infinite = jnp.isinf(bound)
    finite, gap = jnp.where(infinite, 0, bound), jnp.where(infinite, 0, gap)
    # Its value is exact as it came; it moves, for a second derivative, with its two ends.
    gap = gap + (t - jax.lax.stop_gradient(t)) - (finite - jax.lax.stop_gradient(finite))
    return jnp.where(infinite, 0, jnp.exp(tails.log_ratio(finite, gap, t)))


def passed(drop: Array, p: Array, q: Array) -> Array:
    """How far the log of a tail has dropped where a fraction p of the interval is passed."""
    early = -jnp.log1p(jnp.minimum(p, 0.5) * jnp.expm1(-drop))
    return jnp.where(p < 0.5, early, -jnp.log(q + p * jnp.exp(-drop)))


def exponential_quantile(decay: Array, p: Array, q: Array) -> Array:
    """The quantile p of the density ``exp(-decay s)`` on s in (0, 1)."""
    steep = jnp.maximum(jnp.abs(decay), 1e-30)
    toward = jnp.where(decay >= 0, p, q)
    s = -jnp.log1p(toward * jnp.expm1(-steep)) / steep
    return jnp.where(decay >= 0, s, 1 - s)


def _truncated(d: dist.Distribution, key: Key, shape: Shape) -> Array:
    """Location and scale around ``between``; a missing bound is an infinite one."""
    dtype, base = noise_dtype(d), d.base_dist
    tails = elementary_record(base).tails
    if tails is None:
        return jnp.asarray(d.expand(shape).sample(key))
    u, rest = noise.fractions(key, shape, dtype)
    loc, scale = jnp.asarray(base.loc, dtype), jnp.asarray(base.scale, dtype)
    # Infinite after standardising, not before: the scale's tangent would be infinite.
    low, high = (
        None if bound is None else jnp.asarray(bound, dtype)
        for bound in (getattr(d, "low", None), getattr(d, "high", None))
    )
    a = jnp.full(shape, -jnp.inf, dtype) if low is None else (low - loc) / scale
    b = jnp.full(shape, jnp.inf, dtype) if high is None else (high - loc) / scale
    a, b = jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape)
    t, from_low, from_high = between(tails, a, b, u, rest)
    x = loc + scale * t
    exact = x
    # From the bound where it is near: far from loc, x is rounded less than t is.
    if low is not None:
        exact = jnp.where(from_low < jnp.abs(t), low + scale * from_low, exact)
    if high is not None:
        near = (from_high < jnp.abs(t)) & (from_high < from_low)
        exact = jnp.where(near, high - scale * from_high, exact)
    exact = jnp.where(scale > 0, jnp.clip(exact, low, high), jnp.nan)
    return x + jax.lax.stop_gradient(exact - x)


def _tilted(slope: Array, width: Array, u: Array, rest: Array) -> Array:
    """The quantile u of the density ``exp(slope y)`` on y in (0, width)."""
    stop = jax.lax.stop_gradient
    y = stop(width) * exponential_quantile(-stop(slope) * stop(width), u, rest)
    return implicit(_tilted_velocity, (slope, width), y, u, rest)


def _tilted_velocity(
    y: Array, theta: tuple[Array, Array], dtheta: tuple[Array, Array], u: Array, rest: Array
) -> Array:
    slope, width = theta
    k = slope * width
    from_end = jnp.where(
        k > 0,
        u / (u + rest * jnp.exp(-jnp.maximum(k, 0))),
        u * jnp.exp(jnp.minimum(k, 0)) / (rest + u * jnp.exp(jnp.minimum(k, 0))),
    )
    # Cancels for a small k, where the cumulants of a Bernoulli variable give the series.
    spread, small = u * rest, jnp.abs(k) < 0.05
    series = spread * (1 / 2 + (rest - u) * k / 3 + (1 - 6 * spread) * k * k / 8)
    direct = (from_end - y / width) / jnp.where(small, 1, k)
    from_slope = width**2 * jnp.where(small, series, direct)
    return from_slope * dtheta[0] + from_end * dtheta[1]


def _doubly_truncated_power(d: dist.Distribution, key: Key, shape: Shape) -> Array:
    """An exponential density of log x; by itself below ``high`` where ``low`` is zero."""
    dtype = noise_dtype(d)
    u, rest = noise.fractions(key, shape, dtype)
    slope, low, high = (
        jnp.broadcast_to(jnp.asarray(p, dtype), shape) for p in (d.alpha + 1.0, d.low, d.high)
    )
    bounded = low > 0
    start = jnp.where(bounded, low, high / 2)
    y = _tilted(slope, jnp.log(high) - jnp.log(start), u, rest)
    open_slope = jnp.where(bounded | (slope <= 0), 1, slope)
    below = jnp.log(u) / jnp.where(slope > 0, open_slope, jnp.nan)
    x = jnp.where(bounded, start * jnp.exp(y), high * jnp.exp(jnp.where(bounded, 0, below)))
    inside = jnp.where(low <= high, jnp.clip(x, low, high), jnp.nan)
    return x + jax.lax.stop_gradient(inside - x)


def _lower_truncated_power(d: dist.Distribution, key: Key, shape: Shape) -> Array:
    e = noise.exponential(key, shape, noise_dtype(d))
    return d.low * jnp.exp(e / jnp.where(d.alpha < -1, -1 - d.alpha, jnp.nan))


def truncation_obstacle(d: dist.LeftTruncatedDistribution) -> str | None:
    """Why a truncated distribution has no pathwise gradient: its base's tails are not in tails.py.

    numpyro draws a truncated StudentT by an inverse incomplete beta function from a package that we
    do not depend on.

    Example:
        >>> import numpyro.distributions as dist
        >>> truncation_obstacle(dist.LeftTruncatedDistribution(dist.StudentT(3.0), 0.5))
        'LeftTruncatedDistribution of StudentT has no derivative'
    """
    if elementary_record(d.base_dist).tails is not None:
        return None
    return f"{type(d).__name__} of {type(d.base_dist).__name__} has no derivative"


_TRUNCATED = Record(_truncated, pathwise=truncation_obstacle, parts=base_of)

RECORDS: dict[type, Record] = {
    dist.LeftTruncatedDistribution: _TRUNCATED,
    dist.RightTruncatedDistribution: _TRUNCATED,
    dist.TwoSidedTruncatedDistribution: _TRUNCATED,
    dist.DoublyTruncatedPowerLaw: Record(_doubly_truncated_power),
    dist.LowerTruncatedPowerLaw: Record(_lower_truncated_power),
}
