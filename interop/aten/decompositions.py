"""Factorisations, solves, inverses and what is made of them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from interop.aten.registry import Table
from interop.errors import ConversionError

rules = Table()


def transposed(x: jax.Array) -> jax.Array:
    """The conjugate transpose of the last two axes."""
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def _fine(result: Any) -> jax.Array:
    """The status that every factorisation gives: errors show as NaN, as they must under jit."""
    return jnp.zeros(result.shape, result.dtype)


@rules("aten.linalg_inv.default", "aten.inverse.default")
def inverse(x: Any) -> jax.Array:
    return jnp.linalg.inv(x)


@rules("aten.linalg_inv_ex.default")
def inverse_with_status(x: Any, *, check_errors: bool = False, result: Any) -> Any:
    return jnp.linalg.inv(x), _fine(result[1])


@rules("aten.linalg_cholesky.default")
def cholesky(x: Any, *, upper: bool = False) -> jax.Array:
    factor = jnp.linalg.cholesky(x, symmetrize_input=True)
    return transposed(factor) if upper else factor


@rules("aten.cholesky.default")
def old_cholesky(x: Any, upper: bool = False) -> jax.Array:
    return cholesky(x, upper=upper)


@rules("aten.linalg_cholesky_ex.default")
def cholesky_with_status(
    x: Any, *, upper: bool = False, check_errors: bool = False, result: Any
) -> Any:
    return cholesky(x, upper=upper), _fine(result[1])


@rules("aten.cholesky_solve.default")
def cholesky_solve(b: Any, factor: Any, upper: bool = False) -> jax.Array:
    lower = transposed(factor) if upper else factor
    y = _triangular(lower, b, lower=True)
    return _triangular(transposed(lower), y, lower=False)


@rules("aten.cholesky_inverse.default")
def cholesky_inverse(factor: Any, upper: bool = False) -> jax.Array:
    eye = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    return cholesky_solve(eye, factor, upper)


def _triangular(a: jax.Array, b: jax.Array, *, lower: bool, unit: bool = False) -> jax.Array:
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = jnp.broadcast_to(a, (*batch, *a.shape[-2:]))
    b = jnp.broadcast_to(b, (*batch, *b.shape[-2:]))
    return solve_triangular(a, b, lower=lower, unit_diagonal=unit)


@rules("aten.linalg_solve_triangular.default")
def solve_triangular_(
    a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> jax.Array:
    if left:
        return _triangular(a, b, lower=not upper, unit=unitriangular)
    a, b = jnp.swapaxes(a, -1, -2), jnp.swapaxes(b, -1, -2)
    return jnp.swapaxes(_triangular(a, b, lower=upper, unit=unitriangular), -1, -2)


@rules("aten.triangular_solve.default")
def triangular_solve(
    b: Any, a: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    lower = not upper
    masked = jnp.tril(a) if lower else jnp.triu(a)
    if transpose:
        x = _triangular(jnp.swapaxes(masked, -1, -2), b, lower=not lower, unit=unitriangular)
    else:
        x = _triangular(masked, b, lower=lower, unit=unitriangular)
    return x, jnp.broadcast_to(a, (*x.shape[:-2], *a.shape[-2:]))


def _is_vector(a: jax.Array, b: jax.Array) -> bool:
    """torch's rule: one axis, or the batch of the matrices and one axis."""
    return b.ndim == 1 or (a.ndim - 1 == b.ndim and b.shape == a.shape[:-1])


def _solved(a: jax.Array, b: jax.Array, left: bool = True) -> jax.Array:
    if _is_vector(a, b):
        return _solved(a, b[..., None])[..., 0]
    if not left:
        return jnp.swapaxes(_solved(jnp.swapaxes(a, -1, -2), jnp.swapaxes(b, -1, -2)), -1, -2)
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = jnp.broadcast_to(a, (*batch, *a.shape[-2:]))
    return jnp.linalg.solve(a, jnp.broadcast_to(b, (*batch, *b.shape[-2:])))


@rules("aten.linalg_solve.default")
def solve(a: Any, b: Any, *, left: bool = True) -> jax.Array:
    return _solved(a, b, left)


@rules("aten.linalg_solve_ex.default")
def solve_with_status(
    a: Any, b: Any, *, left: bool = True, check_errors: bool = False, result: Any
) -> Any:
    return _solved(a, b, left), _fine(result[1])


@rules("aten.linalg_tensorsolve.default")
def tensorsolve(a: Any, b: Any, dims: Any = None) -> jax.Array:
    return jnp.linalg.tensorsolve(a, b, axes=None if dims is None else tuple(dims))


