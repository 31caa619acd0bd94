"""Full rank: one normal distribution of all coordinates."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import ArrayLike

from funcvi._types import Key
from funcvi.guides.contract import Guide, Unconstrained
from funcvi.guides.starts import guide_of, start_scales
from funcvi.programs import run
from funcvi.targets import Sites, Target

__all__ = ["full_rank"]


def full_rank(
    target: Target,
    *,
    scale: float | Mapping[str, ArrayLike] = 0.1,
    loc: Mapping[str, ArrayLike] | None = None,
) -> Guide:
    """One normal distribution of all sites on unconstrained space, with any covariance.

    Kucukelbir et al. 2017, arXiv:1603.00788.

    Args:
        target, scale, loc: see :func:`fv.mean_field`.

    Returns:
        A :class:`Guide`; its params are ``{"loc": (size,), "scale_tril": (size (size + 1) / 2,)}``,
        the second one the Cholesky factor's, in the order of ``target.ravel``.

    Raises:
        TypeError: this is no target.
        ValueError: a scale is not positive, or a shape does not fit.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: -(x["a"] - x["b"]) ** 2 - x["a"] ** 2,
        ...               supports={"a": constraints.real, "b": constraints.real})
        >>> guide = fv.full_rank(t)
        >>> guide(guide.init(jax.random.key(0))).unconstrained.covariance_matrix.shape
        (2, 2)
    """
    scales = start_scales(scale, target)

    def normal(z: Sites, scales: Sites) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(target.ravel(z), scale_tril=jnp.diag(target.ravel(scales)))

    def at(z: Sites, key: Key) -> Unconstrained:
        return run(normal, z, scales)  # one small program, where each operation would be one

    return guide_of(target, at, loc, ("full_rank", {}))
