"""Sums, means, norms, extremes, cumulative sums."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast
from interop.aten.registry import Table

rules = Table()


def axes(dim: Any, x: Any) -> Any:
    return None if dim is None or (isinstance(dim, list) and not dim) else tuple(dim)


@rules("aten.sum.dim_IntList", "aten.sum.default")
def total(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None, *, result: Any) -> jax.Array:
    return jnp.sum(cast(x, result.dtype), axis=axes(dim, x), keepdims=keepdim)


@rules("aten.mean.dim", "aten.mean.default")
def mean(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None, *, result: Any) -> jax.Array:
    return jnp.mean(cast(x, result.dtype), axis=axes(dim, x), keepdims=keepdim)


@rules("aten.any.dim", "aten.any.default")
def any_(x: Any, dim: Any = None, keepdim: bool = False) -> jax.Array:
    return jnp.any(x, axis=dim, keepdims=keepdim)


@rules("aten.cumsum.default")
def cumulative_sum(x: Any, dim: int, dtype: Any = None, *, result: Any) -> jax.Array:
    return jnp.cumsum(cast(x, result.dtype), axis=dim)


@rules("aten.argmax.default")
def argmax(x: Any, dim: Any = None, keepdim: bool = False, *, result: Any) -> jax.Array:
    return jnp.argmax(x, axis=dim, keepdims=keepdim).astype(result.dtype)


@rules("aten.max.default", "aten.amax.default")
def largest(x: Any, dim: Any = None, keepdim: bool = False) -> jax.Array:
    return jnp.max(x, axis=axes(dim, x), keepdims=keepdim)
