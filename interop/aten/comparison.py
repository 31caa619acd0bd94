"""Comparisons, logic and bits; where, clamp, maximum and minimum."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast, together
from interop.aten.registry import Table

rules = Table()

for _name, _function in {
    "eq": jnp.equal,
    "ne": jnp.not_equal,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
}.items():

    @rules(f"aten.{_name}.Tensor", f"aten.{_name}.Scalar")
    def compare(x: Any, y: Any, function: Any = _function) -> jax.Array:
        return function(*together(x, y))


for _name, _function in {
    "bitwise_and": jnp.bitwise_and,
    "bitwise_or": jnp.bitwise_or,
    "bitwise_xor": jnp.bitwise_xor,
}.items():

    @rules(f"aten.{_name}.Tensor", f"aten.{_name}.Scalar")
    def bits(x: Any, y: Any, function: Any = _function) -> jax.Array:
        return function(*together(x, y))


@rules("aten.bitwise_not.default")
def bitwise_not(x: Any) -> jax.Array:
    return ~x


@rules("aten.logical_not.default")
def logical_not(x: Any) -> jax.Array:
    return jnp.logical_not(x)


@rules("aten.logical_and.default")
def logical_and(x: Any, y: Any) -> jax.Array:
    return jnp.logical_and(x, y)


@rules("aten.where.self", "aten.where.ScalarOther")
def where(condition: Any, x: Any, y: Any, *, result: Any) -> jax.Array:
    return jnp.where(condition, cast(x, result.dtype), cast(y, result.dtype))


@rules("aten.minimum.default")
def minimum(x: Any, y: Any) -> jax.Array:
    return jnp.minimum(*together(x, y))


@rules("aten.maximum.default")
def maximum(x: Any, y: Any) -> jax.Array:
    return jnp.maximum(*together(x, y))


@rules("aten.clamp.default")
def clamp(x: Any, low: Any = None, high: Any = None, *, result: Any) -> jax.Array:
    x = cast(x, result.dtype)
    if low is not None:
        x = jnp.where(x < low, cast(low, result.dtype), x)
    if high is not None:
        x = jnp.where(x > high, cast(high, result.dtype), x)
    return x
