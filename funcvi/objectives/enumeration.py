"""Exact sums: over a small discrete support, over the components of a mixture, over a gate."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from funcvi._numpyro import Mixture
from funcvi._types import Key
from funcvi.densities.log_prob import log_prob
from funcvi.sampling.gradients import (
    GATED,
    pathwise_obstacle,
    refusing_second_derivatives,
)
from funcvi.sampling.point_transforms import through
from funcvi.sampling.points import Value, changed, together, value_of
from funcvi.sampling.registry import raw_point

__all__ = ["enumerated", "finite_support", "mixture_parts"]

_LARGEST_SUPPORT = 4096


class Parts(NamedTuple):
    """What a mixture is made of.

    Attributes:
        weights: shape (*batch, components).
        draw: (key, n) to draws from each component, shape (components, n, *batch, *event).
    """

    weights: Array
    draw: Callable[[Key, int], Value]


def enumerated(
    q: dist.Distribution, log_p: Callable[[Value], Array], key: Key | None, num_samples: int
) -> tuple[Value, Array, Array, Array]:
    """Values z (n, *batch, *event), and their log q, log p and weights, each (n, *batch).

    Over a finite support the weights are the probabilities. For a mixture, ``sum_k w_k E_{q_k}[f]``
    with ``num_samples`` pathwise draws from each component, so the weights get their exact
    gradient; a gate over a density is a mixture of zero and that density.
    """
    support = finite_support(q)
    if support is not None:
        return _over_support(q, log_p, support)
    parts = mixture_parts(q)
    assert parts is not None
    assert key is not None
    x = parts.draw(key, num_samples)
    weights = jnp.moveaxis(parts.weights, -1, 0)[:, None] / num_samples
    shape = value_of(x).shape
    weights = jnp.broadcast_to(weights, shape[: len(shape) - q.event_dim])
    z = changed(x, lambda x: x.reshape(-1, *shape[2:]))
    return z, log_prob(q, z), log_p(z), weights.reshape(-1, *q.batch_shape)


def _over_support(
    q: dist.Distribution, log_p: Callable[[Value], Array], support: Array
) -> tuple[Array, Array, Array, Array]:
    z = jnp.broadcast_to(support, (len(support), *q.batch_shape, *q.event_shape))
    log_q = log_prob(q, z)
    weight = jnp.exp(log_q)
    # Where q is zero the term is zero, whatever log p is there.
    log_q, values, weight = (jnp.where(weight > 0, x, 0) for x in (log_q, log_p(z), weight))
    return z, log_q, values, weight


def finite_support(q: dist.Distribution) -> Array | None:
    """All values, shape (values, *ones, *event), or None where there are too many or unknown.

    Raises:
        ValueError: how many there are is an argument of a compiled function.
    """
    bare = q
    while isinstance(bare, (dist.ExpandedDistribution, dist.MaskedDistribution)):
        bare = bare.base_dist
    gated = isinstance(bare, GATED)
    source = bare.base_dist if gated else q  # numpyro's hurdles do not say that they are finite
    # numpyro enumerates the coordinates of an Independent together, not their product.
    if isinstance(bare, dist.Independent) or not getattr(source, "has_enumerate_support", False):
        return None
    try:
        # At once, although it may be called inside jit: a count that is known there stays known.
        with jax.ensure_compile_time_eval():
            values = source.enumerate_support(expand=False)
            if gated and not np.any(np.asarray(values) == 0):
                return None  # the gate adds a value, and numpyro's densities there are not right
    except NotImplementedError:
        return None
    except jax.errors.JAXTypeError as error:
        raise ValueError(
            f"how many values {type(q).__name__} can take is an argument of a compiled function "
            "here, so they cannot be summed over: make it a constant."
        ) from error
    if values.shape[0] > _LARGEST_SUPPORT:
        return None
    return values.reshape(-1, *(1,) * len(q.batch_shape), *q.event_shape)


def mixture_parts(q: dist.Distribution, batch_shape: tuple[int, ...] | None = None) -> Parts | None:
    """The parts of a mixture whose components' draws are pathwise, through wrappers, or None.

    The wrappers' batch shape is handed down, so that each element gets draws of its own.
    """
    shape = q.batch_shape if batch_shape is None else batch_shape
    if isinstance(q, GATED):
        return _gate_parts(q, shape)
    if isinstance(q, dist.ExpandedDistribution):
        return mixture_parts(q.base_dist, shape)
    if isinstance(q, dist.TransformedDistribution):
        if q.event_dim != q.base_dist.event_dim:
            return None
        inner = mixture_parts(q.base_dist, shape)
        compose = dist.transforms.ComposeTransform(q.transforms)
        if inner is None:
            return None
        before = inner.draw
        return Parts(
            inner.weights,
            lambda key, n: refusing_second_derivatives(through(compose, before(key, n)), q, True),
        )
    if not isinstance(q, Mixture):
        return None
    same = isinstance(q, dist.MixtureSameFamily)
    components = [q.component_distribution] if same else list(q.component_distributions)
    if any(pathwise_obstacle(c) is not None for c in components):
        return None
    with_components = (*shape, q.mixture_size)

    def draw(key: Key, n: int) -> Value:
        if same:
            draws = _points(components[0].expand(with_components), key, n)
            return changed(draws, lambda x: jnp.moveaxis(x, -1 - q.event_dim, 0))
        keys = jax.random.split(key, len(components))
        each = zip(components, keys, strict=True)
        return together([_points(c.expand(shape), k, n) for c, k in each])

    return Parts(jnp.broadcast_to(q.mixing_distribution.probs, with_components), draw)


def _gate_parts(d: dist.Distribution, batch_shape: tuple[int, ...]) -> Parts | None:
    """Zero, and what is behind the gate where that is pathwise: a hurdle over a density."""
    if pathwise_obstacle(d.base_dist) is not None:
        return None
    if hasattr(d, "gate_logits"):
        gates = jax.nn.sigmoid(d.gate_logits), jax.nn.sigmoid(-d.gate_logits)
    else:
        gates = d.gate, 1 - d.gate

    def draw(key: Key, n: int) -> Value:
        x = _points(d.base_dist.expand(batch_shape), key, n)
        return changed(x, lambda x: jnp.stack([jnp.zeros_like(x), x]))

    return Parts(jnp.stack([jnp.broadcast_to(g, batch_shape) for g in gates], axis=-1), draw)


def _points(d: dist.Distribution, key: Key, n: int) -> Value:
    return refusing_second_derivatives(raw_point(d, key, (n,)), d)
