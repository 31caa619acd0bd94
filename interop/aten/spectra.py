"""Orthogonal factors, eigenvalues and singular values, and what is made of them.

Eigenvectors and singular vectors are defined up to a sign (a phase, if complex), which JAX's and
torch's libraries may choose differently; functions that do not depend on it agree. So it is with
the gradients of functions of Hermitian matrices: equal up to what no Hermitian change sees.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import linalg

from interop.aten.factorizations import adjoint, from_lower
from interop.aten.registry import Table

rules = Table()


def _empty(dtype: Any) -> jax.Array:
    return jnp.zeros((0,), dtype)


# ---- QR -----------------------------------------------------------------------------------------


@rules("aten.linalg_qr.default")
def qr(x: jax.Array, mode: str = "reduced") -> Any:
    rows, columns = x.shape[-2:]
    if rows < columns:  # of the first columns, whose derivative is known
        q, r = linalg.qr(x[..., :rows], full_matrices=False)
        r = jnp.concatenate([r, adjoint(q) @ x[..., rows:]], -1)
    else:
        q, r = linalg.qr(x, full_matrices=mode == "complete")
    return (_empty(x.dtype) if mode == "r" else q), r


@rules("aten.qr.default")
def qr_of_old(x: jax.Array, some: bool = True) -> Any:
    return qr(x, "reduced" if some else "complete")


@rules("aten.linalg_householder_product.default", "aten.orgqr.default")
def householder_product(x: jax.Array, tau: jax.Array) -> jax.Array:
    """The first columns of the product of reflections I - tau v v^H, one for each column."""
    rows, columns = x.shape[-2:]
    q = jnp.broadcast_to(jnp.eye(rows, columns, dtype=x.dtype), x.shape)
    count = tau.shape[-1]
    if not count:
        return q
    unit = jnp.eye(rows, count, dtype=x.dtype)
    vectors = jnp.moveaxis(jnp.tril(x[..., :count], -1) + unit, -1, 0)

    def reflect(q: jax.Array, one: Any) -> Any:
        v, t = one
        along = jnp.einsum("...i,...ij->...j", jnp.conj(v), q)
        return q - t[..., None, None] * v[..., :, None] * along[..., None, :], None

    return jax.lax.scan(reflect, q, (vectors, jnp.moveaxis(tau, -1, 0)), reverse=True)[0]


@rules("aten.geqrf.default")
def geqrf(x: jax.Array) -> Any:
    factor, tau = jnp.linalg.qr(x, mode="raw")
    return jnp.swapaxes(factor, -1, -2), tau


@rules("aten.ormqr.default")
def multiply_by_reflections(
    x: jax.Array, tau: jax.Array, other: jax.Array, left: bool = True, transpose: bool = False
) -> jax.Array:
    rows = x.shape[-2]
    wide = [(0, 0)] * (x.ndim - 1) + [(0, max(0, rows - x.shape[-1]))]
    q = householder_product(jnp.pad(x, wide)[..., :rows], tau)
    q = adjoint(q) if transpose else q
    return q @ other if left else other @ q


# ---- eigenvalues --------------------------------------------------------------------------------


@rules("aten.linalg_eigh.default")
def eigh(x: jax.Array, half: str = "L") -> Any:
    whole = from_lower(x if half.upper() == "L" else adjoint(x))
    vectors, values = linalg.eigh(whole, symmetrize_input=False)
    return values, vectors


@rules("aten._linalg_eigh.default")
def eigh_or_values(x: jax.Array, half: str = "L", compute_v: bool = True) -> Any:
    values, vectors = eigh(x, half)
    return values, vectors if compute_v else _empty(x.dtype)


@rules("aten.linalg_eigvalsh.default")
def eigvalsh(x: jax.Array, half: str = "L") -> jax.Array:
    return eigh(x, half)[0]


@rules("aten.linalg_eig.default")
def eig(x: jax.Array) -> Any:
    """The vectors have norm 1, and their tangents change neither norm nor phase, as in torch."""
    values, vectors = _eig(jax.lax.complex(x, jnp.zeros_like(x)) if x.dtype.kind == "f" else x)
    return values, vectors


@jax.custom_jvp
def _eig(x: jax.Array) -> Any:
    return tuple(jnp.linalg.eig(x))


@_eig.defjvp
def _eig_slope(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    values, vectors = _eig(x)
    inner = jnp.linalg.solve(vectors, dx @ vectors)
    eye = jnp.eye(x.shape[-1], dtype=bool)
    gaps = jnp.where(eye, 1, values[..., None, :] - values[..., :, None])
    moved = vectors @ jnp.where(eye, 0, inner / gaps)
    along = jnp.sum(jnp.conj(vectors) * moved, -2, keepdims=True).real
    dvalues = jnp.diagonal(inner, axis1=-2, axis2=-1)
    return (values, vectors), (dvalues, moved - vectors * along)


@rules("aten.linalg_eigvals.default", "aten._linalg_eigvals.default")
def eigvals(x: jax.Array) -> jax.Array:
    return jnp.linalg.eigvals(x)


# ---- singular values ----------------------------------------------------------------------------


@rules("aten.linalg_svd.default")
def svd(x: jax.Array, full_matrices: bool = True, *, driver: Any = None) -> Any:
    u, values, vh = linalg.svd(x, full_matrices=full_matrices and x.shape[-1] != x.shape[-2])
    return u, values, vh


@rules("aten._linalg_svd.default")
def svd_or_values(
    x: jax.Array, full_matrices: bool = False, compute_uv: bool = True, *, driver: Any = None
) -> Any:
    if not compute_uv:
        return _empty(x.dtype), svdvals(x), _empty(x.dtype)
    return svd(x, full_matrices)


@rules("aten.svd.default")
def svd_of_old(x: jax.Array, some: bool = True, compute_uv: bool = True) -> Any:
    """With V in place of its adjoint; without vectors, with zeros."""
    u, values, vh = svd(x, not some)
    if not compute_uv:
        rows, columns = x.shape[-2:]
        batch = x.shape[:-2]
        u = jnp.zeros((*batch, rows, rows), x.dtype)
        vh = jnp.zeros((*batch, columns, columns), x.dtype)
    return u, values, adjoint(vh)


@rules("aten.linalg_svdvals.default")
def svdvals(x: jax.Array, *, driver: Any = None) -> jax.Array:
    return linalg.svd(x, full_matrices=False, compute_uv=False)


@rules(
    "aten.linalg_pinv.atol_rtol_tensor",
    "aten.linalg_pinv.atol_rtol_float",
)
def pinv(x: jax.Array, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> jax.Array:
    if not x.size:
        return jnp.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    eps = max(x.shape[-2:]) * float(jnp.finfo(x.dtype).eps)
    if rtol is None:
        rtol = eps if atol is None else jnp.where(jnp.asarray(atol) > 0, 0.0, eps)
    absolute = jnp.asarray(0.0 if atol is None else atol)[..., None]
    tolerances = (absolute, jnp.asarray(rtol)[..., None])
    return _pinv(hermitian, x, *jax.lax.stop_gradient(tolerances))


@rules("aten.linalg_pinv.default", "aten.pinverse.default", "aten.linalg_pinv.rcond_tensor")
def pinv_of_old(x: jax.Array, rcond: Any = 1e-15, hermitian: bool = False) -> jax.Array:
    return pinv(x, atol=0.0, rtol=rcond, hermitian=hermitian)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _pinv(hermitian: bool, x: jax.Array, absolute: jax.Array, relative: jax.Array) -> jax.Array:
    if hermitian:
        signed, u = eigh(from_lower(x))
        values = jnp.abs(signed)
        vh, sign = adjoint(u), jnp.sign(signed)
    else:
        u, values, vh = svd(x, False)
        sign = jnp.ones_like(values)
    largest = jnp.max(values, -1, keepdims=True)
    kept = values > jnp.maximum(absolute, relative * largest)
    inverse = jnp.where(kept, sign / jnp.where(kept, values, 1), 0)
    return (adjoint(vh) * inverse[..., None, :].astype(x.dtype)) @ adjoint(u)


@_pinv.defjvp
def _pinv_slope(hermitian: bool, primals: Any, tangents: Any) -> Any:
    """Golub and Pereyra's formula, for a rank that does not change; as torch, of x as it is."""
    (x, *_), (dx, *_) = primals, tangents
    p = _pinv(hermitian, *primals)
    ph, dxh = adjoint(p), adjoint(dx)
    left, right = jnp.eye(p.shape[-2], dtype=x.dtype), jnp.eye(p.shape[-1], dtype=x.dtype)
    slope = -p @ dx @ p
    slope += p @ ph @ dxh @ (right - x @ p) + (left - p @ x) @ dxh @ ph @ p
    return p, slope


@rules("aten.linalg_matrix_exp.default", "aten.matrix_exp.default")
def matrix_exp(x: jax.Array) -> jax.Array:
    return jax.scipy.linalg.expm(x) if x.size else x
