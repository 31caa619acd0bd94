"""Products of matrices and vectors."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.registry import Table

rules = Table()


@rules("aten.mm.default", "aten.bmm.default", "aten.matmul.default", "aten.mv.default", "aten.dot.default")
def matmul(x: Any, y: Any) -> jax.Array:
    return x @ y


@rules("aten.linear.default")
def linear(x: Any, weight: Any, bias: Any = None) -> jax.Array:
    y = x @ weight.T
    return y if bias is None else y + bias


@rules("aten.addmm.default")
def addmm(c: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> jax.Array:
    return beta * c + alpha * (x @ y)
