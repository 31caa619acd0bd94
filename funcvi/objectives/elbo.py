"""The evidence lower bound of a guide, as a loss: with the sign in its name."""

from jax import Array

from funcvi.guides import Guide
from funcvi.objectives.draws import Draws, average
from funcvi.objectives.of_guides import GuideLoss

__all__ = ["negative_elbo"]

_ALLOWED = ("enumeration", "pathwise", "score_function", "sticking_the_landing")


def _negative_elbo(d: Draws) -> Array:
    return average(d, d.log_q - d.log_p)


def negative_elbo(
    guide: Guide,
    *,
    num_samples: int = 16,
    estimator: str | None = None,
    noise: str = "independent",
) -> GuideLoss:
    """The loss ``-ELBO(params) = E_q[log q(z) - log p(z, data)]`` in nats, z unconstrained.

    A single mixture over all sites is summed over its components. Otherwise each site gets what is
    right for it: pathwise gradients, or a score-function term with a leave-one-out baseline. Where
    the target has latents inside of subsampling plates, each draw reads rows of its own, which
    count for all (Hoffman et al. 2013, arXiv:1206.7051); value and gradient stay unbiased.

    Args:
        guide: a family of posteriors over its target.
        num_samples: draws at each evaluation.
        estimator: "enumeration", "pathwise", "score_function" or "sticking_the_landing" to force
            one. Sticking the landing (Roeder et al. 2017, arXiv:1703.09194) has variance zero where
            the guide is exact.
        noise: "independent", or "sobol": draws are made of scrambled Sobol' points, which are
            spread more evenly, so that value and gradient of a smooth target vary less with the
            key, and stay unbiased (Buchholz et al. 2018, arXiv:1807.01604). For guides whose draws
            are maps of normal noise, and a power of two of draws.

    Returns:
        ``loss(params, key) -> scalar``, for :func:`fv.fit`: a value, equal to another one with the
        same guide and options, so that writing it again compiles nothing.

    Raises:
        TypeError: ``guide`` is not a guide.
        ValueError: the estimator is unknown, or its gradient would be zero or biased; when it is
            called, the guide holds latents of all rows of a subsampling plate in one distribution,
            or its draws cannot be made of the noise.

    Example:
        >>> import jax, optax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: dist.LogNormal(1.0, 0.5).log_prob(x["a"]),
        ...               supports={"a": constraints.positive})
        >>> guide = fv.mean_field(t)
        >>> loss = fv.negative_elbo(guide, estimator="sticking_the_landing")
        >>> key = jax.random.key(0)
        >>> result = fv.fit(loss, guide.init(key), optax.adam(0.05), key=key, num_steps=1000)
        >>> round(float(guide(result.params).marginals()["a"].scale), 2)
        0.5
    """
    return GuideLoss(guide, _negative_elbo, num_samples, estimator, _ALLOWED, None, noise)
