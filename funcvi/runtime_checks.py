"""Errors about values that only a running program knows, raised under jit too."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["concrete", "require"]


def require(holds: Any, values: Any, error: Callable[[], Exception]) -> Any:
    """``values`` if ``holds``; else ``error()`` is raised when the value is known.

    Outside of jit it is raised at once. Inside, the compiled program calls back to the host, in
    the failing case alone, and JAX raises a ``JaxRuntimeError`` with the message; ``values`` are
    made to depend on the check, so that it cannot be optimised away.

    Args:
        holds: a boolean array of any shape; all of it must hold.
        values: a pytree of arrays.
        error: makes the exception.
    """
    holds = jnp.all(jnp.asarray(holds))
    if not isinstance(holds, jax.core.Tracer):
        if not bool(holds):
            raise error()
        return values
    fine = _fine(error, jax.lax.stop_gradient(holds))
    # Neither a value nor its gradient can be had without the check: XLA cannot know that both
    # sides are the same.
    return jax.tree.map(lambda x: jnp.where(fine, x, jnp.zeros_like(x)), values)


def _fine(error: Callable[[], Exception], holds: Any) -> Any:
    """``holds``, by way of the host where it does not."""

    def raise_on_host(holds: Any) -> Any:
        if not np.all(holds):
            raise error()
        return np.asarray(holds)  # under vmap both branches run

    def fail(holds: Any) -> Any:
        shape = jax.ShapeDtypeStruct((), jnp.bool_)
        return jax.pure_callback(raise_on_host, shape, holds, vmap_method="expand_dims")

    return jax.lax.cond(holds, jnp.ones_like, fail, holds)


def concrete(value: object) -> np.ndarray | None:
    """``value`` as a numpy array, or None while it is traced and nothing is known of it yet.

    For checks of initial values and for printing alone: what is computed must not depend on it.
    """
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        return None
