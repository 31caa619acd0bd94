"""Sliding blocks of images as columns, and their sum back into images."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.layers import per_axis
from interop.aten.registry import Table

rules = Table()


@rules("aten.im2col.default")
def columns(x: jax.Array, kernel: Any, dilation: Any, padding: Any, stride: Any) -> jax.Array:
    """(..., channels, height, width) to (..., channels * points, blocks)."""
    amounts = [(n, n) for n in per_axis(padding, 2)]
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + amounts)
    sizes, spreads, steps = (per_axis(v, 2) for v in (kernel, dilation, stride))
    for place in (0, 1):  # becomes (..., points, blocks) of the height, then of the width
        x = _blocks(x, x.ndim - 2 + place, sizes[place], spreads[place], steps[place])
    x = jnp.swapaxes(x, -2, -3)
    *batch, channels, rows, across, high, wide = x.shape
    return jnp.reshape(x, (*batch, channels * rows * across, high * wide))


@rules("aten.col2im.default")
def image(
    x: jax.Array,
    size: Sequence[int],
    kernel: Any,
    dilation: Any,
    padding: Any,
    stride: Any,
) -> jax.Array:
    """The transpose of ``columns``: what lies in several blocks is summed."""
    rows, across = per_axis(kernel, 2)
    shape = (*x.shape[:-2], x.shape[-2] // (rows * across), *per_axis(size, 2))
    forward = partial(columns, kernel=kernel, dilation=dilation, padding=padding, stride=stride)
    (found,) = jax.linear_transpose(forward, jax.ShapeDtypeStruct(shape, x.dtype))(x)
    return found


def _blocks(x: jax.Array, at: int, size: int, spread: int, step: int) -> jax.Array:
    """The axis as (points of a block, blocks): one slice for each point, so no gather."""
    reach = x.shape[at] - spread * (size - 1)
    parts = [jax.lax.slice_in_dim(x, i * spread, i * spread + reach, step, at) for i in range(size)]
    return jnp.stack(parts, at)
