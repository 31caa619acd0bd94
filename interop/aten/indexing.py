"""Reading and writing by indices and masks: gather, index_put, index_add and the like.

torch raises where an index is out of range; a compiled program cannot, so a read there gives NaN
(of integers, the smallest number) and a write is dropped: never another entry's value. A write of
as many values as a mask selects trusts that they are as many.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.dtypes import cast
from interop.aten.registry import Table
from interop.aten.shapes import axis
from interop.errors import ConversionError

rules = Table()


def along(x: jax.Array, dim: int, index: jax.Array) -> tuple[Any, ...]:
    """The full index of ``index``'s entries along ``dim``."""
    grid: list[Any] = list(jnp.indices(index.shape, sparse=True))
    grid[dim] = index
    return tuple(grid)


@rules("aten.gather.default")
def gather(x: jax.Array, dim: int, index: jax.Array, **_: Any) -> jax.Array:
    if x.ndim == 0 or index.ndim == 0:
        found = gather(jnp.atleast_1d(x), 0, jnp.atleast_1d(index))
        return jnp.reshape(found, index.shape)
    if index.size == 0:
        return jnp.zeros(index.shape, x.dtype)
    return x.at[along(x, axis(dim, x.ndim), index)].get(mode="fill")


@rules("aten.index_select.default")
def index_select(x: jax.Array, dim: int, index: jax.Array) -> jax.Array:
    if x.ndim == 0:
        return jnp.reshape(x.reshape(1).at[index].get(mode="fill"), ())
    return _rows(x, dim, index).get(mode="fill")


