"""Which batch each parameter belongs to: what a batch shape shows is what is learned.

Walking a distribution, each node has a *context*: for a distribution its batch shape, as the
outermost ``expand`` makes it; for a transform the shape of what it is applied to.
"""

from collections.abc import Hashable, Mapping
from typing import TypeAlias

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import transforms as nt

from funcvi._numpyro import InverseTransform
from funcvi.families.signatures import Argument, Instance, Shape
from funcvi.joints import members_of

__all__ = ["Context", "batch_of", "below", "for_members", "in_batch"]

#: None where nothing is known: a transform outside any distribution.
Context: TypeAlias = Shape | None


def batch_of(instance: Instance, context: Context) -> Context:
    """The batch shape that the parameters of ``instance`` belong to."""
    if isinstance(instance, dist.Distribution):
        return tuple(instance.batch_shape) if context is None else context
    return None if context is None else context[: len(context) - instance.domain.event_dim]


def below(instance: Instance, argument: Argument, context: Context) -> Context:
    """The context of a nested argument of ``instance``."""
    if context is None and isinstance(instance, nt.Transform):
        return None
    if isinstance(instance, nt.Transform):
        is_inverse = isinstance(instance, InverseTransform)
        return tuple(instance.forward_shape(context)) if is_inverse else context
    batch = batch_of(instance, context) or ()
    child = argument.read(instance)
    if isinstance(instance, dist.TransformedDistribution) and not isinstance(
        child, dist.Distribution
    ):
        return (*batch, *instance.base_dist.event_shape)
    axes = argument.inner_axes(instance) if argument.inner_axes is not None else ()
    return (*batch, *axes)


def for_members(joint: object, context: Context) -> Mapping[Hashable, Context]:
    """The context of each member: transforms are applied one after the other."""
    contexts: dict[Hashable, Context] = {}
    for key, member in members_of(joint).items():
        contexts[key] = context
        if isinstance(member, nt.Transform) and context is not None:
            context = tuple(member.forward_shape(context))
    return contexts


def in_batch(
    value: Array,
    event_dim: int,
    argument: Argument,
    instance: Instance,
    context: Context,
    name: str,
) -> Array:
    """``value`` broadcast to (*batch, *event): one for each element of its batch.

    Raises:
        ValueError: the value has batch axes that the distribution does not know of.
    """
    batch = batch_of(instance, context)
    if batch is None or not argument.batched:
        return value
    rank = min(event_dim, value.ndim)
    own = batch
    if isinstance(instance, dist.Distribution):
        own = tuple(instance.batch_shape)
        # An event axis that the constraint does not declare: a Delta's, or a subclass's.
        undeclared = min(value.ndim - rank - len(own), instance.event_dim - rank)
        rank += max(undeclared, 0)
    while value.ndim - rank > len(own) and value.shape[0] == 1:
        value = value[0]  # numpyro pads an argument to the rank of its siblings
    shape = value.shape[: value.ndim - rank]
    if len(shape) > len(own) or any(
        a not in (1, b) for a, b in zip(reversed(shape), reversed(own), strict=False)
    ):
        raise ValueError(
            f"{name} has batch shape {shape}, but its {type(instance).__name__} says {own}: a "
            "distribution that jax.vmap returns keeps the batch shape of one element. Return "
            "params from vmap, or numbers."
        )
    return jnp.broadcast_to(value, (*batch, *value.shape[value.ndim - rank :]))
