"""Whether values are inside a support, which numpyro's own log densities do not ask."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi._numpyro import Mixture, mask_of
from funcvi.sampling.gradients import GATED, elementwise, support_of

__all__ = ["within"]

_BY_EIGENVALUES = tuple(
    type(c)
    for c in (
        constraints.corr_matrix,
        constraints.positive_definite,
        constraints.positive_semidefinite,
    )
)


def within(
    d: dist.Distribution, x: Array, slack: Array | float = 0.0, exact: bool = False
) -> Array | bool:
    """Whether values (*sample, *batch, *event) are inside: (*sample, *batch), or True for all.

    The edges count as inside, as does what is masked. What curves (a simplex, a factor) is not
    checked: draws on it are off by a rounding, as values are by ``slack`` behind a transform. Of
    counts of one total (a multinomial) the sum is. ``exact``: what is no draw is also asked to lie
    on the curve, to numpyro's tolerance, and on the integers where values are counts.
    """
    if isinstance(d, dist.Independent):
        return _all_of(within(d.base_dist, x, slack, exact), d.reinterpreted_batch_ndims)
    if isinstance(d, dist.ExpandedDistribution):
        return within(d.base_dist, x, slack, exact)
    if isinstance(d, dist.MaskedDistribution):
        mask = mask_of(d)
        behind = within(d.base_dist, x, slack, exact)
        return behind if mask is True else _either(jnp.logical_not(mask), behind)
    if isinstance(d, GATED):
        return _either(x == 0, within(d.base_dist, x, exact=exact))
    if isinstance(d, Mixture):
        return _within_mixture(d, x, exact)
    if isinstance(d, dist.TransformedDistribution):
        return _within_transformed(d, x, exact)
    return _between(support_of(d), x, d.event_dim, slack, exact)


def _within_mixture(d: Mixture, x: Array, exact: bool) -> Array | bool:
    if isinstance(d, dist.MixtureSameFamily):
        values = jnp.expand_dims(x, -1 - d.event_dim)
        each = within(d.component_distribution, values, exact=exact)
        return True if each is True else jnp.any(each, axis=-1)
    inside: Array | bool = False
    for component in d.component_distributions:
        inside = _either(inside, within(component, x, exact=exact))
    return inside


def _within_transformed(d: dist.TransformedDistribution, x: Array, exact: bool) -> Array | bool:
    inside: Array | bool = True
    slack: Array | float = 0.0
    for transform in reversed(d.transforms):
        codomain = transform.codomain
        found = _between(elementwise(codomain), x, codomain.event_dim, slack, exact)
        inside = _both(inside, _all_of(found, d.event_dim - codomain.event_dim))
        if isinstance(transform, nt.AbsTransform):  # folded: one value of two
            return inside
        slack = _rounding(transform, x)
        x = transform.inv(x)
    base = d.base_dist
    # What is the inverse of a point on the curve is on the transform's own domain, to a rounding.
    exact = exact and not elementwise(d.transforms[0].domain).event_dim
    return _both(inside, _all_of(within(base, x, slack, exact), d.event_dim - base.event_dim))


def _rounding(transform: nt.Transform, y: Array) -> Array | float:
    """How far off the inverse of a value may be, where that is a difference."""
    while isinstance(transform, nt.IndependentTransform):
        transform = transform.base_transform
    if not isinstance(transform, nt.AffineTransform):
        return 0.0
    size = (jnp.abs(y) + jnp.abs(transform.loc)) / jnp.abs(transform.scale)
    return 4 * jnp.finfo(jnp.result_type(float)).eps * size


def _between(
    support: Any, x: Array, event_dim: int, slack: Array | float = 0.0, exact: bool = False
) -> Array | bool:
    """Between the bounds of a support, where it has any and they are each entry's own."""
    if isinstance(support, constraints.multinomial):
        inside: Array | bool = _of_total(support.upper_bound, x)
        inside = _both(inside, jnp.all(x % 1 == 0, -1)) if exact else inside
        return _all_of(inside, event_dim - 1)
    own = getattr(support, "event_dim", 0)
    if own:
        return _all_of(_on_curve(support, x, slack), event_dim - own) if exact else True
    low = getattr(support, "lower_bound", None)
    high = getattr(support, "upper_bound", None)
    if exact and isinstance(support, type(constraints.boolean)):
        low, high = 0, 1
    inside = True
    if low is not None:
        inside = _both(inside, x >= low - slack)
    if high is not None:
        inside = _both(inside, x <= high + slack)
    if exact and getattr(support, "is_discrete", False):
        inside = _both(inside, jnp.abs(x - jnp.round(x)) <= slack)
    return _all_of(inside, event_dim)


def _on_curve(support: Any, x: Array, slack: Array | float) -> Array:
    """On a simplex, a sphere, among matrices of a kind: to numpyro's tolerance, and a rounding."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = x.astype(jnp.result_type(float))
    if isinstance(support, type(constraints.simplex)):
        rounding = 1e-6 + jnp.finfo(x.dtype).eps + jnp.sum(jnp.broadcast_to(slack, x.shape), -1)
        total = x.astype(jnp.promote_types(x.dtype, jnp.float32)).sum(-1)
        on_plane = jnp.abs(total - 1) <= rounding
        return jnp.logical_and(on_plane, jnp.all(x >= -jnp.asarray(slack), -1))
    if isinstance(support, _BY_EIGENVALUES):  # LAPACK has none in half precision
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jnp.asarray(support(x))


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
