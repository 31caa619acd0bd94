"""Values and small distributions that the catalogue is made of."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist

__all__ = [
    "Pair",
    "a",
    "correlation",
    "covariance",
    "drift",
    "factor",
    "flags",
    "gamma",
    "logits",
    "normal",
    "probs",
]


class Pair(NamedTuple):
    """A joint with names."""

    first: Any
    second: Any


def a(*values: Any) -> Any:
    return jnp.array(values if len(values) > 1 else values[0])


def factor(n: int = 2) -> Any:
    """A generic Cholesky factor."""
    rows = jnp.arange(1.0, n + 1)[:, None]
    columns = jnp.arange(1.0, n + 1)
    return jnp.tril(0.3 * jnp.sin(3 * rows + 2 * columns), -1) + jnp.diag(0.6 + 0.35 * columns)


def covariance(n: int = 2) -> Any:
    return factor(n) @ factor(n).T


def correlation(n: int = 3) -> Any:
    c = covariance(n)
    scale = jnp.sqrt(jnp.diagonal(c))
    return c / scale[:, None] / scale


def gamma() -> Any:
    return dist.Gamma(a(1.7, 2.4), 1.3)


def normal() -> Any:
    return dist.Normal(a(0.4, -0.8), 1.3)


def flags() -> Any:
    return jnp.array([True, False])


def probs() -> Any:
    return a([0.2, 0.3, 0.5], [0.45, 0.15, 0.4])


def logits() -> Any:
    return a([0.2, -0.3, 0.6], [-0.5, 0.1, 0.4])


def drift(x: Any, t: Any) -> Any:
    return -0.7 * x, 0.5 * jnp.ones_like(x)
