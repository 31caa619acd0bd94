"""What XLA does slowly inside its loops."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params

__all__ = ["convolves", "slow_in_loops"]


def slow_in_loops(trace: Callable[[], Any]) -> bool:
    """Whether a Python loop over compiled calls is the faster one, for the jaxpr that is traced.

    On CPU XLA has fast convolutions only outside loops; inside them they take some fifty
    times as long. On other devices nothing is traced.
    """
    return jax.default_backend() == "cpu" and convolves(trace())


def convolves(jaxpr: Any) -> bool:
    """Whether any of its equations is a convolution, at any depth."""
    return any(
        equation.primitive.name == "conv_general_dilated"
        or any(map(convolves, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )
