"""Orthogonal polynomials of a degree per element, by their recurrences; torch has no gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.dtypes import cast
from interop.aten.layers import wide
from interop.aten.registry import Table

rules = Table()

Next = Callable[[Any, Any, Any, Any], Any]
"""The polynomial of degree k + 1 from k, x and those of degree k and k - 1."""


def _chebyshev(k: Any, x: Any, p: Any, before: Any) -> Any:
    return 2 * x * p - before


def _hermite(k: Any, x: Any, p: Any, before: Any) -> Any:
    return 2 * x * p - 2 * k * before


def _hermite_of_probability(k: Any, x: Any, p: Any, before: Any) -> Any:
    return x * p - k * before


def _laguerre(k: Any, x: Any, p: Any, before: Any) -> Any:
    return ((2 * k + 1 - x) * p - k * before) / (k + 1)


def _legendre(k: Any, x: Any, p: Any, before: Any) -> Any:
    return ((2 * k + 1) * x * p - k * before) / (k + 1)


FAMILIES: dict[str, tuple[tuple[float, float], Next]] = {
    "chebyshev_polynomial_t": ((0, 1), _chebyshev),
    "chebyshev_polynomial_u": ((0, 2), _chebyshev),
    "chebyshev_polynomial_v": ((-1, 2), _chebyshev),
    "chebyshev_polynomial_w": ((1, 2), _chebyshev),
    "hermite_polynomial_h": ((0, 2), _hermite),
    "hermite_polynomial_he": ((0, 1), _hermite_of_probability),
    "laguerre_polynomial_l": ((1, -1), _laguerre),
    "legendre_polynomial_p": ((0, 1), _legendre),
}
"""The polynomial of degree 1, which the recurrence starts from, and the recurrence."""

HIGHEST_HERMITE = {np.dtype(np.float64): 512}
"""torch gives NaN above; 128 in single precision."""


def _polynomial(name: str, shifted: bool) -> None:
    (constant, slope), proceed = FAMILIES[name]
    operation = f"aten.special_{'shifted_' if shifted else ''}{name}"

    @rules(f"{operation}.default", f"{operation}.x_scalar", f"{operation}.n_scalar")
    def rule(x: Any, n: Any, *, result: Any) -> jax.Array:
        x, n = jnp.broadcast_arrays(cast(x, result.dtype), cast(n, result.dtype))
        x = wide(jax.lax.stop_gradient(x))
        degree = jnp.trunc(jax.lax.stop_gradient(n)).astype(np.int32)
        x = 2 * x - 1 if shifted else x
        last = degree
        if name.startswith("hermite"):
            last = jnp.where(degree > HIGHEST_HERMITE.get(x.dtype, 128), 0, degree)

        def once(state: Any) -> Any:
            k, p, before, found = state
            p, before = proceed(k.astype(x.dtype), x, p, before), p
            return k + 1, p, before, jnp.where(last == k + 1, p, found)

        first = constant + slope * x
        found = jnp.where(last == 0, jnp.ones_like(x), first)
        start = (jnp.ones((), np.int32), first, jnp.ones_like(x), found)
        end = jnp.max(last, initial=0)
        found = jax.lax.while_loop(lambda state: state[0] < end, once, start)[-1]
        found = jnp.where(last == degree, found, np.nan)
        return jnp.where(degree < 0, 0, found).astype(result.dtype)


for _name in FAMILIES:
    _polynomial(_name, shifted=False)
    if _name.startswith("chebyshev"):
        _polynomial(_name, shifted=True)
