"""Checks of arguments that functions of every room take."""

import jax
import jax.numpy as jnp

__all__ = ["check_key", "check_not_fit"]


def check_key(key: object, call: str = "...") -> None:
    """Raises TypeError for what is not one key; ``call`` is what to map over several."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    default = jax.config.jax_default_prng_impl  # type: ignore[attr-defined]
    words = 2 if default == "threefry2x32" else 4
    legacy = dtype == jnp.uint32 and shape[-1:] == (words,)
    if (typed and shape == ()) or (legacy and len(shape) == 1):
        return
    got = type(key).__name__ if dtype is None else f"{dtype}{list(shape)}"
    several = f"; for each of several keys, jax.vmap(lambda key: {call})(keys)"
    raise TypeError(
        f"key must be a single key such as jax.random.key(0), got {got}"
        f"{several if typed or legacy else ''}."
    )


def check_not_fit(params: object, what: str) -> None:
    """Raises TypeError for the result of a fit in place of its params."""
    if hasattr(params, "params") and hasattr(params, "losses"):
        raise TypeError(f"{what} takes params, got a fit: pass fit.params.")
