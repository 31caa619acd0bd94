"""Histograms and counts."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.registry import Table
from interop.errors import ConversionError

rules = Table()


@rules("aten.histc.default")
def histc(x: Any, bins: int = 100, low: Any = 0, high: Any = 0) -> jax.Array:
    """Counts in equal bins, the last one closed; equal bounds mean those of the data."""
    x = jax.lax.stop_gradient(jnp.ravel(x))
    if low == high:
        low, high = (jnp.min(x), jnp.max(x)) if x.size else (0.0, 1.0)
        same = low == high
        low, high = jnp.where(same, low - 1, low), jnp.where(same, high + 1, high)
    place = jnp.floor((x - low) * bins / (high - low)).astype(jnp.int32)
    place = jnp.where(x == high, bins - 1, place)
    inside = (x >= low) & (x <= high)
    place = jnp.clip(place, 0, bins - 1)
    return jnp.zeros(bins, x.dtype).at[place].add(inside.astype(x.dtype))


@rules("aten.bincount.default")
def bincount(x: Any, *_: Any) -> jax.Array:
    raise ConversionError("its length depends on the values: count with scatter_add, or histc")


# ---- histograms with edges, of points in any number of dimensions --------------------------------


def _edges(points: jax.Array, bins: Sequence[int], bounds: Any) -> list[jax.Array]:
    """Evenly between the bounds, given or of the data; equal ones are moved apart by one."""
    found = []
    for axis, count in enumerate(bins):
        if bounds is not None:
            low, high = (jnp.asarray(x, points.dtype) for x in bounds[2 * axis : 2 * axis + 2])
        elif points.shape[0]:
            low, high = jnp.min(points[:, axis]), jnp.max(points[:, axis])
        else:
            low, high = jnp.zeros((), points.dtype), jnp.ones((), points.dtype)
        same = low == high
        low, high = jnp.where(same, low - 0.5, low), jnp.where(same, high + 0.5, high)
        found.append(jnp.linspace(low, high, count + 1, dtype=points.dtype))
    return found


def _counted(
    points: jax.Array, edges: Sequence[jax.Array], weight: Any, density: bool
) -> jax.Array:
    """Weights in bins that are open to the right, but for the last."""
    shape = tuple(e.shape[0] - 1 for e in edges)
    flat, inside = jnp.zeros(points.shape[0], np.int32), jnp.ones(points.shape[0], bool)
    for axis, edge in enumerate(edges):
        x = points[:, axis]
        place = jnp.searchsorted(edge, x, side="right").astype(np.int32) - 1
        place = jnp.where(x == edge[-1], shape[axis] - 1, place)
        inside &= (x >= edge[0]) & (x <= edge[-1])
        flat = flat * shape[axis] + jnp.clip(place, 0, shape[axis] - 1)
    each = jnp.ones_like(points[:, 0]) if weight is None else jnp.ravel(weight)
    total = jnp.zeros(math.prod(shape), points.dtype)
    total = total.at[flat].add(jnp.where(inside, each, 0).astype(points.dtype)).reshape(shape)
    if density:
        total = total / jnp.sum(total)
        for axis, edge in enumerate(edges):
            total = total / jnp.expand_dims(
                jnp.diff(edge), [i for i in range(len(shape)) if i != axis]
            )
    return total


def _points(x: jax.Array) -> jax.Array:
    return jnp.reshape(x, (-1, x.shape[-1]))


@rules("aten.histogram.bin_ct")
def histogram(
    x: Any, bins: int = 100, *, range: Any = None, weight: Any = None, density: bool = False
) -> Any:
    points = jnp.reshape(x, (-1, 1))
    edges = _edges(points, [bins], range)
    return _counted(points, edges, weight, density), edges[0]


@rules("aten.histogram.bins_tensor")
def histogram_between(x: Any, edges: Any, *, weight: Any = None, density: bool = False) -> Any:
    return _counted(jnp.reshape(x, (-1, 1)), [edges], weight, density), edges


@rules("aten._histogramdd_bin_edges.default")
def histogram_edges(
    x: Any, bins: Sequence[int], *, range: Any = None, weight: Any = None, density: bool = False
) -> Any:
    return tuple(_edges(_points(x), bins, range))


@rules("aten._histogramdd_from_bin_cts.default")
def histogram_of_points(
    x: Any, bins: Sequence[int], *, range: Any = None, weight: Any = None, density: bool = False
) -> jax.Array:
    return _counted(_points(x), _edges(_points(x), bins, range), weight, density)


@rules("aten._histogramdd_from_bin_tensors.default")
def histogram_of_points_between(
    x: Any, edges: Sequence[Any], *, weight: Any = None, density: bool = False
) -> jax.Array:
    return _counted(_points(x), edges, weight, density)
