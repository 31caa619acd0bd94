"""Gamma draws that cannot hang: jax.random.gamma where it is fast, a closed form beyond."""

import jax
import jax.numpy as jnp
from jax import Array

from funcvi._types import Key

__all__ = ["standard_gamma"]

# The derivative of jax.random.gamma takes seconds at 1e8 and does not end at 1e12, where an
# optimiser that overshoots arrives in one step.
_LARGE = 1e6


def standard_gamma(key: Key, concentration: Array, shape: tuple[int, ...]) -> Array:
    """Draws from Gamma(concentration, 1), with pathwise gradients at any concentration.

    Above 1e6 the cube of a normal (Wilson and Hilferty 1931, doi:10.1073/pnas.17.12.684), whose
    quantiles are then right to a few parts in 1e9, less than float32 can hold.

    Args:
        key: a key.
        concentration: array that broadcasts to ``shape``, positive.
        shape: of the draws.

    Returns:
        Array of ``shape``, in the dtype of ``concentration``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> round(float(standard_gamma(jax.random.key(0), jnp.float32(1e30), ())) / 1e30, 6)
        1.0
    """
    exact_key, normal_key = jax.random.split(key)
    is_large = ~(concentration <= _LARGE)  # NaN is large: it passes through, where a loop might not
    exact = jax.random.gamma(
        exact_key, jnp.where(is_large, 1.0, concentration), shape, concentration.dtype
    )
    large = jnp.where(is_large, concentration, _LARGE)
    z = jax.random.normal(normal_key, shape, concentration.dtype)
    cube_root = 1 - 1 / (9 * large) + z / (3 * jnp.sqrt(large))
    return jnp.where(is_large, large * cube_root**3, exact)
