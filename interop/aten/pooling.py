"""Pooling: maxima whose gradient goes to the first of equals, and averages."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.layers import batched, lowest, per_axis, wide
from interop.aten.registry import Table

rules = Table()

UNROLLED = 16
"""Windows up to this length are compared slice by slice; longer ones are gathered."""


@rules("aten.max_pool1d_with_indices.default")
def max_pool1d_with_indices(x: jax.Array, *how: Any, result: Any) -> Any:
    return _max_pool(x, 1, *how, index=result[1].dtype)


@rules("aten.max_pool2d_with_indices.default")
def max_pool2d_with_indices(x: jax.Array, *how: Any, result: Any) -> Any:
    return _max_pool(x, 2, *how, index=result[1].dtype)


@rules("aten.max_pool3d_with_indices.default")
def max_pool3d_with_indices(x: jax.Array, *how: Any, result: Any) -> Any:
    return _max_pool(x, 3, *how, index=result[1].dtype)


@rules("aten.max_pool1d.default")
def max_pool1d(x: jax.Array, *how: Any) -> jax.Array:
    return _max_pool(x, 1, *how)[0]


@rules("aten.max_pool2d.default")
def max_pool2d(x: jax.Array, *how: Any) -> jax.Array:
    return _max_pool(x, 2, *how)[0]


@rules("aten.max_pool3d.default")
def max_pool3d(x: jax.Array, *how: Any) -> jax.Array:
    return _max_pool(x, 3, *how)[0]


def _max_pool(
    x: jax.Array,
    axes: int,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
    *,
    index: Any = np.int32,
) -> tuple[jax.Array, jax.Array]:
    """One axis after the other, the last first: so the first of equals is torch's, row by row."""
    sizes = [per_axis(v, axes) for v in (kernel, stride or kernel, padding, dilation)]
    values, indices = x, _flat_positions(x, axes, index)
    for axis in reversed(range(axes)):
        at = x.ndim - axes + axis
        k, step, pad, apart = (size[axis] for size in sizes)
        windows = _windows(x.shape[at], k, step, pad, apart, ceil)
        if windows.shape[1] > UNROLLED:
            values, indices = _gathered_maximum(values, indices, at, windows)
        else:
            values, indices = _sliced_maximum(values, indices, at, windows, k, step, pad, apart)
    return values, indices


def _flat_positions(x: jax.Array, axes: int, dtype: Any) -> jax.Array:
    shape = x.shape[x.ndim - axes :]
    return jnp.broadcast_to(jnp.arange(math.prod(shape), dtype=dtype).reshape(shape), x.shape)


