"""Low rank: a normal distribution whose covariance is a diagonal and a few directions."""

from collections.abc import Mapping

import jax
import numpyro.distributions as dist
from jax.typing import ArrayLike

from funcvi._checks import check_count
from funcvi._types import Key
from funcvi.guides.contract import Guide, Unconstrained
from funcvi.guides.starts import guide_of, start_scales
from funcvi.targets import Sites, Target

__all__ = ["low_rank"]


def low_rank(
    target: Target,
    *,
    rank: int,
    scale: float | Mapping[str, ArrayLike] = 0.1,
    loc: Mapping[str, ArrayLike] | None = None,
) -> Guide:
    r"""A normal distribution of all sites on unconstrained space with covariance :math:`D + UU^T`.

    :math:`D` is diagonal and :math:`U` has ``rank`` columns, so it has size (rank + 2) parameters
    (Ong et al. 2018, arXiv:1701.03208). At the start :math:`U` is random and a tenth of ``scale``:
    at zero its gradient would be zero for good.

    Args:
        target, scale, loc: see :func:`fv.mean_field`.
        rank: number of columns; from ``target.size`` on the guide is as rich as a full-rank one.

    Returns:
        A :class:`Guide`; its params are ``{"loc": (size,), "cov_factor": (size, rank),
        "cov_diag": (size,)}``, in the order of ``target.ravel``.

    Raises:
        TypeError: this is no target.
        ValueError: the rank is no positive integer, a scale is not positive, or a shape does not
            fit.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: -(x["a"] ** 2).sum(), supports={"a": (constraints.real, (5,))})
        >>> guide = fv.low_rank(t, rank=2)
        >>> guide.init(jax.random.key(0))["cov_factor"].shape
        (5, 2)
    """
    check_count(rank, "rank")
    scales = start_scales(scale, target)

    def at(z: Sites, key: Key) -> Unconstrained:
        spread = target.ravel(scales)
        noise = jax.random.normal(key, (target.size, rank), spread.dtype)
        factor = 0.1 * spread[:, None] * noise
        return dist.LowRankMultivariateNormal(target.ravel(z), factor, spread**2)

    return guide_of(target, at, loc, ("low_rank", {"rank": rank}))
