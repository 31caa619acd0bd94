"""Functions differentiated as torch does it, where JAX would have another slope, or none."""

from collections.abc import Callable
from typing import Any

import jax

Function = Callable[..., jax.Array]


def with_slopes(function: Function, *slopes: Function) -> Function:
    """``function`` of arrays of one shape; ``slopes`` are its derivatives by each, in their terms.

    What the slopes call may be the outcome itself, so that there are second derivatives.
    """
    found = jax.custom_jvp(function)

    def forward(primals: Any, tangents: Any) -> Any:
        value = found(*primals)
        total: Any = 0
        for slope, tangent in zip(slopes, tangents, strict=True):
            total = total + slope(*primals) * tangent
        return value, total.astype(value.dtype)

    found.defjvp(forward)
    return found
