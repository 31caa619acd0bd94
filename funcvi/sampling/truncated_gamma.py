"""Draws of truncated Gammas (numpyro 0.22), by bisection of the truncated cdf in log x.

The number of steps is fixed, and each costs an incomplete gamma function: slower than the others.
Far in a tail, where that function underflows or is rounded, its logarithm's differences come from
continued fractions, as ``log(Gamma(a, x)) = a log(x) - x + log(K(a, x))`` (DLMF 8.9.2 and 8.9.1).

The derivative is that of truncated.py, for log x: with q = x p(x) the density of log x and e the
elasticity ``d log x / d log a`` at a fixed quantile,

    dlog x = e(x) dlog a + [(1 - u) q(low) (dlog low - e(low) dlog a)
                            + u q(high) (dlog high - e(high) dlog a)] / q(x).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammainc, gammaincc
from jax.typing import ArrayLike

from funcvi._numpyro import named
from funcvi._types import Key
from funcvi.sampling import noise
from funcvi.sampling.dtypes import noise_dtype
from funcvi.sampling.gamma import gamma_elasticity
from funcvi.sampling.implicit import implicit
from funcvi.sampling.record import Record
from funcvi.sampling.truncated import exponential_quantile, passed
from funcvi.sampling.wrappers import base_of

__all__ = ["RECORDS", "log_between"]

_TERMS = 24  # of the fractions: enough from five standard deviations on
_FAR = 1e-7  # a tail with less mass than this is far
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)


def log_between(a: Array, low: Array, high: Array, u: Array, rest: Array) -> Array:
    """Log of the quantile u of Gamma(a, 1) between two bounds.

    Args:
        a: concentration; all arrays of one shape and dtype.
        low: log of the lower bound, or -inf.
        high: log of the upper bound, or inf; below ``low`` the draw is NaN.
        u: the fraction of the interval's mass that is below the draw.
        rest: 1 - u.

    Example:
        >>> import jax.numpy as jnp
        >>> u = jnp.float32(0.5)
        >>> y = log_between(jnp.float32(1.0), jnp.log(jnp.float32(2.0)), jnp.float32(jnp.inf), u, u)
        >>> round(float(jnp.exp(y)), 4)   # 2 + log 2
        2.6931
    """
    y = _log_between(*jax.lax.stop_gradient((a, low, high)), u, rest)
    return implicit(_velocity, (a, low, high), y, u, rest)


def _log_between(a: Array, low: Array, high: Array, u: Array, rest: Array) -> Array:
    info = jnp.finfo(a.dtype)
    floor = float(math.log(info.tiny))
    left, right = jnp.maximum(low, floor), jnp.minimum(high, -floor)
    x_low, x_high = jnp.exp(left), jnp.exp(right)
    open_end = jnp.isinf(high)
    below, below_high = gammainc(a, x_low), jnp.where(open_end, 1, gammainc(a, x_high))
    above, above_high = gammaincc(a, x_low), jnp.where(open_end, 0, gammaincc(a, x_high))
    upper = below > 0.5
    mass = jnp.where(upper, above - above_high, below_high - below)
    from_below, from_above = below + u * mass, above_high + rest * mass
    use_above = from_below > 0.5
    # Out there a tail is given by its fraction alone.
    far_up, far_down = (above < _FAR) & (x_low > a), (below_high < _FAR) & (x_high < a)
    near_up, near_down = _log_fraction(a, x_low), _log_lower_fraction(a, x_high)
    rise = jnp.where(open_end, jnp.inf, _drop(_log_fraction, a, left, near_up, right))
    goal_up = passed(rise, u, rest)
    goal_down = passed(_drop(_log_lower_fraction, a, right, near_down, left), rest, u)
    start = left
    end = jnp.minimum(right, jnp.log(x_low + a + 30 * jnp.sqrt(a) + 300))
    steps = 2 * info.nmant // 3 + 18

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        start, end = ends
        y = start + (end - start) / 2
        x = jnp.exp(y)
        short = jnp.where(use_above, gammaincc(a, x) > from_above, gammainc(a, x) < from_below)
        drop_up = _drop(_log_fraction, a, left, near_up, y)
        drop_down = _drop(_log_lower_fraction, a, right, near_down, y)
        short = jnp.where(far_up, drop_up < goal_up, short)
        move = jnp.where(far_down, drop_down > goal_down, short)
        return jnp.where(move, y, start), jnp.where(move, end, y)

    start, end = jax.lax.fori_loop(0, steps, halve, (start, end))
    y = jnp.where(_narrow(a, left, right), _power(a, left, right, u, rest), (start + end) / 2)
    return jnp.where((a > 0) & (low <= high), jnp.clip(y, left, right), jnp.nan)


def _velocity(
    y: Array,
    theta: tuple[Array, Array, Array],
    dtheta: tuple[Array, Array, Array],
    u: Array,
    rest: Array,
) -> Array:
    a, low, high = theta
    d_log_a = dtheta[0] / a

    def at(bound: Array, d_bound: Array, share: Array) -> Array:
        real = jnp.isfinite(bound)
        steps = jnp.where(real, bound, y) - y
        log_ratio = a * steps - jnp.exp(y) * jnp.expm1(steps)
        return jnp.where(real, share * jnp.exp(jnp.minimum(log_ratio, 80)) * d_bound, 0)

    def moved(bound: Array, d_log_a: Array) -> Array:
        return -gamma_elasticity(a, jnp.where(jnp.isfinite(bound), bound, y)) * d_log_a

    # At fixed bounds: in far tails by quadrature, where the elasticity is not fitted.
    near = gamma_elasticity(a, y) * d_log_a + at(low, moved(low, d_log_a), rest)
    near = near + at(high, moved(high, d_log_a), u)
    far_up = (gammaincc(a, jnp.exp(low)) < _FAR) & (jnp.exp(low) > a)
    far_down = (gammainc(a, jnp.exp(high)) < _FAR) & (jnp.exp(high) < a)
    fixed = jnp.where(far_up | far_down, _far_slope(a, low, high, y) * dtheta[0], near)
    return fixed + at(low, dtheta[1], rest) + at(high, dtheta[2], u)


def _far_slope(a: Array, low: Array, high: Array, y: Array) -> Array:
    """dy / da at fixed bounds, where the log density of y is monotone between them.

    With A and B the masses below and above y, ``(A dB - B dA) / (A + B)`` over the density at y.
    """
    x = jnp.exp(y)
    reach = 40 / jnp.maximum(jnp.abs(x - a), 1e-3)
    s = jnp.asarray((_NODES + 1) / 2, a.dtype)

    def integrals(end: Array) -> tuple[Array, Array]:
        whole = jnp.clip(end - y, -reach, reach)[..., None]
        steps = whole * s
        log = a[..., None] * steps - x[..., None] * jnp.expm1(steps)
        weights = (
            jnp.abs(whole) * jnp.exp(jnp.minimum(log, 80)) * jnp.asarray(_WEIGHTS / 2, a.dtype)
        )
        return weights.sum(-1), (weights * steps).sum(-1)

    (below, d_below), (above, d_above) = integrals(low), integrals(high)
    return (below * d_above - above * d_below) / (below + above)


def _log_fraction(a: Array, x: Array) -> Array:
    """log K(a, x) for x above a; 1 / (x+1-a - 1(1-a) / (x+3-a - 2(2-a) / (x+5-a - ...)))."""
    excess = jnp.maximum(x - a, 1e-3)

    def inward(i: int, total: Array) -> Array:
        n = jnp.asarray(_TERMS - i, a.dtype)
        return excess + (2 * n - 1) - n * (n - a) / total

    # A loop, because XLA's simplifier does not end on so long a chain of sums.
    return -jnp.log(jax.lax.fori_loop(0, _TERMS, inward, excess + 2 * _TERMS + 1))


def _log_lower_fraction(a: Array, x: Array) -> Array:
    """log of 1 / (a - a x / (a+1 + x / (a+2 - (a+1) x / (a+3 + 2 x / (a+4 - ...))))), x below a."""
    x = jnp.minimum(x, a)

    def inward(i: int, total: Array) -> Array:
        n = jnp.asarray(_TERMS - i, a.dtype)
        total = a + 2 * n - 1 + n * x / total
        return a + 2 * n - 2 - (a + n - 1) * x / total

    return -jnp.log(jax.lax.fori_loop(0, _TERMS, inward, a + 2 * _TERMS))


def _drop(
    log_fraction: Callable[[Array, Array], Array], a: Array, y: Array, here: Array, y_next: Array
) -> Array:
    """How much the log of a tail drops from exp(y), where its fraction is at hand, to y_next."""
    step = y_next - y
    change = here - log_fraction(a, jnp.exp(y_next))
    return jnp.exp(y) * jnp.expm1(step) - a * step + change


def _narrow(a: Array, low: Array, high: Array) -> Array:
    """Where ``(a - x) log x`` is the log density of log x to all digits: a power of x."""
    limit = jnp.finfo(a.dtype).eps ** (1 / 3)
    return (high - low) * jnp.sqrt(1 + jnp.exp(high)) < limit


def _power(a: Array, low: Array, high: Array, u: Array, rest: Array) -> Array:
    slope = a - jnp.exp((low + high) / 2)
    width = high - low
    decay = -slope * jnp.where(jnp.isfinite(width), width, 0)
    return low + width * exponential_quantile(decay, u, rest)


def _truncated_gamma(d: Any, key: Key, shape: tuple[int, ...]) -> Array:
    dtype, base = noise_dtype(d), d.base_dist
    u, rest = noise.fractions(key, shape, dtype)
    rate = jnp.asarray(base.rate, dtype)
    tiny = jnp.finfo(dtype).tiny

    def log_of(bound: ArrayLike | None, missing: float) -> Array:
        if bound is None:
            return jnp.full(shape, missing, dtype)
        scaled = jnp.asarray(bound, dtype) * rate
        real = jnp.where(scaled > tiny, scaled, 1)
        log = jnp.where(scaled > tiny, jnp.log(real), jnp.where(scaled >= 0, -jnp.inf, jnp.nan))
        return jnp.broadcast_to(log, shape)

    low, high = getattr(d, "low", None), getattr(d, "high", None)
    a = jnp.broadcast_to(jnp.asarray(base.concentration, dtype), shape)
    x = jnp.exp(log_between(a, log_of(low, -jnp.inf), log_of(high, jnp.inf), u, rest)) / rate
    return x + jax.lax.stop_gradient(jnp.clip(x, low, high) - x)


RECORDS: dict[type, Record] = dict.fromkeys(
    named("LeftTruncatedGamma", "RightTruncatedGamma", "TwoSidedTruncatedGamma"),
    Record(_truncated_gamma, parts=base_of),
)
