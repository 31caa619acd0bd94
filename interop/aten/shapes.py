"""Views, permutations, joins and splits."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.dtypes import cast
from interop.aten.registry import Table
from interop.errors import ConversionError

rules = Table()


def axis(dim: int, ndim: int) -> int:
    """``dim`` counted from the front; torch gives arrays without axes one to name."""
    return dim % max(ndim, 1)


def axes(dims: Any, ndim: int) -> tuple[int, ...]:
    """One axis or several, counted from the front."""
    return tuple(axis(d, ndim) for d in ([dims] if isinstance(dims, int) else dims))


@rules(
    "aten.view.default",
    "aten.view_copy.default",
    "aten._unsafe_view.default",
    "aten.reshape.default",
    "aten._reshape_alias.default",
    "aten._reshape_copy.default",
)
def reshape(x: jax.Array, shape: Sequence[int], *_: Any) -> jax.Array:
    return jnp.reshape(x, tuple(shape))


@rules("aten.flatten.using_ints")
def flatten(x: jax.Array, start: int = 0, end: int = -1) -> jax.Array:
    if x.ndim == 0:
        return x[None]
    first, last = axis(start, x.ndim), axis(end, x.ndim)
    return jnp.reshape(
        x, (*x.shape[:first], int(np.prod(x.shape[first : last + 1])), *x.shape[last + 1 :])
    )


@rules("aten.unflatten.int")
def unflatten(x: jax.Array, dim: int, sizes: Sequence[int]) -> jax.Array:
    at = axis(dim, x.ndim)
    known = int(np.prod([n for n in sizes if n != -1]))
    sizes = [x.shape[at] // max(known, 1) if n == -1 else n for n in sizes]
    return jnp.reshape(x, (*x.shape[:at], *sizes, *x.shape[at + 1 :]))


@rules("aten.view.dtype", "aten.view_copy.dtype")
def reinterpret(x: jax.Array, dtype: Any, *, result: Any) -> jax.Array:
    """The same bytes under another dtype; the last axis grows or shrinks with the item size."""
    complexes = [jnp.issubdtype(d, jnp.complexfloating) for d in (x.dtype, dtype)]
    if any(complexes) and not all(complexes):
        raise ConversionError("a view of complex numbers as others: use view_as_real")
    old, new = np.dtype(x.dtype).itemsize, np.dtype(dtype).itemsize
    if old < new:
        x = jnp.reshape(x, (*x.shape[:-1], -1, new // old))
    found = jax.lax.bitcast_convert_type(x, dtype)
    if old > new:
        found = jnp.reshape(found, (*x.shape[:-1], -1))
    if found.shape != result.shape:
        raise ConversionError("64-bit integers are held in 32 bits: set jax_enable_x64")
    return found


@rules("aten.permute.default", "aten.permute_copy.default")
def permute(x: jax.Array, dims: Sequence[int]) -> jax.Array:
    return jnp.transpose(x, axes(dims, x.ndim))


@rules("aten.transpose.int", "aten.transpose_copy.int", "aten.swapaxes.default")
def swap(x: jax.Array, one: int, other: int) -> jax.Array:
    return jnp.swapaxes(x, one, other) if x.ndim else x


@rules("aten.t.default", "aten.t_copy.default", "aten.numpy_T.default", "aten.mT.default")
def transpose(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2) if x.ndim > 1 else x


@rules("aten.movedim.intlist", "aten.movedim.int")
def move(x: jax.Array, source: Any, target: Any) -> jax.Array:
    return jnp.moveaxis(x, axes(source, x.ndim), axes(target, x.ndim)) if x.ndim else x


@rules("aten.expand.default", "aten.expand_copy.default", "aten.broadcast_to.default")
def expand(x: jax.Array, shape: Sequence[int], **_: Any) -> jax.Array:
    """A size of -1 keeps the axis."""
    new = len(shape) - x.ndim
    full = [x.shape[i - new] if n == -1 and i >= new else n for i, n in enumerate(shape)]
    return jnp.broadcast_to(x, full)


@rules("aten.expand_as.default")
def expand_as(x: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.broadcast_to(x, other.shape)


@rules("aten.broadcast_tensors.default")
def broadcast(arrays: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(jnp.broadcast_arrays(*arrays))


@rules("aten.meshgrid.indexing", "aten.meshgrid.default")
def meshgrid(arrays: Sequence[jax.Array], indexing: str = "ij") -> tuple[jax.Array, ...]:
    flat = [jnp.reshape(x, -1) for x in arrays]
    return tuple(jnp.meshgrid(*flat, indexing=indexing))


@rules("aten.unsqueeze.default", "aten.unsqueeze_copy.default")
def unsqueeze(x: jax.Array, dim: int) -> jax.Array:
    return jnp.expand_dims(x, dim)


@rules(
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.squeeze_copy.default",
    "aten.squeeze_copy.dim",
    "aten.squeeze_copy.dims",
)
def squeeze(x: jax.Array, dims: Any = None) -> jax.Array:
    """Axes that are longer than one stay."""
    chosen = range(x.ndim) if dims is None else axes(dims, x.ndim)
    return jnp.squeeze(x, tuple(d for d in chosen if d < x.ndim and x.shape[d] == 1))


@rules("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def concatenate(arrays: Sequence[jax.Array], dim: int = 0, *, result: Any) -> jax.Array:
    """An empty array with one axis joins with any, as in torch."""
    ndim = max(x.ndim for x in arrays)
    kept = [cast(x, result.dtype) for x in arrays if x.ndim == ndim or x.shape != (0,)]
    return jnp.concatenate(kept, axis(dim, ndim))


@rules("aten.stack.default")
def stack(arrays: Sequence[jax.Array], dim: int = 0, *, result: Any) -> jax.Array:
    return jnp.stack([cast(x, result.dtype) for x in arrays], dim)


def _cut(x: jax.Array, sizes: Sequence[int], dim: int) -> tuple[jax.Array, ...]:
    return tuple(jax.lax.split(x, tuple(sizes), axis=axis(dim, x.ndim)))


@rules(
    "aten.split_with_sizes.default",
    "aten.split_with_sizes_copy.default",
    "aten.unsafe_split_with_sizes.default",
    "aten.split.sizes",
)
def split_with_sizes(x: jax.Array, sizes: Sequence[int], dim: int = 0) -> tuple[jax.Array, ...]:
    return _cut(x, sizes, dim)


@rules("aten.split.Tensor", "aten.split_copy.Tensor", "aten.unsafe_split.Tensor")
def split(x: jax.Array, size: int, dim: int = 0) -> tuple[jax.Array, ...]:
    length = x.shape[axis(dim, x.ndim)]
    if length == 0 or size == 0:
        return (x,)
    return _cut(x, [min(size, length - at) for at in range(0, length, size)], dim)


@rules("aten.chunk.default", "aten.unsafe_chunk.default")
def chunk(x: jax.Array, chunks: int, dim: int = 0) -> tuple[jax.Array, ...]:
    """As many pieces of the same size as fit, so there may be fewer than ``chunks``."""
    length = x.shape[axis(dim, x.ndim)]
    if length == 0:
        return (x,) * chunks
    return split(x, -(-length // chunks), dim)


@rules("aten.unbind.int", "aten.unbind_copy.int")
def unbind(x: jax.Array, dim: int = 0) -> tuple[jax.Array, ...]:
    at = axis(dim, x.ndim)
    return tuple(jnp.squeeze(piece, at) for piece in _cut(x, [1] * x.shape[at], at))


@rules("aten.select.int", "aten.select_copy.int")
def select(x: jax.Array, dim: int, index: Any) -> jax.Array:
    if isinstance(index, int):
        return jax.lax.index_in_dim(x, index, axis(dim, x.ndim), keepdims=False)
    return jnp.take(x, index, axis(dim, x.ndim), mode="fill")


def bounds(length: int, start: Any, end: Any, step: int) -> tuple[int, int, int]:
    """A Python slice's bounds within ``length``."""
    first, last, _ = slice(start, end, step).indices(length)
    return first, max(first, last), step


