"""Norms of vectors, with torch's gradients at zero: none, not NaN."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast, together
from interop.aten.layers import magnitude, wide
from interop.aten.reductions import axes
from interop.aten.registry import Table

rules = Table()


def norm(x: jax.Array, order: float, dim: Any, keepdim: bool) -> jax.Array:
    """The norm of any order over ``dim``, none of which is all."""
    if not x.ndim:
        return norm(x[None], order, 0, False)
    axis = axes(dim)
    options: dict[str, Any] = {"axis": axis, "keepdims": keepdim}
    if order == 0:
        return jnp.sum(jax.lax.stop_gradient(x) != 0, **options).astype(jnp.abs(x).dtype)
    if order == 2:
        squares = x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else x * x
        return root(jnp.sum(squares, **options), 2)
    size = size_of(x)
    if order == math.inf:
        return jnp.max(size, **options, initial=None if x.size else 0)
    if order == -math.inf:
        return jnp.min(size, **options)
    if order == 1:
        return jnp.sum(size, **options)
    return root(jnp.sum(power(size, order), **options), order)


def size_of(x: jax.Array) -> jax.Array:
    """The absolute value, its gradient 0 at 0."""
    if not jnp.iscomplexobj(x):
        return magnitude(x)
    zero = x == 0
    return jnp.where(zero, 0, jnp.abs(jnp.where(zero, 1, x)))


def power(size: jax.Array, order: float) -> jax.Array:
    """A power of what is not negative, its gradient 0 at 0."""
    zero = size == 0
    at_zero = 0 if order > 0 else math.inf
    return jnp.where(zero, at_zero, jnp.power(jnp.where(zero, 1, size), order))


def root(total: jax.Array, order: float) -> jax.Array:
    """The root, its gradient 0 at 0."""
    zero = total == 0
    safe = jnp.where(zero, 1, total)
    found = jnp.sqrt(safe) if order == 2 else jnp.power(safe, 1 / order)
    return jnp.where(zero, 0 if order > 0 else math.inf, found)


@rules("aten.linalg_vector_norm.default")
def vector_norm(
    x: Any,
    order: float = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
    result: Any,
) -> jax.Array:
    return _normed(x, order, dim, keepdim, dtype, result)


@rules(
    "aten.norm.Scalar",
    "aten.norm.ScalarOpt_dim",
    "aten.norm.ScalarOpt_dim_dtype",
    "aten.norm.ScalarOpt_dtype",
)
def norm_rule(
    x: Any,
    order: float | None = None,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
    result: Any,
) -> jax.Array:
    return _normed(x, 2 if order is None else order, dim, keepdim, dtype, result)


def _normed(x: Any, order: float, dim: Any, keepdim: bool, dtype: Any, result: Any) -> jax.Array:
    x = wide(x if dtype is None else cast(x, dtype))
    return norm(x, order, dim, keepdim).astype(result.dtype)


@rules("aten.dist.default")
def distance(x: Any, y: Any, order: float = 2, *, result: Any) -> jax.Array:
    x, y = together(x, y)
    return norm(wide(x - y), order, None, False).astype(result.dtype)


@rules("aten.renorm.default")
def renorm(x: Any, order: float, dim: int, largest: float) -> jax.Array:
    """Slices along ``dim`` whose norm is over ``largest`` are scaled to it."""
    dim = dim % x.ndim
    others = [i for i in range(x.ndim) if i != dim]
    size = norm(wide(x), order, others, True)
    over = size > largest
    factor = jnp.where(over, largest / (jnp.where(over, size, 1) + 1e-7), 1)
    return (x * factor).astype(x.dtype)
