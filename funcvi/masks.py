"""Masks: what they cover counts for nothing in a divergence, and is drawn like the rest."""

from typing import Any, TypeVar

import jax
import numpyro.distributions as dist
from jax import Array

from funcvi._numpyro import mask_of

T = TypeVar("T")

__all__ = ["masked", "outer_masks", "without_masks"]


def masked(d: object) -> bool:
    """Whether a mask hides anything, at any depth."""
    leaves = jax.tree.leaves(d, is_leaf=_hides)
    return any(_hides(leaf) for leaf in leaves)


def _hides(d: object) -> bool:
    return isinstance(d, dist.MaskedDistribution) and mask_of(d) is not True


def outer_masks(d: dist.Distribution) -> tuple[dist.Distribution, list[Array | bool]]:
    """A distribution without its outermost masks, and those masks."""
    if isinstance(d, dist.MaskedDistribution):
        bare, masks = outer_masks(d.base_dist)
        return bare, [mask_of(d), *masks]
    if isinstance(d, dist.ExpandedDistribution):
        bare, masks = outer_masks(d.base_dist)
        if masks:
            return bare.expand(d.batch_shape), masks
    return d, []


def without_masks(q: T) -> T:
    """The same joint with nothing masked, so that its log density is that of its draws."""

    def bare(d: dist.Distribution) -> Any:
        return jax.tree.map(lambda x: bare(x.base_dist) if _hides(x) else x, d, is_leaf=_hides)

    return bare(q) if masked(q) else q
