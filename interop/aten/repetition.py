"""Repetition: of an array as a whole, and of its entries in place."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.layers import refuse
from interop.aten.registry import Table
from interop.aten.shapes import axis

rules = Table()


@rules("aten.repeat.default", "aten.tile.default")
def repeat(x: jax.Array, repeats: Sequence[int]) -> jax.Array:
    return jnp.tile(x, tuple(repeats))


@rules("aten.repeat_interleave.self_int")
def repeat_entries(
    x: jax.Array, repeats: int, dim: int | None = None, output_size: Any = None
) -> jax.Array:
    x, at = _along(x, dim)
    return jnp.repeat(x, repeats, at)


@rules("aten.repeat_interleave.self_Tensor")
def repeat_each(
    x: jax.Array, repeats: jax.Array, dim: int | None = None, output_size: Any = None
) -> jax.Array:
    x, at = _along(x, dim)
    places = _places(jnp.broadcast_to(repeats, x.shape[at : at + 1]), output_size)
    return jnp.take(x, places, at, mode="fill")


@rules("aten.repeat_interleave.Tensor")
def repeated_places(repeats: jax.Array, output_size: Any = None, *, result: Any) -> jax.Array:
    """The positions to take."""
    return _places(repeats, output_size).astype(result.dtype)


def _along(x: jax.Array, dim: int | None) -> tuple[jax.Array, int]:
    """What is repeated along which axis: all of it without one."""
    if dim is None or x.ndim == 0:
        return jnp.reshape(x, -1), 0
    return x, axis(dim, x.ndim)


def _places(repeats: jax.Array, output_size: Any) -> jax.Array:
    """Out of bounds, where filling gives NaN, if ``output_size`` is not their number.

    torch raises then, which a compiled function cannot.
    """
    count = repeats.shape[0]
    refuse(
        not isinstance(output_size, int),
        "repeat_interleave by a tensor makes a size that depends on values: give output_size=, or "
        "pass the repeats as interop.Static",
    )
    places = jnp.repeat(jnp.arange(count), repeats, total_repeat_length=output_size)
    return jnp.where(jnp.sum(repeats) == output_size, places, count)
