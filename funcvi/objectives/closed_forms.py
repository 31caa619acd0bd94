"""KL divergences that numpyro has a formula for, with its three faults mended."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions.kl import kl_divergence

__all__ = ["closed_form"]

_CATEGORICAL = (dist.CategoricalProbs, dist.CategoricalLogits)


def closed_form(q: dist.Distribution, p: dist.Distribution) -> Array | None:
    """KL(q || p) for each batch element, or None where there is no right formula."""
    bare = q.base_dist if isinstance(q, dist.ExpandedDistribution) else q
    if isinstance(bare, dist.Kumaraswamy):
        return None  # numpyro truncates an infinite sum there, which biases the gradient
    other = p.base_dist if isinstance(p, dist.ExpandedDistribution) else p
    if isinstance(bare, _CATEGORICAL) and isinstance(other, _CATEGORICAL):
        return _categorical(bare, other)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _categorical(q: dist.Distribution, p: dist.Distribution) -> Array:
    """numpyro's, with a gradient that stays finite where q is zero."""
    log_q, log_p = _log_pmf(q), _log_pmf(p)
    counted = log_q > -jnp.inf
    ratio = jnp.where(counted, log_q, 0.0) - jnp.where(counted, log_p, 0.0)
    return jnp.sum(jnp.where(counted, jnp.exp(log_q) * ratio, 0.0), axis=-1)


def _log_pmf(d: dist.Distribution) -> Array:
    if isinstance(d, dist.CategoricalLogits):
        return jax.nn.log_softmax(d.logits)
    positive = d.probs > 0  # numpyro 0.21 takes the logarithm of zero, whose gradient is NaN
    return jnp.where(positive, jnp.log(jnp.where(positive, d.probs, 1.0)), -jnp.inf)
