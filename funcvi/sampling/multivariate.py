"""Normal vectors and matrices."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi._types import Key
from funcvi.sampling import noise
from funcvi.sampling.dtypes import noise_dtype

__all__ = ["SAMPLERS", "times_vector"]

Shape = tuple[int, ...]


def times_vector(matrix: Array, vector: Array) -> Array:
    """(*batch, rows, columns) times (*batch, columns)."""
    return jnp.einsum("...ij,...j->...i", matrix, vector)


def _multivariate_normal(d: Any, key: Key, shape: Shape) -> Array:
    z = noise.normal(key, (*shape, *d.event_shape), noise_dtype(d))
    return d.loc + times_vector(d.scale_tril, z)


def _low_rank(d: Any, key: Key, shape: Shape) -> Array:
    rank = d.cov_factor.shape[-1]
    z = noise.normal(key, (*shape, rank + d.event_shape[0]), noise_dtype(d))
    spread = jnp.sqrt(d.cov_diag) * z[..., rank:]
    return d.loc + times_vector(d.cov_factor, z[..., :rank]) + spread


def _matrix_normal(d: Any, key: Key, shape: Shape) -> Array:
    z = noise.normal(key, (*shape, *d.event_shape), noise_dtype(d))
    return d.loc + d.scale_tril_row @ z @ jnp.swapaxes(d.scale_tril_column, -2, -1)


SAMPLERS: dict[type, Callable[..., Array]] = {
    dist.MultivariateNormal: _multivariate_normal,
    dist.LowRankMultivariateNormal: _low_rank,
    dist.MatrixNormal: _matrix_normal,
}
