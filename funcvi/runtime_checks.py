"""Errors about values that only a running program knows, raised under jit too."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from funcvi._jax import is_concrete

__all__ = ["concrete", "require"]


T = TypeVar("T")


def require(holds: ArrayLike, values: T, error: Callable[[], Exception]) -> T:
    """``values`` if ``holds``; else ``error()`` is raised when the value is known.

    Outside of jit it is raised at once. Inside, the compiled program calls back to the host, in
    the failing case alone, and JAX raises a ``JaxRuntimeError`` with the message; ``values`` are
    made to depend on the check, so that it cannot be optimised away.

    Args:
        holds: a boolean array of any shape; all of it must hold.
        values: a pytree of arrays.
        error: makes the exception.
    """
    with jax.ensure_compile_time_eval():  # what is constant stays so inside jit
        all_hold = jnp.all(jnp.asarray(holds))
    if is_concrete(all_hold):
        if not bool(all_hold):
            raise error()
        return values

    def raise_on_host(holds: np.ndarray) -> np.ndarray:
        if not np.all(holds):
            raise error()
        return np.asarray(holds)  # under vmap both branches run

    def fail(holds: jax.Array) -> jax.Array:
        return jax.pure_callback(raise_on_host, holds, holds, vmap_method="expand_dims")

    known = jax.lax.stop_gradient(all_hold)
    fine = jax.lax.cond(known, jnp.ones_like, fail, known)
    # Neither a value nor its gradient can be had without the check: XLA cannot know that both
    # sides are the same.
    checked: T = jax.tree.map(lambda x: jnp.where(fine, x, jnp.zeros_like(x)), values)
    return checked


def concrete(value: object) -> np.ndarray | None:
    """``value`` as a numpy array, or None while it is traced and nothing is known of it yet.

    For checks of initial values and for printing alone: what is computed must not depend on it.
    """
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        return None
