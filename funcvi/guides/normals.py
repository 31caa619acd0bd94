"""Normal guides: independent entries, any covariance, and a diagonal with a few directions."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import ArrayLike

from funcvi._types import Key
from funcvi.guides.contract import Guide, Unconstrained
from funcvi.guides.starts import guide_of, start_scales
from funcvi.targets import Sites, Target

__all__ = ["full_rank", "low_rank", "mean_field"]


def mean_field(
    target: Target,
    *,
    scale: float | Mapping[str, ArrayLike] = 0.1,
    loc: Mapping[str, ArrayLike] | None = None,
) -> Guide:
    """Independent normals on unconstrained space, one for each coordinate.

    Kucukelbir et al. 2017, arXiv:1603.00788.

    Args:
        target: made by :func:`fv.target`.
        scale: standard deviation to start from; or one for each site, of its unconstrained shape.
        loc: unconstrained sites to start from; by default ``target.start(key)``.

    Returns:
        A :class:`Guide`; its params are ``{site: {"loc": ..., "scale": ...}}``, each of the site's
        unconstrained shape.

    Raises:
        TypeError: this is no target.
        ValueError: a scale is not positive, or a shape does not fit.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: dist.Gamma(2.0, 1.0).log_prob(x["a"]),
        ...               supports={"a": constraints.positive})
        >>> guide = fv.mean_field(t)
        >>> sorted(guide.init(jax.random.key(0))["a"])
        ['loc', 'scale']
    """
    scales = start_scales(scale, target)

    def at(z: Sites, key: Key) -> Unconstrained:
        return {n: dist.Normal(x, scales[n]).to_event(x.ndim) for n, x in z.items()}

    return guide_of(target, at, loc)


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

    def at(z: Sites, key: Key) -> Unconstrained:
        return dist.MultivariateNormal(target.ravel(z), scale_tril=jnp.diag(target.ravel(scales)))

    return guide_of(target, at, loc)


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
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank must be a positive integer, got {rank!r}.")
    scales = start_scales(scale, target)

    def at(z: Sites, key: Key) -> Unconstrained:
        spread = target.ravel(scales)
        noise = jax.random.normal(key, (target.size, rank), spread.dtype)
        factor = 0.1 * spread[:, None] * noise
        return dist.LowRankMultivariateNormal(target.ravel(z), factor, spread**2)

    return guide_of(target, at, loc)
