"""The width of a draw: that of the distribution's own parameters."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

__all__ = ["bounded_exp", "floats", "inside", "noise_dtype", "own_dtype"]


def own_dtype(d: dist.Distribution) -> jnp.dtype:
    """The widest float among the parameters; without one, JAX's default."""
    parts = jax.tree.leaves(d, is_leaf=lambda x: isinstance(x, (dist.Delta, *_OF_CONSTANTS)))
    given = floats([_arguments(x) if isinstance(x, _OF_CONSTANTS) else x for x in parts])
    # The arrays and not their dtypes: without x64, numpy's float64 becomes float32 unasked.
    return jnp.result_type(*given) if given else jnp.result_type(float)


# Of numpyro's own constants, a location of zero, they make arrays of numpy's float64.
_OF_CONSTANTS = (dist.Chi2, dist.HalfCauchy, dist.HalfNormal, dist.StudentT)


def _arguments(d: dist.Distribution) -> list[Any]:
    return [getattr(d, name) for name in type(d).arg_constraints]


def floats(tree: Any) -> list[Array]:
    """The floating-point leaves of a pytree; of a Delta its value, for it is what is drawn.

    Its ``log_density`` is float32 unless it is given, whatever its value is.
    """
    parts = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, dist.Delta))
    parts = [x.v if isinstance(x, dist.Delta) else x for x in parts]
    leaves = [x for x in jax.tree.leaves(parts) if hasattr(x, "dtype")]
    return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]


def noise_dtype(d: dist.Distribution) -> jnp.dtype:
    """What to draw in: float64 for a float64 distribution, else float32."""
    return own_dtype(d) if own_dtype(d) == jnp.float64 else jnp.dtype(jnp.float32)


def inside(x: Array, kind: str | None = "unit") -> Array:
    """Off the ends of the support, where rounding may have put it."""
    info = jnp.finfo(x.dtype)
    if kind == "unit":
        return jax.lax.clamp(info.tiny, x, 1 - info.eps)
    return jax.lax.clamp(info.tiny if kind == "positive" else info.min, x, info.max)


def bounded_exp(log_x: Array) -> Array:
    """Large instead of infinite, and there without a gradient, where it would be infinite too."""
    large = 0.95 * math.log(jnp.finfo(log_x.dtype).max)
    return jnp.exp(jnp.where(log_x > large, large, log_x))
