"""The data of a target made inside a transformation: what its posteriors take out with them.

A posterior knows its target. Where that was made of traced arrays, inside ``jax.vmap`` or
``jax.jit``, it ends with the transformation; the posterior that comes out has the arrays, and makes
the target again.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from funcvi._jax import is_concrete
from funcvi.targets.of_model import from_model
from funcvi.targets.record import Target

__all__ = ["batch_axes", "traced_data", "with_data"]


def traced_data(target: Target) -> tuple[Array, ...]:
    """Of the arguments of a target's model those that are traced, none if it has points."""
    if target.call is None or target.points or target.given:
        return ()
    leaves = jax.tree.leaves((target.call.args, target.call.kwargs))
    return tuple(x for x in leaves if not is_concrete(x))


def batch_axes(target: Target, data: Sequence[Array]) -> int:
    """How many leading axes ``data`` has more than the target was made of."""
    before = traced_data(target)
    counts = {jnp.ndim(x) - jnp.ndim(b) for x, b in zip(data, before, strict=True)}
    shapes = [(jnp.shape(x), jnp.shape(b)) for x, b in zip(data, before, strict=True)]
    if len(counts) > 1 or any(x[len(x) - len(b) :] != b for x, b in shapes):
        raise ValueError(
            f"the data of this posterior have the shapes {[x for x, _ in shapes]}, and its target "
            f"was made of {[b for _, b in shapes]}: map all of a batch of posteriors, not some."
        )
    return counts.pop() if counts else 0


def with_data(target: Target, data: Sequence[Array]) -> Target:
    """The target of the same model at other data, in place of those that are traced.

    Raises:
        ValueError: the data are those of a batch, or have other shapes.
    """
    before = traced_data(target)
    if not data or all(x is b for x, b in zip(data, before, strict=True)):
        return target
    if axes := batch_axes(target, data):
        raise ValueError(
            f"this is a batch of posteriors ({axes} leading axes), each with data of its own, and "
            "no single target: take one, jax.tree.map(lambda x: x[0], posterior), or jax.vmap a "
            "function of one over the batch."
        )
    assert target.call is not None
    left = list(data)
    args, kwargs = jax.tree.map(
        lambda x: x if is_concrete(x) else left.pop(0), (target.call.args, target.call.kwargs)
    )
    return from_model(target.call.model, args, kwargs)
