"""Sorting, ranks, medians, searching, counting."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import together
from interop.aten.reductions import at_least_one_axis, pick
from interop.aten.registry import Table
from interop.aten.slopes import Function

rules = Table()


def _ranks(x: jax.Array, dim: int, descending: bool) -> jax.Array:
    """Stable: equal entries keep their order, NaN is largest, as in torch."""
    x = jax.lax.stop_gradient(x)
    return jnp.argsort(x, axis=dim, stable=True, descending=descending)


@rules("aten.sort.default")
def sort(x: Any, dim: int = -1, descending: bool = False, *, result: Any) -> Any:
    return _sorted(x, dim, descending, result)


@rules("aten.sort.stable")
def sort_stable(
    x: Any, *, stable: Any = None, dim: int = -1, descending: bool = False, result: Any
) -> Any:
    return _sorted(x, dim, descending, result)


def _sorted(x: jax.Array, dim: int, descending: bool, result: Any) -> Any:
    wide = at_least_one_axis(x)
    index = _ranks(wide, dim, descending)
    values = jnp.take_along_axis(wide, index, axis=dim)
    return values.reshape(x.shape), index.astype(result[1].dtype).reshape(x.shape)


@rules("aten.argsort.default")
def argsort(x: Any, dim: int = -1, descending: bool = False, *, result: Any) -> jax.Array:
    return _ranks(at_least_one_axis(x), dim, descending).astype(result.dtype).reshape(x.shape)


@rules("aten.argsort.stable")
def argsort_stable(
    x: Any, *, stable: bool, dim: int = -1, descending: bool = False, result: Any
) -> jax.Array:
    return _ranks(at_least_one_axis(x), dim, descending).astype(result.dtype).reshape(x.shape)


@rules("aten.topk.default")
def topk(
    x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *, result: Any
) -> Any:
    wide = at_least_one_axis(x)
    index = jnp.take(_ranks(wide, dim, largest), jnp.arange(k), axis=dim)
    values = jnp.take_along_axis(wide, index, axis=dim)
    return values.reshape(result[0].shape), index.astype(result[1].dtype).reshape(result[0].shape)


def _at_rank(x: jax.Array, rank: Any, dim: int, keepdim: bool, result: Any) -> Any:
    wide = at_least_one_axis(x)
    order = _ranks(wide, dim, False)
    one = jnp.ndim(rank) == 0
    index = jnp.take(order, rank, axis=dim) if one else pick(order, rank, dim, False)
    values = pick(wide, index, dim, keepdim)
    index = jnp.expand_dims(index, dim) if keepdim else index
    return values.reshape(result[0].shape), index.astype(result[1].dtype).reshape(result[0].shape)


@rules("aten.kthvalue.default")
def kthvalue(x: Any, k: int, dim: int = -1, keepdim: bool = False, *, result: Any) -> Any:
    return _at_rank(x, k - 1, dim, keepdim, result)


@rules("aten.median.dim")
def median_along(x: Any, dim: int, keepdim: bool = False, *, result: Any) -> Any:
    """The lower of two in the middle; NaN if there is one."""
    wide = at_least_one_axis(x)
    size = wide.shape[dim]
    lost = jnp.isnan(wide).any(dim)
    rank = jnp.where(lost, jnp.argmax(_nan_first(wide, dim), axis=dim), (size - 1) // 2)
    return _at_rank(x, rank, dim, keepdim, result)


def _nan_first(x: jax.Array, dim: int) -> jax.Array:
    """Marks the rank of the first NaN, which is behind all that are none."""
    return jnp.isnan(jnp.sort(x, axis=dim))


@rules("aten.nanmedian.dim")
def nanmedian_along(x: Any, dim: int, keepdim: bool = False, *, result: Any) -> Any:
    wide = at_least_one_axis(x)
    count = (~jnp.isnan(wide)).sum(dim)
    return _at_rank(x, jnp.maximum(count - 1, 0) // 2, dim, keepdim, result)


def _of_all(function: Function) -> Function:
    """A rank of all entries; all that equal it share the gradient."""
    found = jax.custom_jvp(function)

    def forward(primals: Any, tangents: Any) -> Any:
        value = found(*primals)
        same = (primals[0] == value) | (jnp.isnan(primals[0]) & jnp.isnan(value))
        total = jnp.sum(jnp.where(same, tangents[0], 0))
        return value, (total / jnp.sum(same)).astype(value.dtype)

    found.defjvp(forward)
    return lambda x: found(x) if jnp.issubdtype(x.dtype, jnp.floating) else function(x)


@rules("aten.median.default")
@_of_all
def median(x: Any) -> jax.Array:
    flat = jnp.ravel(x)
    order = _ranks(flat, 0, False)
    middle = flat[order[(flat.size - 1) // 2]]
    return jnp.where(jnp.isnan(flat).any(), jnp.nan, middle).astype(x.dtype)


@rules("aten.nanmedian.default")
@_of_all
def nanmedian(x: Any) -> jax.Array:
    flat = jnp.ravel(x)
    count = (~jnp.isnan(flat)).sum()
    return flat[_ranks(flat, 0, False)[jnp.maximum(count - 1, 0) // 2]]


@rules("aten.mode.default")
def mode(x: Any, dim: int = -1, keepdim: bool = False, *, result: Any) -> Any:
    """The smallest of the most frequent, at its last place."""
    wide = at_least_one_axis(x)
    rows = jnp.moveaxis(wide, dim, -1)
    counts = (rows[..., :, None] == rows[..., None, :]).sum(-1)
    top = counts == counts.max(-1, keepdims=True)
    value = jnp.min(jnp.where(top, rows, jnp.inf).astype(rows.dtype), axis=-1, keepdims=True)
    size = rows.shape[-1]
    index = size - 1 - jnp.argmax(jnp.flip(rows == value, -1), axis=-1)
    values = pick(wide, index, dim, keepdim)
    index = jnp.expand_dims(index, dim) if keepdim else index
    return values.reshape(result[0].shape), index.astype(result[1].dtype).reshape(result[0].shape)


@rules("aten.searchsorted.Tensor", "aten.searchsorted.Scalar")
def searchsorted(
    edges: Any,
    values: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
    result: Any,
) -> jax.Array:
    if sorter is not None:
        edges = jnp.take_along_axis(edges, sorter, axis=-1)
    side = "right" if right or side == "right" else "left"
    edges, values = together(edges, values)
    if edges.ndim == 1:
        return jnp.searchsorted(edges, values, side=side).astype(result.dtype)
    find = lambda e, v: jnp.searchsorted(e, v, side=side)  # noqa: E731
    for _ in range(edges.ndim - 1):
        find = jax.vmap(find)
    return find(edges, values).astype(result.dtype)


@rules("aten.bucketize.Tensor", "aten.bucketize.Scalar")
def bucketize(
    values: Any, edges: Any, *, out_int32: bool = False, right: bool = False, result: Any
) -> jax.Array:
    edges, values = together(edges, values)
    side = "right" if right else "left"
    return jnp.searchsorted(edges, values, side=side).astype(result.dtype)
