import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import linalg

from interop import to_jax
from tests.interop.aten.cases import Case, check_cases, grouped
from tests.interop.aten.check import All, draw

A = draw(4, 4) + 3 * torch.eye(4)
B = draw(4, 2, seed=1)
S = A @ A.T + torch.eye(4)
C = draw(3, 3, seed=2, dtype=torch.complex64) + 2 * torch.eye(3)
H = C @ C.mH + torch.eye(3)
BATCH = draw(2, 1, 4, 4, seed=3) + 3 * torch.eye(4)
TALL, WIDE = draw(5, 3, seed=4), draw(3, 5, seed=5)
LOWER = draw(4, 4, seed=6).tril() + 3 * torch.eye(4)
ZERO = torch.zeros(3, 2)
LU = torch.linalg.lu_factor(A)
RANK_ONE = torch.outer(torch.arange(1.0, 5), torch.tensor([1.0, -1, 2, 0]))


def half(x):
    """A function of the eigenvectors that is the same for either sign."""
    return x * x.sum(-2, keepdim=True)


def with_vectors(u, values, vh):
    return (u * values.sin()[..., None, :].to(u.dtype)) @ vh, values


CASES = [
    Case("cholesky", lambda x: (linalg.cholesky(x), linalg.cholesky(x, upper=True)), (S,)),
    Case(
        "cholesky of complex",
        lambda x: (linalg.cholesky(x @ x.mH), linalg.cholesky(x @ x.mH, upper=True)),
        (C,),
    ),
    Case("cholesky reads a triangle", linalg.cholesky, (S.tril() + 9 * S.triu(1),)),
    Case("cholesky_ex", lambda x: (linalg.cholesky_ex(x), linalg.cholesky_ex(x[:0, :0])), (S,)),
    Case(
        "cholesky_ex tells the minor",
        lambda x: linalg.cholesky_ex(x).info,
        (torch.stack([S, S - 9 * torch.diag(torch.tensor([0.0, 0, 1, 0])), -S]),),
    ),
    Case(
        "cholesky_solve",
        lambda x, b: (torch.cholesky_solve(b, x), torch.cholesky_solve(b, x.mT, upper=True)),
        (LOWER, B),
    ),
    Case(
        "cholesky_inverse",
        lambda x: (torch.cholesky_inverse(x), torch.cholesky_inverse(x.mT, upper=True)),
        (LOWER,),
    ),
    Case(
        "solve_triangular",
        lambda a, b: (
            linalg.solve_triangular(a, b, upper=False),
            linalg.solve_triangular(a, b, upper=True),
            linalg.solve_triangular(a, b, upper=True, unitriangular=True),
            linalg.solve_triangular(a, b.mT, upper=False, left=False),
            linalg.solve_triangular(a.expand(3, 4, 4), b, upper=False),
        ),
        (LOWER + A, B),
    ),
    Case(
        "triangular_solve",
        lambda a, b: (
            torch.ops.aten.triangular_solve(b, a)[0],
            torch.ops.aten.triangular_solve(b, a, False, True)[0],
            torch.ops.aten.triangular_solve(b, a, True, True, True)[0],
        ),
        (A, B),
    ),
    Case("lu", lambda x, y, z: (linalg.lu(x), linalg.lu(y), linalg.lu(z)), (BATCH, TALL, WIDE)),
    Case("lu_factor", lambda x: (linalg.lu_factor(x), linalg.lu_factor_ex(x)), (BATCH,)),
    Case("lu_unpack", lambda x: torch.lu_unpack(*linalg.lu_factor(x)), (TALL,)),
    Case(
        "lu_solve",
        lambda f, b: (
            linalg.lu_solve(f, LU.pivots, b),
            linalg.lu_solve(f, LU.pivots, b, adjoint=True),
            linalg.lu_solve(f, LU.pivots, b.mT, left=False),
            linalg.lu_solve(f, LU.pivots, b.mT, left=False, adjoint=True),
        ),
        (LU.LU, B),
    ),
    Case(
        "lu_solve of complex",
        lambda a, b: (
            linalg.lu_solve(*linalg.lu_factor(a), b),
            linalg.lu_solve(*linalg.lu_factor(a), b.mH, left=False, adjoint=True),
        ),
        (C, C[:, :2]),
    ),
    Case(
        "solve",
        lambda a, b: (
            linalg.solve(a, b),
            linalg.solve(a, b[:, 0]),
            linalg.solve(a, b.mT, left=False),
            linalg.solve_ex(a, b),
        ),
        (A, B),
    ),
    Case(
        "solve in a batch",
        lambda a, b: (linalg.solve(a, b), linalg.solve(a[:, 0], b.mT)),
        (BATCH, B),
    ),
    Case(
        "solve of complex",
        lambda a: (linalg.solve(a, a[0] + 1), linalg.solve(a, a.mT, left=False)),
        (C,),
    ),
    Case("inv", lambda x: (linalg.inv(x), linalg.inv_ex(x), torch.inverse(x)), (BATCH,)),
    Case(
        "info of the singular",
        lambda x: (linalg.inv_ex(x).info, linalg.lu_factor_ex(x).info, linalg.solve_ex(x, x).info),
        (RANK_ONE * 2,),
        gradient=False,
    ),
    Case(
        "tensorinv",
        lambda x: (
            linalg.tensorinv(x.view(2, 2, 4)),
            linalg.tensorsolve(x.view(2, 2, 2, 2), x[:2, :2]),
            linalg.tensorsolve(x.view(2, 2, 2, 2), x[:2, :2], (0, 2)),
        ),
        (A,),
    ),
    Case(
        "det",
        lambda x: (linalg.det(x), torch.logdet(x[0, 0] @ x[0, 0].mT), linalg.slogdet(-x)),
        (BATCH,),
    ),
    Case("det of complex", lambda x: (linalg.det(x), linalg.slogdet(x).logabsdet), (C,)),
    Case("matrix_power", lambda x: (linalg.matrix_power(x, 3), linalg.matrix_power(x, -2)), (A,)),
    Case(
        "matrix_exp",
        lambda x: (linalg.matrix_exp(x / 4), linalg.matrix_exp(x)),
        (BATCH,),
        tolerance=10,
    ),
    Case("qr", lambda x, y: (linalg.qr(x), linalg.qr(y)), (TALL, WIDE)),
    Case("r of qr", lambda x: linalg.qr(x, mode="r"), (TALL,), gradient=False),
    Case("qr complete", lambda x: linalg.qr(x, mode="complete"), (BATCH,)),
    Case("qr complete of tall", lambda x: linalg.qr(x, mode="complete"), (TALL,), gradient=False),
    Case("qr of complex", lambda x: linalg.qr(x), (C,)),
    Case(
        "householder_product",
        lambda x, t: (
            linalg.householder_product(x, t),
            linalg.householder_product(x.tril(-1), t[:2]),
        ),
        (TALL, draw(3, seed=8)),
    ),
    Case(
        "ormqr",
        lambda x, t, y: torch.ormqr(x, t, y),
        (TALL, draw(3, seed=8), draw(5, 2)),
        gradient=False,
    ),
    Case("geqrf", lambda x: torch.geqrf(x), (TALL,), gradient=False),
    Case("eigh", lambda x: (linalg.eigh(x)[0], half(linalg.eigh(x)[1])), (S,), tolerance=10),
    Case(
        "eigh of the upper half",
        lambda x: linalg.eigvalsh(x, UPLO="U"),
        (S.triu() + 5 * S.tril(-1),),
    ),
    Case(
        "eigh of complex",
        lambda x: (linalg.eigvalsh(x), linalg.eigh(x)[1].abs()),
        (H,),
        tolerance=10,
    ),
    Case("eigvalsh of equal values", linalg.eigvalsh, (torch.eye(3),)),
    Case(
        "eig",
        lambda x: (
            linalg.eigvals(x).abs().sum(),
            linalg.eig(x)[0].prod(),
            linalg.eig(x)[1].abs().sum(-1),
        ),
        (A,),
        tolerance=10,
    ),
    Case(
        "eig of complex",
        lambda x: (linalg.eigvals(x).sum(), linalg.eig(x)[1].abs().sum(-1)),
        (C,),
        tolerance=10,
    ),
    Case("svdvals", lambda x, y: (linalg.svdvals(x), linalg.svdvals(y)), (TALL, WIDE)),
    Case(
        "svd",
        lambda x, y: (
            with_vectors(*linalg.svd(x, full_matrices=False)),
            with_vectors(*linalg.svd(y, full_matrices=False)),
        ),
        (TALL, WIDE),
        tolerance=10,
    ),
    Case("svd of square", lambda x: with_vectors(*linalg.svd(x)), (BATCH,), tolerance=10),
    Case("svd of complex", lambda x: with_vectors(*linalg.svd(x)), (C,), tolerance=10),
    Case("svd in full", lambda x: [u.abs() for u in linalg.svd(x)], (draw(4, 3),), gradient=False),
    Case("svd of old", lambda x: torch.svd(x)[1], (TALL,)),
    Case(
        "pinv",
        lambda x, y: (
            linalg.pinv(x),
            linalg.pinv(y),
            torch.pinverse(x),
            linalg.pinv(x, rtol=0.5),
            linalg.pinv(x, atol=1.5),
        ),
        (TALL, WIDE),
        tolerance=10,
    ),
    Case(
        "pinv hermitian",
        lambda x: (
            linalg.pinv(x + x.mT, hermitian=True),
            linalg.pinv(x, hermitian=True),
            linalg.pinv(x + x.mT, atol=2.0, hermitian=True),
        ),
        (A,),
        tolerance=10,
    ),
    Case("pinv of rank one", lambda x: linalg.pinv(x), (RANK_ONE,), tolerance=10),
    Case(
        "matrix_norm",
        lambda x: (
            linalg.matrix_norm(x),
            linalg.matrix_norm(x, "nuc"),
            linalg.matrix_norm(x, 2),
            linalg.matrix_norm(x, -2),
            linalg.matrix_norm(x, 1),
            linalg.matrix_norm(x, -float("inf")),
            linalg.cond(x),
            linalg.matrix_rank(x),
            linalg.norm(x),
            linalg.norm(x[0], 3),
        ),
        (A,),
        tolerance=10,
    ),
    Case(
        "matrix_norm at zero",
        lambda x: (
            linalg.matrix_norm(x),
            linalg.matrix_norm(x, 1),
            linalg.matrix_norm(x, 2),
            linalg.matrix_norm(x, "nuc"),
        ),
        (ZERO,),
    ),
    Case(
        "vector_norm",
        lambda x: tuple(
            linalg.vector_norm(x, p, dim=-1)
            for p in (0, 0.5, 1, 1.5, 2, 3, float("inf"), -float("inf"))
        ),
        (torch.tensor([[1.0, -2, 2, 0.5], [-1, 1, 1, 1]]),),
    ),
    Case(
        "vector_norm at zero",
        lambda x: tuple(
            linalg.vector_norm(x, p) for p in (0, 0.5, 1, 1.5, 2, 3, float("inf"), -float("inf"))
        ),
        (ZERO,),
    ),
    Case(
        "vector_norm near zero",
        lambda x: tuple(linalg.vector_norm(x, p) for p in (0, 0.5, 1, 1.5, 2, 3, float("inf"))),
        (torch.tensor([0.0, 2, 0, -2]),),
    ),
    Case(
        "vector_norm of complex",
        lambda x: tuple(linalg.vector_norm(x, p) for p in (1, 2, 3, float("inf"))),
        (C[0],),
    ),
]


@pytest.mark.filterwarnings("ignore:torch.triangular_solve", "ignore:torch.svd")
@grouped(CASES)
def test_agrees_with_torch(group, wide):
    check_cases(group, wide)


def test_the_singular_is_not_finite():
    net = to_jax(All({"": lambda x: (linalg.inv(x), linalg.solve(x, x), linalg.cholesky(-x))}))
    for found in net({}, [jnp.asarray(RANK_ONE.numpy())])[0]:
        assert not np.all(np.isfinite(found))


@pytest.mark.parametrize("orthogonal_map", ["matrix_exp", "cayley", "householder"])
def test_orthogonal_parametrization(orthogonal_map):
    torch.manual_seed(0)
    layer = torch.nn.utils.parametrizations.orthogonal(
        torch.nn.Linear(3, 4), orthogonal_map=orthogonal_map
    )
    net = to_jax(layer)
    x = draw(2, 3)
    np.testing.assert_allclose(net(net.params, x.numpy()), layer(x).detach(), rtol=1e-5, atol=1e-5)
