"""Polynomials in one and two variables, by Horner's rule, in the dtype of their argument."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

__all__ = ["horner", "horner_rows"]


def horner(coefficients: Sequence[float], x: Array) -> Array:
    """``sum_i c_i x**i``, elementwise."""
    total = jnp.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def horner_rows(rows: Sequence[Sequence[float]], inner: Array, outer: Array) -> Array:
    """``sum_j outer**j sum_i c_ji inner**i``, elementwise. The rows do not wait for each other."""
    total = horner(rows[-1], inner)
    for row in reversed(rows[:-1]):
        total = total * outer + horner(row, inner)
    return total