@rules("aten.take.default")
def take(x: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.ravel(x).at[index].get(mode="fill")


@rules("aten.put.default")
def put(x: jax.Array, index: Any, source: jax.Array, accumulate: bool = False) -> jax.Array:
    at = jnp.ravel(x).at[jnp.ravel(index)]
    return jnp.reshape(_written(at, jnp.ravel(source), accumulate), x.shape)


def _written(at: Any, values: jax.Array, accumulate: bool) -> jax.Array:
    return at.add(values, mode="drop") if accumulate else at.set(values, mode="drop")


# ---- index and index_put ------------------------------------------------------------------------


def _is_mask(index: Any) -> bool:
    return index is not None and index.dtype in (np.bool_, np.uint8)


def _full(indices: Sequence[Any]) -> tuple[Any, ...]:
    """torch's list of indices as numpy's tuple: None is a whole axis; a mask must be constant."""
    full: list[Any] = []
    for index in indices:
        if index is None:
            full.append(slice(None))
        elif not _is_mask(index):
            full.append(index)
        elif isinstance(index, jax.core.Tracer):
            raise ConversionError(
                "the number of entries that a mask selects depends on values: use torch.where, or "
                "multiply by the mask"
            )
        else:
            mask = np.asarray(index).astype(bool)
            full.extend(np.nonzero(mask) if mask.ndim else [np.flatnonzero(mask)])
            if not mask.ndim:
                raise ConversionError("a mask without axes as an index is not covered")
    return tuple(full)


@rules("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(x: jax.Array, indices: Sequence[Any]) -> jax.Array:
    return x.at[_full(indices)].get(mode="fill")


@rules("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(
    x: jax.Array, indices: Sequence[Any], values: Any, accumulate: bool = False
) -> jax.Array:
    values = cast(values, x.dtype)
    given = [(i, index) for i, index in enumerate(indices) if index is not None]
    if len(given) == 1 and _is_mask(given[0][1]):
        return _put_where(x, *given[0], values, accumulate)
    return _written(x.at[_full(indices)], values, accumulate)


def _put_where(
    x: jax.Array, first: int, mask: jax.Array, values: jax.Array, accumulate: bool
) -> jax.Array:
    """Writes where ``mask``, which stands for the axes from ``first`` on, without its count."""
    rest = x.ndim - first - mask.ndim
    if values.ndim > rest:
        at = values.ndim - rest - 1  # the axis of the selected
        if values.shape[at] == 1:
            places: Any = jnp.zeros(mask.shape, int)
        else:
            places = jnp.reshape(jnp.cumsum(jnp.ravel(mask != 0)) - 1, mask.shape)
        values = values.at[(slice(None),) * at + (places,)].get(mode="fill")
    chosen = jnp.reshape(mask != 0, mask.shape + (1,) * rest)
    return jnp.where(chosen, x + values if accumulate else values, x)


# ---- along one axis -----------------------------------------------------------------------------


def _rows(x: jax.Array, dim: int, index: jax.Array) -> Any:
    """The place of whole slices along ``dim``."""
    return x.at[(slice(None),) * axis(dim, x.ndim) + (jnp.atleast_1d(index),)]


@rules("aten.index_add.default")
def index_add(
    x: jax.Array, dim: int, index: jax.Array, source: Any, *, alpha: Any = 1
) -> jax.Array:
    source = source if alpha == 1 else cast(alpha, x.dtype) * source
    if x.ndim == 0:
        return jnp.reshape(_rows(x[None], 0, index).add(jnp.ravel(source), mode="drop"), ())
    return _rows(x, dim, index).add(source, mode="drop")


@rules("aten.index_copy.default")
def index_copy(x: jax.Array, dim: int, index: jax.Array, source: jax.Array) -> jax.Array:
    if x.ndim == 0:
        return jnp.reshape(_rows(x[None], 0, index).set(jnp.ravel(source), mode="drop"), ())
    if source.ndim == 0:
        source = source[None]
    return _rows(x, dim, index).set(source, mode="drop")


@rules("aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor")
def index_fill(x: jax.Array, dim: int, index: jax.Array, value: Any) -> jax.Array:
    value = cast(value, x.dtype)
    if x.ndim == 0:
        return jnp.reshape(_rows(x[None], 0, index).set(value, mode="drop"), ())
    return _rows(x, dim, index).set(value, mode="drop")


# ---- masks --------------------------------------------------------------------------------------


@rules("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(x: jax.Array, mask: jax.Array, value: Any, *, result: Any) -> jax.Array:
    return jnp.where(mask, cast(value, result.dtype), cast(x, result.dtype))


@rules("aten.masked_scatter.default")
def masked_scatter(x: jax.Array, mask: jax.Array, source: jax.Array) -> jax.Array:
    x, mask = jnp.broadcast_arrays(x, mask)
    places = jnp.cumsum(jnp.ravel(mask)) - 1
    values = jnp.ravel(source).at[places].get(mode="fill") if source.size else jnp.ravel(x)
    return jnp.where(mask, jnp.reshape(values, x.shape), x)


@rules("aten.nonzero_static.default")
def nonzero_static(x: jax.Array, *, size: int, fill_value: int = -1, result: Any) -> jax.Array:
    if not x.size:
        return jnp.full(result.shape, fill_value, result.dtype)
    if x.ndim == 0:
        return jnp.zeros(result.shape, result.dtype)
    found = jnp.nonzero(x, size=size, fill_value=fill_value)
    return jnp.stack(found, -1).astype(result.dtype)


@rules(
    "aten.masked_select.default",
    "aten.nonzero.default",
    "aten.nonzero_numpy.default",
    "aten.argwhere.default",
    "aten._unique2.default",
    "aten.unique_dim.default",
    "aten.unique_consecutive.default",
)
def depends_on_values(*_: Any, **__: Any) -> jax.Array:
    raise ConversionError(
        "the result's shape depends on values: pass those, a mask say, as interop.Static; or use "
        "torch.where, torch.nonzero_static, or (for the tokens of an expert) compute all rows and "
        "weight them by the mask"
    )


@rules("aten.isin.Tensor_Tensor", "aten.isin.Tensor_Scalar", "aten.isin.Scalar_Tensor")
def isin(x: Any, among: Any, *, assume_unique: bool = False, invert: bool = False) -> jax.Array:
    return jnp.isin(jnp.asarray(x), jnp.asarray(among), invert=invert)
