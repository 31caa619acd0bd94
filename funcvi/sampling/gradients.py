"""Which gradients the draws of a distribution carry: the facts behind the choice of estimator.

numpyro's ``has_rsample`` is wrong in both directions: Levy and the Wishart family have right
pathwise gradients and deny it; its draws of a mixture depend on the components' parameters and not
on the weights, silently. So this asks the type, and a test compares every entry of the catalogue
with a score-function estimate.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.custom_derivatives import SymbolicZero
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt
from numpyro.distributions.discrete import ZeroInflatedLogits, ZeroInflatedProbs
from numpyro.distributions.mixtures import _MixtureBase

from funcvi.joints import is_joint, members_of
from funcvi.sampling.circular import angles_of
from funcvi.sampling.mixture import mixture_obstacle
from funcvi.sampling.truncated import truncation_obstacle

__all__ = [
    "GATED",
    "jump_obstacle",
    "members",
    "pathwise_obstacle",
    "score_obstacle",
    "support_of",
    "with_fixed_support",
]

T = TypeVar("T")

# Where a distribution keeps those that it is made of, one or a list.
_INNER = ("base_dist", "component_distribution", "marginal_dist")

_WRAPPERS = (
    dist.Independent,
    dist.ExpandedDistribution,
    dist.MaskedDistribution,
    dist.TransformedDistribution,  # and FoldedDistribution
)
GATED = (
    ZeroInflatedProbs,
    ZeroInflatedLogits,
    # New in numpyro 0.22.
    *(getattr(dist, n) for n in ("HurdleProbs", "HurdleLogits") if hasattr(dist, n)),
)
_CENSORED = (
    dist.LeftCensoredDistribution,
    dist.RightCensoredDistribution,
    dist.IntervalCensoredDistribution,
)
# Right pathwise gradients although numpyro's flag says no.
_MODEST = (
    dist.Levy,
    dist.Wishart,
    dist.WishartCholesky,
    dist.InverseWishart,
    dist.InverseWishartCholesky,
    dist.EulerMaruyama,
    dist.Delta,
    dist.TruncatedPolyaGamma,
)


def members(joint: Any) -> list[Any]:
    """The distributions of a joint, in its own order; a single distribution is a joint of one."""
    if isinstance(joint, dist.Distribution):
        return [joint]
    return [d for member in members_of(joint).values() for d in members(member)]


def pathwise_obstacle(d: Any) -> str | None:
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
    if is_joint(d):
        return next((o for m in members(d) if (o := pathwise_obstacle(m))), None)
    name = type(d).__name__
    if isinstance(d, _CENSORED):
        return f"draws of {name} do not follow its log_prob, which is a likelihood"
    if isinstance(d, dist.ImproperUniform):
        return "ImproperUniform cannot be sampled"
    if isinstance(d, dist.Unit):
        return "Unit is a factor, not a distribution"
    if isinstance(d, _MODEST):
        return None
    if isinstance(d, _WRAPPERS):
        return pathwise_obstacle(d.base_dist)
    if isinstance(d, _MixtureBase):
        return mixture_obstacle(d)
    if isinstance(d, GATED):
        return f"{name} opens its gate at random, so the gate gets no gradient"
    if d.is_discrete:
        return f"{name} is discrete"
    if isinstance(d, dist.SineSkewed) and angles_of(d.base_dist) is None:
        return f"{name} mirrors the draws of a {type(d.base_dist).__name__} at random"
    if (obstacle := truncation_obstacle(d)) is not None:
        return obstacle
    if isinstance(d, dist.GaussianCopula):
        return pathwise_obstacle(d.marginal_dist)
    if type(d).__module__.startswith("numpyro.distributions"):
        return None
    return None if d.has_rsample else f"{name}.has_rsample is False"


def jump_obstacle(q: Any, p: Any = None) -> str | None:
    """Why draws of q have no pathwise gradient for log p, although they have one on the circle.

    An angle that moves over pi comes out at -pi: a function that is not periodic jumps there, and
    no derivative along the draws sees it. ``p`` of None is a function on the line.

    Example:
        >>> import numpyro.distributions as dist
        >>> jump_obstacle(dist.VonMises(0.0, 1.0), dist.VonMises(1.0, 2.0)) is None
        True
        >>> jump_obstacle(dist.VonMises(0.0, 1.0), dist.Normal())
        'VonMises jumps at pi, where the log density of p is not periodic'
    """
    if isinstance(q, dist.TransformedDistribution) and jump_obstacle(q.base_dist):
        p = None  # the transform need not be periodic
    elif support_of(q) is not constraints.circular:
        return None
    if p is not None and support_of(p) is constraints.circular:
        return None
    return f"{type(q).__name__} jumps at pi, where the log density of p is not periodic"


def score_obstacle(d: Any) -> str | None:
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
    if is_joint(d):
        return next((o for m in members(d) if (o := score_obstacle(m))), None)
    name = type(d).__name__
    if isinstance(d, _CENSORED):
        return f"draws of {name} do not follow its log_prob, which is a likelihood"
    if isinstance(d, (dist.ImproperUniform, dist.Unit, dist.Delta)):
        return f"{name} has no normalised density"
    if isinstance(d, dist.MaskedDistribution) and d._mask is not True:
        return f"draws of {name} do not follow its log_prob, which is zero where masked"
    if isinstance(d, _WRAPPERS):
        return score_obstacle(d.base_dist)
    return None


def with_fixed_support(d: Any, values: T) -> T:
    """``values``, which must not be differentiated in anything that moves the support of d.

    The log densities of a score-function, sticking-the-landing or doubly reparameterised gradient
    go through here: those gradients are biased where an edge of the support is learned. An edge
    that is data, or held by ``jax.lax.stop_gradient``, is no obstacle.

    Args:
        d: a distribution or a joint of them.
        values: a pytree of arrays; it is returned as it is, with its own derivative.

    Raises:
        ValueError: when it is differentiated, eagerly or under jit, with respect to something that
            an edge depends on.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> def score(low):
        ...     d = dist.Uniform(low, 1.0)
        ...     return with_fixed_support(d, d.log_prob(0.5))
        >>> float(score(0.0))
        0.0
        >>> jax.grad(score)(0.0)
        Traceback (most recent call last):
            ...
        ValueError: the support of Uniform moves with its parameters, so this gradient ...
    """
    for member in members(d):
        edges = [x for x in jax.tree.leaves(_edges(member)) if _is_float(x)]
        if edges:
            values = _guarded(member, edges, values)
    return values


def _guarded(d: Any, edges: list[Any], values: T) -> T:
    @jax.custom_jvp
    def identity(values: T, edges: list[Any]) -> T:
        return values

    def rule(primals: Any, tangents: Any) -> Any:
        if any(not isinstance(t, SymbolicZero) for t in jax.tree.leaves(tangents[1])):
            raise ValueError(_moving_support(d))
        return primals[0], jax.tree.map(_tangent, primals[0], tangents[0])

    identity.defjvp(rule, symbolic_zeros=True)
    return identity(values, edges)


def _tangent(value: Any, tangent: Any) -> Any:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    return np.zeros(jnp.shape(value), tangent.dtype)


def _moving_support(d: Any) -> str:
    instead = "choose another family"
    if pathwise_obstacle(d) is None:
        instead = 'use estimator="pathwise"'
    return (
        f"the support of {type(d).__name__} moves with its parameters, so this gradient would be "
        f"biased.\nHold the edges (fv.fixed, jax.lax.stop_gradient), or {instead}."
    )


def _is_float(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


def _edges(d: dist.Distribution) -> list[Any]:
    """What the edges of the support are made of."""
    bounds = support_of(d)
    edges = [getattr(bounds, b, None) for b in ("lower_bound", "upper_bound")]
    parts = [getattr(d, name, None) for name in _INNER]
    parts += getattr(d, "component_distributions", None) or []
    for part in parts:
        if isinstance(part, dist.Distribution):
            edges += _edges(part)
    if isinstance(d, dist.TransformedDistribution):
        edges += _carried_by(d)
    return edges


def _carried_by(d: dist.TransformedDistribution) -> list[Any]:
    """The parameters of the transforms that act where the support has an edge.

    numpyro's own answer, the codomain of the last transform, forgets the edges that an affine one
    carries along.
    """
    whole = _is_whole(support_of(d.base_dist))
    parts, moving = list(d.transforms), []
    while parts:
        part = parts.pop(0)
        if isinstance(part, nt.ComposeTransform):
            parts = [*part.parts, *parts]
            continue
        if not whole and not isinstance(part, nt.PowerTransform):
            moving += jax.tree.leaves(part)
        whole = whole and _is_whole(_base(part.codomain))
    return moving


def _is_whole(constraint: Any) -> bool:
    return constraint is constraints.real


def support_of(d: dist.Distribution) -> Any:
    """The support with the wrapping into events taken off."""
    if isinstance(d, dist.Levy):
        return constraints.greater_than(d.loc)  # numpyro's own is lost when a pytree is rebuilt
    return _base(d.support)


def _base(constraint: Any) -> Any:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint
