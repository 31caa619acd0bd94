"""What the rules of layers share: sizes per axis, a missing batch axis, wide accumulation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.errors import ConversionError

MEAN, SUM = 1, 2
"""torch's numbers of the reductions of losses; 0 is none."""


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """One number per axis, of a number or a list of one or all."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * axes if len(values) == 1 else values


def batched(x: jax.Array, rank: int) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """``x`` with as many axes as ``rank``, leading ones added, and what takes those away again."""
    missing = rank - x.ndim
    return jnp.reshape(x, (1,) * missing + x.shape), lambda y: jnp.reshape(y, y.shape[missing:])


def wide(x: Any) -> Any:
    """16-bit floats in 32 bits, as torch computes inside an operation; all else as it is."""
    if x is not None and x.dtype in (jnp.bfloat16, jnp.float16):
        return x.astype(np.float32)
    return x


def widely(function: Callable[..., Any]) -> Callable[[jax.Array], jax.Array]:
    """An elementwise function of one array, computed wide and rounded once."""
    return lambda x: function(wide(x)).astype(x.dtype)


def reduced(losses: jax.Array, reduction: int) -> jax.Array:
    """The mean, the sum, or all."""
    if reduction == MEAN:
        return jnp.mean(losses)
    return jnp.sum(losses) if reduction == SUM else losses


def lowest(dtype: Any) -> Any:
    """What a maximum starts from."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.array(-np.inf, dtype)
    if np.dtype(dtype) == np.bool_:
        return np.array(False)
    return np.array(jnp.iinfo(dtype).min, dtype)


def refuse(condition: bool, message: str) -> None:
    """Raises where a rule does not cover an argument's value."""
    if condition:
        raise ConversionError(message)


def magnitude(x: jax.Array) -> jax.Array:
    """The absolute value, with slope 0 at 0."""
    return x * jax.lax.stop_gradient(jnp.sign(x))


def scaled_gradient(x: jax.Array, factor: Any) -> jax.Array:
    """``x``, its gradient multiplied by ``factor``."""
    fixed = jax.lax.stop_gradient(x)
    return fixed + factor * jnp.where(jnp.isfinite(fixed), x - fixed, 0)


def needed(key: Any) -> Any:
    """An optional key, where it is not."""
    refuse(key is None, "draws random numbers and no key came: pass key=")
    return key
