"""The density of LKJ's Cholesky factors, which may be singular but for a rounding."""

import math

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi.densities.stirling import log_beta_density

__all__ = ["log_lkj_density"]


def log_lkj_density(d: dist.LKJCholesky, log_diagonal: Array) -> Array:
    """By the logs of the factor's diagonal, (*sample, *batch, dimension).

    Its norm is that of the partial correlations at zero, Beta variables on (-1, 1): Lewandowski et
    al. 2009, doi:10.1016/j.jmva.2009.04.008.
    """
    dtype = jnp.promote_types(log_diagonal.dtype, jnp.float32)
    row = jnp.arange(1, d.dimension)
    concentration = jnp.asarray(d.concentration, dtype)[..., None]
    a = concentration + (row - 1) / 2
    half, log_half = jnp.full_like(a, 0.5), jnp.full_like(a, -math.log(2))
    at_zero = log_beta_density(a, a, (half, half), (log_half, log_half)) - math.log(2)
    order = 2 * concentration - 3 + d.dimension - row
    return jnp.sum(row * at_zero, axis=-1) + jnp.sum(order * log_diagonal[..., 1:], axis=-1)
