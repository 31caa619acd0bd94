"""The importance-weighted bound: tighter than the ELBO, for posteriors of local variables."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from funcvi._types import Joint, Key
from funcvi.joints import is_joint, joint_like, members_of
from funcvi.sampling.draw import raw_sample, unvalidated
from funcvi.sampling.gradients import (
    jump_obstacle,
    pathwise_obstacle,
    score_obstacle,
    with_fixed_support,
)

__all__ = ["negative_importance_weighted_elbo"]

_ALLOWED = ("doubly_reparameterised", "pathwise")


def negative_importance_weighted_elbo(
    q: Joint,
    log_joint: Callable[[Any], Array],
    *,
    key: Key,
    num_samples: int,
    estimator: str = "doubly_reparameterised",
) -> Array:
    r"""Minus the importance-weighted bound on the evidence, in nats, summed over batch elements.

    .. math:: -E_{z_1, \dots, z_K \sim q}\Big[\log \frac{1}{K} \sum_k \frac{p(x, z_k)}{q(z_k)}\Big]

    One draw gives the negative ELBO; with more the bound tightens towards the evidence
    (Burda et al. 2016, arXiv:1509.00519).

    Args:
        q: the posterior of each batch element's latent variables, as an encoder gives it: a
            distribution of batch shape (*batch), or a joint of such.
        log_joint: draws of shape (num_samples, *batch, *event), in q's structure, to
            log p(x, z) of shape (num_samples, *batch).
        key: a new one at each step.
        num_samples: K.
        estimator: of the gradient in q's parameters. "doubly_reparameterised" does not lose its
            signal as K grows (Tucker et al. 2019, arXiv:1810.04152); "pathwise" is the plain one.
            Both are unbiased, and have the same gradient in the parameters of ``log_joint``.

    Returns:
        A scalar, in the dtype of the log densities.

    Raises:
        ValueError: draws of q carry no pathwise gradient, the estimator is unknown, or
            ``log_joint`` gives another shape.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> import funcvi as fv
        >>> log_joint = lambda z: dist.Normal(0., 1.).log_prob(z) + dist.Normal(z, 1.).log_prob(2.)
        >>> q = dist.Normal(0.5, 1.0)
        >>> bound = lambda k: fv.negative_importance_weighted_elbo(
        ...     q, log_joint, key=jax.random.key(0), num_samples=k)
        >>> evidence = dist.Normal(0.0, 2**0.5).log_prob(2.0)
        >>> abs(float(bound(100_000) + evidence)) < 0.02
        True
    """
    if estimator not in _ALLOWED:
        raise ValueError(f"estimator must be one of {', '.join(_ALLOWED)}; got {estimator!r}.")
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"num_samples must be a positive integer, got {num_samples!r}.")
    parts: dict[Any, Any] = members_of(q) if is_joint(q) else {"": q}
    doubly = estimator == "doubly_reparameterised"
    for name, part in parts.items():
        obstacle = pathwise_obstacle(part) or jump_obstacle(part)
        obstacle = obstacle or (score_obstacle(part) if doubly else None)
        if obstacle is not None:
            label = f"q[{name!r}]" if is_joint(q) else "q"
            raise ValueError(
                f"{label}: the gradient of the bound would be zero or biased: {obstacle}. "
                "Choose another family, or the ELBO by fv.kl and fv.expectation."
            )
    parts = {name: unvalidated(part) for name, part in parts.items()}
    batch = jnp.broadcast_shapes(*(part.batch_shape for part in parts.values()))
    keys = jax.random.split(key, len(parts))
    z = {
        name: raw_sample(part, k, (num_samples,))
        for (name, part), k in zip(parts.items(), keys, strict=True)
    }

    def log_weights(z: dict[Any, Array], held: bool) -> Array:
        log_p = log_joint(joint_like(type(q), z) if is_joint(q) else z[""])
        if jnp.shape(log_p) != (num_samples, *batch):
            raise ValueError(
                f"log_joint must give shape {(num_samples, *batch)}, one value for each draw and "
                f"batch element, got {jnp.shape(log_p)}: sum over the other axes."
            )
        log_q = [
            with_fixed_support(part, stop_gradient(part).log_prob(z[name]))
            if held
            else part.log_prob(z[name])
            for name, part in parts.items()
        ]
        return log_p - sum(log_q)

    if doubly:
        # The same computation twice, which XLA does once: weights first, then gradients by them.
        weights = jax.nn.softmax(stop_gradient(log_weights(stop_gradient(z), True)), axis=0)
        z = {name: _scaled_gradient(x, _widened(weights, x)) for name, x in z.items()}
    bound = jax.nn.logsumexp(log_weights(z, doubly), axis=0) - jnp.log(num_samples)
    return -jnp.sum(bound)


def _widened(weights: Array, x: Array) -> Array:
    return weights.reshape(weights.shape + (1,) * (x.ndim - weights.ndim)).astype(x.dtype)


@jax.custom_vjp
def _scaled_gradient(x: Array, factor: Array) -> Array:
    return x


def _scaled_forward(x: Array, factor: Array) -> tuple[Array, Array]:
    return x, factor


def _scaled_backward(factor: Array, slope: Array) -> tuple[Array, Array]:
    return slope * factor, jnp.zeros_like(factor)


_scaled_gradient.defvjp(_scaled_forward, _scaled_backward)
