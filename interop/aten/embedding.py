"""Embeddings: rows by index, alone or reduced in bags."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.layers import scaled_gradient, wide
from interop.aten.registry import Table

rules = Table()

SUM, MEAN, MAX = 0, 1, 2


@rules("aten.embedding.default")
def embedding(
    weight: jax.Array,
    indices: jax.Array,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> jax.Array:
    """Rows; that of ``padding_idx`` gets no gradient. A sparse gradient is dense here."""
    rows = jnp.take(weight, indices, 0, mode="fill")
    if padding_idx >= 0:
        padding = (indices == padding_idx)[..., None]
        rows = jnp.where(padding, jax.lax.stop_gradient(rows), rows)
    return _by_frequency(rows, indices, weight.shape[0]) if scale_grad_by_freq else rows


def _by_frequency(rows: jax.Array, indices: jax.Array, count: int) -> jax.Array:
    """Each row's gradient divided by how often it is asked for."""
    flat = indices.reshape(-1)
    often = jnp.zeros(count, rows.dtype).at[flat].add(1)[indices]
    return scaled_gradient(rows, 1 / often[..., None])


@rules("aten.embedding_renorm.default")
def embedding_renorm(
    weight: jax.Array, indices: jax.Array, max_norm: float, norm_type: float
) -> jax.Array:
    """The rows asked for, shortened where they are longer than ``max_norm``."""
    norm = jnp.linalg.norm(wide(weight), norm_type, axis=1, keepdims=True)
    asked = jnp.zeros(weight.shape[0], bool).at[indices.reshape(-1)].set(True)[:, None]
    shorter = wide(weight) * (max_norm / (norm + 1e-7))
    return jnp.where(asked & (norm > max_norm), shorter.astype(weight.dtype), weight)


@rules("aten.embedding_bag.padding_idx")
def embedding_bag_padded(
    weight: jax.Array,
    indices: jax.Array,
    offsets: jax.Array,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    sample_weights: Any,
    include_last_offset: bool,
    padding_idx: int | None,
    *,
    result: Sequence[Any],
) -> tuple[jax.Array, ...]:
    """Here a negative ``padding_idx`` counts from the end."""
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]
    how = (scale_grad_by_freq, mode, sparse, sample_weights, include_last_offset, padding_idx)
    return embedding_bag(weight, indices, offsets, *how, result=result)


@rules("aten.embedding_bag.default", "aten._embedding_bag.default")
@rules("aten._embedding_bag_forward_only.default")
def embedding_bag(
    weight: jax.Array,
    indices: jax.Array,
    offsets: jax.Array,
    scale_grad_by_freq: bool = False,
    mode: int = SUM,
    sparse: bool = False,
    sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = -1,
    *,
    result: Sequence[Any],
) -> tuple[jax.Array, ...]:
    """One row per bag; an empty bag gives zeros. The other outcomes are torch's bookkeeping."""
    bags = offsets.shape[0] - include_last_offset
    place = jnp.arange(indices.shape[0], dtype=offsets.dtype)
    bag = jnp.searchsorted(offsets[:bags], place, side="right") - 1
    counts = jnp.ones(indices.shape, bool)
    if padding_idx is not None and padding_idx >= 0:
        counts = indices != padding_idx
    bag = jnp.where(counts, bag, bags)  # beyond the last: left out
    rows = wide(jnp.take(weight, indices, 0, mode="fill"))
    if scale_grad_by_freq:
        rows = _by_frequency(rows, indices, weight.shape[0])
    if sample_weights is not None:
        rows = rows * wide(sample_weights)[:, None]
    size = jax.ops.segment_sum(counts.astype(offsets.dtype), bag, bags)
    if mode == MAX:
        out, first = _bag_maximum(rows, bag, bags, place)
    else:
        out, first = jax.ops.segment_sum(rows, bag, bags), None
    if mode == MEAN:
        out = out / jnp.maximum(size, 1)[:, None]
    more = []
    for found, own in zip((bag, size, first), result[1:], strict=True):
        if found is not None and found.shape == own.shape:
            more.append(found.astype(own.dtype))
        else:
            more.append(jnp.zeros(own.shape, own.dtype))
    return out.astype(weight.dtype), *more


def _bag_maximum(
    rows: jax.Array, bag: jax.Array, bags: int, place: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Column by column, the gradient to the first of equals; and where that is."""
    n = len(place)
    fixed = jax.lax.stop_gradient(rows)
    largest = jax.ops.segment_max(fixed, bag, bags)
    is_largest = fixed == jnp.take(largest, bag, 0, mode="clip")
    candidates = jnp.where(is_largest, place[:, None], n)
    first = jax.ops.segment_min(candidates, bag, bags)
    empty = first >= n
    at = jnp.where(empty, 0, first)
    return jnp.where(empty, np.zeros((), rows.dtype), jnp.take_along_axis(rows, at, 0)), at
