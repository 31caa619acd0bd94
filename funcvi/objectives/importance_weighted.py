"""The importance-weighted bound: tighter than the ELBO, and than any KL tells."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from funcvi._types import Joint, Key
from funcvi.guides import Guide
from funcvi.objectives.draws import Draws, bound, draws
from funcvi.objectives.of_guides import GuideLoss

__all__ = ["importance_weighted_elbo", "negative_importance_weighted_elbo"]

_ALLOWED = ("doubly_reparameterised", "pathwise", "score_function")


def importance_weighted_elbo(
    q: Joint,
    log_joint: Callable[[Any], Array],
    *,
    key: Key,
    num_samples: int,
    estimator: str | None = None,
) -> Array:
    r"""The importance-weighted lower bound on the evidence, in nats, summed over batch elements.

    .. math:: E_{z_1, \dots, z_K \sim q}\Big[\log \frac{1}{K} \sum_k \frac{p(x, z_k)}{q(z_k)}\Big]

    One draw gives the ELBO; with more the bound tightens towards the evidence (Burda et al. 2016,
    arXiv:1509.00519). For a loss made from a guide see ``fv.negative_importance_weighted_elbo``.

    Args:
        q: the posterior of each batch element's latent variables, as an encoder returns it: a
            distribution of batch shape (*batch), or a joint of such.
        log_joint: draws of shape (num_samples, *batch, *event), in q's structure, to
            log p(x, z) of shape (num_samples, *batch).
        key: a new one at each step.
        num_samples: K.
        estimator: of the gradient in q's parameters. "doubly_reparameterised", the default where it
            is right, keeps its signal as K grows (Tucker et al. 2019, arXiv:1810.04152);
            "pathwise" is the plain one; "score_function" is for draws without pathwise gradients
            (Mnih and Rezende 2016, arXiv:1602.06725). All are unbiased, and have the same gradient
            in the parameters of ``log_joint``.

    Returns:
        A scalar, in the dtype of the log densities.

    Raises:
        TypeError: q is not a distribution or a joint of them.
        ValueError: the gradient would be zero or biased, the estimator is unknown, or
            ``log_joint`` gives another shape.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> import funcvi as fv
        >>> log_joint = lambda z: dist.Normal(0., 1.).log_prob(z) + dist.Normal(z, 1.).log_prob(2.)
        >>> q = dist.Normal(0.5, 1.0)
        >>> bound = lambda k: fv.importance_weighted_elbo(
        ...     q, log_joint, key=jax.random.key(0), num_samples=k)
        >>> evidence = dist.Normal(0.0, 2**0.5).log_prob(2.0)
        >>> abs(float(bound(100_000) - evidence)) < 0.02
        True
    """
    d = draws(q, log_joint, key, num_samples, estimator, _ALLOWED, function="log_joint")
    return jnp.sum(bound(d, _log_mean_exp))


def _log_mean_exp(log_weight: Array) -> Array:
    return jax.nn.logsumexp(log_weight, axis=0) - jnp.log(len(log_weight))


def _negative_bound(d: Draws) -> Array:
    return -bound(d, _log_mean_exp)


def negative_importance_weighted_elbo(
    guide: Guide, *, num_samples: int, estimator: str | None = None
) -> GuideLoss:
    """The loss ``-importance_weighted_elbo`` of a guide, in nats, on unconstrained space.

    Args:
        guide: a family of posteriors over its target.
        num_samples: K, draws at each evaluation; with one it is the negative ELBO.
        estimator: see :func:`fv.importance_weighted_elbo`.

    Returns:
        ``loss(params, key) -> scalar``, a value that is equal to another with the same fields.

    Raises:
        TypeError: ``guide`` is not a guide.
        ValueError: the estimator is unknown, its gradient would be zero or biased, or the target's
            log density is random (a subsampling plate) and K is not 1.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: dist.Gamma(2.0, 1.0).log_prob(x["a"]),
        ...               supports={"a": constraints.positive})
        >>> guide = fv.mean_field(t, scale=1.0)
        >>> loss = fv.negative_importance_weighted_elbo(guide, num_samples=1000)
        >>> abs(float(loss(guide.init(jax.random.key(0)), jax.random.key(1)))) < 0.3
        True
    """
    reader = None if num_samples == 1 else "fv.negative_importance_weighted_elbo"
    return GuideLoss(guide, _negative_bound, num_samples, estimator, _ALLOWED, reader)
