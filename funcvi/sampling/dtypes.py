"""The width of a draw: that of the distribution's own parameters."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

__all__ = ["inside", "noise_dtype", "own_dtype"]


def own_dtype(d: dist.Distribution) -> jnp.dtype:
    """The widest float among the parameters; without one, JAX's default."""
    leaves = [x for x in jax.tree.leaves(d) if hasattr(x, "dtype")]
    floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    # The arrays and not their dtypes: without x64, numpy's float64 becomes float32 unasked.
    return jnp.result_type(*floats) if floats else jnp.result_type(float)


def noise_dtype(d: dist.Distribution) -> jnp.dtype:
    """What to draw in: float64 for a float64 distribution, else float32."""
    return own_dtype(d) if own_dtype(d) == jnp.float64 else jnp.dtype(jnp.float32)


def inside(x: Array, kind: str | None = "unit") -> Array:
    """Off the ends of the support, where rounding may have put it."""
    info = jnp.finfo(x.dtype)
    if kind == "unit":
        return jnp.clip(x, info.tiny, 1 - info.eps)
    return jnp.clip(x, info.tiny if kind == "positive" else info.min, info.max)
