"""Normal vectors and matrices."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.linalg import solve_triangular

from funcvi._types import Key
from funcvi.sampling import noise
from funcvi.sampling.dtypes import noise_dtype
from funcvi.sampling.from_noise import FAR
from funcvi.sampling.record import Record, Shape, unwrapped

__all__ = ["RECORDS", "is_normal_vector", "loc_and_factor", "times_vector", "whitened"]


def times_vector(matrix: Array, vector: Array) -> Array:
    """(*batch, rows, columns) times (*batch, columns)."""
    return jnp.einsum("...ij,...j->...i", matrix, vector)


def _multivariate_normal(d: dist.MultivariateNormal, key: Key, shape: Shape) -> Array:
    z = noise.normal(key, (*shape, *d.event_shape), noise_dtype(d))
    return d.loc + times_vector(d.scale_tril, z)


def _low_rank(d: dist.LowRankMultivariateNormal, key: Key, shape: Shape) -> Array:
    rank = d.cov_factor.shape[-1]
    z = noise.normal(key, (*shape, rank + d.event_shape[0]), noise_dtype(d))
    spread = jnp.sqrt(d.cov_diag) * z[..., rank:]
    return d.loc + times_vector(d.cov_factor, z[..., :rank]) + spread


def _matrix_normal(d: dist.MatrixNormal, key: Key, shape: Shape) -> Array:
    z = noise.normal(key, (*shape, *d.event_shape), noise_dtype(d))
    return d.loc + d.scale_tril_row @ z @ jnp.swapaxes(d.scale_tril_column, -2, -1)


RECORDS: dict[type, Record] = {
    dist.MultivariateNormal: Record(_multivariate_normal),
    dist.LowRankMultivariateNormal: Record(_low_rank),
    dist.MatrixNormal: Record(_matrix_normal),
}


# ---- for the components of mixtures --------------------------------------------------------------


def is_normal_vector(d: dist.Distribution) -> bool:
    """Whether each coordinate is normal given those before it, and how is known."""
    return type(unwrapped(d, dist.ExpandedDistribution)) in (
        dist.MultivariateNormal,
        dist.LowRankMultivariateNormal,
    )


def loc_and_factor(d: dist.Distribution) -> tuple[Array, Array]:
    """Of such a vector: mean and Cholesky factor."""
    inner: Any = unwrapped(d, dist.ExpandedDistribution)
    if isinstance(inner, dist.LowRankMultivariateNormal):
        return inner.loc, jnp.linalg.cholesky(inner.covariance_matrix)
    return inner.loc, inner.scale_tril


def whitened(loc: Array, factor: Array, x: Array) -> Array:
    """The standard normals that x is made of."""
    eye = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    inverse = solve_triangular(factor, eye, lower=True)
    return jnp.clip(times_vector(inverse, x - loc), -FAR, FAR)
