"""Draws in the dtype of the parameters, strictly inside the support: a rounding may leave it.

In bfloat16 one uniform number of 512 rounds to one, in float32 one of sixteen between 1e6 and
1e6 + 1 to an end.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from jax.typing import DTypeLike
from numpyro.distributions import constraints

from funcvi.sampling.dtypes import floats, own_dtype
from funcvi.sampling.implicit import implicit
from funcvi.sampling.points import Point, Value, value_of
from funcvi.sampling.supports import Ends, ends_of, support_of

__all__ = ["inside_support", "is_half", "rounded", "widened"]

# Inside these every sampler of float32 and float64 stays by itself.
_KEPT = ((-jnp.inf, jnp.inf), (0, jnp.inf), (0, 1))


def is_half(dtype: DTypeLike) -> bool:
    """Whether it is bfloat16 or float16: those are computed in float32 and rounded once."""
    return bool(jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32)


def widened(d: dist.Distribution) -> dist.Distribution:
    """The same distribution with parameters of float32 in place of narrower ones."""
    if not any(is_half(x.dtype) for x in floats(d)):
        return d
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) if hasattr(x, "dtype") and is_half(x.dtype) else x, d
    )


def inside_support(d: dist.Distribution, x: Value) -> Value:
    """Draws of d as ``fv.sample`` gives them, from those in the dtype that they were drawn in.

    Args:
        d: the distribution, with its own parameters.
        x: draws of it, or of ``widened(d)``, of any dtype.

    Returns:
        Continuous draws in the dtype of d's parameters; counts as they are, but not in half
        precision, where one above 256 or 2048 would be another. The derivative is that of x. In
        half precision without the logarithms of x, which are finer than the draw.

    Raises:
        TypeError: that dtype is bfloat16 or float16, and what is rounded to it would not lie in the
            support (a simplex, a factor), or is not known to.
    """
    value = _inside(d, value_of(x))
    return x._replace(x=value) if isinstance(x, Point) and not is_half(own_dtype(d)) else value


def _inside(d: dist.Distribution, x: Array) -> Array:
    dtype = own_dtype(d)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if d.support is not None and d.is_discrete:
        return x if is_half(dtype) else x.astype(dtype)
    ends = ends_of(d)
    if ends is None and is_half(dtype):
        raise TypeError(
            f"{type(d).__name__} is not drawn in {dtype}: rounded to it, draws would leave the "
            "support, or are not known to stay inside.\nGive it float32 parameters, and convert "
            "what is computed from its draws."
        )
    if ends is None or (not is_half(dtype) and _kept(d, ends)):
        return x.astype(dtype)
    return rounded(x, dtype, ends)


def _kept(d: dist.Distribution, ends: Ends) -> bool:
    on_circle = support_of(d) is constraints.circular  # where angles are wrapped inside it
    return on_circle or any(ends.are(*kept) for kept in _KEPT)


def rounded(x: Array, dtype: DTypeLike, ends: Ends) -> Array:
    """``x`` in ``dtype``, each at the nearest number strictly between the ends; its derivative.

    NaN where there is no such number.
    """
    low = _next_above(jnp.asarray(ends.low, x.dtype), dtype)
    high = -_next_above(-jnp.asarray(ends.high, x.dtype), dtype)
    y = jnp.clip(lax.stop_gradient(x).astype(dtype), low, high)
    y = jnp.where(low <= high, y, jnp.nan).astype(x.dtype)
    if ends.has_atom:
        y = jnp.where(x == 0, x, y)
    return implicit(_as_drawn, x, lax.stop_gradient(y)).astype(dtype)


def _as_drawn(y: Array, x: Array, dx: Array) -> Array:
    return dx


def _next_above(bound: Array, dtype: DTypeLike) -> Array:
    """The next number of ``dtype`` above, at least the smallest normal one away but in float16."""
    bound, info = lax.stop_gradient(bound), jnp.finfo(dtype)
    if bound.dtype == dtype:
        # A little more than half a unit in the last place, which rounds to a whole one: nextafter
        # takes as long as a draw.
        step = jnp.clip(0.50001 * info.eps * abs(bound), info.tiny, info.max)
        return jnp.maximum(bound + step, info.min)
    nearest = bound.astype(dtype)
    above = jnp.nextafter(nearest, jnp.asarray(jnp.inf, dtype))
    found = jnp.where(nearest.astype(bound.dtype) > bound, nearest, above)
    least = info.smallest_subnormal if dtype == jnp.float16 else info.tiny
    return jnp.where(bound >= 0, jnp.maximum(found, jnp.asarray(least, dtype)), found)
