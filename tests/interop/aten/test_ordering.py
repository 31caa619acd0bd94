import pytest
import torch

from tests.interop.aten.check import check, draw, draw_integers

X = torch.round(draw(3, 7) * 2) / 2  # with ties
NANS = torch.where(X > 0.9, torch.nan, X)

SORTS = {
    "sort": lambda x: torch.sort(x, stable=True),
    "sort down": lambda x: torch.sort(x, dim=0, descending=True, stable=True),
    "values": lambda x: torch.sort(x).values,
    "argsort": lambda x: torch.argsort(x, dim=1, descending=True, stable=True),
    "argsort of an axis": lambda x: (torch.argsort(x.detach()[0], 0) * 1, x),
    "msort": torch.msort,
    "topk of ties": lambda x: torch.topk(x.detach(), 3).values,
    "number": lambda x: torch.sort(x.sum()),
}

TOP = {
    "topk": lambda x: torch.topk(x, 3),
    "topk lowest": lambda x: torch.topk(x, 1, 0, largest=False),
}


def test_sorts():
    check(SORTS, X)
    check(SORTS, NANS[:, :5])
    check(TOP, draw(2, 5))


@pytest.mark.slow
def test_ranks():
    functions = {
        "kthvalue": lambda x: torch.kthvalue(x, 3)[0],
        "median": torch.median,
        "median dim": lambda x: torch.median(x, 1)[0],
        "median even": lambda x: torch.median(x[:2], 0, keepdim=True)[0],
        "nanmedian": torch.nanmedian,
        "nanmedian dim": lambda x: torch.nanmedian(x, 1)[0],
        "mode": lambda x: torch.mode(x, 1)[0],
        "quantile": lambda x: torch.quantile(x, 0.3, 1),
        "nanquantile": lambda x: torch.nanquantile(x, 0.3, 1),
    }
    check(functions, draw(3, 7))
    check({"median of ties": torch.median, "nan": torch.nanmedian}, X)
    check(
        {k: v for k, v in functions.items() if "mode" not in k},
        torch.where(draw(3, 7) > 0.8, torch.nan, draw(3, 7)),
    )


def test_searches_and_counts():
    edges, values = torch.tensor([-1.0, 0, 0, 0.5, 2]), X.clone()
    functions = {
        "searchsorted": torch.searchsorted,
        "right": lambda e, x: torch.searchsorted(e, x, right=True),
        "rows": lambda e, x: torch.searchsorted(x.sort(1)[0], x.flip(1), side="right"),
        "number": lambda e, x: torch.searchsorted(e, 0.3),
        "bucketize": lambda e, x: torch.bucketize(x, e, out_int32=True),
        "isin": lambda e, x: torch.isin(x, e),
        "histc": lambda e, x: torch.histc(x.detach(), 4, -1, 1),
        "histc of all": lambda e, x: torch.histc(x.detach(), 5),
    }
    check(functions, edges, values)


def test_integers():
    functions = {
        "sort": lambda x: x.sort(stable=True),
        "median": lambda x: x.median(),
        "mode": lambda x: x.mode(1),
        "topk": lambda x: x.topk(2).values,
        "bools": lambda x: (x > 2).sort(stable=True),
        "bucketize": lambda x: torch.bucketize(x, torch.tensor([1, 3, 5])),
        "unsigned": lambda x: x.to(torch.uint8).sort(descending=True, stable=True),
    }
    check(functions, draw_integers(0, 6, 3, 5))
