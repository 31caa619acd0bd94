"""KL from the target to a guide, which covers the target where KL(q || p) seeks one mode."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from funcvi.guides import Guide
from funcvi.objectives.draws import Draws
from funcvi.objectives.of_guides import GuideLoss

__all__ = ["forward_kl"]


def _forward_kl(d: Draws) -> Array:
    log_weight = stop_gradient(d.log_p - d.log_q)
    log_evidence = jax.nn.logsumexp(log_weight) - jnp.log(len(log_weight))
    weight = jax.nn.softmax(log_weight)
    # A draw outside the target counts for nothing, and is infinitely far from it.
    terms = jnp.where(weight > 0, weight * (log_weight - d.score), 0)
    return jnp.sum(terms) - log_evidence


def forward_kl(guide: Guide, *, num_samples: int) -> GuideLoss:
    r"""KL(p || q) in nats, from the target to the guide, by self-normalised importance weights.

    .. math:: \sum_k w_k \log \frac{p(z_k, x)}{q(z_k)} - \log \frac{1}{K} \sum_k
        \frac{p(z_k, x)}{q(z_k)}, \quad w_k \propto \frac{p(z_k, x)}{q(z_k)}, \quad z_k \sim q

    Its gradient is the wake phase of reweighted wake-sleep (Bornschein and Bengio 2015,
    arXiv:1406.2751), ``-sum_k w_k grad log q(z_k)``. Value and gradient are consistent, with a bias
    that falls as 1 / K: start from a guide that is wider than the target, and take many draws.

    Args:
        guide: a family of posteriors over its target; any that has a log density on a fixed
            support, discrete ones too.
        num_samples: K, draws at each evaluation; at least 2.

    Returns:
        ``loss(params, key) -> scalar``, a value that is equal to another with the same fields.

    Raises:
        TypeError: ``guide`` is not a guide.
        ValueError: K is below 2, the support of the guide moves with its params, the target's log
            density is random (a subsampling plate), or has point parameters.

    Example:
        >>> import funcvi as fv, jax, numpyro.distributions as dist
        >>> t = fv.target(lambda v: -(v["x"] ** 2), supports={"x": dist.constraints.real})
        >>> guide, key = fv.mean_field(t, scale=2.0), jax.random.key(0)
        >>> loss = fv.forward_kl(guide, num_samples=64)
        >>> loss(guide.init(key), key).shape
        ()
    """
    loss = GuideLoss(guide, _forward_kl, num_samples, None, ("score_function",), "fv.forward_kl")
    guide.target.check_known("fv.forward_kl")  # its gradient is that of log q alone
    return loss
