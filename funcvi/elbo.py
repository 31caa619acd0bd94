"""The evidence lower bound of a guide, as a loss: with the sign in its name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from funcvi import estimators as est
from funcvi._types import Key, Params
from funcvi.guides import Guide, Posterior, check_guide
from funcvi.sampling.draw import raw_sample
from funcvi.sampling.gradients import (
    jump_obstacle,
    pathwise_obstacle,
    score_obstacle,
    with_fixed_support,
)

__all__ = ["negative_elbo"]

_ALLOWED = ("pathwise", "sticking_the_landing", "enumeration", "score_function")


def negative_elbo(
    guide: Guide,
    *,
    num_samples: int = 16,
    estimator: str | None = None,
) -> Callable[[Params, Key], Array]:
    """The loss ``-ELBO(params) = E_q[log q(z) - log p(z, data)]`` in nats, z unconstrained.

    Sites whose draws carry no pathwise gradient get a score-function term with a leave-one-out
    baseline; a single mixture over all sites is summed over its components.

    Args:
        guide: a family of posteriors over its target.
        num_samples: draws at each evaluation.
        estimator: "pathwise", "sticking_the_landing", "enumeration" or "score_function" to force
            one. Sticking the landing (Roeder et al. 2017, arXiv:1703.09194) has variance zero where
            the guide is exact.

    Returns:
        ``loss(params, key) -> scalar``, for :func:`fv.fit`.

    Raises:
        ValueError: the estimator is unknown, or its gradient would be zero or biased.

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
    check_guide(guide)
    if estimator is not None and estimator not in _ALLOWED:
        raise ValueError(f"estimator must be one of {', '.join(_ALLOWED)}; got {estimator!r}.")
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"num_samples must be a positive integer, got {num_samples!r}.")

    def loss(params: Params, key: Key) -> Array:
        forced = est.forced_estimator.value
        chosen = estimator if forced is None else forced.use()
        return _divergence(guide(params), key, num_samples, chosen)

    return loss


def _divergence(posterior: Posterior, key: Key, num_samples: int, estimator: str | None) -> Array:
    target, q_all = posterior.target, posterior.unconstrained
    base = q_all if isinstance(q_all, dict) else {"": q_all}
    model_key, key = jax.random.split(key)

    def log_p(z: Any) -> Array:
        keys = jax.random.split(model_key, num_samples)
        return jax.vmap(target.log_density)(posterior.sites(z.get("", z)), keys)

    if len(base) == 1 and estimator in (None, "enumeration"):
        ((name, q),) = base.items()
        if est.enumerable(q) is not None or estimator == "enumeration":
            return est.enumeration(q, lambda z: log_p({name: z}), key, num_samples)
    if estimator == "enumeration":
        raise ValueError(
            "enumeration needs a guide of one site: leave estimator out, and each site gets the "
            "estimator that is right for it."
        )
    scored = [n for n, q in base.items() if _by_score(n, q, estimator)]
    if scored and num_samples < 2:
        raise ValueError(f"sites {scored} need num_samples >= 2 for their baseline.")
    keys = dict(zip(base, jax.random.split(key, len(base)), strict=True))
    z, log_q, score = {}, jnp.zeros(num_samples), jnp.zeros(num_samples)
    for name, q in base.items():
        if name in scored:
            z[name] = stop_gradient(raw_sample(stop_gradient(q), keys[name], (num_samples,)))
            score = score + with_fixed_support(q, q.log_prob(z[name]))
            log_q = log_q + stop_gradient(q.log_prob(z[name]))
            continue
        z[name] = raw_sample(q, keys[name], (num_samples,))
        if estimator == "sticking_the_landing":
            log_q = log_q + with_fixed_support(q, stop_gradient(q).log_prob(z[name]))
        else:
            log_q = log_q + q.log_prob(z[name])
    f = log_q - log_p(z)
    if not scored:
        return jnp.mean(f)
    return jnp.mean(f + est.leave_one_out(f) * (score - stop_gradient(score)))


def _by_score(name: str, q: Any, estimator: str | None) -> bool:
    obstacle = pathwise_obstacle(q) or jump_obstacle(q)
    if obstacle is None and estimator == "sticking_the_landing":
        obstacle = score_obstacle(q)  # it drops the score, whose mean must be zero
    wanted = estimator == "score_function" or (estimator is None and obstacle is not None)
    if wanted:
        refusal = score_obstacle(q)
    elif obstacle is not None:
        refusal = obstacle
    else:
        return False
    if refusal is not None:
        raise ValueError(
            f"site {name!r}: the gradient would be zero or biased: {refusal}. Leave estimator out, "
            "or choose another family."
        )
    return wanted
