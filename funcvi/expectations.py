"""The expectation of any function, with a gradient that is right for the distribution."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.lax import stop_gradient

from funcvi import estimators as est
from funcvi._types import Key
from funcvi.sampling.draw import raw_sample, unvalidated
from funcvi.sampling.gradients import pathwise_obstacle, score_obstacle, with_fixed_support

__all__ = ["expectation"]

_ALLOWED = ("enumeration", "pathwise", "score_function")


def expectation(
    q: dist.Distribution,
    function: Callable[[Array], Array],
    *,
    key: Key | None = None,
    num_samples: int = 100,
    estimator: str | None = None,
) -> Array:
    r"""E_q[f(x)] for each batch element, differentiable in q's parameters and in f's.

    An exact sum for a small finite support (a distribution over the depth of a network, say), else
    pathwise draws, else the score function with a leave-one-out baseline (Kool et al. 2019,
    OpenReview r1lgTGL5DE). Value and gradient are unbiased.

    Args:
        q: of batch shape (*batch) and event shape (*event).
        function: draws of shape (draws, *batch, *event) to values of shape (draws, *batch). For
            pathwise gradients it must be differentiable almost everywhere and continuous.
        key: needed unless the form is a sum over values.
        num_samples: draws for each batch element.
        estimator: "enumeration", "pathwise" or "score_function" to force one.

    Returns:
        Shape (*batch).

    Raises:
        ValueError: no key; the gradient would be zero or biased; f gives another shape.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> import funcvi as fv
        >>> losses = jnp.array([4.0, 1.0, 2.0])   # of a network cut after 0, 1 and 2 layers
        >>> def mean(logits):
        ...     return fv.expectation(dist.Categorical(logits=logits), lambda depth: losses[depth])
        >>> print(f"{mean(jnp.zeros(3)):.3f}", jnp.round(9 * jax.grad(mean)(jnp.zeros(3)), 2))
        2.333 [ 5. -4. -1.]
    """
    if estimator is not None and estimator not in _ALLOWED:
        raise ValueError(f"estimator must be one of {', '.join(_ALLOWED)}; got {estimator!r}.")
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"num_samples must be a positive integer, got {num_samples!r}.")
    q = unvalidated(q)
    obstacle = pathwise_obstacle(q)
    if estimator is None:
        if est.enumerable(q) == "values":
            estimator = "enumeration"
        else:
            estimator = "pathwise" if obstacle is None else "score_function"
    if estimator == "enumeration":
        return _sum(q, function)
    if key is None:
        raise ValueError(
            f"the expectation under {type(q).__name__} is estimated from draws ({estimator}): "
            "pass key=jax.random.key(...), a new one at each step."
        )
    refusal = obstacle if estimator == "pathwise" else score_obstacle(q)
    if refusal is not None:
        raise ValueError(
            f'estimator="{estimator}" would give a zero or biased gradient: {refusal}. Leave '
            "estimator out, or choose another family."
        )
    if estimator == "pathwise":
        return jnp.mean(_values(function, raw_sample(q, key, (num_samples,)), q), axis=0)
    if num_samples < 2:
        raise ValueError(
            f"the score-function estimator of {type(q).__name__} needs num_samples >= 2 (each "
            f"draw's baseline is the mean of the others), got {num_samples}."
        )
    x = stop_gradient(raw_sample(stop_gradient(q), key, (num_samples,)))
    f, score = _values(function, x, q), with_fixed_support(q, q.log_prob(x))
    return jnp.mean(f + est.leave_one_out(f) * (score - stop_gradient(score)), axis=0)


def _sum(q: Any, function: Callable[[Array], Array]) -> Array:
    support = est.finite_support(q)
    if support is None:
        raise ValueError(
            f"{type(q).__name__} has no small finite support to sum over: leave estimator out."
        )
    values = jnp.broadcast_to(support, (support.shape[0], *q.batch_shape, *q.event_shape))
    weights = jnp.exp(q.log_prob(values))
    f = _values(function, values, q)
    # Where q is zero the term is zero, whatever f is there.
    return jnp.sum(jnp.where(weights > 0, weights * jnp.where(weights > 0, f, 0), 0), axis=0)


def _values(function: Callable[[Array], Array], x: Array, q: Any) -> Array:
    f, expected = function(x), (x.shape[0], *q.batch_shape)
    if jnp.shape(f) != expected:
        raise ValueError(
            f"function must give shape {expected}, one value for each draw and batch element, "
            f"got {jnp.shape(f)}: sum over the other axes."
        )
    return f
