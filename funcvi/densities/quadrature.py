"""Integrals of log-concave densities around a reference point, to all digits."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient

__all__ = ["log_integral", "negligible"]

_RULES = {size: np.polynomial.legendre.leggauss(size) for size in (32, 64)}


def negligible(dtype: jnp.dtype) -> float:
    """By how many nats a density has fallen where the rest of its tail no longer counts."""
    return 40.0 if dtype == jnp.float64 else 20.0


def log_integral(
    fall: Callable[[Array], Array], below: Array, above: Array, reach: tuple[Array, Array]
) -> Array:
    """``log(integral of exp(-fall(s)) for s from -below to above)``, by Gauss-Legendre's rule.

    Differentiable, any number of times, in what ``fall`` is made of and in both lengths, where
    ``fall`` is smooth on either side of zero.

    Args:
        fall: of the log density from s = 0 on, zero there and nowhere negative; elementwise, of
            arrays with one more axis at the end than the others here have.
        below: length, not negative; may be infinite, as may ``above``.
        above: length.
        reach: lengths on either side beyond which the density is negligible.

    Example:
        >>> import jax.numpy as jnp
        >>> none, far = jnp.float32(0.0), jnp.float32(jnp.inf)
        >>> abs(float(log_integral(lambda s: s, none, far, (none, jnp.float32(20.0))))) < 1e-6
        True
    """
    return jnp.log(_one_side(fall, below, reach[0], -1) + _one_side(fall, above, reach[1], 1))


def _one_side(fall: Callable[[Array], Array], length: Array, reach: Array, sign: int) -> Array:
    nodes, weights = _RULES[64 if length.dtype == jnp.float64 else 32]
    end = jnp.minimum(length, stop_gradient(reach))[..., None]
    share = jnp.asarray((nodes + 1) / 2, length.dtype)
    heights = jnp.exp(-fall(sign * end * share))
    return jnp.sum(end * heights * jnp.asarray(weights / 2, length.dtype), axis=-1)
