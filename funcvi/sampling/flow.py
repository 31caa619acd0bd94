"""Which gradients the draws of a distribution carry: the facts behind the choice of estimator.

numpyro's ``has_rsample`` is wrong in both directions: Levy and the Wishart family have right
pathwise gradients and deny it; its draws of a mixture depend on the components' parameters and not
on the weights, silently. So this asks the type, and a test compares every entry of the catalogue
with a score-function estimate.
"""

from typing import Any

import jax
import numpyro.distributions as dist
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
]

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

    The identity behind it moves a derivative inside an integral, so the support must stand still
    and the density must be that of the draws.
    """
    if is_joint(d):
        return next((o for m in members(d) if (o := score_obstacle(m))), None)
    name = type(d).__name__
    if isinstance(d, _CENSORED):
        return f"draws of {name} do not follow its log_prob, which is a likelihood"
    if isinstance(d, (dist.ImproperUniform, dist.Unit, dist.Delta)):
        return f"{name} has no normalised density"
    if _moves(d):
        return f"the support of {name} moves with its parameters"
    if isinstance(d, dist.FoldedDistribution):
        return score_obstacle(d.base_dist)
    if isinstance(d, dist.MaskedDistribution) and d._mask is not True:
        return f"draws of {name} do not follow its log_prob, which is zero where masked"
    if isinstance(d, _WRAPPERS):
        if isinstance(d, dist.TransformedDistribution) and _carries_edges(d):
            return f"the support of {name} moves with the parameters of its transforms"
        return score_obstacle(d.base_dist)
    return None


def _moves(d: dist.Distribution) -> bool:
    bounds = support_of(d)
    edges = [getattr(bounds, b, None) for b in ("lower_bound", "upper_bound")]
    return _is_traced(edges)


def _carries_edges(d: dist.TransformedDistribution) -> bool:
    """Whether a learned transform acts where the support has an edge.

    numpyro's own answer, the codomain of the last transform, forgets the edges that an affine one
    carries along.
    """
    whole = _is_whole(support_of(d.base_dist))
    parts = list(d.transforms)
    while parts:
        part = parts.pop(0)
        if isinstance(part, nt.ComposeTransform):
            parts = [*part.parts, *parts]
            continue
        if not whole and _is_traced(part) and not isinstance(part, nt.PowerTransform):
            return True
        whole = whole and _is_whole(_base(part.codomain))
    return False


def _is_whole(constraint: Any) -> bool:
    return constraint is constraints.real


def _is_traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def support_of(d: dist.Distribution) -> Any:
    """The support with the wrapping into events taken off."""
    return _base(d.support)


def _base(constraint: Any) -> Any:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint
