"""Operations that move nothing: picking from tuples, identities, detaching."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast
from interop.aten.registry import Table

rules = Table()


@rules("getitem")
def getitem(values: Sequence[Any], index: int) -> Any:
    return values[index]


@rules(
    "aten.alias.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.lift_fresh_copy.default",
    "aten.lift_fresh.default",
    "aten.positive.default",
    "aten.resolve_conj.default",
    "aten.resolve_neg.default",
)
def identity(x: jax.Array, **_: Any) -> jax.Array:
    return x


@rules("aten.detach.default", "aten.detach_copy.default")
def detach(x: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(x)


@rules("aten._to_copy.default", "aten.type_as.default")
@rules("aten.to.dtype", "aten.to.dtype_layout", "aten.to.device", "aten.to.other")
def to_dtype(x: jax.Array, *_: Any, result: Any, **__: Any) -> jax.Array:
    return cast(x, result.dtype)


@rules("aten.reshape_as.default", "aten.view_as.default")
def reshape_as(x: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.reshape(x, other.shape)


@rules("aten.copy.default")
def copy(x: jax.Array, source: Any, *_: Any, result: Any) -> jax.Array:
    return jnp.broadcast_to(cast(source, result.dtype), result.shape)


@rules("aten.sym_size.int")
def size(x: jax.Array, dim: int) -> int:
    return x.shape[dim]


def _of_integers(name: str) -> Any:
    function = getattr(operator, name)

    def rule(*values: Any) -> Any:
        return function(*values)

    return rule


for _name in (
    "add",
    "sub",
    "mul",
    "floordiv",
    "mod",
    "truediv",
    "neg",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "pow",
):
    rules(_name)(_of_integers(_name))


@rules("sym_min")
def sym_min(x: Any, y: Any) -> Any:
    return min(x, y) if _are_numbers(x, y) else jnp.minimum(x, y)


@rules("sym_max")
def sym_max(x: Any, y: Any) -> Any:
    return max(x, y) if _are_numbers(x, y) else jnp.maximum(x, y)


@rules("sym_not")
def sym_not(x: Any) -> Any:
    return not x if _are_numbers(x) else jnp.logical_not(x)


@rules("sym_float")
def sym_float(x: Any) -> Any:
    return float(x) if _are_numbers(x) else jnp.asarray(x, jnp.result_type(float))


def _are_numbers(*values: Any) -> bool:
    """Of Python, as sizes are; others are values of tensors, ``x.item()``."""
    return all(isinstance(x, bool | int | float) for x in values)


@rules("sym_int")
def sym_int(x: Any) -> int:
    return int(x)
