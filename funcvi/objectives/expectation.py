"""The expectation of any function, with a gradient that is right for the distribution."""

from collections.abc import Callable
from typing import Any

from jax import Array

from funcvi._types import Joint, Key
from funcvi.masks import without_masks
from funcvi.objectives.draws import average, draws
from funcvi.sampling.gradients import jump_obstacle

__all__ = ["expectation"]

_ALLOWED = ("enumeration", "pathwise", "score_function")


def expectation(
    q: Joint,
    function: Callable[[Any], Array],
    *,
    key: Key | None = None,
    num_samples: int = 100,
    estimator: str | None = None,
) -> Array:
    r"""E_q[f(x)] for each batch element, differentiable in q's parameters and in f's.

    An exact sum for a small finite support (a distribution over the depth of a network, say), over
    the components of a mixture or over a gate; else pathwise draws, else the score function with a
    leave-one-out baseline (Kool et al. 2019, OpenReview r1lgTGL5DE). Value and gradient are
    unbiased.

    Args:
        q: of batch shape (*batch) and event shape (*event), or a joint of such. Masks are ignored.
        function: draws of shape (n, *batch, *event), in q's structure, to values of shape
            (n, *batch). For pathwise gradients it must be continuous, and differentiable almost
            everywhere (everywhere, for second derivatives: not ``abs``); angles, and mixtures of
            them, are drawn by the score function unless
            ``estimator="pathwise"`` ("enumeration" for mixtures) promises that f is continuous on
            the circle.
        key: needed unless the form is a sum over values.
        num_samples: draws for each batch element (for each component of a mixture).
        estimator: "enumeration", "pathwise" or "score_function" to force one.

    Returns:
        Shape (*batch).

    Raises:
        TypeError: q is not a distribution or a joint of them.
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
    if not callable(function):
        raise TypeError(f"function must be callable, got {type(function).__name__}.")
    members = without_masks(q)
    jump = jump_obstacle if estimator is None else lambda q: None
    how = key, num_samples, estimator, _ALLOWED
    d = draws(members, function, *how, jump=jump, function="function", with_density=False)
    return average(d, d.log_p)