def _windows(n: int, k: int, stride: int, pad: int, dilation: int, ceil: bool) -> np.ndarray:
    """The positions of each window, one row each; with ``ceil`` the last starts in the input."""
    room = n + 2 * pad - dilation * (k - 1) - 1
    count = (room + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= n + pad:
        count -= 1
    return np.arange(count)[:, None] * stride - pad + np.arange(k)[None] * dilation


def _sliced_maximum(
    values: jax.Array,
    indices: jax.Array,
    axis: int,
    windows: np.ndarray,
    k: int,
    stride: int,
    pad: int,
    dilation: int,
) -> tuple[jax.Array, jax.Array]:
    """A running maximum over shifted slices."""
    n, count = values.shape[axis], len(windows)
    more = max(0, int(windows.max(initial=0)) + 1 - n)
    pads = [(pad, more, 0) if a == axis else (0, 0, 0) for a in range(values.ndim)]
    padded = jax.lax.pad(values, lowest(values.dtype), pads)
    padded_indices = jax.lax.pad(indices, np.array(0, indices.dtype), pads)
    inside = np.where(windows >= 0, windows, np.iinfo(np.int64).max).min(axis=1)
    where = jnp.take(indices, inside, axis)
    for j in range(k):
        span = (j * dilation, j * dilation + (count - 1) * stride + 1, stride, axis)
        candidate = jax.lax.slice_in_dim(padded, *span)
        candidate_index = jax.lax.slice_in_dim(padded_indices, *span)
        if j == 0:
            largest = candidate
            continue
        larger = (candidate > largest) | (candidate != candidate)
        largest = jnp.where(larger, candidate, largest)
        where = jnp.where(larger, candidate_index, where)
    return largest, where


def _gathered_maximum(
    values: jax.Array, indices: jax.Array, axis: int, windows: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """Windows of any positions, those outside the input left out."""
    n = values.shape[axis]
    inside = (windows >= 0) & (windows < n)
    positions = np.clip(windows, 0, n - 1)
    candidates = jnp.moveaxis(jnp.take(values, positions, axis), axis + 1, -1)
    shape = [1] * values.ndim + [windows.shape[1]]
    shape[axis] = len(windows)
    kept = jnp.where(inside.reshape(shape), candidates, lowest(values.dtype))
    best = jnp.argmax(kept, axis=-1, keepdims=True)
    where = jnp.moveaxis(jnp.take(indices, positions, axis), axis + 1, -1)
    return (
        jnp.take_along_axis(candidates, best, -1)[..., 0],
        jnp.take_along_axis(where, best, -1)[..., 0],
    )


@rules("aten.adaptive_max_pool1d.default")
@rules("aten.adaptive_max_pool2d.default", "aten.adaptive_max_pool3d.default")
def adaptive_max_pool(
    x: jax.Array, output_size: Sequence[int], *, result: Any
) -> tuple[jax.Array, jax.Array]:
    axes = len(output_size)
    values, indices = x, _flat_positions(x, axes, result[1].dtype)
    for axis in reversed(range(axes)):
        at = x.ndim - axes + axis
        windows = _adaptive_windows(x.shape[at], output_size[axis])
        values, indices = _gathered_maximum(values, indices, at, windows)
    return values, indices


def _adaptive_windows(n: int, count: int) -> np.ndarray:
    """Windows that cover the input, one row each, filled up with -1."""
    starts = np.arange(count) * n // count
    ends = -(-(np.arange(1, count + 1) * n) // count)
    length = int((ends - starts).max(initial=1))
    positions = starts[:, None] + np.arange(length)[None]
    return np.where(positions < ends[:, None], positions, -1)


@rules("aten.adaptive_avg_pool1d.default")
@rules("aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")
@rules("aten.adaptive_avg_pool3d.default", "aten._adaptive_avg_pool3d.default")
def adaptive_avg_pool(x: jax.Array, output_size: Sequence[int]) -> jax.Array:
    """Means of one axis after the other."""
    y = wide(x)
    for axis, count in enumerate(output_size):
        at = x.ndim - len(output_size) + axis
        n = y.shape[at]
        if count and n % count == 0:
            y = jnp.mean(y.reshape(*y.shape[:at], count, n // count, *y.shape[at + 1 :]), at + 1)
            continue
        windows = _adaptive_windows(n, count)
        shape = [1] * (y.ndim + 1)
        shape[at : at + 2] = windows.shape
        inside = (windows >= 0).reshape(shape)
        parts = jnp.where(inside, jnp.take(y, np.maximum(windows, 0), at), 0)
        y = jnp.sum(parts, at + 1) / inside.sum(at + 1).astype(y.dtype)
    return y.astype(x.dtype)


@rules("aten.avg_pool1d.default")
def avg_pool1d(x: jax.Array, *how: Any) -> jax.Array:
    return _avg_pool(x, 1, *how)


@rules("aten.avg_pool2d.default")
def avg_pool2d(x: jax.Array, *how: Any) -> jax.Array:
    return _avg_pool(x, 2, *how)


@rules("aten.avg_pool3d.default")
def avg_pool3d(x: jax.Array, *how: Any) -> jax.Array:
    return _avg_pool(x, 3, *how)


def _avg_pool(
    x: jax.Array,
    axes: int,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> jax.Array:
    """Window sums, divided by the window's elements: in the padded input, or in the input only."""
    kernel, stride = per_axis(kernel, axes), per_axis(stride or kernel, axes)
    padding = per_axis(padding, axes)
    counts = np.ones(())
    pads = []
    for n, k, s, p in zip(x.shape[-axes:], kernel, stride, padding, strict=True):
        windows = _windows(n, k, s, p, 1, ceil)
        beyond = n + p if count_include_pad else n
        inside = (windows < beyond) & (count_include_pad | (windows >= 0))
        counts = counts[..., None] * inside.sum(axis=1)
        pads.append((p, max(0, int(windows.max(initial=0)) + 1 - n)))
    y, unbatched = batched(wide(x), axes + 2)
    zero = np.zeros((), y.dtype)
    sums = jax.lax.reduce_window(
        y, zero, jax.lax.add, (1, 1, *kernel), (1, 1, *stride), [(0, 0), (0, 0), *pads]
    )
    return unbatched(sums / np.asarray(divisor or counts, y.dtype)).astype(x.dtype)


@rules("aten.fractional_max_pool2d.default")
def fractional_max_pool2d(
    x: jax.Array, kernel: Any, output_size: Any, samples: jax.Array, *, result: Any
) -> tuple[jax.Array, jax.Array]:
    return _fractional(x, kernel, output_size, samples[..., ::-1], result[1].dtype)


@rules("aten.fractional_max_pool3d.default")
def fractional_max_pool3d(
    x: jax.Array, kernel: Any, output_size: Any, samples: jax.Array, *, result: Any
) -> tuple[jax.Array, jax.Array]:
    return _fractional(x, kernel, output_size, samples, result[1].dtype)


def _fractional(
    x: jax.Array, kernel: Any, output_size: Any, samples: jax.Array, index: Any
) -> tuple[jax.Array, jax.Array]:
    """Windows of one length at uneven distances, by one random number per plane and axis."""
    axes = len(output_size)
    kernel = per_axis(kernel, axes)
    y, unbatched = batched(x, axes + 2)
    planes = y.shape[0] * y.shape[1]  # without a batch, torch takes the first of the samples
    samples = samples.reshape(-1, axes)[:planes].reshape(*y.shape[:2], axes)
    values, indices = y, _flat_positions(y, axes, index)
    for axis in reversed(range(axes)):
        at = 2 + axis
        starts = _starts(samples[..., axis], y.shape[at], output_size[axis], kernel[axis])
        positions = starts[..., None] + jnp.arange(kernel[axis])
        shape = [*y.shape[:2], *(1,) * axes]
        shape[at] = output_size[axis] * kernel[axis]
        spread = positions.reshape(shape)
        split = (*values.shape[:at], output_size[axis], kernel[axis], *values.shape[at + 1 :])
        candidates = jnp.take_along_axis(values, spread, at).reshape(split)
        where = jnp.take_along_axis(indices, spread, at).reshape(split)
        best = jnp.argmax(candidates, axis=at + 1, keepdims=True)
        values = jnp.take_along_axis(candidates, best, at + 1).squeeze(at + 1)
        indices = jnp.take_along_axis(where, best, at + 1).squeeze(at + 1)
    return unbatched(values), unbatched(indices)


def _starts(sample: jax.Array, n: int, count: int, k: int) -> jax.Array:
    last = jnp.full((*sample.shape, 1), n - k, jnp.int32)
    if count == 1:
        return last
    step = jnp.asarray((n - k) / (count - 1), sample.dtype)
    steps = jnp.arange(count - 1, dtype=sample.dtype)
    sample = sample[..., None]
    found = jnp.trunc((steps + sample) * step) - jnp.trunc(sample * step)
    return jnp.concatenate([found.astype(jnp.int32), last], -1)


@rules("aten.max_unpool2d.default")
def max_unpool2d(x: jax.Array, indices: jax.Array, output_size: Any) -> jax.Array:
    return _unpooled(x, indices, output_size)


@rules("aten.max_unpool3d.default")
def max_unpool3d(x: jax.Array, indices: jax.Array, output_size: Any, *_: Any) -> jax.Array:
    return _unpooled(x, indices, output_size)


def _unpooled(x: jax.Array, indices: jax.Array, output_size: Sequence[int]) -> jax.Array:
    """The last of several values for one place stays, and each gets the gradient of that place."""
    outer = x.shape[: x.ndim - len(output_size)]
    planes, inner = math.prod(outer), math.prod(output_size)
    at = (jnp.arange(planes)[:, None], indices.reshape(planes, -1))
    fixed = jax.lax.stop_gradient(x)
    empty = jnp.zeros((planes, inner), x.dtype)
    values = empty.at[at].set(fixed.reshape(planes, -1))
    nothing = jnp.where(jnp.isfinite(x), x - fixed, 0)  # but for its gradient
    slopes = empty.at[at].add(nothing.reshape(planes, -1))
    return (values + slopes).reshape(*outer, *output_size)
