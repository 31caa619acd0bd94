"""Which sampler draws which distribution: by exact type, else the distribution's own ``sample``.

A sampler takes ``(d, key, shape)``: ``shape`` is that of all draws without the event axes, and
``d.batch_shape`` broadcasts to it. Those of distributions made of others take ``draw`` as well, the
function below, so that each file can be read alone.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi._types import Key
from funcvi.sampling import (
    circular,
    from_gamma,
    from_noise,
    mixture,
    multivariate,
    truncated,
    truncated_gamma,
    von_mises,
    wrappers,
)

__all__ = ["draw"]

_SAMPLERS: dict[type, Callable[..., Array]] = {
    **from_noise.SAMPLERS,
    **from_gamma.SAMPLERS,
    **multivariate.SAMPLERS,
    **von_mises.SAMPLERS,
    **circular.SAMPLERS,
    **truncated.SAMPLERS,
    **truncated_gamma.SAMPLERS,
}
_COMPOSITES: dict[type, Callable[..., Array]] = {
    **wrappers.COMPOSITES,
    **mixture.COMPOSITES,
    **circular.COMPOSITES,
}


def draw(d: Any, key: Key, shape: tuple[int, ...]) -> Array:
    """Draws of shape (*shape, *event), with whatever gradient they carry."""
    if type(d) in _SAMPLERS:
        return _SAMPLERS[type(d)](d, key, shape)
    if type(d) in _COMPOSITES:
        return _COMPOSITES[type(d)](d, key, shape, draw)
    if type(d).sample is dist.TransformedDistribution.sample:
        return wrappers.transformed(d, key, shape, draw)
    return _own(d, key, shape)


def _own(d: Any, key: Key, shape: tuple[int, ...]) -> Array:
    axes = len(d.batch_shape)
    if shape[len(shape) - axes :] != d.batch_shape:
        d, axes = d.expand(shape), len(shape)
    sample_shape = shape[: len(shape) - axes]
    if isinstance(d, dist.TruncatedPolyaGamma):
        # numpyro 0.22 returns the batch axes before the sample axes.
        d, sample_shape = dist.TruncatedPolyaGamma(), shape
    return jnp.asarray(d.sample(key, sample_shape))
