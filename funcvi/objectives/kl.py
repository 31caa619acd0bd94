"""KL divergence between distributions, or joints of them."""

from collections.abc import Iterator
from functools import reduce
from typing import TypeAlias

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi._checks import check_key
from funcvi._types import Joint, Key
from funcvi.densities.bends import bends, once_differentiable
from funcvi.densities.log_prob import log_prob_within
from funcvi.joints import is_joint, keys_of, members_of
from funcvi.masks import masked, outer_masks
from funcvi.objectives.closed_forms import closed_form
from funcvi.objectives.draws import average, draws
from funcvi.objectives.estimators import check_arguments
from funcvi.objectives.supports import checked_pair
from funcvi.sampling.draw import unvalidated
from funcvi.sampling.dtypes import floats
from funcvi.sampling.gradients import edge_obstacle, jump_obstacle, with_fixed_support
from funcvi.sampling.points import Value
from funcvi.sampling.rounding import is_half, widened
from funcvi.wrong_kinds import instead_of_a_distribution

__all__ = ["kl"]

_DRAWN = ("enumeration", "pathwise", "score_function", "sticking_the_landing")
_ALLOWED = ("closed_form", *_DRAWN)

Pair: TypeAlias = tuple[dist.Distribution, dist.Distribution, Key | None, str]


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
    respect to the parameters of q and of p. Sticking the landing (Roeder et al. 2017,
    arXiv:1703.09194) is pathwise with the parameters inside log q held constant: its variance
    vanishes where q equals p.

    Args:
        q: a distribution of batch shape (*batch) and event shape (*event), or a joint of them.
        p: the same structure; its batch shape broadcasts to q's.
        key: needed unless the form is closed or a sum over values.
        num_samples: draws for each batch element (for each component of a mixture).
        estimator: "closed_form", "enumeration", "pathwise", "score_function" or
            "sticking_the_landing" to force one.

    Returns:
        A scalar, in the dtype of the log densities; in bfloat16 and float16 it is computed in
        float32 and rounded once.

    Raises:
        TypeError: q or p is not a distribution, or only one of them is a joint.
        ValueError: the gradient would be zero or biased, the divergence is infinite or undefined,
            shapes differ, or a key is missing.

    Example:
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> round(float(fv.kl(dist.Normal(1.0, 1.0), dist.Normal(0.0, 1.0))), 3)
        0.5
    """
    check_arguments(num_samples, estimator, _ALLOWED)
    if key is not None:
        check_key(key)
    terms = []
    for each_q, each_p, each_key, label in _pairs(q, p, key, ""):
        checked = checked_pair(each_q, each_p, label)
        bare = unvalidated(widened(each_q)), unvalidated(widened(each_p))
        term = jnp.sum(checked(_pair_kl(*bare, each_key, num_samples, estimator, label)))
        dtypes = floats((each_q, each_p))
        half = bool(dtypes) and is_half(jnp.result_type(*dtypes))
        terms.append(term.astype(jnp.result_type(*dtypes)) if half else term)
    return reduce(jnp.add, terms) if terms else jnp.zeros(())


def _pairs(q: Joint, p: Joint, key: Key | None, label: str) -> Iterator[Pair]:
    """The members of both, side by side, each with a key and its place in the joint."""
    if not (is_joint(q) or is_joint(p)):
        for name, d in (("q", q), ("p", p)):
            if not isinstance(d, dist.Distribution):
                raise TypeError(
                    f"{name}{label} must be a numpyro distribution, {instead_of_a_distribution(d)}."
                )
        yield q, p, key, label
        return
    if not (is_joint(q) and is_joint(p)):
        raise TypeError(f"q{label} and p{label} must both be joints, or neither.")
    ours, theirs = members_of(q), members_of(p)
    if set(ours) != set(theirs):
        raise ValueError(
            f"q{label} has members {sorted(map(str, ours))}, p{label} has "
            f"{sorted(map(str, theirs))}: they must be the same."
        )
    keys = {} if key is None else keys_of(q, key)
    for place, member in ours.items():
        yield from _pairs(member, theirs[place], keys.get(place), f"{label}[{place!r}]")


def _pair_kl(
    q: dist.Distribution,
    p: dist.Distribution,
    key: Key | None,
    num_samples: int,
    estimator: str | None,
    label: str,
) -> Array:
    """KL for each batch element, wrappers taken off where both sides allow it."""
    if isinstance(q, dist.Independent) and isinstance(p, dist.Independent):
        shared = min(q.reinterpreted_batch_ndims, p.reinterpreted_batch_ndims)
        inner_q, inner_p = _less_independent(q, shared), _less_independent(p, shared)
        each = _pair_kl(inner_q, inner_p, key, num_samples, estimator, label)
        full = jnp.broadcast_to(each, inner_q.batch_shape)
        return full.sum(tuple(range(-shared, 0)))
    (q, masks), (p, more) = outer_masks(q), outer_masks(p)
    if masks or more:
        each = _pair_kl(q, p, key, num_samples, estimator, label)
        for mask in (*masks, *more):
            each = jnp.where(mask, each, 0.0)
        return each
    if masked(q) or masked(p):
        raise ValueError(
            f"q{label} = {type(q).__name__} and p{label} = {type(p).__name__}: a mask inside an "
            "event leaves no divergence to speak of. Mask whole events, or give both sides the "
            "same to_event."
        )
    if estimator in (None, "closed_form"):
        closed = closed_form(q, p)
        if closed is not None:
            return jnp.broadcast_to(closed, q.batch_shape)
        if estimator is not None:
            raise ValueError(
                f"KL between {type(q).__name__} and {type(p).__name__}{label} has no closed form "
                "in numpyro: leave estimator out."
            )

    def jump(q: dist.Distribution) -> str | None:
        return jump_obstacle(q, p) or edge_obstacle(q) or edge_obstacle(p)

    how = key, num_samples, estimator, _DRAWN
    within = log_prob_within(p)

    def log_p(z: Value) -> Array:
        values = once_differentiable(type(p).__name__, within(z), (p, z)) if bends(p) else within(z)
        # An edge inside q's support that moves changes the mean, and no draw sees it.
        return with_fixed_support(p, values) if edge_obstacle(p) else values

    d = draws(q, log_p, *how, jump=jump, label=f"q{label}", log_p_of_points=True)
    return average(d, d.log_q - d.log_p)


def _less_independent(d: dist.Independent, shared: int) -> dist.Distribution:
    left = d.reinterpreted_batch_ndims - shared
    return d.base_dist.to_event(left) if left else d.base_dist
