"""Whether values are inside a support, which numpyro's own log densities do not ask."""

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions.transforms import AbsTransform

from funcvi._numpyro import Mixture
from funcvi.sampling.gradients import GATED, elementwise, support_of

__all__ = ["within"]


def within(d: dist.Distribution, x: Array) -> Array | bool:
    """Whether values (*sample, *batch, *event) are inside: (*sample, *batch), or True for all.

    The edges count as inside. What curves (a simplex, a factor) is not checked: draws on it are off
    by a rounding.
    """
    if isinstance(d, dist.Independent):
        return _all_of(within(d.base_dist, x), d.reinterpreted_batch_ndims)
    if isinstance(d, (dist.ExpandedDistribution, dist.MaskedDistribution)):
        return within(d.base_dist, x)
    if isinstance(d, GATED):
        return _either(x == 0, within(d.base_dist, x))
    if isinstance(d, Mixture):
        return _within_mixture(d, x)
    if isinstance(d, dist.TransformedDistribution):
        return _within_transformed(d, x)
    return _between(support_of(d), x, d.event_dim)


def _within_mixture(d: Mixture, x: Array) -> Array | bool:
    if isinstance(d, dist.MixtureSameFamily):
        each = within(d.component_distribution, jnp.expand_dims(x, -1 - d.event_dim))
        return True if each is True else jnp.any(each, axis=-1)
    inside: Array | bool = False
    for component in d.component_distributions:
        inside = _either(inside, within(component, x))
    return inside


def _within_transformed(d: dist.TransformedDistribution, x: Array) -> Array | bool:
    inside: Array | bool = True
    for transform in reversed(d.transforms):
        codomain = transform.codomain
        found = _between(elementwise(codomain), x, codomain.event_dim)
        inside = _both(inside, _all_of(found, d.event_dim - codomain.event_dim))
        if isinstance(transform, AbsTransform):  # folded: one value of two
            return inside
        x = transform.inv(x)
    base = d.base_dist
    return _both(inside, _all_of(within(base, x), d.event_dim - base.event_dim))


def _between(support: object, x: Array, event_dim: int) -> Array | bool:
    """Between the bounds of a support, where it has any and they are each entry's own."""
    if getattr(support, "event_dim", 0):
        return True
    low = getattr(support, "lower_bound", None)
    high = getattr(support, "upper_bound", None)
    inside: Array | bool = True
    if low is not None:
        inside = _both(inside, x >= low)
    if high is not None:
        inside = _both(inside, x <= high)
    return _all_of(inside, event_dim)


def _all_of(inside: Array | bool, axes: int) -> Array | bool:
    if inside is True or inside is False or axes <= 0:
        return inside
    return jnp.all(inside, axis=tuple(range(-axes, 0)))


def _both(a: Array | bool, b: Array | bool) -> Array | bool:
    if a is True or b is True:
        return b if a is True else a
    return jnp.logical_and(a, b)


def _either(a: Array | bool, b: Array | bool) -> Array | bool:
    if a is True or b is True:
        return True
    return b if a is False else jnp.logical_or(a, b)
