"""Draws together with their log densities, without inverting what was just computed."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi._types import Key
from funcvi.densities.log_prob import log_prob
from funcvi.joints import keys_of
from funcvi.sampling.dtypes import own_dtype
from funcvi.sampling.gradients import pathwise_point
from funcvi.sampling.point_transforms import through
from funcvi.sampling.points import Value, value_of
from funcvi.sampling.rounding import inside_support, is_half, widened

__all__ = ["sample_and_log_prob", "scored_as_drawn", "scored_point"]


def sample_and_log_prob(
    d: dist.Distribution | Mapping[str, dist.Distribution],
    key: Key,
    sample_shape: tuple[int, ...] = (),
) -> tuple[Array | dict[str, Array], Array]:
    """The draws of ``fv.sample(d, key, sample_shape)``, and their log densities.

    A TransformedDistribution is scored on the way from its base: the inverse of an autoregressive
    transform would take a step for each coordinate. A distribution may have a method of this name.

    Returns:
        Draws of shape (*sample_shape, *batch, *event) and densities (*sample_shape, *batch); of a
        dict of independent distributions, a dict of draws and their joint density.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> x, log_q = sample_and_log_prob(dist.LogNormal(0.0, 1.0), jax.random.key(0), (3,))
        >>> bool(abs(log_q - dist.LogNormal(0.0, 1.0).log_prob(x)).max() < 1e-5)
        True
    """
    if not isinstance(d, Mapping):
        return _one(d, key, sample_shape)
    keys = keys_of(d, key)
    pairs = {name: _one(member, keys[name], sample_shape) for name, member in d.items()}
    total = sum((log_q for _, log_q in pairs.values()), jnp.zeros(()))
    return {name: x for name, (x, _) in pairs.items()}, total


def _one(d: dist.Distribution, key: Key, sample_shape: tuple[int, ...]) -> tuple[Array, Array]:
    x, log_q = scored_point(d, key, sample_shape)
    return value_of(x), log_q


def scored_point(
    d: dist.Distribution, key: Key, sample_shape: tuple[int, ...] = ()
) -> tuple[Value, Array]:
    """The draws of one distribution with their logarithms, and their log densities."""
    if hasattr(d, "sample_and_log_prob"):
        return d.sample_and_log_prob(key, sample_shape)
    return scored_as_drawn(d, lambda d: pathwise_point(d, key, sample_shape))


def scored_as_drawn(
    d: dist.Distribution, drawn: Callable[[dist.Distribution], Value]
) -> tuple[Value, Array]:
    """The same, where ``drawn`` says how a distribution is drawn: d, or what it is the image of."""
    if type(d).log_prob is not dist.TransformedDistribution.log_prob:
        x = drawn(d)
        return x, log_prob(d, x)
    half = is_half(own_dtype(d))
    wide = widened(d) if half else d
    x, steps = drawn(wide.base_dist), []
    for transform in wide.transforms:
        before = x
        y, intermediate = transform.call_with_intermediates(value_of(before))
        x = through(transform, before, y)
        steps.append([before, intermediate])
    log_q = log_prob(wide, x, steps)
    return inside_support(d, x), log_q.astype(own_dtype(d)) if half else log_q
