"""Padding: constant, reflected, replicated, circular; a negative amount crops."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast
from interop.aten.layers import refuse
from interop.aten.registry import Table

rules = Table()

MODES = ("constant", "reflect", "replicate", "circular")
"""In the order of torch's numbers."""


@rules("aten.constant_pad_nd.default")
def constant_pad(x: jax.Array, amounts: Sequence[int], value: Any = 0) -> jax.Array:
    pads = [(0, 0, 0)] * x.ndim
    for axis, low, high in _by_axis(x, amounts):
        pads[axis] = (low, high, 0)
    return jax.lax.pad(x, cast(value, x.dtype), pads)


@rules("aten.pad.default")
def pad(
    x: jax.Array, amounts: Sequence[int], mode: str = "constant", value: Any = None
) -> jax.Array:
    refuse(mode not in MODES, f"padding mode {mode!r}")
    if mode == "constant":
        return constant_pad(x, amounts, 0 if value is None else value)
    for axis, low, high in _by_axis(x, amounts):
        x = _extended(x, axis, low, high, mode)
    return x


@rules("aten._pad_enum.default")
def pad_by_number(x: jax.Array, amounts: Sequence[int], mode: int, value: Any = None) -> jax.Array:
    return pad(x, amounts, MODES[mode], value)


@rules("aten._pad_circular.default")
def pad_circular(x: jax.Array, amounts: Sequence[int]) -> jax.Array:
    return pad(x, amounts, "circular")


@rules("aten.reflection_pad1d.default")
@rules("aten.reflection_pad2d.default", "aten.reflection_pad3d.default")
def pad_reflected(x: jax.Array, amounts: Sequence[int]) -> jax.Array:
    return pad(x, amounts, "reflect")


@rules("aten.replication_pad1d.default")
@rules("aten.replication_pad2d.default", "aten.replication_pad3d.default")
def pad_replicated(x: jax.Array, amounts: Sequence[int]) -> jax.Array:
    return pad(x, amounts, "replicate")


def _by_axis(x: jax.Array, amounts: Sequence[int]) -> list[tuple[int, int, int]]:
    """Axis, before and after; torch lists the last axis first."""
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    return [(x.ndim - 1 - i, low, high) for i, (low, high) in enumerate(pairs)]


def _extended(x: jax.Array, axis: int, low: int, high: int, mode: str) -> jax.Array:
    def part(start: int, stop: int) -> jax.Array:
        return jax.lax.slice_in_dim(x, start, stop, axis=axis)

    if mode == "circular":  # what was cropped away does not come around again
        x = part(max(0, -low), x.shape[axis] - max(0, -high))
    n = x.shape[axis]
    before, after = max(0, low), max(0, high)
    if mode == "reflect":
        first, last = (
            jnp.flip(part(1, before + 1), axis),
            jnp.flip(part(n - 1 - after, n - 1), axis),
        )
    elif mode == "replicate":
        first, last = jnp.repeat(part(0, 1), before, axis), jnp.repeat(part(n - 1, n), after, axis)
    else:
        first, last = part(n - before, n), part(0, after)
    x = jnp.concatenate([first, x, last], axis)
    if mode == "circular":
        return x
    return part(max(0, -low), x.shape[axis] - max(0, -high))
