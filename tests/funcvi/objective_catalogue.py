"""Every loss that is made from a guide, with what it is known to be.

A new objective adds one entry here; ``objectives/test_losses.py`` has the laws.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

import funcvi as fv
from funcvi.objectives import GuideLoss

__all__ = ["LOSSES", "Entry"]


class Entry(NamedTuple):
    """An objective.

    Attributes:
        make: (guide, number of draws) to the loss.
        limit: the loss at infinitely many draws, for a normal q, a normal posterior p and the log
            evidence.
        unbiased: whether its mean is that limit at any number of draws; else both value and
            gradient approach it as one over their number.
        estimators: the ones that it can be forced to use.
    """

    make: Callable[..., GuideLoss]
    limit: Callable[[dist.Normal, dist.Normal, float], Array]
    unbiased: bool = False
    estimators: tuple[str, ...] = ()


def renyi_divergence(q: dist.Normal, p: dist.Normal, alpha: float) -> Array:
    """D_alpha(q || p) of normals, Gil et al. 2013, doi:10.1016/j.ins.2013.06.018."""
    variance = (1 - alpha) * q.scale**2 + alpha * p.scale**2
    logs = jnp.log(variance) - 2 * ((1 - alpha) * jnp.log(q.scale) + alpha * jnp.log(p.scale))
    return 0.5 * alpha * (q.loc - p.loc) ** 2 / variance - logs / (2 * (alpha - 1))


def renyi(alpha: float) -> Entry:
    def make(guide: fv.Guide, num_samples: int) -> GuideLoss:
        return fv.negative_renyi_elbo(guide, alpha=alpha, num_samples=num_samples)

    return Entry(make, lambda q, p, evidence: renyi_divergence(q, p, alpha) - evidence)


LOSSES: dict[str, Entry] = {
    "negative_elbo": Entry(
        lambda guide, n, **options: fv.negative_elbo(guide, num_samples=n, **options),
        lambda q, p, evidence: dist.kl_divergence(q, p) - evidence,
        unbiased=True,
        estimators=("pathwise", "sticking_the_landing", "score_function"),
    ),
    "negative_importance_weighted_elbo": Entry(
        lambda guide, n, **options: fv.negative_importance_weighted_elbo(
            guide, num_samples=n, **options
        ),
        lambda q, p, evidence: 0 * q.loc - evidence,
        estimators=("pathwise", "doubly_reparameterised", "score_function"),
    ),
    "negative_renyi_elbo, 1/2": renyi(0.5),
    "negative_renyi_elbo, 2": renyi(2.0),
    "forward_kl": Entry(
        lambda guide, n: fv.forward_kl(guide, num_samples=n),
        lambda q, p, evidence: dist.kl_divergence(p, q),
    ),
}
