"""Reading and writing by indices: gather, scatter, index_put, masks.

torch raises where an index is out of range; a compiled program cannot, so a read there gives NaN
(for integers, the smallest number) and a write is dropped: never another entry's value.
"""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast
from interop.aten.registry import Table
from interop.errors import ConversionError

rules = Table()


def _wrapped(index: jax.Array, size: int) -> jax.Array:
    """Negative indices count from the end."""
    return jnp.where(index < 0, index + size, index)


def _along(x: jax.Array, dim: int, index: jax.Array) -> tuple[Any, ...]:
    """The full index of ``index``'s entries along ``dim``."""
    grid = list(jnp.indices(index.shape, sparse=True))
    grid[dim] = _wrapped(index, x.shape[dim])
    return tuple(grid)


@rules("aten.gather.default")
def gather(x: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> jax.Array:
    if not x.ndim:
        return jnp.broadcast_to(x, index.shape)
    if not index.ndim:
        return gather(x, dim, index[None])[0]
    dim %= x.ndim
    return x.at[_along(x, dim, index)].get(mode="fill")


@rules("aten.index_select.default")
def index_select(x: Any, dim: int, index: Any) -> jax.Array:
    if not x.ndim:
        return x
    found = jnp.take(x, jnp.atleast_1d(index), axis=dim, mode="fill")
    return found


@rules("aten.take.default")
def take(x: Any, index: Any) -> jax.Array:
    return jnp.ravel(x).at[_wrapped(index, x.size)].get(mode="fill")


def _expanded(x: jax.Array, indices: Any) -> tuple[Any, ...]:
    """torch's list of indices as numpy's tuple: None is a whole axis; masks must be known."""
    full: list[Any] = []
    axis = 0
    for index in indices:
        if index is None:
            full.append(slice(None))
            axis += 1
        elif index.dtype == bool:
            if isinstance(index, jax.core.Tracer):
                raise ConversionError(
                    "a boolean mask decides the result's shape; use torch.where, or multiply by it"
                )
            places = jnp.nonzero(index)
            full += list(places) if index.ndim else [jnp.atleast_1d(index)]
            axis += index.ndim
        else:
            full.append(_wrapped(index, x.shape[axis]))
            axis += 1
    return tuple(full)


@rules("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(x: Any, indices: Any) -> jax.Array:
    return x.at[_expanded(x, indices)].get(mode="fill")


@rules("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(x: Any, indices: Any, values: Any, accumulate: bool = False) -> jax.Array:
    mask = _only_mask(indices)
    if mask is not None and not accumulate and values.size == 1:
        wide = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
        return jnp.where(wide, values.reshape(()).astype(x.dtype), x)
    at = x.at[_expanded(x, indices)]
    return at.add(values, mode="drop") if accumulate else at.set(values, mode="drop")


def _only_mask(indices: Any) -> Any:
    """The mask, if a leading one is all there is: then no shape depends on it."""
    given = [i for i in indices if i is not None]
    return (
        given[0] if len(given) == 1 and indices[0] is given[0] and given[0].dtype == bool else None
    )


@rules("aten.index_add.default")
def index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> jax.Array:
    if not x.ndim:
        return x + cast(alpha, x.dtype) * source.reshape(())
    return _rows(x, dim, index).add(cast(alpha, x.dtype) * source, mode="drop")


@rules("aten.index_copy.default")
def index_copy(x: Any, dim: int, index: Any, source: Any) -> jax.Array:
    if not x.ndim:
        return source.reshape(())
    return _rows(x, dim, index).set(source, mode="drop")


@rules("aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor")
def index_fill(x: Any, dim: int, index: Any, value: Any) -> jax.Array:
    if not x.ndim:
        return jnp.asarray(value).astype(x.dtype)
    return _rows(x, dim, index).set(jnp.asarray(value).astype(x.dtype), mode="drop")


@rules("aten.index_reduce.default")
def index_reduce(
    x: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> jax.Array:
    dim %= x.ndim
    shape = [1] * x.ndim
    shape[dim] = index.shape[0]
    spread = jnp.broadcast_to(index.reshape(shape), source.shape)
    return scatter_reduce(x, dim, spread, source, reduce, include_self=include_self)


def _rows(x: jax.Array, dim: int, index: jax.Array) -> Any:
    dim %= x.ndim
    return x.at[(slice(None),) * dim + (_wrapped(jnp.atleast_1d(index), x.shape[dim]),)]


@rules("aten.put.default")
def put(x: Any, index: Any, source: Any, accumulate: bool = False) -> jax.Array:
    at = jnp.ravel(x).at[_wrapped(jnp.ravel(index), x.size)]
    values = jnp.ravel(source)
    flat = at.add(values, mode="drop") if accumulate else at.set(values, mode="drop")
    return flat.reshape(x.shape)


# ---- scatter ------------------------------------------------------------------------------------


def _scattered(x: jax.Array, dim: int, index: jax.Array, source: Any) -> tuple[Any, Any]:
    """The place to write at, and what."""
    if jnp.ndim(source):
        source = source[tuple(slice(0, n) for n in index.shape)]
    return x.at[_along(x, dim % x.ndim, index)], source


@rules("aten.scatter.src", "aten.scatter.value")
def scatter(x: Any, dim: int, index: Any, source: Any) -> jax.Array:
    if not x.ndim:
        return jnp.asarray(source).astype(x.dtype).reshape(()) if index.size else x
    at, source = _scattered(x, dim, index, source)
    return at.set(jnp.asarray(source).astype(x.dtype), mode="drop")


@rules("aten.scatter_add.default")
def scatter_add(x: Any, dim: int, index: Any, source: Any) -> jax.Array:
    if not x.ndim:
        return x + jnp.sum(source)
    at, source = _scattered(x, dim, index, source)
    return at.add(source, mode="drop")


@rules("aten.scatter.reduce", "aten.scatter.value_reduce")
def scatter_with(x: Any, dim: int, index: Any, source: Any, *, reduce: str) -> jax.Array:
    name = {"add": "sum", "multiply": "prod"}[reduce]
    source = jnp.broadcast_to(jnp.asarray(source).astype(x.dtype), jnp.shape(source) or index.shape)
    return scatter_reduce(x, dim, index, source, name)


@rules("aten.scatter_reduce.two")
def scatter_reduce(
    x: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> jax.Array:
    if not x.ndim:
        found = scatter_reduce(
            x[None],
            0,
            jnp.atleast_1d(index),
            jnp.atleast_1d(source),
            reduce,
            include_self=include_self,
        )
        return found[0]
    dim %= x.ndim
    _, source = _scattered(x, dim, index, source)
    where = _along(x, dim, index)
    touched = jnp.zeros(x.shape, bool).at[where].set(True, mode="drop")
    count = jnp.zeros(x.shape, x.dtype).at[where].add(1, mode="drop")
    if reduce in ("sum", "mean"):
        base = x if include_self else jnp.where(touched, 0, x)
        summed = base.at[where].add(source, mode="drop")
        if reduce == "sum":
            return summed
        count = jnp.maximum(count + (1 if include_self else 0), 1)
        if jnp.issubdtype(x.dtype, jnp.integer):
            return jnp.floor_divide(summed, jnp.where(touched, count, 1))
        return summed / jnp.where(touched, count, 1)
    if reduce == "prod":
        base = x if include_self else jnp.where(touched, 1, x)
        return base.at[where].multiply(source, mode="drop")
    return _extreme(x, where, source, reduce == "amax", include_self, touched)


def _extreme(
    x: jax.Array, where: Any, source: Any, largest: bool, include_self: bool, touched: jax.Array
) -> jax.Array:
    """Ties share the gradient, as in torch."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        worst: Any = -jnp.inf if largest else jnp.inf
    else:
        info = jnp.iinfo(x.dtype)
        worst = info.min if largest else info.max
    base = x if include_self else jnp.where(touched, jnp.asarray(worst, x.dtype), x)
    held, values = jax.lax.stop_gradient(base), jax.lax.stop_gradient(source)
    at = held.at[where]
    best = at.max(values, mode="drop") if largest else at.min(values, mode="drop")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return best
    own = (held == best).astype(x.dtype)
    theirs = (values == best.at[where].get(mode="fill")).astype(x.dtype)
    ties = jnp.maximum(own.at[where].add(theirs, mode="drop"), 1)
    moved = own * (base - held)
    if not include_self:
        moved = jnp.where(touched, 0, moved)
    gap = theirs * (source - values)
    return best + moved.at[where].add(gap, mode="drop") / ties


# ---- masks --------------------------------------------------------------------------------------


@rules("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(x: Any, mask: Any, value: Any, *, result: Any) -> jax.Array:
    return jnp.where(mask, cast(value, result.dtype), cast(x, result.dtype))


@rules("aten.masked_scatter.default")
def masked_scatter(x: Any, mask: Any, source: Any) -> jax.Array:
    x, mask = jnp.broadcast_arrays(x, mask)
    place = jnp.cumsum(jnp.ravel(mask)) - 1
    values = jnp.ravel(source)[jnp.clip(place, 0, source.size - 1)].reshape(x.shape)
    return jnp.where(mask, values, x)


@rules("aten.masked_select.default", "aten.nonzero.default", "aten.nonzero_numpy.default")
def data_dependent(*_: Any) -> jax.Array:
    raise ConversionError("the result's shape depends on the values; use torch.where or a mask")


@rules("aten.isin.Tensor_Tensor", "aten.isin.Tensor_Scalar", "aten.isin.Scalar_Tensor")
def isin(x: Any, among: Any, *, assume_unique: bool = False, invert: bool = False) -> jax.Array:
    return jnp.isin(jnp.asarray(x), jnp.asarray(among), invert=invert)
