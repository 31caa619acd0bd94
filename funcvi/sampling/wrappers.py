"""Distributions around others: the draw is the inner one's, in another shape or transformed."""

from collections.abc import Callable
from typing import Any

import numpyro.distributions as dist
from jax import Array

from funcvi._types import Key

__all__ = ["COMPOSITES", "transformed"]


def _same(d: Any, key: Key, shape: tuple[int, ...], draw: Callable[..., Array]) -> Array:
    return draw(d.base_dist, key, shape)


def _independent(d: Any, key: Key, shape: tuple[int, ...], draw: Callable[..., Array]) -> Array:
    base = d.base_dist
    kept = len(base.batch_shape) - d.reinterpreted_batch_ndims
    return draw(base, key, (*shape, *base.batch_shape[kept:]))


def transformed(d: Any, key: Key, shape: tuple[int, ...], draw: Callable[..., Array]) -> Array:
    """The base's draw through each transform in turn."""
    x = draw(d.base_dist, key, shape)
    for transform in d.transforms:
        x = transform(x)
    return x


COMPOSITES = {
    dist.ExpandedDistribution: _same,
    dist.MaskedDistribution: _same,
    dist.Independent: _independent,
    dist.TransformedDistribution: transformed,
}
