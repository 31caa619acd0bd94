"""Checks of arguments that functions of every room take."""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "check_count",
    "check_key",
    "check_not_fit",
    "check_option",
    "signature_of",
    "takes",
]


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


def check_count(value: object, name: str) -> None:
    """Raises ValueError for what is not a positive integer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")


def check_option(value: object, name: str, options: tuple[str, ...]) -> None:
    """Raises ValueError for a string that is none of the options."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}; got {value!r}.")


def signature_of(function: Callable[..., object]) -> inspect.Signature | None:
    """What a function takes, if it is one that tells."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def takes(function: Callable[..., object], *args: object, **kwargs: object) -> bool:
    """Whether it can be called so, as far as its signature tells."""
    signature = signature_of(function)
    if signature is None:
        return callable(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
