"""Elements of a batch of distributions, as another batch."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import transforms as nt

from funcvi.families.batches import Context, below, for_members, in_batch
from funcvi.families.lookup import default_bijection, signature_of
from funcvi.families.signatures import Argument, Kind
from funcvi.joints import is_joint, joint_like, members_of

__all__ = ["elements"]


def elements(d: dist.Distribution, take: Callable[[Array], Array]) -> dist.Distribution:
    """The distribution whose parameters are those of d, taken along its batch axes.

    Args:
        d: of batch shape (*batch).
        take: an array of shape (*batch, *rest), whatever the rest is, to one of shape
            (*other, *rest).

    Returns:
        One of the same class, of batch shape (*other).

    Raises:
        TypeError: what it is made of is not known by name.
        ValueError: a parameter has no batch.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> d = dist.Normal(jnp.arange(5.0), 1.0)
        >>> elements(d, lambda x: x[jnp.array([3, 1])]).loc
        Array([3., 1.], dtype=float32)
    """
    taken = cast("dist.Distribution", _elements(d, take, tuple(d.batch_shape)))
    batch = jax.eval_shape(take, jax.ShapeDtypeStruct(tuple(d.batch_shape), bool)).shape
    if taken.batch_shape != batch or taken.event_shape != d.event_shape:
        raise ValueError(
            f"of a {type(d).__name__} of batch shape {d.batch_shape} no elements can be taken: its "
            "parameters do not follow its batch."
        )
    return taken


def _elements(instance: Any, take: Callable[[Array], Array], context: Context) -> Any:
    if is_joint(instance):
        contexts = for_members(instance, context)
        members = members_of(instance)
        each = {key: _elements(x, take, contexts[key]) for key, x in members.items()}
        return joint_like(type(instance), each)
    if isinstance(instance, dist.ExpandedDistribution):
        return _elements(instance.base_dist, take, context)  # the context has its shape
    signature = signature_of(instance)
    if signature is None:
        if any(jnp.ndim(leaf) for leaf in jax.tree.leaves(instance)):
            raise TypeError(f"the parameters of {type(instance).__name__} are not known by name.")
        return instance
    arguments: dict[str, Any] = {}
    for name, argument in signature.arguments.items():
        if argument.kind is Kind.NESTED:
            child = argument.read(instance)
            arguments[name] = _elements(child, take, below(instance, argument, context))
            continue
        keyword = argument.carried.keyword if argument.carried else name
        value = argument.factor(instance)
        if argument.kind is not Kind.STATIC and value is not None:
            rank = _event_dim(argument)
            if rank is not None:
                x = jnp.asarray(value)
                value = take(in_batch(x, rank, argument, instance, context, name))
        arguments[keyword] = value
    return signature.build(**arguments)


def _event_dim(argument: Argument) -> int | None:
    """How many axes of a value are no batch; None where that is not known."""
    if argument.constraint is None and argument.bijection is None:
        return None
    try:
        bijection = default_bijection(argument)
    except NotImplementedError:  # of a boolean, as a mask
        assert argument.constraint is not None
        return argument.constraint.event_dim
    return bijection.codomain.event_dim if isinstance(bijection, nt.Transform) else 0
