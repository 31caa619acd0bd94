"""A mixture of normal distributions: several modes, or one that is no ellipse."""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import ArrayLike

from funcvi._checks import check_count, check_option
from funcvi._types import Key
from funcvi.guides.contract import Guide, Unconstrained
from funcvi.guides.starts import guide_of, start_scales
from funcvi.programs import run
from funcvi.targets import Sites, Target

__all__ = ["mixture"]


def mixture(
    target: Target,
    *,
    num_components: int,
    covariance: Literal["full", "diagonal"] = "full",
    scale: float | Mapping[str, ArrayLike] = 0.5,
    loc: Mapping[str, ArrayLike] | None = None,
) -> Guide:
    r"""A mixture of normal distributions of all sites on unconstrained space.

    .. math:: q(z) = \sum_k w_k\, \mathcal N(z; \mu_k, \Sigma_k)

    Each component starts at a start of its own, all with the same weight. ``fv.negative_elbo`` sums
    over the components, with ``num_samples`` draws from each: the weights' gradient is then the
    difference of the components' terms, and no draw crosses the gap between two modes. This is the
    stratified bound of Morningstar et al. 2021, arXiv:2003.01687. Draws themselves have implicit
    gradients (Figurnov et al. 2018, arXiv:1805.08498; Graves 2016, arXiv:1607.05690).

    Args:
        target: made by :func:`fv.target`.
        num_components: of the mixture.
        covariance: "full", or "diagonal" for components of independent coordinates.
        scale: see :func:`fv.mean_field`; wider here, for narrow components climb to one mode more
            often.
        loc: unconstrained sites to start from, each of shape (num_components, *site); by default
            ``target.start(key, (num_components,))``. The components are put one standard
            deviation apart from there, at random.

    Returns:
        A :class:`Guide`; its params are ``{"mixing_distribution": {"logits": (num_components,)},
        "component_distribution": {"loc": ..., "scale_tril": ...}}``, the last with a leading axis
        of components.

    Raises:
        TypeError: this is no target.
        ValueError: ``num_components`` is not a positive integer, a scale is not positive, or a
            shape does not fit; numpyro before 0.22 takes no "diagonal".

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: jnp.logaddexp(-(x["a"] - 3) ** 2, -(x["a"] + 3) ** 2),
        ...               supports={"a": constraints.real})
        >>> guide = fv.mixture(t, num_components=2)
        >>> guide(guide.init(jax.random.key(0))).unconstrained.mixture_size
        2
    """
    check_count(num_components, "num_components")
    check_option(covariance, "covariance", ("full", "diagonal"))
    scales = start_scales(scale, target)

    def components(z: Sites, scales: Sites, key: Key) -> Unconstrained:
        spread = target.ravel(scales)
        places = target.ravel(z)
        # Two of one place would stay together: their gradients are the same.
        places = places + spread * jax.random.normal(key, places.shape, spread.dtype)
        if covariance == "diagonal":
            each = dist.Normal(places, spread).to_event(1)
        else:
            each = dist.MultivariateNormal(places, scale_tril=jnp.diag(spread))
        weights = dist.Categorical(logits=jnp.zeros(num_components))
        try:
            return dist.MixtureSameFamily(weights, each)
        except AssertionError as error:  # that the components are Independent
            raise ValueError(
                'covariance="diagonal" needs numpyro 0.22 or newer: upgrade it, or take "full".'
            ) from error

    def at(z: Sites, key: Key) -> Unconstrained:
        return run(components, z, scales, key)

    recipe = "mixture", {"num_components": num_components, "covariance": covariance}
    return guide_of(target, at, loc, recipe, (num_components,))
