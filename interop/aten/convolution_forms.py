"""One convolution in the form that each platform runs fast.

XLA's CPU backend hands few convolutions to fast code: those of one group with channels last; and it
brings others into that form only where they are outside every loop. On that platform

- kernels of a single point are products of matrices;
- a depthwise convolution is a sum of products with the shifted input, one for each tap;
- groups become at most eight convolutions, whose kernels are block-diagonal;
- everything else has its channels last, in the gradients too.

Other platforms run the convolution as it is. All forms can be differentiated any number of times,
forwards and backwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

Pads = tuple[tuple[int, int], ...]

MOST_TAPS = 81
"""Of a depthwise kernel: each is an operation of its own in the program."""
MOST_PIECES = 8
"""Convolutions that one of many groups becomes: each takes time to compile."""


@dataclass(frozen=True)
class Windows:
    """Where the kernel lies: static numbers for each spatial axis."""

    stride: tuple[int, ...]
    pads: Pads
    spread: tuple[int, ...]
    """The input's points are this far apart, with zeros between (``lhs_dilation``)."""
    dilation: tuple[int, ...]


def convolve(
    x: jax.Array,
    weight: jax.Array,
    stride: Sequence[int],
    pads: Sequence[tuple[int, int]],
    spread: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> jax.Array:
    """The convolution of ``x`` (batch, channels, *spatial) and ``weight`` (out, in, *kernel)."""
    windows = Windows(
        tuple(stride), tuple((low, high) for low, high in pads), tuple(spread), tuple(dilation)
    )
    return _convolve(x, weight, windows, groups)


# Compiled once where a call is eager; inline under jit, since XLA chooses before it opens calls.
@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _convolve(x: jax.Array, weight: jax.Array, windows: Windows, groups: int) -> jax.Array:
    return jax.lax.platform_dependent(
        x,
        weight,
        cpu=partial(_on_cpu, windows=windows, groups=groups),
        default=partial(_channels_first, windows=windows, groups=groups),
    )


def _channels_first(
    x: jax.Array, weight: jax.Array, *, windows: Windows, groups: int = 1
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        weight,
        windows.stride,
        windows.pads,
        windows.spread,
        windows.dilation,
        feature_group_count=groups,
    )


def _on_cpu(x: jax.Array, weight: jax.Array, *, windows: Windows, groups: int) -> jax.Array:
    if groups == 1:
        return _of_one_group(x, weight, windows)
    if weight.shape[1] == 1 and np.prod(weight.shape[2:]) <= MOST_TAPS:
        wide = jnp.promote_types(x.dtype, jnp.float32)  # as a convolution accumulates
        return _depthwise(x.astype(wide), weight.astype(wide), windows).astype(x.dtype)
    pieces = max(n for n in range(1, MOST_PIECES + 1) if groups % n == 0)
    parts = zip(jnp.split(x, pieces, 1), jnp.split(weight, pieces, 0), strict=True)
    blocks = groups // pieces
    return jnp.concatenate(
        [_of_one_group(part, _block_diagonal(own, blocks), windows) for part, own in parts], 1
    )


def _of_one_group(x: jax.Array, weight: jax.Array, windows: Windows) -> jax.Array:
    last = jnp.moveaxis(x, 1, -1)
    if np.prod(weight.shape[2:]) == 1 and not np.any(windows.pads) and set(windows.spread) == {1}:
        strides = (slice(None), *(slice(None, None, s) for s in windows.stride))
        return jnp.moveaxis(last[strides] @ weight.reshape(weight.shape[:2]).T, -1, 1)
    return jnp.moveaxis(
        _channels_last(last, jnp.moveaxis(weight, (0, 1), (-1, -2)), windows), -1, 1
    )


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _channels_last(x: jax.Array, weight: jax.Array, windows: Windows) -> jax.Array:
    """Of ``x`` (batch, *spatial, channels) and ``weight`` (*kernel, in, out), as XLA wants them."""
    return _convolution(x, weight, windows, "b.f", ".io", "b.f")


@partial(_channels_last.defjvp, symbolic_zeros=True)
def _channels_last_jvp(
    windows: Windows, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    """The tangents lie so in memory that their transposes, the gradients, are as XLA wants them."""
    (x, weight), (dx, dweight) = primals, tangents
    y = _channels_last(x, weight, windows)
    dy = jnp.zeros_like(y)
    if not isinstance(dx, SymbolicZero):
        dy = dy + _convolution(dx, jnp.swapaxes(weight, -1, -2), windows, "b.f", ".oi", "b.f")
    if not isinstance(dweight, SymbolicZero):
        x, dweight = jnp.swapaxes(x, 0, -1), jnp.moveaxis(dweight, -2, 0)
        product = _convolution(x, dweight, windows, "f.b", "i.o", ".bf")
        dy = dy + jnp.moveaxis(product, -2, 0)
    return y, dy


def _convolution(
    x: jax.Array, weight: jax.Array, windows: Windows, lhs: str, rhs: str, out: str
) -> jax.Array:
    """With named axes, where the dot stands for the spatial ones."""
    axes = {"b": "N", "f": "C", "i": "I", "o": "O", ".": "0123456789"[: weight.ndim - 2]}
    lhs, rhs, out = ("".join(axes[name] for name in names) for names in (lhs, rhs, out))
    return jax.lax.conv_general_dilated(
        x,
        weight,
        windows.stride,
        windows.pads,
        windows.spread,
        windows.dilation,
        dimension_numbers=(lhs, rhs, out),
    )


def _block_diagonal(weight: jax.Array, blocks: int) -> jax.Array:
    """A kernel of that many groups (out, in, ...) as a kernel of one (out, blocks * in, ...)."""
    if blocks == 1:
        return weight
    outer, inner, *kernel = weight.shape
    own = weight.reshape(blocks, outer // blocks, 1, inner, *kernel)
    mask = jnp.eye(blocks, dtype=bool).reshape(blocks, 1, blocks, 1, *(1 for _ in kernel))
    return jnp.where(mask, own, 0).reshape(outer, blocks * inner, *kernel)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _depthwise(x: jax.Array, weight: jax.Array, windows: Windows) -> jax.Array:
    """Of each channel with its own kernels (channels * multiplier, 1, *kernel)."""
    return _taps_at_once(x, weight, windows)


def _taps_at_once(x: jax.Array, weight: jax.Array, windows: Windows) -> jax.Array:
    """A depthwise convolution that XLA makes one loop."""
    padded, sizes = _padded(x, weight, windows)
    taps = _taps(x, weight)
    y: Any = 0
    for at, place in enumerate(product(*map(range, weight.shape[2:]))):
        starts = [i * d for i, d in zip(place, windows.dilation, strict=True)]
        part = _window(padded, starts, sizes, windows)
        y = y + part[:, :, None] * taps[at]
    return y.reshape(x.shape[0], weight.shape[0], *sizes)


@partial(_depthwise.defjvp, symbolic_zeros=True)
def _depthwise_jvp(windows: Windows, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, weight), (dx, dweight) = primals, tangents
    y = _depthwise(x, weight, windows)
    dy = jnp.zeros_like(y)
    if not isinstance(dx, SymbolicZero):
        dy = dy + _taps_at_once(dx, weight, windows)
    if not isinstance(dweight, SymbolicZero):
        dy = dy + _taps_in_turn(x, dweight, windows)
    return y, dy


def _taps_in_turn(x: jax.Array, weight: jax.Array, windows: Windows) -> jax.Array:
    """The same in a scan: its transpose in the kernel keeps one shifted input at a time."""
    padded, sizes = _padded(x, weight, windows)
    starts = np.indices(weight.shape[2:]).reshape(weight.ndim - 2, -1).T * windows.dilation

    def add(y: jax.Array, each: Any) -> tuple[jax.Array, None]:
        start, tap = each
        part = _window(padded, list(start), sizes, windows)
        return y + part[:, :, None] * tap, None

    taps = _taps(x, weight)
    start = jnp.zeros((x.shape[0], *taps.shape[1:3], *sizes), x.dtype)
    # Without the checkpoint every shifted input would be kept for the transpose.
    y, _ = jax.lax.scan(jax.checkpoint(add, prevent_cse=False), start, (jnp.asarray(starts), taps))
    return y.reshape(x.shape[0], weight.shape[0], *sizes)


def _taps(x: jax.Array, weight: jax.Array) -> jax.Array:
    """(taps, channels, multiplier, 1, ...): what each shifted input is multiplied by."""
    channels, axes = x.shape[1], weight.ndim - 2
    each = weight.reshape(channels, -1, np.prod(weight.shape[2:], dtype=int))
    each = jnp.moveaxis(each, -1, 0)
    return each.reshape(*each.shape, *(1,) * axes)


def _padded(x: jax.Array, weight: jax.Array, windows: Windows) -> tuple[jax.Array, tuple[int, ...]]:
    """The input with its zeros, and how many windows each axis has."""
    config = [
        (low, high, s - 1) for (low, high), s in zip(windows.pads, windows.spread, strict=True)
    ]
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *config])
    extents = [d * (k - 1) + 1 for d, k in zip(windows.dilation, weight.shape[2:], strict=True)]
    sizes = tuple(
        max((n - extent) // s + 1, 0)
        for n, extent, s in zip(padded.shape[2:], extents, windows.stride, strict=True)
    )
    return padded, sizes


def _window(
    padded: jax.Array, starts: Sequence[Any], sizes: Sequence[int], windows: Windows
) -> jax.Array:
    """What one tap of the kernel meets in every window."""
    spans = [s * (n - 1) + 1 if n else 0 for s, n in zip(windows.stride, sizes, strict=True)]
    part = jax.lax.dynamic_slice(padded, [0, 0, *starts], [*padded.shape[:2], *spans])
    return part[(slice(None), slice(None), *(slice(None, None, s) for s in windows.stride))]
