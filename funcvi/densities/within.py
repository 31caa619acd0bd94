"""Whether values are inside a support, which numpyro's own log densities do not ask."""

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi._numpyro import Mixture, mask_of
from funcvi.sampling.gradients import GATED, elementwise, support_of

__all__ = ["within"]


def within(d: dist.Distribution, x: Array, slack: Array | float = 0.0) -> Array | bool:
    """Whether values (*sample, *batch, *event) are inside: (*sample, *batch), or True for all.

    The edges count as inside, as does what is masked. What curves (a simplex, a factor) is not
    checked: draws on it are off by a rounding, as values are by ``slack`` behind a transform. Of
    counts of one total (a multinomial) the sum is.
    """
    if isinstance(d, dist.Independent):
        return _all_of(within(d.base_dist, x, slack), d.reinterpreted_batch_ndims)
    if isinstance(d, dist.ExpandedDistribution):
        return within(d.base_dist, x, slack)
    if isinstance(d, dist.MaskedDistribution):
        mask = mask_of(d)
        behind = within(d.base_dist, x, slack)
        return behind if mask is True else _either(jnp.logical_not(mask), behind)
    if isinstance(d, GATED):
        return _either(x == 0, within(d.base_dist, x))
    if isinstance(d, Mixture):
        return _within_mixture(d, x)
    if isinstance(d, dist.TransformedDistribution):
        return _within_transformed(d, x)
    return _between(support_of(d), x, d.event_dim, slack)


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
    slack: Array | float = 0.0
    for transform in reversed(d.transforms):
        codomain = transform.codomain
        found = _between(elementwise(codomain), x, codomain.event_dim, slack)
        inside = _both(inside, _all_of(found, d.event_dim - codomain.event_dim))
        if isinstance(transform, nt.AbsTransform):  # folded: one value of two
            return inside
        slack = _rounding(transform, x)
        x = transform.inv(x)
    base = d.base_dist
    return _both(inside, _all_of(within(base, x, slack), d.event_dim - base.event_dim))


def _rounding(transform: nt.Transform, y: Array) -> Array | float:
    """How far off the inverse of a value may be, where that is a difference."""
    while isinstance(transform, nt.IndependentTransform):
        transform = transform.base_transform
    if not isinstance(transform, nt.AffineTransform):
        return 0.0
    size = (jnp.abs(y) + jnp.abs(transform.loc)) / jnp.abs(transform.scale)
    return 4 * jnp.finfo(jnp.result_type(float)).eps * size


def _between(support: object, x: Array, event_dim: int, slack: Array | float = 0.0) -> Array | bool:
    """Between the bounds of a support, where it has any and they are each entry's own."""
    if isinstance(support, constraints.multinomial):
        return _all_of(_of_total(support.upper_bound, x), event_dim - 1)
    if getattr(support, "event_dim", 0):
        return True
    low = getattr(support, "lower_bound", None)
    high = getattr(support, "upper_bound", None)
    inside: Array | bool = True
    if low is not None:
        inside = _both(inside, x >= low - slack)
    if high is not None:
        inside = _both(inside, x <= high + slack)
    return _all_of(inside, event_dim)


def _of_total(total: ArrayLike, x: Array) -> Array:
    """Counts that sum to this total, but for the rounding of floats above their exact integers."""
    size = jnp.asarray(total)
    sums = x.sum(-1)
    if jnp.issubdtype(x.dtype, jnp.floating):
        right = jnp.abs(sums - size) <= jnp.finfo(x.dtype).eps * size
    else:
        right = sums == size
    return jnp.logical_and(right, jnp.all(x >= 0, axis=-1))


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
