"""The width of a draw: that of the distribution's own parameters."""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["noise_dtype", "own_dtype"]


def own_dtype(d: Any) -> Any:
    """The widest float among the parameters; without one, JAX's default."""
    leaves = [x for x in jax.tree.leaves(d) if hasattr(x, "dtype")]
    floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    # The arrays and not their dtypes: without x64, numpy's float64 becomes float32 unasked.
    return jnp.result_type(*floats) if floats else jnp.result_type(float)


def noise_dtype(d: Any) -> Any:
    """What to draw in: float64 for a float64 distribution, else float32."""
    return own_dtype(d) if own_dtype(d) == jnp.float64 else jnp.dtype(jnp.float32)
