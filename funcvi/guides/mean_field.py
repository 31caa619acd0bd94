"""Mean field: independent normals, one for each coordinate."""

from collections.abc import Mapping

import numpyro.distributions as dist
from jax.typing import ArrayLike

from funcvi._types import Key
from funcvi.guides.contract import Guide, Unconstrained
from funcvi.guides.starts import guide_of, start_scales
from funcvi.targets import Sites, Target

__all__ = ["mean_field"]


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

    return guide_of(target, at, loc, ("mean_field", {}))
