"""Weights under the names that Bayesian layers in torch give them: ``_mu`` and ``_log_sigma``."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import ArrayLike

from funcvi._types import Params
from funcvi.families import Family
from funcvi.guides import Posterior

__all__ = ["from_mu_log_sigma"]


def from_mu_log_sigma(
    arrays: Mapping[str, ArrayLike], start: Posterior, point: tuple[str, ...]
) -> Params:
    """A network's params whose marginals these are, of the guide of ``start``.

    Raises:
        ValueError: names are missing or unknown; all are listed.
        TypeError: the marginals of this guide are not normal.
    """
    random = tuple(start.target.shapes)
    expected = [*(f"{name}{end}" for name in random for end in ("_mu", "_log_sigma")), *point]
    missing = [f"'{n}' is missing" for n in expected if n not in arrays]
    unknown = [f"'{n}' is unknown" for n in arrays if n not in expected]
    if missing or unknown:
        raise ValueError(f"from_mu_log_sigma: {'; '.join((missing + unknown)[:8])}")
    family = start.guide.family
    start.marginals()
    if not isinstance(family, Family):  # nor have blocks
        raise TypeError("from_mu_log_sigma: this guide's family has no inverse")
    loc = {n: jnp.asarray(arrays[f"{n}_mu"]) for n in random}
    scale = {n: jnp.exp(jnp.asarray(arrays[f"{n}_log_sigma"])) for n in random}
    ravel = start.target.ravel
    q: dict[str, dist.Distribution] | dist.Distribution
    if isinstance(start.unconstrained, Mapping):
        q = {n: dist.Normal(loc[n], scale[n]).to_event(loc[n].ndim) for n in loc}
    elif isinstance(start.unconstrained, dist.LowRankMultivariateNormal):
        # A factor of zero would have a gradient of zero.
        spread, factor = ravel(scale), start.unconstrained.cov_factor
        factor = 0.1 * spread[:, None] * factor / jnp.linalg.norm(factor, axis=1, keepdims=True)
        q = dist.LowRankMultivariateNormal(ravel(loc), factor, 0.99 * spread**2)
    else:
        q = dist.MultivariateNormal(ravel(loc), scale_tril=jnp.diag(ravel(scale)))
    return {
        "random": family.inverse(q),
        "point": {name: jnp.asarray(arrays[name]) for name in point},
    }