@rules("aten.slice.Tensor", "aten.slice_copy.Tensor")
def cut(x: jax.Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> jax.Array:
    at = axis(dim, x.ndim)
    if all(v is None or isinstance(v, int) for v in (start, end)):
        return jax.lax.slice_in_dim(x, *bounds(x.shape[at], start, end, step), at)
    raise ConversionError("a slice whose bounds depend on values: use torch.where or index_select")


@rules("aten.narrow.default", "aten.narrow_copy.default")
def narrow(x: jax.Array, dim: int, start: Any, length: int) -> jax.Array:
    at = axis(dim, x.ndim)
    if isinstance(start, int):
        start = start + x.shape[at] if start < 0 else start
        return jax.lax.slice_in_dim(x, start, start + length, axis=at)
    return jax.lax.dynamic_slice_in_dim(x, start, length, at)


@rules("aten.select_scatter.default")
def select_scatter(x: jax.Array, source: jax.Array, dim: int, index: int) -> jax.Array:
    at = axis(dim, x.ndim)
    where = (slice(None),) * at + (index,)
    return x.at[where].set(cast(source, x.dtype))


@rules("aten.slice_scatter.default")
def slice_scatter(
    x: jax.Array,
    source: jax.Array,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> jax.Array:
    at = axis(dim, x.ndim)
    first, last, step = bounds(x.shape[at], start, end, step)
    where = (slice(None),) * at + (slice(first, last, step),)
    return x.at[where].set(cast(source, x.dtype))


def _diagonal_places(x: jax.Array, offset: int, dim1: int, dim2: int) -> tuple[Any, ...]:
    """Indices of a diagonal, for ``.at``; the diagonal's axis goes last when moved."""
    rows, columns = x.shape[dim1], x.shape[dim2]
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    along = np.arange(length)
    return along + max(-offset, 0), along + max(offset, 0)


@rules("aten.diagonal.default", "aten.diagonal_copy.default")
def diagonal(x: jax.Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> jax.Array:
    return jnp.diagonal(x, offset, *axes((dim1, dim2), x.ndim))


@rules("aten.diagonal_scatter.default")
def diagonal_scatter(
    x: jax.Array, source: jax.Array, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> jax.Array:
    one, other = axes((dim1, dim2), x.ndim)
    rows, columns = _diagonal_places(x, offset, one, other)
    front = jnp.moveaxis(x, (one, other), (0, 1))
    front = front.at[rows, columns].set(jnp.moveaxis(cast(source, x.dtype), -1, 0))
    return jnp.moveaxis(front, (0, 1), (one, other))


@rules("aten.diag_embed.default")
def diag_embed(x: jax.Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> jax.Array:
    size = x.shape[-1] + abs(offset)
    one, other = axes((dim1, dim2), x.ndim + 1)
    rows = np.arange(x.shape[-1]) + max(-offset, 0)
    columns = np.arange(x.shape[-1]) + max(offset, 0)
    square = jnp.zeros((size, size, *x.shape[:-1]), x.dtype)
    return jnp.moveaxis(square.at[rows, columns].set(jnp.moveaxis(x, -1, 0)), (0, 1), (one, other))


@rules("aten.block_diag.default")
def block_diag(blocks: Sequence[jax.Array], *, result: Any) -> jax.Array:
    full = jnp.zeros(result.shape, result.dtype)
    row = column = 0
    for block in blocks:
        block = jnp.atleast_2d(cast(block, result.dtype))
        height, width = block.shape
        full = full.at[row : row + height, column : column + width].set(block)
        row, column = row + height, column + width
    return full


@rules("aten.tril.default")
def lower(x: jax.Array, diagonal: int = 0) -> jax.Array:
    return jnp.tril(x, diagonal)


@rules("aten.triu.default")
def upper(x: jax.Array, diagonal: int = 0) -> jax.Array:
    return jnp.triu(x, diagonal)


@rules("aten.flip.default")
def flip(x: jax.Array, dims: Sequence[int]) -> jax.Array:
    return jax.lax.rev(x, axes(dims, x.ndim) if x.ndim else ())


@rules("aten.roll.default")
def roll(x: jax.Array, shifts: Any, dims: Any = ()) -> jax.Array:
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    if x.size == 0:
        return x
    return jnp.roll(x, shifts, dims) if dims else jnp.roll(x, shifts[0])


@rules("aten.rot90.default")
def rotate(x: jax.Array, k: int = 1, dims: Sequence[int] = (0, 1)) -> jax.Array:
    one, other = axes(dims, x.ndim)
    return jnp.rot90(x, k, (one, other))


@rules("aten.as_strided.default", "aten.as_strided_copy.default")
def as_strided(
    x: jax.Array, size: Sequence[int], stride: Sequence[int], offset: Any = None
) -> jax.Array:
    """``x`` is read as contiguous; where it is not in torch, lowering refuses."""
    return jnp.reshape(x, -1)[_strided_places(size, stride, offset)]


@rules("aten.as_strided_scatter.default")
def as_strided_scatter(
    x: jax.Array, source: jax.Array, size: Sequence[int], stride: Sequence[int], offset: Any = None
) -> jax.Array:
    places = _strided_places(size, stride, offset)
    return jnp.reshape(jnp.reshape(x, -1).at[places].set(cast(source, x.dtype)), x.shape)


def _strided_places(size: Sequence[int], stride: Sequence[int], offset: Any) -> np.ndarray:
    places = np.full((), offset or 0)
    for length, step in zip(size, stride, strict=True):
        places = places[..., None] + np.arange(length) * step
    return places


@rules("aten.unfold.default", "aten.unfold_copy.default")
def windows(x: jax.Array, dim: int, size: int, step: int) -> jax.Array:
    """Sliding windows: their number in place of the axis, their content as the last axis."""
    if x.ndim == 0:
        return jnp.broadcast_to(x, (size,))
    at = axis(dim, x.ndim)
    starts = np.arange(0, x.shape[at] - size + 1, step)
    return jnp.moveaxis(jnp.take(x, starts[:, None] + np.arange(size), axis=at), at + 1, -1)


@rules("aten.view_as_complex.default", "aten.view_as_complex_copy.default")
def view_as_complex(x: jax.Array) -> jax.Array:
    return jax.lax.complex(x[..., 0], x[..., 1])


@rules("aten.view_as_real.default", "aten.view_as_real_copy.default")
def view_as_real(x: jax.Array) -> jax.Array:
    return jnp.stack([jnp.real(x), jnp.imag(x)], -1)


@rules("aten.pixel_shuffle.default")
def pixel_shuffle(x: jax.Array, factor: int) -> jax.Array:
    *batch, channels, height, width = x.shape
    n = len(batch)
    x = jnp.reshape(x, (*batch, channels // factor**2, factor, factor, height, width))
    x = jnp.transpose(x, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return jnp.reshape(x, (*batch, channels // factor**2, height * factor, width * factor))


@rules("aten.pixel_unshuffle.default")
def pixel_unshuffle(x: jax.Array, factor: int) -> jax.Array:
    *batch, channels, height, width = x.shape
    n = len(batch)
    x = jnp.reshape(x, (*batch, channels, height // factor, factor, width // factor, factor))
    x = jnp.transpose(x, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return jnp.reshape(x, (*batch, channels * factor**2, height // factor, width // factor))


@rules("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    split_up = jnp.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    return jnp.reshape(jnp.swapaxes(split_up, 1, 2), x.shape)
