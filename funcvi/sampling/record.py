"""What is known of a distribution class, in one record: how it draws, and which gradients it has.

A class of one's own brings its record along, as its attribute ``sampling_record``; those of numpyro
are in registry.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpyro.distributions as dist
from jax import Array

from funcvi._types import Key
from funcvi.sampling.points import Value
from funcvi.sampling.tails import Tails

__all__ = ["Draw", "Kind", "Record", "Shape", "Univariate", "discrete", "own_record", "unwrapped"]

Shape: TypeAlias = tuple[int, ...]

#: ``(d, key, shape) -> draws``: shape is that of all draws without the event axes, and
#: ``d.batch_shape`` broadcasts to it. The class of d is the one that the record belongs to. Draws
#: of a law whose density is singular at an edge come as a ``Point``, with their logarithms.
Draw: TypeAlias = Callable[[dist.Distribution, Key, Shape], Value]

#: A support: the real line, the half line above zero, or the unit interval.
Kind: TypeAlias = Literal["real", "positive", "unit"]


class Univariate(NamedTuple):
    """A reparameterisation: a value is made of a latent whose law no parameter changes.

    A value moves with its parameters as ``value`` does at a fixed latent, which needs no
    derivative of a distribution function and no division by a density.

    Attributes:
        kind: the support.
        latent: ``(d, x) -> z``.
        value: ``(d, z) -> x``, differentiable in d.
        tails: ``(d, z) -> (F, 1 - F)`` at x, each without cancellation.
        anchor: ``(d, z) -> z``, for a ``value`` whose derivative is implicit: z moves against it,
            so that ``value(d, anchor(d, z))`` stands still when d moves.
    """

    kind: Kind
    latent: Callable[[dist.Distribution, Array], Array]
    value: Callable[[dist.Distribution, Array], Array]
    tails: Callable[[dist.Distribution, Array], tuple[Array, Array]]
    anchor: Callable[[dist.Distribution, Array], Array] = lambda d, z: z


def _no_obstacle(d: dist.Distribution) -> str | None:
    return None


def _no_parts(d: dist.Distribution) -> Sequence[dist.Distribution]:
    return ()


@dataclass(frozen=True)
class Record:
    """What is known of one distribution class.

    Attributes:
        draw: the sampler; without one (and without ``compose``) the class's own ``sample`` draws.
        compose: the sampler of a distribution made of others: it takes ``draw`` as well, which
            draws those.
        pathwise: why the gradient of a draw would be zero, partial or missing; None if it is right.
        score: why a score-function gradient would be biased; None if it is right. Edges of the
            support that move are not meant (see ``with_fixed_support``).
        parts: the distributions that it is made of. Their obstacles and edges are its own too.
        univariate: for the components of mixtures.
        tails: of a symmetric law, for truncation.
    """

    draw: Draw | None = None
    compose: Callable[[dist.Distribution, Key, Shape, Draw], Value] | None = None
    pathwise: Callable[[dist.Distribution], str | None] = _no_obstacle
    score: Callable[[dist.Distribution], str | None] = _no_obstacle
    parts: Callable[[dist.Distribution], Sequence[dist.Distribution]] = _no_parts
    univariate: Univariate | None = None
    tails: Tails | None = None


def own_record(kind: type) -> Record | None:
    """The record that a class itself (and not a base of it) brings along."""
    record = vars(kind).get("sampling_record")
    if record is None or isinstance(record, Record):
        return record
    raise TypeError(
        f"{kind.__name__}.sampling_record must be a funcvi.sampling.Record, got "
        f"{type(record).__name__}."
    )


def discrete(d: dist.Distribution) -> str | None:
    """The obstacle of whatever has no density."""
    return f"{type(d).__name__} is discrete"


def unwrapped(
    d: dist.Distribution,
    *wrappers: type[dist.Distribution],
) -> dist.Distribution:
    """What is inside these wrappers; by default those that only change shapes.

    Example:
        >>> import numpyro.distributions as dist
        >>> type(unwrapped(dist.Normal().expand((3, 2)).to_event(1))).__name__
        'Normal'
    """
    kinds = wrappers or (dist.Independent, dist.ExpandedDistribution)
    while isinstance(d, kinds):
        d = d.base_dist
    return d