@rules("aten.linalg_tensorinv.default")
def tensorinv(a: Any, ind: int = 2) -> jax.Array:
    return jnp.linalg.tensorinv(a, ind)


@rules("aten.linalg_det.default", "aten.det.default")
def determinant(x: Any) -> jax.Array:
    return jnp.linalg.det(x)


@rules("aten.linalg_slogdet.default", "aten.slogdet.default")
def sign_and_log_determinant(x: Any) -> Any:
    return tuple(jnp.linalg.slogdet(x))


@rules("aten.logdet.default")
def log_determinant(x: Any) -> jax.Array:
    sign, log = jnp.linalg.slogdet(x)
    return jnp.where(sign < 0, jnp.nan, log)


@rules("aten.linalg_qr.default")
def qr(x: Any, mode: str = "reduced") -> Any:
    if mode == "r":
        return jnp.zeros((0,), x.dtype), jnp.linalg.qr(x, mode="r")
    return tuple(jnp.linalg.qr(x, mode=mode))


@rules("aten._linalg_eigh.default")
def eigh(x: Any, UPLO: str = "L", compute_v: bool = True) -> Any:
    values, vectors = jnp.linalg.eigh(x, UPLO=UPLO)
    return values, vectors if compute_v else jnp.zeros((0,), x.dtype)


@rules("aten.linalg_eigh.default")
def eigh_pair(x: Any, UPLO: str = "L") -> Any:
    return tuple(jnp.linalg.eigh(x, UPLO=UPLO))


@rules("aten.linalg_eigvalsh.default")
def eigvalsh(x: Any, UPLO: str = "L") -> jax.Array:
    return jnp.linalg.eigh(x, UPLO=UPLO)[0]


@rules("aten.linalg_eig.default")
def eig(x: Any) -> Any:
    return tuple(jnp.linalg.eig(x))


@rules("aten.linalg_eigvals.default")
def eigvals(x: Any) -> jax.Array:
    return jnp.linalg.eigvals(x)


@rules("aten._linalg_svd.default")
def svd(x: Any, full_matrices: bool = False, compute_uv: bool = True, *, driver: Any = None) -> Any:
    if not compute_uv:
        none = jnp.zeros((0,), x.dtype)
        return none, jnp.linalg.svd(x, compute_uv=False), none
    return tuple(jnp.linalg.svd(x, full_matrices=full_matrices))


@rules("aten.linalg_svd.default")
def svd_triple(x: Any, full_matrices: bool = True, *, driver: Any = None) -> Any:
    return tuple(jnp.linalg.svd(x, full_matrices=full_matrices))


@rules("aten.linalg_svdvals.default")
def svdvals(x: Any, *, driver: Any = None) -> jax.Array:
    return jnp.linalg.svd(x, compute_uv=False)


@rules("aten.linalg_pinv.default")
def pinv(x: Any, rcond: float = 1e-15, hermitian: bool = False) -> jax.Array:
    return jnp.linalg.pinv(x, rtol=rcond, hermitian=hermitian)


@rules("aten.linalg_pinv.atol_rtol_tensor", "aten.linalg_pinv.atol_rtol_float")
def pinv_within(
    x: Any, *, atol: Any = None, rtol: Any = None, hermitian: bool = False
) -> jax.Array:
    if atol is not None:
        raise ConversionError("pinv with an absolute tolerance is not covered: pass rtol")
    if rtol is None:
        rtol = max(x.shape[-2:]) * jnp.finfo(x.dtype).eps
    return jnp.linalg.pinv(x, rtol=rtol, hermitian=hermitian)


@rules("aten.linalg_matrix_exp.default")
def matrix_exp(x: Any) -> jax.Array:
    return jax.scipy.linalg.expm(x)


@rules("aten.linalg_lu.default")
def lu(x: Any, *, pivot: bool = True) -> Any:
    if not pivot:
        raise ConversionError("LU without pivoting is not covered")
    return tuple(jax.scipy.linalg.lu(x))


@rules("aten.linalg_lu_factor.default")
def lu_factor(x: Any, *, pivot: bool = True, result: Any) -> Any:
    if not pivot:
        raise ConversionError("LU without pivoting is not covered")
    factor, pivots = jax.scipy.linalg.lu_factor(x)
    return factor, (pivots + 1).astype(result[1].dtype)


@rules("aten.linalg_lu_factor_ex.default")
def lu_factor_with_status(
    x: Any, *, pivot: bool = True, check_errors: bool = False, result: Any
) -> Any:
    return (*lu_factor(x, pivot=pivot, result=result), _fine(result[2]))
