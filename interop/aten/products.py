"""Products of matrices and vectors, and distances of rows."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast, together
from interop.aten.norms import norm, root
from interop.aten.registry import Table
from interop.errors import ConversionError

rules = Table()


@rules(
    "aten.mm.default",
    "aten.bmm.default",
    "aten.matmul.default",
    "aten.mv.default",
    "aten.dot.default",
    "aten.linalg_matmul.default",
)
def matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y)


@rules("aten.mm.dtype", "aten.bmm.dtype", "aten._int_mm.default")
def matmul_in(x: jax.Array, y: jax.Array, *_: Any, result: Any) -> jax.Array:
    """With an outcome of a wider dtype."""
    return jnp.matmul(x, y, preferred_element_type=result.dtype)


@rules("aten.vdot.default")
def vdot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.vdot(x, y)


@rules("aten.linear.default")
def linear(x: jax.Array, weight: jax.Array, bias: Any = None) -> jax.Array:
    y = jax.lax.dot_general(x, weight, (((x.ndim - 1,), (weight.ndim - 1,)), ((), ())))
    return y if bias is None else y + bias


def _added(c: jax.Array, product: jax.Array, beta: Any, alpha: Any) -> jax.Array:
    """``beta c + alpha product``; with ``beta`` zero, whatever ``c`` has is not looked at."""
    dtype = product.dtype
    product = product if alpha == 1 else cast(alpha, dtype) * product
    if beta == 0:
        return product
    return (c if beta == 1 else cast(beta, dtype) * c) + product


@rules("aten.addmm.default", "aten.addmv.default", "aten.baddbmm.default")
def addmm(
    c: jax.Array, x: jax.Array, y: jax.Array, *, beta: Any = 1, alpha: Any = 1, result: Any
) -> jax.Array:
    return jnp.broadcast_to(_added(c, jnp.matmul(x, y), beta, alpha), result.shape)


@rules("aten.addbmm.default")
def addbmm(c: jax.Array, x: jax.Array, y: jax.Array, *, beta: Any = 1, alpha: Any = 1) -> jax.Array:
    return _added(c, jnp.einsum("bij,bjk->ik", x, y), beta, alpha)


@rules("aten.addr.default")
def addr(
    c: jax.Array, x: jax.Array, y: jax.Array, *, beta: Any = 1, alpha: Any = 1, result: Any
) -> jax.Array:
    return cast(_added(c, cast(jnp.outer(x, y), result.dtype), beta, alpha), result.dtype)


@rules("aten.outer.default", "aten.ger.default")
def outer(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.outer(*together(x, y))


@rules("aten.einsum.default")
def einsum(equation: str, operands: Any, **_: Any) -> jax.Array:
    return jnp.einsum(equation, *operands)


@rules("aten.tensordot.default")
def tensordot(x: jax.Array, y: jax.Array, left: Any, right: Any) -> jax.Array:
    """An axis of length one pairs with any: the longer one is summed."""
    for one, other in zip(left, right, strict=True):
        if x.shape[one] == 1:
            y = jnp.sum(y, other, keepdims=True)
        elif y.shape[other] == 1:
            x = jnp.sum(x, one, keepdims=True)
    return jnp.tensordot(x, y, axes=(tuple(left), tuple(right)))


@rules("aten.kron.default")
def kron(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.kron(*together(x, y))


@rules("aten.bilinear.default")
def bilinear(x: jax.Array, y: jax.Array, weight: jax.Array, bias: Any = None) -> jax.Array:
    z = jnp.einsum("...i,kij,...j->...k", x, weight, y)
    return z if bias is None else z + bias


@rules("aten.linalg_cross.default")
def cross(x: jax.Array, y: jax.Array, *, dim: int = -1) -> jax.Array:
    x, y = jnp.broadcast_arrays(*together(x, y))
    return jnp.cross(x, y, axis=dim)


@rules("aten._grouped_mm.default", "transformers.grouped_mm_fallback.default")
def grouped_matmul(
    x: jax.Array,
    y: jax.Array,
    ends: Any = None,
    bias: Any = None,
    dtype: Any = None,
    *,
    result: Any,
) -> jax.Array:
    """Rows of ``x`` in consecutive groups that stop at ``ends``, each with a matrix of its own."""
    if bias is not None or x.ndim + y.ndim == 4:
        raise ConversionError("_grouped_mm with a bias, or of two matrices, is not covered")
    if ends is None or (x.ndim, y.ndim) == (3, 3):
        return cast(jnp.matmul(x, y), result.dtype)
    if x.ndim == 3:  # the groups are columns of y
        flipped = jax.lax.ragged_dot(jnp.swapaxes(y, 0, 1), jnp.swapaxes(x, 1, 2), _sizes(ends))
        return cast(jnp.swapaxes(flipped, 0, 1), result.dtype)
    return cast(jax.lax.ragged_dot(x, y, _sizes(ends)), result.dtype)


def _sizes(ends: jax.Array) -> jax.Array:
    return jnp.diff(ends, prepend=jnp.zeros((1,), ends.dtype))


# ---- distances ----------------------------------------------------------------------------------


@rules("aten.cdist.default", "aten._cdist_forward.default")
def cdist(x: jax.Array, y: jax.Array, p: float = 2.0, mode: int | None = None) -> jax.Array:
    """Distances of all rows; between many, Euclidean ones by a matrix product, as torch chooses."""
    many = x.shape[-2] > 25 or y.shape[-2] > 25
    if p == 2 and (mode == 1 or (mode in (None, 0) and many)):
        return euclidean(x, y)
    return _sized(x[..., :, None, :] - y[..., None, :, :], p)


@rules("aten._euclidean_dist.default")
def euclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    lengths = jnp.sum(x * x, -1)[..., :, None] + jnp.sum(y * y, -1)[..., None, :]
    squares = lengths - 2 * jnp.matmul(x, jnp.swapaxes(y, -1, -2))
    return root(jnp.where(squares > 0, squares, 0), 2)


@rules("aten.pdist.default", "aten._pdist_forward.default")
def pdist(x: jax.Array, p: float = 2.0) -> jax.Array:
    rows, columns = jnp.triu_indices(x.shape[0], 1)
    return _sized(x[rows] - x[columns], p)


def _sized(gaps: jax.Array, p: float) -> jax.Array:
    if not gaps.size:
        return jnp.zeros(gaps.shape[:-1], gaps.dtype)
    return _largest(gaps) if p == math.inf else norm(gaps, p, -1, False)


@jax.custom_jvp
def _largest(gaps: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(gaps), -1)


@_largest.defjvp
def _largest_slope(primals: Any, tangents: Any) -> Any:
    """Each of several equal gaps has the whole slope, as in torch."""
    (gaps,), (moved,) = primals, tangents
    best = _largest(gaps)
    chosen = jnp.abs(gaps) == best[..., None]
    return best, jnp.sum(jnp.where(chosen, jnp.sign(gaps) * moved, 0), -1)
