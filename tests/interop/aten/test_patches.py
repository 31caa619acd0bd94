import pytest
import torch
from torch.nn import functional as f

from interop import report
from tests.interop.aten.cases import Case, check_cases, grouped
from tests.interop.aten.check import All, draw

X = draw(2, 3, 6, 7)
COLUMNS = draw(2, 12, 30, seed=1)

CASES = [
    Case("unfold", lambda x: f.unfold(x, 2), (X,)),
    Case("unfold, each axis its own", lambda x: f.unfold(x, (3, 2), (1, 2), (0, 3), (2, 1)), (X,)),
    Case("unfold, disjoint", lambda x: f.unfold(x, (2, 3), stride=(2, 3)), (X,)),
    Case("unfold, gaps", lambda x: f.unfold(x, 1, stride=3), (X,)),
    Case("unfold, no batch", lambda x: f.unfold(x, 3, padding=1), (X[0],)),
    Case("unfold, complex", lambda x: f.unfold(x, 2), (draw(1, 2, 3, 3, dtype=torch.complex64),)),
    Case("fold", lambda x: f.fold(x, (6, 7), 2), (COLUMNS,)),
    Case("fold, padded", lambda x: f.fold(x, (4, 7), 2, padding=(1, 0)), (COLUMNS,)),
    Case("fold, dilated", lambda x: f.fold(x, (7, 7), 2, dilation=(2, 1)), (COLUMNS,)),
    Case("fold, disjoint", lambda x: f.fold(x, (11, 13), 2, stride=2), (COLUMNS,)),
    Case("fold, no batch", lambda x: f.fold(x, (6, 7), 2), (COLUMNS[0],)),
]


@grouped(CASES)
def test_agrees_with_torch(group, wide):
    check_cases(group, wide)


@pytest.mark.parametrize(
    ("call", "operation"),
    [
        (lambda x: f.unfold(x, 2), "aten.im2col.default"),
        (lambda x: f.fold(x.flatten(1), (3, 8), 2), "aten.col2im.default"),
        (lambda x: x.repeat_interleave(2, 1), "aten.repeat_interleave.self_int"),
    ],
)
def test_is_one_operation(call, operation):
    found = report(All({"": call}), [draw(8, 2, 7)])
    assert operation in [o.name for o in found.operations]
    assert len(found.operations) <= 2
