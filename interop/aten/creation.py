"""Tensors made from nothing but a shape."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.layers import refuse
from interop.aten.registry import Table

rules = Table()


def static(result: Any) -> tuple[int, ...]:
    """The shape, if torch knows it."""
    refuse(None in result.shape, "its shape depends on the values: a compiled function cannot")
    return result.shape


@rules("aten._local_scalar_dense.default")
def item(x: Any) -> jax.Array:
    """A number of Python in torch; here an array without axes, so that it can be traced."""
    return jnp.reshape(x, ())


@rules("aten.arange.start_step", "aten.arange.start", "aten.arange.default")
def arange(*bounds: Any, result: Any, **_: Any) -> jax.Array:
    """Computed in the widest numbers, as in torch."""
    (count,) = static(result)
    low, step = (0, 1) if len(bounds) == 1 else (bounds[0], (*bounds, 1)[2])
    places = np.arange(count)
    return jnp.asarray(low + step * places).astype(result.dtype)


@rules("aten.linspace.default")
def linspace(start: Any, end: Any, steps: int, *, result: Any, **_: Any) -> jax.Array:
    if jnp.issubdtype(result.dtype, jnp.integer):
        step = (end - start) / max(steps - 1, 1)
        i = jnp.arange(steps)
        low, high = start + step * i, end - step * (steps - 1 - i)
        return jnp.trunc(jnp.where(i < steps // 2, low, high)).astype(result.dtype)
    return jnp.linspace(start, end, steps, dtype=result.dtype)


@rules("aten.logspace.default")
def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, result: Any, **_: Any
) -> jax.Array:
    return jnp.logspace(start, end, steps, base=base).astype(result.dtype)


@rules("aten.full.default", "aten.full_like.default", "aten.new_full.default")
def full(_: Any, *positional: Any, result: Any, **named: Any) -> jax.Array:
    value = named["fill_value"] if "fill_value" in named else positional[-1]
    return jnp.broadcast_to(jnp.asarray(value).astype(result.dtype), static(result))


@rules("aten.fill.Scalar", "aten.fill.Tensor")
def fill(_: Any, value: Any, *, result: Any) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(value).astype(result.dtype), result.shape)


@rules(
    "aten.zeros.default",
    "aten.zeros_like.default",
    "aten.new_zeros.default",
    "aten.empty.memory_format",
    "aten.empty_like.default",
    "aten.empty_permuted.default",
    "aten.empty_strided.default",
    "aten.new_empty.default",
    "aten.new_empty_strided.default",
)
def zeros(*_: Any, result: Any, **__: Any) -> jax.Array:
    """What torch leaves uninitialised is zero here."""
    return jnp.zeros(static(result), result.dtype)


@rules("aten.ones.default", "aten.ones_like.default", "aten.new_ones.default")
def ones(*_: Any, result: Any, **__: Any) -> jax.Array:
    return jnp.ones(static(result), result.dtype)


@rules("aten.scalar_tensor.default")
def scalar(value: Any, *, result: Any, **_: Any) -> jax.Array:
    return jnp.full((), value, result.dtype)


@rules("aten.eye.default", "aten.eye.m")
def eye(*_: Any, result: Any, **__: Any) -> jax.Array:
    rows, columns = result.shape
    return jnp.eye(rows, columns, dtype=result.dtype)


@rules("aten.tril_indices.default")
def tril_indices(rows: int, columns: int, offset: int = 0, *, result: Any, **_: Any) -> jax.Array:
    return jnp.stack(jnp.tril_indices(rows, offset, columns)).astype(result.dtype)


@rules("aten.triu_indices.default")
def triu_indices(rows: int, columns: int, offset: int = 0, *, result: Any, **_: Any) -> jax.Array:
    return jnp.stack(jnp.triu_indices(rows, offset, columns)).astype(result.dtype)
