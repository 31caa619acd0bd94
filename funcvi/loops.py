"""What XLA does slowly inside its loops."""

from collections.abc import Callable, Collection
from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive, jaxprs_in_params

__all__ = ["contains", "slow_in_loops"]


def slow_in_loops(trace: Callable[[], Any]) -> bool:
    """Whether a Python loop over compiled calls is the faster one, for the jaxpr that is traced.

    On CPU XLA has fast convolutions only outside loops; inside them they take some fifty
    times as long. On other devices nothing is traced.
    """
    return jax.default_backend() == "cpu" and contains(trace(), [lax.conv_general_dilated_p])


def contains(jaxpr: Any, primitives: Collection[Primitive]) -> bool:
    """Whether any of its equations, at any depth, is of one of these."""
    return any(
        equation.primitive in primitives
        or any(contains(inner, primitives) for inner in jaxprs_in_params(equation.params))
        for equation in jaxpr.eqns
    )
