import math

import pytest
import torch

from tests.interop.aten.check import check, draw, draw_integers

X = torch.cat([draw(2, 3, 4), draw(2, 3, 4)], 1)  # ties across halves
X[0, 0, 0] = 0
X[1, 2] = X[1, 1] = 2  # constant rows

SUMS = {
    "sum": torch.sum,
    "sum dim": lambda x: x.sum((0, -1)),
    "sum keep": lambda x: x.sum(1, keepdim=True),
    "sum dtype": lambda x: x.half().sum(1, dtype=torch.float32),
    "sum of half": lambda x: x.half().sum(),
    "mean": torch.mean,
    "mean dim": lambda x: x.mean(-1),
    "nansum": lambda x: torch.nansum(torch.where(x > 1, torch.nan, x), 1),
    "nanmean": lambda x: torch.nanmean(torch.where(x > 1, torch.nan, x), 1),
    "prod": lambda x: x.prod(),
    "prod with zeros": lambda x: x.round().detach().prod(1) + x.relu().prod(1),
    "logsumexp": lambda x: x.logsumexp(1),
    "logsumexp of nothing": lambda x: torch.where(x[0] > 9, x[0], -torch.inf).logsumexp(0),
    "any": lambda x: ((x > 1).any(), (x > 1).any(1), (x > 1).all(-1, True), (x > 1).all()),
    "count": lambda x: (torch.count_nonzero(x), torch.count_nonzero(x, 1)),
    "trace": lambda x: torch.trace(x[0]),
    "number": lambda x: x.sum().sum(0) + x.sum().mean(-1) + x.sum().amax(0),
}

SPREAD = {
    "var": torch.var,
    "var dim": lambda x: x.var(1),
    "var biased": lambda x: x.var((0, 2), correction=0, keepdim=True),
    "std": torch.std,
    "std of a constant": lambda x: x.std(-1),
    "std correction": lambda x: x.std(1, correction=2),
    "var_mean": lambda x: torch.var_mean(x, 1),
    "std_mean": lambda x: torch.std_mean(x, 1),
}

EXTREMES = {
    "max": torch.max,
    "min": torch.min,
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin((1, 2), keepdim=True),
    "aminmax": lambda x: torch.aminmax(x, dim=1),
    "max dim": lambda x: x.max(1),
    "min dim": lambda x: x.min(-1, keepdim=True),
    "argmax": lambda x: (x.argmax(), x.argmax(1), x.argmin(1, keepdim=True)),
    "nan": lambda x: torch.where(x > 1, torch.nan, x).max(1),
    "argmax of nan": lambda x: torch.where(x > 1, torch.nan, x).argmin(1),
}

CUMULATIVE = {
    "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(1),
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "cummax": lambda x: x.cummax(1),
    "cummin": lambda x: x.cummin(-1),
    "cummax of nan": lambda x: torch.where(x > 1, torch.nan, x).cummax(1),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("functions", [SUMS, SPREAD, EXTREMES, CUMULATIVE])
def test_reductions(functions):
    check(functions, X, tolerance=2)


ORDERS = (2, 1, 0, math.inf, -math.inf, 3, 1.5, 0.5)


def test_norms():
    """With a row and an entry of zeros, where the gradient is zero, and with ties."""
    x = X[0].clone()
    x[1] = 0
    x[2, :2] = 0
    x[3] = torch.tensor([-2, 2, 1, -2])
    functions = {f"{p}": lambda x, p=p: torch.linalg.vector_norm(x, p, 1) for p in ORDERS}
    functions |= {
        "of zeros": lambda x: torch.norm(x[1]),
        "norm": lambda x: torch.norm(x, 2, (0, 1), keepdim=True),
        "frobenius": lambda x: torch.linalg.matrix_norm(x),
        "dist": lambda x: torch.dist(x, x.detach()) + torch.dist(x, x.flip(0), 1),
        "renorm": lambda x: torch.renorm(x, 2, 0, 1.5),
        "normalize": lambda x: torch.nn.functional.normalize(x),
        "half": lambda x: x.detach().bfloat16().norm(dtype=torch.float32),
    }
    check(functions, x, tolerance=2)


def test_of_integers():
    x = draw_integers(-3, 4, 3, 5)
    functions = {
        "sum": lambda x: (x.sum(), x.sum(1), (x > 0).sum(1), x.to(torch.uint8).sum()),
        "prod": lambda x: x.prod(1),
        "cumsum": lambda x: ((x > 0).cumsum(1), x.cumprod(0)),
        "max": lambda x: (x.max(), x.amin(1), x.argmax(1)),
        "max dim": lambda x: x.max(1)[0],
    }
    check(functions, x)


def test_complex():
    z = draw(3, 4, dtype=torch.complex64)
    functions = {
        "sum": torch.sum,
        "mean": lambda z: z.mean(1),
        "prod": lambda z: z.prod(1),
        "var": lambda z: z.var(1),
        "norm": lambda z: torch.linalg.vector_norm(z, 2, 1),
        "norm 3": lambda z: torch.linalg.vector_norm(z, 3, 1),
        "cumsum": lambda z: z.cumsum(0),
    }
    check(functions, z)
