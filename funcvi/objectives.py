"""Objectives: pure functions whose gradient is right, or that refuse."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions.kl import kl_divergence

from funcvi import estimators as est
from funcvi._types import Joint, Key
from funcvi.compare import check_pair
from funcvi.joints import is_joint, members_of
from funcvi.sampling.draw import unvalidated
from funcvi.sampling.gradients import jump_obstacle, pathwise_obstacle, score_obstacle

__all__ = ["kl"]

_CATEGORICAL = (dist.CategoricalProbs, dist.CategoricalLogits)


def kl(
    q: Joint,
    p: Joint,
    *,
    key: Key | None = None,
    num_samples: int = 100,
    estimator: str | None = None,
) -> Array:
    """KL(q || p) = E_q[log q - log p] in nats, summed over batch elements and joint members.

    Chooses, for each member: the closed form where numpyro has one; else an exact sum over a small
    discrete support, over mixture components or over a gate; else pathwise gradients; else the
    score function with a leave-one-out baseline. The value is unbiased, and so is its gradient with
    respect to the parameters of q and of p.

    Args:
        q: a distribution of batch shape (*batch) and event shape (*event), or a joint of them.
        p: the same structure; its batch shape broadcasts to q's.
        key: needed unless the form is closed or a sum over values.
        num_samples: draws for each batch element (for each component of a mixture).
        estimator: "closed_form", "pathwise", "sticking_the_landing", "enumeration" or
            "score_function" to force one.

    Returns:
        A scalar, in the dtype of the log densities.

    Raises:
        ValueError: the gradient would be zero or biased, the divergence is infinite or undefined,
            shapes differ, or a key is missing.

    Example:
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> round(float(fv.kl(dist.Normal(1.0, 1.0), dist.Normal(0.0, 1.0))), 3)
        0.5
    """
    forced = est.forced_estimator.value
    if forced is not None:
        estimator = forced.use()
    if estimator is not None and estimator not in est.ESTIMATORS:
        raise ValueError(
            f"estimator must be one of {', '.join(est.ESTIMATORS)}; got {estimator!r}."
        )
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"num_samples must be a positive integer, got {num_samples!r}.")
    return jnp.sum(_kl(q, p, key, num_samples, estimator, ""))


def _kl(
    q: Any, p: Any, key: Key | None, num_samples: int, estimator: str | None, label: str
) -> Array:
    if is_joint(q) or is_joint(p):
        return _joint_kl(q, p, key, num_samples, estimator, label)
    for name, d in (("q", q), ("p", p)):
        if not isinstance(d, dist.Distribution):
            raise TypeError(
                f"{name}{label} must be a numpyro distribution, got {type(d).__name__}: "
                "call the family on its params first."
            )
    check_pair(q, p, label)
    return _pair_kl(unvalidated(q), unvalidated(p), key, num_samples, estimator, label)


def _joint_kl(
    q: Any, p: Any, key: Key | None, num_samples: int, estimator: str | None, label: str
) -> Array:
    if not (is_joint(q) and is_joint(p)):
        raise TypeError(f"q{label} and p{label} must both be joints, or neither.")
    ours, theirs = members_of(q), members_of(p)
    if set(ours) != set(theirs):
        raise ValueError(
            f"q{label} has members {sorted(map(str, ours))}, p{label} has "
            f"{sorted(map(str, theirs))}: they must be the same."
        )
    total = jnp.zeros(())
    for i, (name, member) in enumerate(ours.items()):
        sub_key = None if key is None else jax.random.fold_in(key, i)
        term = _kl(member, theirs[name], sub_key, num_samples, estimator, f"{label}[{name!r}]")
        total = total + jnp.sum(term)
    return total


def _pair_kl(
    q: Any, p: Any, key: Key | None, num_samples: int, estimator: str | None, label: str
) -> Array:
    """KL for each batch element, wrappers taken off where both sides allow it."""
    if isinstance(q, dist.Independent) and isinstance(p, dist.Independent):
        shared = min(q.reinterpreted_batch_ndims, p.reinterpreted_batch_ndims)
        inner_q, inner_p = _less_independent(q, shared), _less_independent(p, shared)
        each = _pair_kl(inner_q, inner_p, key, num_samples, estimator, label)
        full = jnp.broadcast_to(each, inner_q.batch_shape)
        return full.sum(tuple(range(-shared, 0)))
    (q, *masks), (p, *more) = _unmasked(q), _unmasked(p)
    masks += more
    if masks:
        each = _pair_kl(q, p, key, num_samples, estimator, label)
        for mask in masks:
            each = jnp.where(mask, each, 0.0)
        return each
    if estimator in (None, "closed_form"):
        closed = _closed_form(q, p)
        if closed is not None:
            return jnp.broadcast_to(closed, q.batch_shape)
        if estimator is not None:
            raise ValueError(
                f"KL between {type(q).__name__} and {type(p).__name__}{label} has no closed form "
                "in numpyro: leave estimator out."
            )
    jump = jump_obstacle(q, p)
    if jump is not None and estimator in ("pathwise", "sticking_the_landing"):
        raise ValueError(
            f'estimator="{estimator}" would give a biased gradient: {jump}.\n'
            'Use estimator="score_function", or leave it out.'
        )
    chosen = estimator or _choose(q, jump, label)
    if key is None and not (chosen == "enumeration" and est.enumerable(q) == "values"):
        raise ValueError(
            f"KL of {type(q).__name__}{label} is estimated from draws ({chosen}): "
            "pass key=jax.random.key(...), a new one at each step."
        )
    if chosen == "enumeration":
        return est.enumeration(q, p.log_prob, key, num_samples)
    assert key is not None
    if chosen == "score_function":
        return est.score_function(q, p.log_prob, key, num_samples)
    landing = chosen == "sticking_the_landing"
    return est.pathwise(q, p.log_prob, key, num_samples, sticking_the_landing=landing)


def _unmasked(d: Any) -> tuple[Any, ...]:
    """A distribution without its outermost mask, and that mask if there is one."""
    if isinstance(d, dist.MaskedDistribution):
        return d.base_dist, d._mask
    inner = d.base_dist if isinstance(d, dist.ExpandedDistribution) else None
    if isinstance(inner, dist.MaskedDistribution):
        return inner.base_dist.expand(d.batch_shape), inner._mask
    return (d,)


def _less_independent(d: dist.Independent, shared: int) -> dist.Distribution:
    left = d.reinterpreted_batch_ndims - shared
    return d.base_dist.to_event(left) if left else d.base_dist


def _closed_form(q: Any, p: Any) -> Array | None:
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


def _categorical(q: Any, p: Any) -> Array:
    """numpyro's, with a gradient that stays finite where q is zero."""
    log_q, log_p = _log_pmf(q), _log_pmf(p)
    counted = log_q > -jnp.inf
    ratio = jnp.where(counted, log_q, 0.0) - jnp.where(counted, log_p, 0.0)
    return jnp.sum(jnp.where(counted, jnp.exp(log_q) * ratio, 0.0), axis=-1)


def _log_pmf(d: Any) -> Array:
    if isinstance(d, dist.CategoricalLogits):
        return jax.nn.log_softmax(d.logits)
    positive = d.probs > 0  # numpyro 0.21 takes the logarithm of zero, whose gradient is NaN
    return jnp.where(positive, jnp.log(jnp.where(positive, d.probs, 1.0)), -jnp.inf)


def _choose(q: Any, jump: str | None, label: str) -> str:
    """The best estimator that is right for q."""
    if est.enumerable(q) is not None:
        return "enumeration"  # of a mixture too: less noise than its implicit gradients
    obstacle = pathwise_obstacle(q) or jump
    if obstacle is None:
        return "pathwise"
    other = score_obstacle(q)
    if other is None:
        return "score_function"
    raise ValueError(
        f"no estimator gives KL(q{label} || p) a right gradient: {obstacle}, and {other}. "
        "Choose another family for q."
    )
