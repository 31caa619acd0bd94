"""Tensors made from nothing but a shape."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.registry import Table

rules = Table()


@rules("aten.arange.start_step", "aten.arange.start", "aten.arange.default")
def arange(*bounds: Any, result: Any, **_: Any) -> jax.Array:
    return jnp.arange(*bounds, dtype=result.dtype)


@rules("aten.full.default", "aten.full_like.default")
def full(_: Any, value: Any, *, result: Any, **__: Any) -> jax.Array:
    return jnp.full(result.shape, value, result.dtype)


@rules("aten.zeros.default", "aten.zeros_like.default", "aten.empty.memory_format", "aten.empty_like.default")
def zeros(*_: Any, result: Any, **__: Any) -> jax.Array:
    return jnp.zeros(result.shape, result.dtype)


@rules("aten.ones.default", "aten.ones_like.default")
def ones(*_: Any, result: Any, **__: Any) -> jax.Array:
    return jnp.ones(result.shape, result.dtype)


@rules("aten.scalar_tensor.default")
def scalar(value: Any, *, result: Any, **_: Any) -> jax.Array:
    return jnp.full((), value, result.dtype)
