"""Cholesky, LU and triangular factors, and what is solved with them.

Where torch raises (a singular or indefinite matrix), the result is inf or NaN; the ``info`` of the
``_ex`` operations tells it, as in torch.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import linalg

from interop.aten.registry import Table
from interop.errors import ConversionError

rules = Table()


def adjoint(x: jax.Array) -> jax.Array:
    """The conjugate transpose of the last two axes."""
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def transpose(x: jax.Array) -> jax.Array:
    """The transpose of the last two axes."""
    return jnp.swapaxes(x, -1, -2)


def batched(*matrices: jax.Array) -> tuple[jax.Array, ...]:
    """Matrices with common batch axes."""
    batch = jnp.broadcast_shapes(*(x.shape[:-2] for x in matrices))
    return tuple(jnp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in matrices)


@jax.custom_jvp
def from_lower(x: jax.Array) -> jax.Array:
    """The Hermitian matrix that torch reads from the lower triangle; its gradient is Hermitian."""
    strict = jnp.tril(x, -1)
    eye = jnp.eye(x.shape[-1], dtype=bool)
    return jnp.where(eye, jnp.real(x).astype(x.dtype), strict + adjoint(strict))


@from_lower.defjvp
def _from_lower_slope(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    return from_lower(x), (dx + adjoint(dx)) / 2


# ---- Cholesky -----------------------------------------------------------------------------------


@rules("aten.linalg_cholesky.default")
def cholesky(x: jax.Array, *, upper: bool = False) -> jax.Array:
    factor = linalg.cholesky(from_lower(adjoint(x) if upper else x), symmetrize_input=False)
    return adjoint(factor) if upper else factor


@rules("aten.cholesky.default")
def cholesky_of_old(x: jax.Array, upper: bool = False) -> jax.Array:
    return cholesky(x, upper=upper)


@rules("aten.linalg_cholesky_ex.default")
def cholesky_with_info(
    x: jax.Array, *, upper: bool = False, check_errors: bool = False, result: Any
) -> Any:
    """``info`` is the order of the first leading minor that is not positive; dropped if unused."""
    if not x.size:
        return x, jnp.zeros(x.shape[:-2], result[1].dtype)
    whole = from_lower(jax.lax.stop_gradient(adjoint(x) if upper else x))
    places = jnp.arange(x.shape[-1])

    def fails(order: jax.Array) -> jax.Array:
        inside = (places < order)[:, None] & (places < order)
        leading = jnp.where(inside, whole, jnp.eye(x.shape[-1], dtype=x.dtype))
        factor = linalg.cholesky(leading, symmetrize_input=False)
        return jnp.any(jnp.isnan(factor), (-1, -2))

    failing = jax.lax.map(fails, places + 1)
    info = jnp.where(jnp.any(failing, 0), jnp.argmax(failing, 0) + 1, 0)
    return cholesky(x, upper=upper), info.astype(result[1].dtype)


@rules("aten.cholesky_solve.default")
def cholesky_solve(b: jax.Array, factor: jax.Array, upper: bool = False) -> jax.Array:
    return _cholesky_solve(*batched(adjoint(factor) if upper else factor, b))


@jax.custom_jvp
def _cholesky_solve(lower: jax.Array, b: jax.Array) -> jax.Array:
    half = linalg.triangular_solve(lower, b, left_side=True, lower=True)
    return linalg.triangular_solve(
        lower, half, left_side=True, lower=True, transpose_a=True, conjugate_a=True
    )


@_cholesky_solve.defjvp
def _cholesky_solve_slope(primals: Any, tangents: Any) -> Any:
    """As torch has it: of the product of the whole factor, the unread triangle too."""
    (lower, b), (dlower, db) = primals, tangents
    x = _cholesky_solve(lower, b)
    moved = dlower @ adjoint(lower)
    return x, _cholesky_solve(lower, db - (moved + adjoint(moved)) @ x)


@rules("aten.cholesky_inverse.default")
def cholesky_inverse(factor: jax.Array, upper: bool = False) -> jax.Array:
    return cholesky_solve(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor, upper)


# ---- triangular systems -------------------------------------------------------------------------


@rules("aten.linalg_solve_triangular.default")
def solve_triangular(
    a: jax.Array, b: jax.Array, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> jax.Array:
    a, b = batched(a, b)
    return linalg.triangular_solve(
        a, b, left_side=left, lower=not upper, unit_diagonal=unitriangular
    )


@rules("aten.triangular_solve.default")
def triangular_solve(
    b: jax.Array,
    a: jax.Array,
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
) -> Any:
    a, b = batched(a, b)
    x = linalg.triangular_solve(
        a,
        b,
        left_side=True,
        lower=not upper,
        transpose_a=transpose,
        unit_diagonal=unitriangular,
    )
    return x, a


# ---- LU -----------------------------------------------------------------------------------------


def _zero_pivot(factor: jax.Array) -> jax.Array:
    """LAPACK's status: which pivot, from 1 on, is the first that is zero, or 0."""
    zero = jnp.diagonal(factor, axis1=-2, axis2=-1) == 0
    if not zero.shape[-1]:
        return jnp.zeros(zero.shape[:-1], jnp.int32)
    return jnp.where(jnp.any(zero, -1), jnp.argmax(zero, -1) + 1, 0).astype(jnp.int32)


