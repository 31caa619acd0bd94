"""Latent sites under a mask: where it is False the model has no density of them."""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import transforms

from funcvi._numpyro import mask_of
from funcvi.constraints import bijection_for
from funcvi.targets.record import Shape, Sites

__all__ = ["changes_nothing", "free_log_prob", "mask_over", "masked_log_det", "where_counted"]

_SHAPES = (dist.Independent, dist.ExpandedDistribution)


def mask_over(d: dist.Distribution) -> Array | None:
    """Where a latent's density counts, as an array over its entries, or None if everywhere.

    The last axes, those of the event that is masked as one, are left out.

    Raises:
        ValueError: the mask lies under a transform or in a mixture.
    """
    shape, masks = tuple(d.shape()), []
    while isinstance(d, (*_SHAPES, dist.MaskedDistribution)):
        if isinstance(d, dist.MaskedDistribution) and mask_of(d) is not True:
            masks.append(jnp.asarray(mask_of(d)))
        d = d.base_dist
    if not masks:
        return None
    entries = shape[: len(shape) - d.event_dim]
    return jnp.broadcast_to(jnp.all(jnp.stack(jnp.broadcast_arrays(*masks)), 0), entries)


def where_counted(mask: Array, z: Array, fill: Array | float) -> Array:
    """Unconstrained values, ``fill`` where the mask is False."""
    return jnp.where(_like(mask, z), z, fill)


def free_log_prob(mask: Array, z: Array) -> Array:
    """Standard normal log density of the unconstrained values where the mask is False, summed.

    It makes the posterior proper there and leaves that of all else, and the evidence, as they are.
    """
    each = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    return jnp.sum(jnp.where(_like(mask, z), 0.0, each))


def masked_log_det(d: dist.Distribution, mask: Array, z: Array, x: Array) -> Array:
    """log |det| of a latent's bijection, summed where the mask is True."""
    while isinstance(d, (*_SHAPES, dist.MaskedDistribution)):
        d = d.base_dist
    bijection: transforms.Transform = bijection_for(d.support)
    return jnp.sum(jnp.where(mask, bijection.log_abs_det_jacobian(z, x), 0.0))


def changes_nothing(
    log_joint: Callable[[Sites, Sites], Array], shapes: Mapping[str, Shape], free: Sequence[str]
) -> Array:
    """Whether a log joint of unconstrained values is the same whatever masked entries are.

    Args:
        log_joint: of unconstrained sites, and of what masked sites have where the mask is False.
        shapes: of the sites.
        free: the masked ones.
    """

    def sites(key: Array) -> Sites:
        keys = jax.random.split(key, len(shapes))
        draws = (
            jax.random.uniform(k, s, minval=-2.0, maxval=2.0)
            for k, s in zip(keys, shapes.values(), strict=True)
        )
        return dict(zip(shapes, draws, strict=True))

    def same(key: Array) -> Array:
        z, fill = sites(key), sites(jax.random.fold_in(key, 1))
        empty, full = (log_joint(z, {n: scale * fill[n] for n in free}) for scale in (0.0, 1.0))
        return jnp.array_equal(empty, full, equal_nan=True)

    return jnp.all(jax.lax.map(same, jax.random.split(jax.random.key(0), 3)))


def _like(mask: Array, z: Array) -> Array:
    return jnp.reshape(mask, (*mask.shape, *(1,) * (jnp.ndim(z) - mask.ndim)))
