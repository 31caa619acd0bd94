"""Tails of the symmetric laws that numpyro truncates, in standard form, exact however far out.

They are what a draw between two bounds needs (see truncated.py):

    tail(t)       S(t) = P(T > t)

and, for t not negative,

    from_tail(p)  its inverse, for p up to one half
    drop(t, w)    log S(t) - log S(t + w), without the cancellation
    rise(t, e)    the w for which the drop is e
    log_ratio(a, g, t)  log p(a) - log p(t) where t = a + g, of any sign
    slope(t)      of the log density
    narrow        intervals narrower than this, in units of ``unit(t)``, are as good as exponential
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erfcx, ndtr, ndtri

__all__ = ["CAUCHY", "LAPLACE", "LOGISTIC", "NORMAL", "SOFT_LAPLACE", "Tails"]

_ROOT_TWO = math.sqrt(2)
_HAZARD = math.sqrt(2 / math.pi)


class Tails(NamedTuple):
    """Those of a symmetric law: see the module."""

    tail: Callable[[Array], Array]
    from_tail: Callable[[Array], Array]
    drop: Callable[[Array, Array], Array]
    rise: Callable[[Array, Array], Array]
    log_ratio: Callable[[Array, Array, Array], Array]
    slope: Callable[[Array], Array]
    unit: Callable[[Array], Array] = jnp.ones_like
    narrow: float = 1 / 3


def _log_scaled_tail(t: Array) -> Array:
    return jnp.log(erfcx(t / _ROOT_TWO))


def _normal_drop(t: Array, w: Array) -> Array:
    return w * (t + w / 2) + _log_scaled_tail(t) - _log_scaled_tail(t + w)


def _normal_rise(t: Array, e: Array) -> Array:
    """Newton's iteration, from above: the drop is convex in w, above both bounds it starts at."""
    scaled = erfcx(t / _ROOT_TWO)
    w = jnp.minimum(2 * e / (t + jnp.sqrt(t * t + 2 * e) + 1e-30), e * scaled / _HAZARD)
    for _ in range(4):
        moved = erfcx((t + w) / _ROOT_TWO)
        excess = w * (t + w / 2) + jnp.log(scaled / moved) - e
        w = jnp.maximum(w - excess * moved / _HAZARD, 0)
    return w


def _laplace_tail(t: Array) -> Array:
    small = jnp.exp(-jnp.abs(t)) / 2
    return jnp.where(t < 0, 1 - small, small)


def _logistic_drop(t: Array, w: Array) -> Array:
    return w + jnp.log1p(jax.nn.sigmoid(-t) * jnp.expm1(-w))


def _logistic_rise(t: Array, e: Array) -> Array:
    return jnp.log1p(jnp.expm1(e) * (1 + jnp.exp(-t)))


def _far(t: Array) -> Array:
    """Where the soft Laplace tail is exponential to all digits."""
    return t > (20 if t.dtype == jnp.float64 else 10)


def _soft_drop(t: Array, w: Array) -> Array:
    near = jnp.minimum(t, 20)
    width = jnp.minimum(w, 60)
    ratio = jnp.arctan(jnp.exp(-near)) / jnp.arctan(jnp.exp(-near - width))
    return jnp.where(_far(t), w, jnp.log(ratio) + (w - width))


def _soft_rise(t: Array, e: Array) -> Array:
    near = jnp.minimum(t, 20)
    angle = jnp.arctan(jnp.exp(-near))
    return jnp.where(_far(t), e, -jnp.log(jnp.tan(angle * jnp.exp(-e))) - near)


def _cauchy_angle(t: Array) -> Array:
    return jnp.arctan2(jnp.ones_like(t), t)


def _cauchy_drop(t: Array, w: Array) -> Array:
    end = jnp.where(jnp.isinf(w), 1, w)
    # 1 + t (t + w) over a large w, so that nothing overflows.
    size = 1 + t + end
    between = jnp.arctan2(end / size, 1 / size + t * ((t + end) / size))
    drop = -jnp.log1p(-between / _cauchy_angle(t))
    return jnp.where(jnp.isinf(w), jnp.inf, drop)


def _cauchy_rise(t: Array, e: Array) -> Array:
    angle = _cauchy_angle(t)
    turned = jnp.tan(-angle * jnp.expm1(-jnp.minimum(e, 0.5)))
    near = turned * (1 + t * t) / (1 - turned * t)
    return jnp.where(e < 0.5, near, 1 / jnp.tan(angle * jnp.exp(-e)) - t)


def _size(t: Array) -> Array:
    return jnp.sqrt(1 + jnp.square(jnp.clip(t, -1e18, 1e18)))


def _farther(a: Array, g: Array, t: Array) -> Array:
    """``|t| - |a|``, from the difference where both are on one side."""
    return jnp.where(a * t > 0, jnp.sign(t) * g, jnp.abs(t) - jnp.abs(a))


def _logistic_ratio(a: Array, g: Array, t: Array) -> Array:
    # The same on either side, so that derivatives at zero are right to all orders.
    side = jnp.where(a + t < 0, -1, 1)
    return side * g + 2 * (jax.nn.softplus(-side * t) - jax.nn.softplus(-side * a))


def _soft_ratio(a: Array, g: Array, t: Array) -> Array:
    side = jnp.where(a + t < 0, -1, 1)
    return side * g + jax.nn.softplus(-2 * side * t) - jax.nn.softplus(-2 * side * a)


NORMAL = Tails(
    tail=lambda t: ndtr(-t),
    from_tail=lambda p: -ndtri(p),
    drop=_normal_drop,
    rise=_normal_rise,
    log_ratio=lambda a, g, t: g * (a + t) / 2,
    slope=lambda t: -t,
)
LAPLACE = Tails(
    tail=_laplace_tail,
    from_tail=lambda p: -jnp.log(2 * p),
    drop=lambda t, w: w,
    rise=lambda t, e: e,
    log_ratio=_farther,
    slope=lambda t: -jnp.sign(t),
    narrow=1 / 2,  # less narrow, for the kink
)
LOGISTIC = Tails(
    tail=lambda t: jax.nn.sigmoid(-t),
    from_tail=lambda p: jnp.log1p(-p) - jnp.log(p),
    drop=_logistic_drop,
    rise=_logistic_rise,
    log_ratio=_logistic_ratio,
    slope=lambda t: -jnp.tanh(t / 2),
)
SOFT_LAPLACE = Tails(
    tail=lambda t: jnp.arctan(jnp.exp(-t)) * (2 / math.pi),
    from_tail=lambda p: -jnp.log(jnp.tan(p * (math.pi / 2))),
    drop=_soft_drop,
    rise=_soft_rise,
    log_ratio=_soft_ratio,
    slope=lambda t: -jnp.tanh(t),
)
CAUCHY = Tails(
    tail=lambda t: _cauchy_angle(t) / math.pi,
    from_tail=lambda p: 1 / jnp.tan(p * math.pi),
    drop=_cauchy_drop,
    rise=_cauchy_rise,
    log_ratio=lambda a, g, t: jnp.log1p(g / _size(a) * ((a + t) / _size(a))),
    slope=lambda t: -2 * t / (1 + t * t),
    unit=lambda t: 1 + jnp.abs(t),
)