def _pivoted(pivot: bool) -> None:
    if not pivot:
        raise ConversionError("LU without pivoting is not covered")


@rules("aten.linalg_lu_factor_ex.default", "aten._lu_with_info.default")
def lu_factor_with_info(
    x: jax.Array, pivot: bool = True, check_errors: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """torch counts pivots from 1."""
    _pivoted(pivot)
    factor, pivots, _ = linalg.lu(x)
    return factor, pivots + 1, _zero_pivot(factor)


@rules("aten.linalg_lu_factor.default")
def lu_factor(x: jax.Array, *, pivot: bool = True) -> Any:
    return lu_factor_with_info(x, pivot)[:2]


def _unpacked(factor: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows, columns = factor.shape[-2:]
    small = min(rows, columns)
    lower = jnp.tril(factor[..., :small], -1) + jnp.eye(rows, small, dtype=factor.dtype)
    return lower, jnp.triu(factor[..., :small, :])


def _permutation(order: jax.Array, dtype: Any) -> jax.Array:
    """The matrix P of A = P L U, where ``order`` is the order of A's rows in L U."""
    return jnp.swapaxes(jax.nn.one_hot(order, order.shape[-1], dtype=dtype), -1, -2)


@rules("aten.linalg_lu.default")
def lu(x: jax.Array, *, pivot: bool = True) -> Any:
    _pivoted(pivot)
    factor, _, order = linalg.lu(x)
    return (_permutation(order, x.dtype), *_unpacked(factor))


@rules("aten.lu_unpack.default")
def lu_unpack(
    factor: jax.Array, pivots: jax.Array, unpack_data: bool = True, unpack_pivots: bool = True
) -> Any:
    none = jnp.zeros((0,), factor.dtype)
    lower, upper = _unpacked(factor) if unpack_data else (none, none)
    if not unpack_pivots:
        return none, lower, upper
    order = linalg.lu_pivots_to_permutation(pivots - 1, factor.shape[-2])
    return _permutation(order, factor.dtype), lower, upper


_conjugate = adjoint  # the name of an argument of torch's below


@rules("aten.linalg_lu_solve.default")
def lu_solve(
    factor: jax.Array, pivots: jax.Array, b: jax.Array, *, left: bool = True, adjoint: bool = False
) -> jax.Array:
    if not left:  # X A = B is A^H X^H = B^H
        flipped = lu_solve(factor, pivots, _conjugate(b), left=True, adjoint=not adjoint)
        return _conjugate(flipped)
    factor, b = batched(factor, b)
    order = linalg.lu_pivots_to_permutation(pivots - 1, factor.shape[-2])
    order = jnp.broadcast_to(order, b.shape[:-1])[..., None]

    def triangular(x: jax.Array, lower: bool) -> jax.Array:
        return linalg.triangular_solve(
            factor,
            x,
            left_side=True,
            lower=lower,
            unit_diagonal=lower,
            transpose_a=adjoint,
            conjugate_a=adjoint,
        )

    if adjoint:
        x = triangular(triangular(b, False), True)
        return jnp.take_along_axis(x, jnp.argsort(order, -2), -2)
    return triangular(triangular(jnp.take_along_axis(b, order, -2), True), False)


@rules("aten.lu_solve.default")
def lu_solve_of_old(b: jax.Array, factor: jax.Array, pivots: jax.Array) -> jax.Array:
    return lu_solve(factor, pivots, b)


# ---- systems, inverses, determinants ------------------------------------------------------------


def _solved(a: jax.Array, b: jax.Array, left: bool) -> jax.Array:
    """``b`` is a vector by torch's rule: one axis, or the matrices' batch and one axis."""
    if b.ndim == 1 or (a.ndim - 1 == b.ndim and b.shape == a.shape[:-1]):
        return _solved(a, b[..., None], True)[..., 0]
    if not left:
        return transpose(_solved(transpose(a), transpose(b), True))
    return jnp.linalg.solve(*batched(a, b))


@rules("aten.linalg_solve.default")
def solve(a: jax.Array, b: jax.Array, *, left: bool = True) -> jax.Array:
    return _solved(a, b, left)


@rules("aten.linalg_solve_ex.default")
def solve_with_info(
    a: jax.Array, b: jax.Array, *, left: bool = True, check_errors: bool = False
) -> Any:
    return _solved(a, b, left), _zero_pivot(linalg.lu(a)[0])


@rules("aten._linalg_solve_ex.default")
def solve_with_factors(
    a: jax.Array, b: jax.Array, *, left: bool = True, check_errors: bool = False
) -> Any:
    return _solved(a, b, left), *lu_factor_with_info(a)


@rules("aten.linalg_inv.default", "aten.inverse.default")
def inverse(x: jax.Array) -> jax.Array:
    return jnp.linalg.inv(x)


@rules("aten.linalg_inv_ex.default")
def inverse_with_info(x: jax.Array, *, check_errors: bool = False) -> Any:
    return jnp.linalg.inv(x), _zero_pivot(linalg.lu(x)[0])


@rules("aten._linalg_check_errors.default")
def check_errors(info: jax.Array, name: str, *, is_matrix: bool) -> None:
    """A compiled program cannot raise: the results are inf or NaN."""


@rules("aten.linalg_tensorsolve.default")
def tensorsolve(a: jax.Array, b: jax.Array, dims: Any = None) -> jax.Array:
    if dims is not None:
        ends = range(a.ndim - len(dims), a.ndim)
        a = jnp.moveaxis(a, tuple(dims), tuple(ends))
    solved = jnp.linalg.solve(a.reshape(b.size, b.size), b.reshape(-1))  # b's shape does not matter
    return solved.reshape(a.shape[b.ndim :])


@rules("aten.linalg_tensorinv.default")
def tensorinv(a: jax.Array, ind: int = 2) -> jax.Array:
    return jnp.linalg.tensorinv(a, ind)


@rules("aten.linalg_det.default", "aten.det.default")
def determinant(x: jax.Array) -> jax.Array:
    return jnp.linalg.det(x) if x.shape[-1] else jnp.ones(x.shape[:-2], x.dtype)


@rules("aten._linalg_det.default")
def determinant_with_factors(x: jax.Array) -> Any:
    return determinant(x), *lu_factor_with_info(x)[:2]


@rules("aten.linalg_slogdet.default", "aten.slogdet.default")
def sign_and_log_determinant(x: jax.Array) -> Any:
    return tuple(jnp.linalg.slogdet(x))


@rules("aten._linalg_slogdet.default")
def sign_and_log_determinant_with_factors(x: jax.Array) -> Any:
    return *sign_and_log_determinant(x), *lu_factor_with_info(x)[:2]


@rules("aten.logdet.default")
def log_determinant(x: jax.Array) -> jax.Array:
    sign, log = jnp.linalg.slogdet(x)
    if jnp.iscomplexobj(x):
        return jnp.log(sign) + log
    return jnp.where(sign < 0, jnp.nan, log)
