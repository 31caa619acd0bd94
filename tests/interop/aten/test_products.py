import torch

from tests.interop.aten.cases import Case, check_cases, grouped
from tests.interop.aten.check import draw
from tests.interop.aten.check import draw_integers as integers

M, N = draw(3, 4), draw(4, 5, seed=1)
V, W = draw(4, seed=2), draw(3, seed=3)
X, Y = draw(2, 3, 4, seed=4), draw(2, 4, 5, seed=5)
C = draw(3, 4, seed=6, dtype=torch.complex64)
BIAS = draw(5, seed=7)
NAN = torch.full((3, 5), float("nan"))
EXPONENTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf"))
# with equal rows, equal coordinates, and ties of the largest gap
POINTS = torch.tensor([[1.0, 2, 3], [1, 2, 3], [0, 1, 3], [2, 0, -1]])
OTHERS = torch.tensor([[1.0, 2, 3], [0, 3, 3], [1, 1, 1]])

CASES = [
    Case("mm", lambda x, y: (x @ y, x.mm(y), x.mT.mm(x)), (M, N)),
    Case("bmm", lambda x, y: (x.bmm(y), x @ y, x @ y[0], x[0] @ y), (X, Y)),
    Case(
        "vectors", lambda x, v, w: (x @ v, w @ x, v @ v, v.dot(v), x.mv(v), v.inner(v)), (M, V, W)
    ),
    Case("matmul broadcasts", lambda x, y, v: (x[:, None] @ y, x @ v, x[:, None] @ v), (X, Y, V)),
    Case(
        "of integers",
        lambda x, y: (x @ y, x[0] @ y),
        (integers(-9, 9, 3, 4), integers(-9, 9, 4, 2)),
    ),
    Case(
        "of complex",
        lambda x: (x @ x.mH, torch.vdot(x[0], x[1]), torch.linalg.vecdot(x, x[:1])),
        (C,),
    ),
    Case("linear", torch.nn.functional.linear, (X, N.T.contiguous(), BIAS)),
    Case("linear of a vector", lambda v, w: torch.nn.functional.linear(v, w), (V, M)),
    Case(
        "addmm",
        lambda c, x, y: (torch.addmm(c, x, y), torch.addmm(c, x, y, beta=0.5, alpha=-2)),
        (BIAS, M, N),
    ),
    Case("addmm without its first", lambda c, x, y: torch.addmm(c, x, y, beta=0), (NAN, M, N)),
    Case(
        "addmv",
        lambda c, x, v: (torch.addmv(c, x, v), torch.addmv(c, x, v, beta=2, alpha=3)),
        (W, M, V),
    ),
    Case(
        "baddbmm",
        lambda c, x, y: (torch.baddbmm(c, x, y), torch.baddbmm(c, x, y, beta=2, alpha=0.1)),
        (BIAS, X, Y),
    ),
    Case("addbmm", lambda c, x, y: torch.addbmm(c, x, y, beta=2, alpha=0.1), (BIAS, X, Y)),
    Case(
        "addr",
        lambda c, v, w: (torch.addr(c, v, w, beta=2), torch.addr(c, v, w, beta=0)),
        (M, W, V),
    ),
    Case("outer", lambda v, w: (torch.outer(v, w), torch.ger(w, v)), (V, W)),
    Case(
        "einsum",
        lambda x, y, m: (
            torch.einsum("bij,bjk->bik", x, y),
            torch.einsum("...ij,...jk->...k", x, y),
            torch.einsum("bij, ij", x, m),
            torch.einsum("ii->i", m[:, :3]),
            torch.einsum("ij,kj->ik", m, m),
            torch.einsum("bij,bjk,ij->kb", x, y, m),
        ),
        (X, Y, M),
    ),
    Case(
        "tensordot",
        lambda x, y: (
            torch.tensordot(x, y, dims=([2], [1])),
            torch.tensordot(x, y[:1], dims=([0, 2], [0, 1])),
            torch.tensordot(x, y[0], 1),
        ),
        (X, Y),
    ),
    Case("kron", lambda x, v: (torch.kron(x, v), torch.kron(v, v), torch.kron(x[:2], x)), (M, V)),
    Case("multi_dot", lambda x, y: torch.linalg.multi_dot([x, y, y.mT, x.mT]), (M, N)),
    Case("bilinear", torch.nn.functional.bilinear, (X, draw(2, 3, 2), draw(5, 4, 2, seed=9), BIAS)),
    Case(
        "cross",
        lambda x, y: (torch.linalg.cross(x, y), torch.linalg.cross(x.T, y[:1].T, dim=0)),
        (draw(2, 3), draw(2, 3, seed=8)),
    ),
    Case("cdist", lambda x, y: tuple(torch.cdist(x, y, p) for p in EXPONENTS), (POINTS, OTHERS)),
    Case("cdist of itself", lambda x: (torch.cdist(x, x), torch.cdist(x, x, 1.0)), (POINTS,)),
    Case(
        "cdist of many",
        lambda x, y: torch.cdist(x, y),
        (draw(30, 3), draw(2, 4, 3, seed=9)),
        tolerance=10,
    ),
    Case("pdist", lambda x: tuple(torch.pdist(x, p) for p in EXPONENTS), (POINTS,)),
    Case(
        "distances",
        lambda x, y: (
            torch.dist(x, y, 1),
            torch.dist(x, y),
            torch.dist(x, x),
            torch.nn.functional.pairwise_distance(x, y),
        ),
        (POINTS[:3], OTHERS),
    ),
]


@grouped(CASES)
def test_agrees_with_torch(group, wide):
    check_cases(group, wide)
