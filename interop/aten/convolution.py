"""Convolutions and their transposes, any number of axes, any groups."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.convolution_forms import convolve
from interop.aten.layers import batched, per_axis
from interop.aten.registry import Table

rules = Table()


@rules("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
@rules("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding")
def convolution(
    x: jax.Array,
    weight: jax.Array,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> jax.Array:
    axes = weight.ndim - 2
    stride, dilation = per_axis(stride, axes), per_axis(dilation, axes)
    if padding == "same":  # an odd remainder goes after
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        pads = [(n // 2, n - n // 2) for n in total]
    else:
        pads = [(n, n) for n in per_axis(0 if padding == "valid" else padding, axes)]
    x, unbatched = batched(x, axes + 2)
    y = convolve(x, weight, stride, pads, (1,) * axes, dilation, groups)
    return unbatched(_biased(y, bias))


@rules("aten._convolution_mode.default")
def convolution_mode(
    x: jax.Array,
    weight: jax.Array,
    bias: Any,
    stride: Any,
    padding: str,
    dilation: Any,
    groups: int,
) -> jax.Array:
    return convolution(x, weight, bias, stride, padding, dilation, groups)


@rules(
    "aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input"
)
def transposed(
    x: jax.Array,
    weight: jax.Array,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> jax.Array:
    """A convolution of the input spread by the stride, the kernel flipped within each group."""
    axes = weight.ndim - 2
    stride, dilation = per_axis(stride, axes), per_axis(dilation, axes)
    padding, output_padding = per_axis(padding, axes), per_axis(output_padding, axes)
    inner, outer, *kernel = weight.shape
    weight = jnp.reshape(weight, (groups, inner // groups, outer, *kernel))
    weight = jnp.reshape(jnp.swapaxes(weight, 1, 2), (groups * outer, inner // groups, *kernel))
    weight = jnp.flip(weight, range(2, 2 + axes))
    pads = []
    for k, d, p, more in zip(kernel, dilation, padding, output_padding, strict=True):
        pads.append((d * (k - 1) - p, d * (k - 1) - p + more))
    x, unbatched = batched(x, axes + 2)
    y = convolve(x, weight, (1,) * axes, pads, stride, dilation, groups)
    return unbatched(_biased(y, bias))


@rules("aten.convolution.default", "aten._convolution.default", "aten._convolution.deprecated")
def either(
    x: jax.Array,
    weight: jax.Array,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    is_transposed: bool,
    output_padding: Any,
    groups: int,
    *_: Any,
) -> jax.Array:
    if is_transposed:
        return transposed(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolution(x, weight, bias, stride, padding, dilation, groups)


def _biased(y: jax.Array, bias: Any) -> jax.Array:
    return y if bias is None else y + jnp.reshape(bias, (-1,) + (1,) * (y.ndim - 2))
