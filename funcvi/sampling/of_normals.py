"""Distributions whose draws are maps of standard normal noise, from noise that is given."""

import math

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi.sampling.multivariate import times_vector

__all__ = ["draw_of_normals", "num_normals"]


def num_normals(d: dist.Distribution) -> int | None:
    """Of how many standard normals an event of d is made; None if it is made otherwise.

    Example:
        >>> import numpyro.distributions as dist
        >>> matrix = dist.Normal(0.0, 1.0).expand((2, 3)).to_event(2)
        >>> num_normals(matrix), num_normals(dist.Gamma(2.0))
        (6, None)
    """
    inner = _innermost(d)
    size = math.prod(d.event_shape)
    if type(inner) is dist.LowRankMultivariateNormal:
        width = inner.event_shape[0]
        return size // width * (width + int(inner.cov_factor.shape[-1]))
    if type(inner) in (dist.Normal, dist.MultivariateNormal):
        return size
    if type(inner).log_prob is dist.TransformedDistribution.log_prob and inner.shape() == d.shape():
        return num_normals(_base(d, inner))
    return None


def draw_of_normals(d: dist.Distribution, noise: Array) -> Array:
    """Draws of a distribution that ``num_normals`` has a number of.

    Args:
        d: of batch shape () or (draw,).
        noise: shape (draw, num_normals(d)).

    Returns:
        Shape (draw, *event).

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> draw_of_normals(dist.Normal(1.0, 2.0).expand((2,)).to_event(1), jnp.ones((3, 2))).shape
        (3, 2)
    """
    inner = _innermost(d)
    lead = noise.shape[:1]
    if isinstance(inner, dist.TransformedDistribution):
        x = draw_of_normals(_base(d, inner), noise)
        for transform in inner.transforms:
            x = transform(x)
        return x
    if isinstance(inner, dist.LowRankMultivariateNormal):
        rank = inner.cov_factor.shape[-1]
        z = noise.reshape(*lead, *d.event_shape[:-1], rank + inner.event_shape[0])
        spread = jnp.sqrt(inner.cov_diag) * z[..., rank:]
        return inner.loc + times_vector(inner.cov_factor, z[..., :rank]) + spread
    z = noise.reshape(*lead, *d.event_shape)
    if isinstance(inner, dist.MultivariateNormal):
        return inner.loc + times_vector(inner.scale_tril, z)
    assert isinstance(inner, dist.Normal)
    return inner.loc + inner.scale * z


def _innermost(d: dist.Distribution) -> dist.Distribution:
    while isinstance(d, (dist.Independent, dist.ExpandedDistribution)):
        d = d.base_dist
    return d


def _base(d: dist.Distribution, image: dist.TransformedDistribution) -> dist.Distribution:
    """What d is the image of, of the same batch shape."""
    base = image.base_dist
    return base.to_event(len(base.batch_shape) - len(d.batch_shape))
