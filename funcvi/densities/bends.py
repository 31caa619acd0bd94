"""Log densities that bend, whose second derivative no draw sees.

That of a Laplace law has a corner at its location, where the second derivative of a mean has a
term that a second derivative along draws, or of the score, is zero for: of
``KL(Normal(m, 1) || Laplace(0, 1))`` all of it. The first derivative is right.
"""

from typing import Any

import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import transforms as nt

from funcvi.sampling.dtypes import floats
from funcvi.sampling.gradients import undifferentiable_twice
from funcvi.sampling.registry import record_of

__all__ = ["bends", "bends_along_draws", "once_differentiable"]

_BENT = (dist.Laplace, dist.AsymmetricLaplace, dist.AsymmetricLaplaceQuantile)
_WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)


def bends(d: dist.Distribution) -> bool:
    """Whether the log density of d has a corner inside its support.

    Example:
        >>> import numpyro.distributions as dist
        >>> bends(dist.Normal()), bends(dist.Laplace().expand((3,)))
        (False, True)
    """
    return isinstance(d, _BENT) or any(map(bends, record_of(d).parts(d)))


def bends_along_draws(d: dist.Distribution) -> bool:
    """Whether pathwise draws of d cross such a corner: those of a Laplace law move with it."""
    bare = d
    while isinstance(bare, (*_WRAPPERS, dist.TransformedDistribution)):
        if any(isinstance(t, nt.AbsTransform) for t in getattr(bare, "transforms", [])):
            return bends(d)
        bare = bare.base_dist
    return bends(d) and type(bare) is not dist.Laplace


def once_differentiable(name: str, log_density: Array, at: Any) -> Array:
    """``log_density``, which raises when it is differentiated twice.

    Args:
        name: of the distribution that it is of.
        log_density: any shape.
        at: what it depends on, a pytree.

    Raises:
        ValueError: at a second derivative in ``at``, eagerly or under jit.
    """
    refusal = ValueError(
        f"the log density of {name} bends, so this second derivative would be biased:\n"
        "use first derivatives alone, or a smooth law (SoftLaplace for Laplace)."
    )
    return undifferentiable_twice(log_density, floats(at), refusal)
