"""Params of one distribution, stacked into the params of a batch of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import transforms as nt

from funcvi.families.slots import Free, JointNode, Node

__all__ = ["add_batch_axis", "stack"]


def stack(family: Any, distribution: Any, many: list[Any]) -> Any:
    """``many`` params along a new leading batch axis.

    A leaf that broadcasts against its siblings, as a scalar scale does against a vector of locs,
    needs axes of size one between the new axis and its own.
    """
    aligned = [add_batch_axis(family._root, distribution, p) for p in many]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *aligned)


def add_batch_axis(node: Any, instance: Any, params: Any, rank: int | None = None) -> Any:
    if isinstance(node, JointNode):
        keys = list(node.members)
        items = dict(zip(keys, instance.values() if node.kind is dict else instance, strict=True))
        made = {k: add_batch_axis(node.members[k], items[k], params[k]) for k in keys}
        if node.kind is dict:
            return made
        return (
            type(params)(*made.values()) if hasattr(params, "_fields") else node.kind(made.values())
        )
    if not isinstance(node, Node):
        return params
    if rank is None:
        rank = len(instance.batch_shape)
    if node.recipe.transparent is not None:
        inner = rank + getattr(instance, "reinterpreted_batch_ndims", 0)
        name = node.recipe.transparent
        return add_batch_axis(node.slots[name], instance.base_dist, params, inner)
    made = {}
    for name, leaf in params.items():
        slot = node.slots[name]
        if isinstance(slot, Free):
            made[name] = _padded(leaf, slot, rank)
        else:
            child = node.recipe.parameters[name].read(instance)
            made[name] = _below(slot, instance, child, leaf, rank)
    return made


def _below(slot: Any, instance: Any, child: Any, params: Any, rank: int) -> Any:
    if isinstance(instance, dist.TransformedDistribution) and not isinstance(
        child, dist.Distribution
    ):
        return _transforms(slot, child, params, rank + len(instance.base_dist.event_shape))
    if isinstance(child, list):
        parts = zip(slot.members.values(), child, params, strict=True)
        return [add_batch_axis(n, d, p, rank) for n, d, p in parts]
    if child is getattr(instance, "component_distribution", None) or isinstance(
        instance, dist.GaussianCopula
    ):
        rank += 1
    return add_batch_axis(slot, child, params, rank)


def _transforms(slot: Any, child: Any, params: Any, rank: int) -> Any:
    """Transforms pad to the rank of a draw, less their own event dimensions."""
    if isinstance(slot, JointNode):
        parts = zip(slot.members.values(), child, params, strict=True)
        return [_transforms(n, t, p, rank) for n, t, p in parts]
    if not isinstance(slot, Node):
        return params
    made = {}
    for name, leaf in params.items():
        inner = slot.slots[name]
        if isinstance(inner, Free):
            made[name] = _padded(leaf, inner, rank - child.domain.event_dim)
        else:
            made[name] = _transforms(inner, slot.recipe.parameters[name].read(child), leaf, rank)
    return made


def _padded(leaf: Any, slot: Free, rank: int) -> Any:
    event = slot.bijection.domain.event_dim if isinstance(slot.bijection, nt.Transform) else 0
    missing = rank - (leaf.ndim - event)
    return jnp.reshape(leaf, (1, *[1] * missing, *leaf.shape))
