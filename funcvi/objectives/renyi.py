"""Rényi's bound: the ELBO, the importance-weighted bound, and what lies between and beyond."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from funcvi.guides import Guide
from funcvi.objectives.draws import Draws, bound
from funcvi.objectives.of_guides import GuideLoss

__all__ = ["negative_renyi_elbo"]


@dataclass(frozen=True)
class _NegativeRenyi:
    alpha: float

    def __call__(self, d: Draws) -> Array:
        return -bound(d, self._power_mean)

    def _power_mean(self, log_weight: Array) -> Array:
        power = 1 - self.alpha
        if power == 0:
            return jnp.mean(log_weight, axis=0)
        most = jnp.max if power > 0 else jnp.min
        top = stop_gradient(most(log_weight, axis=0))
        # With expm1 and log1p nothing cancels, however small the power.
        return top + jnp.log1p(jnp.mean(jnp.expm1(power * (log_weight - top)), axis=0)) / power


def negative_renyi_elbo(guide: Guide, *, alpha: float, num_samples: int) -> GuideLoss:
    r"""Minus the variational Rényi bound, in nats (Li and Turner 2016, arXiv:1602.02311).

    .. math:: \frac{1}{1 - \alpha} \log \frac{1}{K} \sum_{k=1}^K
        \Big(\frac{p(z_k, x)}{q(z_k)}\Big)^{1 - \alpha}, \quad z_k \sim q

    alpha = 1 is the ELBO, alpha = 0 the importance-weighted bound; it falls as alpha grows. Its
    mean over K draws is below the limit for alpha < 1 and above it for alpha > 1, by O(1 / K).

    Args:
        guide: a family of posteriors over its target.
        alpha: finite; small to cover the target's mass, large to seek a mode.
        num_samples: K, draws at each evaluation.

    Returns, Raises:
        As :func:`fv.negative_elbo`, or ValueError: alpha is not finite, or is not 1 and the
        target's log density is random (a subsampling plate).

    Example:
        >>> import funcvi as fv, jax, numpyro.distributions as dist
        >>> t = fv.target(lambda v: -(v["x"] ** 2), supports={"x": dist.constraints.real})
        >>> guide, key = fv.mean_field(t), jax.random.key(0)
        >>> fv.negative_renyi_elbo(guide, alpha=0.5, num_samples=4)(guide.init(key), key).shape
        ()
    """
    if not jnp.isfinite(alpha):
        raise ValueError(f"alpha must be a finite number, got {alpha!r}.")
    allowed = ("pathwise", "score_function")
    reader = None if alpha == 1 else "fv.negative_renyi_elbo"
    return GuideLoss(guide, _NegativeRenyi(alpha), num_samples, None, allowed, reader)
