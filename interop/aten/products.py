"""Products of matrices and vectors."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast, together
from interop.aten.registry import Table

rules = Table()


@rules(
    "aten.mm.default",
    "aten.bmm.default",
    "aten.matmul.default",
    "aten.mv.default",
    "aten.dot.default",
    "aten.linalg_matmul.default",
)
def matmul(x: Any, y: Any) -> jax.Array:
    return jnp.matmul(x, y)


@rules("aten.vdot.default")
def vdot(x: Any, y: Any) -> jax.Array:
    return jnp.vdot(x, y)


@rules("aten.linear.default")
def linear(x: Any, weight: Any, bias: Any = None) -> jax.Array:
    axis = weight.ndim - 1
    y = jax.lax.dot_general(x, weight, (((x.ndim - 1,), (axis,)), ((), ())))
    return y if bias is None else y + bias


def _added(c: Any, product: jax.Array, beta: Any, alpha: Any) -> jax.Array:
    """``beta c + alpha product``; with ``beta`` zero, whatever ``c`` has is not looked at."""
    dtype = product.dtype
    product = product if alpha == 1 else cast(alpha, dtype) * product
    if beta == 0:
        return product
    return (c if beta == 1 else cast(beta, dtype) * c) + product


@rules("aten.addmm.default", "aten.addmv.default", "aten.baddbmm.default")
def addmm(c: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> jax.Array:
    return _added(c, jnp.matmul(x, y), beta, alpha)


@rules("aten.addbmm.default")
def addbmm(c: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> jax.Array:
    return _added(c, jnp.einsum("bij,bjk->ik", x, y), beta, alpha)


@rules("aten.addr.default")
def addr(c: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1, result: Any) -> jax.Array:
    return _added(c, jnp.outer(x, y).astype(result.dtype), beta, alpha)


@rules("aten.outer.default", "aten.ger.default")
def outer(x: Any, y: Any) -> jax.Array:
    return jnp.outer(*together(x, y))


@rules("aten.einsum.default")
def einsum(equation: str, operands: Any, *_: Any, **__: Any) -> jax.Array:
    return jnp.einsum(equation, *operands)


@rules("aten.tensordot.default")
def tensordot(x: Any, y: Any, left: Any, right: Any) -> jax.Array:
    return jnp.tensordot(x, y, axes=(tuple(left), tuple(right)))


@rules("aten.kron.default")
def kron(x: Any, y: Any) -> jax.Array:
    return jnp.kron(*together(x, y))


@rules("aten.bilinear.default")
def bilinear(x: Any, y: Any, weight: Any, bias: Any = None) -> jax.Array:
    z = jnp.einsum("...i,kij,...j->...k", x, weight, y)
    return z if bias is None else z + bias


@rules("aten.linalg_cross.default")
def cross(x: Any, y: Any, *, dim: int = -1) -> jax.Array:
    x, y = jnp.broadcast_arrays(*together(x, y))
    return jnp.cross(x, y, axis=dim)


@rules("aten.cdist.default", "aten._cdist_forward.default")
def cdist(x: Any, y: Any, p: float = 2.0, *_: Any) -> jax.Array:
    """Distances of rows; where two rows are equal the gradient is zero."""
    gap = x[..., :, None, :] - y[..., None, :, :]
    return norm_along_last(gap, p)


@rules("aten.pdist.default", "aten._pdist_forward.default")
def pdist(x: Any, p: float = 2.0) -> jax.Array:
    rows, columns = jnp.triu_indices(x.shape[0], 1)
    return norm_along_last(x[rows] - x[columns], p)


def norm_along_last(gap: jax.Array, p: float) -> jax.Array:
    """The p-norm along the last axis, with a gradient of zero where it is zero."""
    size = jnp.where(gap < 0, -gap, jnp.where(gap == 0, jnp.zeros_like(gap), gap))
    if p == 0:
        return (size != 0).sum(-1).astype(gap.dtype)
    if p == 1:
        return size.sum(-1)
    if p == float("inf"):
        return size.max(-1) if size.shape[-1] else jnp.zeros(size.shape[:-1], size.dtype)
    zero = size == 0
    powers = jnp.where(zero, 0, jnp.where(zero, 1, size) ** p).sum(-1)
    none = powers == 0
    return jnp.where(none, 0, jnp.where(none, 1, powers) ** (1 / p))
