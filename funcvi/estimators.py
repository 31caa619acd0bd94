"""Estimators of KL(q || p) and of its gradient; each returns an array of q's batch shape.

``log_p`` maps draws of shape (samples, *batch, *event) to (samples, *batch). The returned value is
always an unbiased estimate of the divergence itself; where a surrogate carries the gradient, it is
added with value zero, so losses stay readable.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.lax import stop_gradient
from numpyro.distributions.mixtures import _MixtureBase

from funcvi._types import Key
from funcvi.sampling.draw import raw_sample
from funcvi.sampling.gradients import GATED, pathwise_obstacle, score_obstacle, with_fixed_support

__all__ = [
    "ESTIMATORS",
    "enumerable",
    "enumeration",
    "finite_support",
    "forced_estimator",
    "leave_one_out",
    "pathwise",
    "score_function",
]

ESTIMATORS = (
    "closed_form",
    "pathwise",
    "sticking_the_landing",
    "enumeration",
    "score_function",
)

#: Set by check_gradients alone, while it traces a loss. A jax context, so compiled functions that
#: were traced without it are not reused.
forced_estimator = jax.make_user_context(None)

LogProb = Callable[[Array], Array]

_LARGEST_SUPPORT = 4096


def pathwise(
    q: Any, log_p: LogProb, key: Key, num_samples: int, *, sticking_the_landing: bool = False
) -> Array:
    """Draws that depend on the parameters through the sampler (reparameterisation).

    With ``sticking_the_landing`` the parameters inside log q are held, which drops a term of mean
    zero (the score; so the support must stand still); the variance vanishes where q equals p.
    Roeder et al. 2017, arXiv:1703.09194.
    """
    name = "sticking_the_landing" if sticking_the_landing else "pathwise"
    _refuse(pathwise_obstacle(q) or (score_obstacle(q) if sticking_the_landing else None), name, q)
    x = raw_sample(q, key, (num_samples,))
    if sticking_the_landing:
        log_q = with_fixed_support(q, stop_gradient(q).log_prob(x))
    else:
        log_q = q.log_prob(x)
    return jnp.mean(log_q - log_p(x), axis=0)


def score_function(q: Any, log_p: LogProb, key: Key, num_samples: int) -> Array:
    """``(f - baseline) * grad log q`` with f = log q - log p.

    The baseline is the mean of the other draws (leave-one-out), Kool et al. 2019, OpenReview
    r1lgTGL5DE; so two draws are the least.
    """
    _refuse(score_obstacle(q), "score_function", q)
    if num_samples < 2:
        raise ValueError(
            f"the score-function estimator of {type(q).__name__} needs num_samples >= 2 "
            f"(each draw's baseline is the mean of the others), got {num_samples}."
        )
    held = stop_gradient(q)
    x = stop_gradient(raw_sample(held, key, (num_samples,)))
    log_q = with_fixed_support(q, q.log_prob(x))
    # log q inside f has a gradient of mean zero: held, it adds no variance.
    f = stop_gradient(log_q) - log_p(x)
    return jnp.mean(f + leave_one_out(f) * (log_q - stop_gradient(log_q)), axis=0)


def leave_one_out(f: Array) -> Array:
    """f minus the mean of the other draws, along axis 0, as a constant."""
    n = f.shape[0]
    return stop_gradient((f - jnp.mean(f, axis=0)) * (n / (n - 1)))


def enumerable(q: Any) -> str | None:
    """What can be summed over exactly: "values", "components" or None."""
    if finite_support(q) is not None:
        return "values"
    if _mixture_parts(q) is not None:
        return "components"
    return None


def enumeration(q: Any, log_p: LogProb, key: Key | None, num_samples: int) -> Array:
    """An exact sum: over a small discrete support, or over the components of a mixture.

    For a mixture, ``sum_k w_k E_{q_k}[log q - log p]`` with ``num_samples`` pathwise draws from
    each component, so the weights get their exact gradient. A gate over a density is a mixture of
    zero and of that density.
    """
    values = finite_support(q)
    if values is not None:
        return _sum_over_values(q, log_p, values)
    parts = _mixture_parts(q)
    if parts is None:
        raise ValueError(
            f"{type(q).__name__} has no small finite support and is no mixture of pathwise "
            f"components, so it cannot be enumerated.\n{_right_estimator(q)}"
        )
    weights, draw = parts
    assert key is not None
    x = draw(key, num_samples)  # (components, samples, *batch, *event)
    f = jax.vmap(lambda x: jnp.mean(q.log_prob(x) - log_p(x), axis=0))(x)
    return jnp.sum(jnp.moveaxis(weights, -1, 0) * f, axis=0)


def _sum_over_values(q: Any, log_p: LogProb, values: Array) -> Array:
    log_q = q.log_prob(values)
    weight = jnp.exp(log_q)
    counted = weight > 0
    # Where q is zero the term is zero, whatever p says there.
    ratio = jnp.where(counted, log_q, 0.0) - jnp.where(counted, log_p(values), 0.0)
    return jnp.sum(jnp.where(counted, weight * ratio, 0.0), axis=0)


def finite_support(q: Any) -> Array | None:
    """All values, shape (values, *ones, *event), or None where there are too many or unknown."""
    bare = q
    while isinstance(bare, (dist.ExpandedDistribution, dist.MaskedDistribution)):
        bare = bare.base_dist
    gated = isinstance(bare, GATED)
    source = bare.base_dist if gated else q  # numpyro's hurdles do not say that they are finite
    # numpyro enumerates the coordinates of an Independent together, not their product.
    if isinstance(bare, dist.Independent) or not getattr(source, "has_enumerate_support", False):
        return None
    try:
        values = source.enumerate_support(expand=False)
        if gated and not np.any(np.asarray(values) == 0):
            return None  # the gate adds a value, and numpyro's densities there are not right
    except NotImplementedError:
        return None
    except jax.errors.JAXTypeError:  # its size is a traced value
        return None
    if values.shape[0] > _LARGEST_SUPPORT:
        return None
    return values.reshape(-1, *(1,) * len(q.batch_shape), *q.event_shape)


def _mixture_parts(q: Any) -> tuple[Array, Callable[[Key, int], Array]] | None:
    """Weights (*batch, components), and draws (components, samples, *batch, *event)."""
    if isinstance(q, GATED):
        return _gate_parts(q, q.batch_shape)
    if isinstance(q, dist.ExpandedDistribution):
        if isinstance(q.base_dist, GATED):
            return _gate_parts(q.base_dist, q.batch_shape)
        return _mixture_parts(_expanded(q.base_dist, q.batch_shape))
    if isinstance(q, dist.TransformedDistribution):
        inner = _mixture_parts(q.base_dist)
        if inner is None or q.event_dim != q.base_dist.event_dim:
            return None
        weights, draw_base = inner

        def draw_transformed(key: Key, n: int) -> Array:
            x = draw_base(key, n)
            for transform in q.transforms:
                x = transform(x)
            return x

        return weights, draw_transformed
    if not isinstance(q, _MixtureBase):
        return None
    weights = jnp.broadcast_to(q.mixing_distribution.probs, (*q.batch_shape, q.mixture_size))
    if isinstance(q, dist.MixtureSameFamily):
        components = q.component_distribution
        if pathwise_obstacle(components) is not None:
            return None
        axis = -1 - q.event_dim

        def draw(key: Key, n: int) -> Array:
            shape = (n, *q.batch_shape, q.mixture_size)
            x = raw_sample(components.expand(shape[1:]), key, (n,))
            return jnp.moveaxis(x, axis, 0)

        return weights, draw
    several = q.component_distributions
    if any(pathwise_obstacle(c) is not None for c in several):
        return None

    def draw_each(key: Key, n: int) -> Array:
        keys = jax.random.split(key, len(several))
        each = [
            raw_sample(c.expand(q.batch_shape), k, (n,)) for c, k in zip(several, keys, strict=True)
        ]
        return jnp.stack(each)

    return weights, draw_each


def _gate_parts(
    d: Any, batch_shape: tuple[int, ...]
) -> tuple[Array, Callable[[Key, int], Array]] | None:
    """Zero, and what is behind the gate where that is pathwise: a hurdle over a density."""
    if pathwise_obstacle(d.base_dist) is not None:
        return None
    if hasattr(d, "gate_logits"):
        gates = jax.nn.sigmoid(d.gate_logits), jax.nn.sigmoid(-d.gate_logits)
    else:
        gates = d.gate, 1 - d.gate

    def draw(key: Key, n: int) -> Array:
        x = raw_sample(d.base_dist.expand(batch_shape), key, (n,))
        return jnp.stack([jnp.zeros_like(x), x])

    return jnp.stack([jnp.broadcast_to(g, batch_shape) for g in gates], axis=-1), draw


def _expanded(d: Any, batch_shape: tuple[int, ...]) -> Any:
    """A mixture, possibly transformed, with the expansion moved to its components."""
    if isinstance(d, dist.TransformedDistribution):
        inner = _expanded(d.base_dist, batch_shape)
        return None if inner is None else dist.TransformedDistribution(inner, d.transforms)
    if isinstance(d, dist.MixtureSameFamily):
        components = d.component_distribution.expand((*batch_shape, d.mixture_size))
        return dist.MixtureSameFamily(d.mixing_distribution, components)
    if isinstance(d, dist.MixtureGeneral):
        each = [c.expand(batch_shape) for c in d.component_distributions]
        return dist.MixtureGeneral(d.mixing_distribution, each, support=d.support)
    return None


def _refuse(obstacle: str | None, estimator: str, q: Any) -> None:
    if obstacle is None:
        return
    instead = _right_estimator(q)
    raise ValueError(
        f'estimator="{estimator}" would give a zero or biased gradient: {obstacle}.\n{instead}'
    )


def _right_estimator(q: Any) -> str:
    if enumerable(q) is not None:
        return 'Use estimator="enumeration", or leave it out.'
    if pathwise_obstacle(q) is None:
        return 'Use estimator="pathwise", or leave it out.'
    if score_obstacle(q) is None:
        return 'Use estimator="score_function", or leave it out.'
    return "No estimator is right for this distribution as q: choose another family."
