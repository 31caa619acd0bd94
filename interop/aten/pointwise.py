"""Arithmetic and elementary functions, element by element, with torch's gradients at kinks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast
from interop.aten.registry import Table

rules = Table()


@rules("aten.add.Tensor", "aten.add.Scalar")
def add(x: Any, y: Any, alpha: Any = 1, *, result: Any) -> jax.Array:
    x, y = cast(x, result.dtype), cast(y, result.dtype)
    return x + (y if alpha == 1 else cast(alpha, result.dtype) * y)


@rules("aten.sub.Tensor", "aten.sub.Scalar")
def subtract(x: Any, y: Any, alpha: Any = 1, *, result: Any) -> jax.Array:
    x, y = cast(x, result.dtype), cast(y, result.dtype)
    return x - (y if alpha == 1 else cast(alpha, result.dtype) * y)


@rules("aten.rsub.Tensor", "aten.rsub.Scalar")
def subtract_from(x: Any, y: Any, alpha: Any = 1, *, result: Any) -> jax.Array:
    return subtract(y, x, alpha, result=result)


@rules("aten.mul.Tensor", "aten.mul.Scalar")
def multiply(x: Any, y: Any, *, result: Any) -> jax.Array:
    return cast(x, result.dtype) * cast(y, result.dtype)


@rules("aten.div.Tensor", "aten.div.Scalar")
def divide(x: Any, y: Any, *, result: Any) -> jax.Array:
    return cast(x, result.dtype) / cast(y, result.dtype)


@rules("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def power(x: Any, y: Any, *, result: Any) -> jax.Array:
    x = cast(x, result.dtype)
    if isinstance(y, int | float) and float(y).is_integer() and abs(y) < 64:
        return jax.lax.integer_pow(x, int(y))
    return jnp.power(x, cast(y, result.dtype))


def _elementwise(*names: str, function: Callable[[jax.Array], jax.Array]) -> None:
    @rules(*(f"aten.{name}.default" for name in names))
    def rule(x: Any, *, result: Any) -> jax.Array:
        return function(cast(x, result.dtype))


for _name, _function in {
    "neg": jnp.negative,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "log2": jnp.log2,
    "sqrt": jnp.sqrt,
    "rsqrt": jax.lax.rsqrt,
    "reciprocal": jnp.reciprocal,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "erf": jax.scipy.special.erf,
    "sign": jnp.sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "abs": jnp.abs,
    "square": jnp.square,
}.items():
    _elementwise(_name, function=_function)
