"""Which gradients the draws of a distribution carry: the facts behind the choice of estimator.

numpyro's ``has_rsample`` is wrong in both directions: Levy and the Wishart family have right
pathwise gradients and deny it; its draws of a mixture depend on the components' parameters and not
on the weights, silently. So this asks the record of each class, and a test compares every entry of
the catalogue with a score-function estimate. The answers depend on the classes alone, so they are
the same eagerly and under any transformation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.custom_derivatives import SymbolicZero
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi._jax import is_concrete
from funcvi._numpyro import GATED, Mixture
from funcvi._types import Joint, Key
from funcvi.joints import is_joint, members_of
from funcvi.sampling.dtypes import floats
from funcvi.sampling.points import Value, value_of
from funcvi.sampling.record import Record, Shape
from funcvi.sampling.registry import raw_point, record_of
from funcvi.sampling.supports import elementwise, ends_of, support_of
from funcvi.tangents import moved

__all__ = [
    "GATED",
    "covers_the_line",
    "edge_obstacle",
    "elementwise",
    "jump_obstacle",
    "members",
    "moving_edges",
    "pathwise_obstacle",
    "pathwise_point",
    "pathwise_sample",
    "refusing_second_derivatives",
    "score_obstacle",
    "support_of",
    "undifferentiable",
    "undifferentiable_twice",
    "with_fixed_support",
]

T = TypeVar("T")


def members(joint: Joint) -> list[dist.Distribution]:
    """The distributions of a joint, in its own order; a single distribution is a joint of one."""
    if not is_joint(joint):
        return [joint]
    return [d for member in members_of(joint).values() for d in members(member)]


def pathwise_obstacle(d: Joint) -> str | None:
    """Why the pathwise gradient of a draw would be zero, partial or missing; None if it is right.

    Args:
        d: a distribution or a joint of them.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> pathwise_obstacle(dist.Gamma(2.0, 1.0)) is None
        True
        >>> pathwise_obstacle(dist.Poisson(2.0))
        'Poisson is discrete'
    """
    return _obstacle(d, lambda record: record.pathwise)


def pathwise_sample(d: dist.Distribution, key: Key, sample_shape: Shape) -> Array:
    """Draws of d, of shape (*sample_shape, *batch, *event).

    Raises:
        TypeError: when they are differentiated where their pathwise gradient would not be right.
    """
    return value_of(pathwise_point(d, key, sample_shape))


def pathwise_point(d: dist.Distribution, key: Key, sample_shape: Shape) -> Value:
    """The same draws, with their logarithms where the density may need them."""
    draws = raw_point(d, key, sample_shape)
    obstacle = pathwise_obstacle(d)
    if obstacle is None:
        return refusing_second_derivatives(draws, d)
    refusal = TypeError(
        f"no right pathwise gradient: {obstacle}.\nPut it in fv.kl or fv.negative_elbo, "
        "which enumerate or use the score function;\n"
        "or draw from jax.lax.stop_gradient(distribution) for values alone."
    )
    return undifferentiable(jax.lax.stop_gradient(draws), jax.tree.leaves(d), refusal)


def jump_obstacle(q: dist.Distribution, p: dist.Distribution | None = None) -> str | None:
    """Why draws of q have no pathwise gradient for log p, although they have one on the circle.

    An angle that moves over pi comes out at -pi: a function that is not periodic jumps there, and
    no derivative along the draws sees it. A folded draw turns back at zero, where log p may be
    infinite. ``p`` of None is a function on the line. The angle may be
    anywhere in q: a component of a mixture, say, or what a transform is applied to.

    Example:
        >>> import numpyro.distributions as dist
        >>> jump_obstacle(dist.VonMises(0.0, 1.0), dist.VonMises(1.0, 2.0)) is None
        True
        >>> jump_obstacle(dist.VonMises(0.0, 1.0), dist.Normal())
        'VonMises jumps at pi, where the log density of p is not periodic'
    """
    if _turns(q):
        return f"draws of {type(q).__name__} turn back at zero"
    if not _has_angle(q):
        return None
    if p is not None and support_of(q) is support_of(p) is constraints.circular:
        return None
    return f"{type(q).__name__} jumps at pi, where the log density of p is not periodic"


def refusing_second_derivatives(draws: T, d: dist.Distribution, each: bool = False) -> T:
    """Draws of d; those whose derivative jumps raise at a second one.

    They do where they turn back at zero, and where the density that they follow jumps: there the
    speed at which they keep their quantile does. Of a mixture ``each`` component may be drawn by
    itself, and follows its own density.
    """
    if _turns(d):
        why, instead = "turn back at zero", ", or a family that is positive by itself"
    elif not each and edge_obstacle(d) is not None:
        why, instead = "change their speed where a component ends", ', or "enumeration"'
    else:
        return draws
    refusal = ValueError(
        f"draws of {type(d).__name__} {why}, so this second derivative would be biased:\n"
        f'use estimator="score_function", first derivatives alone{instead}.'
    )
    return undifferentiable_twice(draws, floats(d), refusal)


def _has_angle(d: dist.Distribution) -> bool:
    return support_of(d) is constraints.circular or any(map(_has_angle, record_of(d).parts(d)))


def _turns(d: dist.Distribution) -> bool:
    transforms = _in_turn(d.transforms) if isinstance(d, dist.TransformedDistribution) else []
    folds = any(isinstance(t, nt.AbsTransform) for t in transforms)
    return folds or any(map(_turns, record_of(d).parts(d)))


def edge_obstacle(d: dist.Distribution) -> str | None:
    """Why the log density of d jumps inside its support, where no pathwise gradient sees it.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> halves = dist.MixtureGeneral(
        ...     dist.Categorical(jnp.array([0.5, 0.5])), [dist.Normal(), dist.HalfNormal()],
        ...     support=dist.constraints.real)
        >>> edge_obstacle(halves)
        'the log density of MixtureGeneral jumps at the edge of a component'
    """
    if isinstance(d, Mixture) and _jumps_inside(d):
        return f"the log density of {type(d).__name__} jumps at the edge of a component"
    if isinstance(d, dist.FoldedDistribution) and _ends_behind_the_fold(d):
        return f"the log density of {type(d).__name__} jumps where one of its halves ends"
    return next(filter(None, map(edge_obstacle, record_of(d).parts(d))), None)


def _jumps_inside(d: dist.Distribution) -> bool:
    """Whether the components of a mixture may end in different places."""
    if isinstance(d, dist.MixtureSameFamily):
        axis = -1 - d.event_dim  # of the components
        edges = (jnp.shape(edge) for edge in moving_edges(d.component_distribution))
        return any(len(shape) >= -axis and shape[axis] > 1 for shape in edges)
    components = d.component_distributions
    supports = [support_of(c) for c in components]
    if any(s is not supports[0] for s in supports):
        return True
    # numpyro calls the support of an affine image the line, whatever it is the image of.
    return _is_whole(supports[0]) and not all(map(covers_the_line, components))


def _ends_behind_the_fold(d: dist.FoldedDistribution) -> bool:
    """Whether the two halves that are laid over one another may end in different places."""
    inner = d.base_dist
    if d.transforms[:-1]:
        inner = dist.TransformedDistribution(inner, d.transforms[:-1], validate_args=False)
    if covers_the_line(inner):
        return False
    ends = ends_of(inner)
    if ends is None or not is_concrete((ends.low, ends.high)):
        return True
    low, high = np.asarray(ends.low), np.asarray(ends.high)
    return not bool(np.all((low >= 0) | (high <= 0) | (low == -high)))


def moving_edges(d: dist.Distribution) -> list[Array]:
    """The arrays that the edges of the support are made of."""
    return floats(_edges(d))


def score_obstacle(d: Joint) -> str | None:
    """Why a score-function gradient would be biased or undefined; None if it is right.

    The identity behind it moves a derivative inside an integral, so the density must be that of the
    draws, and the support must stand still. Whether it does depends on what is differentiated:
    ``with_fixed_support`` asks that where it is known.

    Args:
        d: a distribution or a joint of them.

    Example:
        >>> import numpyro.distributions as dist
        >>> score_obstacle(dist.Poisson(2.0)) is None
        True
        >>> score_obstacle(dist.Delta(0.0))
        'Delta has no normalised density'
    """
    return _obstacle(d, lambda record: record.score)


def _obstacle(
    d: Joint, of: Callable[[Record], Callable[[dist.Distribution], str | None]]
) -> str | None:
    """The first obstacle of a distribution, of its parts, of theirs, and so on."""
    for member in members(d):
        record = record_of(member)
        obstacle = of(record)(member) or _obstacle(list(record.parts(member)), of)
        if obstacle is not None:
            return obstacle
    return None


def with_fixed_support(d: Joint, values: T) -> T:
    """``values``, which must not be differentiated in anything that moves the support of d.

    The log densities of a score-function, sticking-the-landing or doubly reparameterised gradient
    go through here: those gradients are biased where an edge of the support is learned. An edge
    that is data, or inside ``jax.lax.stop_gradient``, is no obstacle.

    Args:
        d: a distribution or a joint of them.
        values: a pytree of arrays; it is returned as it is, with its own derivative.

    Raises:
        ValueError: when it is differentiated, eagerly or under jit, with respect to something that
            an edge depends on.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> def score(low):
        ...     d = dist.Uniform(low, 2.0)
        ...     return with_fixed_support(d, d.log_prob(jax.numpy.array(0.5)))
        >>> round(float(score(0.0)), 4)
        -0.6931
        >>> jax.grad(score)(0.0)
        Traceback (most recent call last):
            ...
        ValueError: the support of Uniform moves with its parameters, so this gradient ...
    """
    for member in members(d):
        edges = moving_edges(member)
        if edges:
            values = undifferentiable(values, edges, ValueError(_moving_support(member)))
    return values


def undifferentiable(values: T, leaves: list[Array], refusal: Exception) -> T:
    """``values``, raising ``refusal`` when they are differentiated with respect to ``leaves``."""

    return moved(_Refusal(refusal), values, leaves)


@dataclass(frozen=True)
class _Refusal:
    """The rule that raises where what it must not depend on moves."""

    refusal: Exception

    def __call__(self, primals: Any, tangents: Any) -> Any:
        if any(not isinstance(t, SymbolicZero) for t in jax.tree.leaves(tangents[1])):
            raise self.refusal
        return tangents[0]


def undifferentiable_twice(values: T, leaves: list[Array], refusal: Exception) -> T:
    """``values``, raising ``refusal`` at a second derivative with respect to ``leaves``."""

    return moved(_RefusalLater(refusal), values, leaves)


@dataclass(frozen=True)
class _RefusalLater:
    """The same, at the next derivative."""

    refusal: Exception

    def __call__(self, primals: Any, tangents: Any) -> Any:
        one = undifferentiable(jnp.ones(()), primals[1], self.refusal)

        def slope(tangent: Any) -> Any:
            return (
                tangent
                if isinstance(tangent, SymbolicZero)
                else tangent * one.astype(tangent.dtype)
            )

        return jax.tree.map(slope, tangents[0])


def _moving_support(d: dist.Distribution) -> str:
    instead = "choose another family"
    if pathwise_obstacle(d) is None and edge_obstacle(d) is None:
        instead = 'use estimator="pathwise"'
    return (
        f"the support of {type(d).__name__} moves with its parameters, so this gradient would be "
        f"biased.\nFix the edges (fv.fixed, jax.lax.stop_gradient), or {instead}."
    )


def _edges(d: dist.Distribution) -> list[Any]:
    """What the edges of the support are made of."""
    bounds = support_of(d)
    edges = [getattr(bounds, b, None) for b in ("lower_bound", "upper_bound")]
    for part in record_of(d).parts(d):
        edges += _edges(part)
    if isinstance(d, dist.TransformedDistribution):
        edges += _moved_along(d)
    return edges


def _moved_along(d: dist.TransformedDistribution) -> list[Any]:
    """The parameters of the transforms that act where the support has an edge.

    numpyro's own answer, the codomain of the last transform, forgets the edges that an affine one
    carries along.
    """
    whole = _is_whole(support_of(d.base_dist))
    moving = []
    for part in _in_turn(d.transforms):
        if not whole and not isinstance(part, nt.PowerTransform):
            moving += jax.tree.leaves(part)
        whole = whole and _is_whole(elementwise(part.codomain))
    return moving


def covers_the_line(d: dist.Distribution) -> bool:
    """Whether the density of d is positive on the whole real space of its event shape.

    Example:
        >>> import numpyro.distributions as dist
        >>> from numpyro.distributions import transforms
        >>> gamma = dist.Gamma(2.0, 1.0)
        >>> covers_the_line(dist.Normal()), covers_the_line(gamma)
        (True, False)
        >>> covers_the_line(dist.TransformedDistribution(gamma, transforms.AffineTransform(0, 1)))
        False
        >>> covers_the_line(dist.TransformedDistribution(gamma, transforms.ExpTransform().inv))
        True
    """
    if isinstance(d, GATED) or not _is_whole(support_of(d)):
        return False
    if isinstance(d, dist.MixtureGeneral):
        return any(map(covers_the_line, d.component_distributions))
    if not isinstance(d, dist.TransformedDistribution):
        return all(map(covers_the_line, record_of(d).parts(d)))
    here, whole = support_of(d.base_dist), covers_the_line(d.base_dist)
    for part in _in_turn(d.transforms):
        domain, codomain = elementwise(part.domain), elementwise(part.codomain)
        onto = whole if _is_whole(domain) else type(here) is type(domain)
        here, whole = codomain, onto and _is_whole(codomain)
    return whole


def _in_turn(transforms: list[nt.Transform]) -> list[nt.Transform]:
    """The transforms one after the other, none of them composed of others."""
    return [
        single
        for t in transforms
        for single in (_in_turn(t.parts) if isinstance(t, nt.ComposeTransform) else [t])
    ]


def _is_whole(constraint: Any) -> bool:
    return constraint is constraints.real
