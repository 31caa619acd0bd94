"""Sampling of images at points of a grid, and grids of affine maps."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.interpolation import cubic_weights
from interop.aten.layers import wide
from interop.aten.registry import Table

rules = Table()

BILINEAR, NEAREST, BICUBIC = 0, 1, 2
ZEROS, BORDER, REFLECTION = 0, 1, 2

Tap = tuple[jax.Array, Any]
"""A whole coordinate and its weight."""


@rules("aten.grid_sampler.default")
@rules("aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
@rules("aten._grid_sampler_2d_cpu_fallback.default")
def grid_sampler(
    x: jax.Array, grid: jax.Array, interpolation: int, padding: int, align: bool
) -> jax.Array:
    """``x`` (batch, channels, …) at ``grid`` (batch, …, axes), which lists the last axis first."""
    y, points = wide(x), wide(grid)
    taps: list[list[Tap]] = []
    for axis, n in enumerate(x.shape[2:]):
        point = points[..., x.ndim - 3 - axis]
        point = (point + 1) / 2 * (n - 1) if align else ((point + 1) * n - 1) / 2
        taps.append(_taps(point, n, interpolation, padding, align))
    total: Any = 0
    for corner in itertools.product(*taps):
        weight: Any = 1.0
        for _, share in corner:
            weight = weight * share
        total = total + _at(y, [c for c, _ in corner]) * jnp.expand_dims(weight, 1)
    return total.astype(x.dtype)


def _taps(point: jax.Array, n: int, interpolation: int, padding: int, align: bool) -> list[Tap]:
    """The neighbours of a point on one axis."""
    if interpolation == BICUBIC:
        low = jax.lax.stop_gradient(jnp.floor(point))
        weights = cubic_weights(point - low)
        found = []
        for step, weight in zip(range(-1, 3), weights, strict=True):
            found.append((_inside(low + step, n, padding, align), weight))
        return found
    point = _inside(point, n, padding, align)
    if interpolation == NEAREST:
        return [(jnp.round(jax.lax.stop_gradient(point)), jnp.ones_like(point))]
    low = jax.lax.stop_gradient(jnp.floor(point))
    return [(low, low + 1 - point), (low + 1, point - low)]


def _inside(point: jax.Array, n: int, padding: int, align: bool) -> jax.Array:
    """The coordinate that a padding reads, with torch's gradient: none at a bound or beyond it."""
    if padding == ZEROS:
        return point
    if padding == REFLECTION:
        low, span = (0.0, n - 1.0) if align else (-0.5, float(n))
        if span == 0:
            return jnp.zeros_like(point)
        far = jnp.where(point < low, low - point, point - low)
        turns = jax.lax.stop_gradient(jnp.floor(far / span))
        over = far - turns * span
        point = jnp.where(turns % 2 == 0, over + low, span - over + low)
    clipped = jax.lax.stop_gradient(jnp.clip(point, 0, n - 1))
    clipped = jnp.where(jnp.isnan(point), 0, clipped)
    return jnp.where((point > 0) & (point < n - 1), point, clipped)


def _at(x: jax.Array, coordinates: Sequence[jax.Array]) -> jax.Array:
    """The values at whole coordinates, zero outside."""
    shape = x.shape[2:]
    outside = jnp.zeros((), bool)
    flat = jnp.zeros(coordinates[0].shape, np.int32)
    for coordinate, n in zip(coordinates, shape, strict=True):
        inside = (coordinate >= 0) & (coordinate <= n - 1)
        outside = outside | ~inside
        flat = flat * n + jnp.where(inside, coordinate, 0).astype(np.int32)
    where = flat.reshape(x.shape[0], 1, -1)
    found = jnp.take_along_axis(x.reshape(*x.shape[:2], -1), where, 2)
    found = found.reshape(*x.shape[:2], *flat.shape[1:])
    return jnp.where(jnp.expand_dims(outside, 1), 0, found)


@rules("aten.affine_grid_generator.default")
def affine_grid(theta: jax.Array, size: Sequence[int], align: bool) -> jax.Array:
    """The points, from -1 to 1, that an affine map takes the pixels of an image to."""
    spans = []
    for n in reversed(size[2:]):
        span = np.linspace(-1, 1, n) if n > 1 else np.zeros(n)
        spans.append(span if align else span * (n - 1) / n)
    mesh = np.meshgrid(*reversed(spans), indexing="ij")[::-1]
    base = np.stack([*mesh, np.ones(tuple(size[2:]))], -1).reshape(-1, len(spans) + 1)
    points = jnp.matmul(jnp.asarray(base, theta.dtype), jnp.swapaxes(theta, 1, 2))
    return points.reshape(size[0], *size[2:], len(spans))
