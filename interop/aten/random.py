"""Random numbers: the same laws as torch's, from a JAX key."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.registry import Table

rules = Table()


@rules("aten.native_dropout.default")
def dropout(x: Any, p: float, train: bool | None, *, key: Any) -> Any:
    keep = jax.random.bernoulli(key, 1 - p, x.shape)
    return jnp.where(keep, x / (1 - p), 0), keep


@rules("aten.rand.default", "aten.rand_like.default")
def uniform(*_: Any, result: Any, key: Any, **__: Any) -> jax.Array:
    return jax.random.uniform(key, result.shape, result.dtype)
