"""Comparisons, logic and bits; where, clamp, maximum and minimum."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast, together
from interop.aten.registry import Table

rules = Table()

COMPARED: dict[str, Callable[..., jax.Array]] = {
    "eq": jnp.equal,
    "ne": jnp.not_equal,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
}
BITS: dict[str, Callable[..., jax.Array]] = {
    "bitwise_and": jnp.bitwise_and,
    "bitwise_or": jnp.bitwise_or,
    "bitwise_xor": jnp.bitwise_xor,
    "bitwise_left_shift": jnp.left_shift,
    "bitwise_right_shift": jnp.right_shift,
    "__and__": jnp.bitwise_and,
    "__or__": jnp.bitwise_or,
    "__xor__": jnp.bitwise_xor,
    "__lshift__": jnp.left_shift,
    "__rshift__": jnp.right_shift,
}
LOGIC: dict[str, Callable[..., jax.Array]] = {
    "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor,
    "logical_not": jnp.logical_not,
    "isnan": jnp.isnan,
    "isinf": jnp.isinf,
    "isfinite": jnp.isfinite,
    "isposinf": jnp.isposinf,
    "isneginf": jnp.isneginf,
    "signbit": jnp.signbit,
}


def _promoting(name: str, function: Callable[..., jax.Array], *overloads: str) -> None:
    @rules(*(f"aten.{name}.{overload}" for overload in overloads))
    def rule(x: Any, y: Any) -> jax.Array:
        return function(*together(x, y))


def _plain(name: str, function: Callable[..., jax.Array]) -> None:
    @rules(f"aten.{name}.default")
    def rule(*values: Any) -> jax.Array:
        return function(*values)


for _name, _function in COMPARED.items():
    _promoting(_name, _function, "Tensor", "Scalar")
for _name, _function in BITS.items():
    _promoting(_name, _function, "Tensor", "Scalar", "Scalar_Tensor")
for _name, _function in LOGIC.items():
    _plain(_name, _function)


@rules("aten.bitwise_not.default")
def bitwise_not(x: Any) -> jax.Array:
    return jnp.bitwise_not(x)


@rules("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where(condition: Any, x: Any, y: Any, *, result: Any) -> jax.Array:
    return jnp.where(condition != 0, cast(x, result.dtype), cast(y, result.dtype))


@rules("aten.minimum.default")
def minimum(x: Any, y: Any) -> jax.Array:
    return jnp.minimum(*together(x, y))


@rules("aten.maximum.default")
def maximum(x: Any, y: Any) -> jax.Array:
    return jnp.maximum(*together(x, y))


@rules("aten.fmin.default")
def fmin(x: Any, y: Any) -> jax.Array:
    """NaN loses; at ties the first has the gradient."""
    x, y = together(x, y)
    return jnp.where((x <= y) | jnp.isnan(y), x, y)


@rules("aten.fmax.default")
def fmax(x: Any, y: Any) -> jax.Array:
    """NaN loses; at ties the first has the gradient."""
    x, y = together(x, y)
    return jnp.where((x >= y) | jnp.isnan(y), x, y)


@rules("aten.clamp.default", "aten.clamp.Tensor", "aten.clip.default", "aten.clip.Tensor")
def clamp(x: Any, low: Any = None, high: Any = None, *, result: Any) -> jax.Array:
    """At a bound the gradient is the input's."""
    x = cast(x, result.dtype)
    inside = x
    if low is not None:
        low = cast(low, result.dtype)
        if high is not None:  # where the bounds are equal, neither has a gradient
            low = jnp.where(low == cast(high, result.dtype), jax.lax.stop_gradient(low), low)
        x = jnp.where((inside < low) | jnp.isnan(low), low, x)
    if high is not None:
        high = cast(high, result.dtype)
        over = inside > high if low is None else (inside > high) | (low > high)
        x = jnp.where(over | jnp.isnan(high), high, x)
    return x


@rules("aten.clamp_min.default", "aten.clamp_min.Tensor")
def clamp_min(x: Any, low: Any, *, result: Any) -> jax.Array:
    return clamp(x, low, None, result=result)


@rules("aten.clamp_max.default", "aten.clamp_max.Tensor")
def clamp_max(x: Any, high: Any, *, result: Any) -> jax.Array:
    return clamp(x, None, high, result=result)


@rules("aten.equal.default")
def all_equal(x: Any, y: Any) -> jax.Array:
    return jnp.array_equal(x, y)


@rules("aten.isclose.default")
def isclose(
    x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> jax.Array:
    x, y = together(x, y)
    return jnp.isclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)
