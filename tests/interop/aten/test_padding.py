import pytest
from torch.nn import functional as f

from tests.interop.aten.layer_cases import Batch, Case, draw

INPUTS = {1: draw(2, 3, 6), 2: draw(2, 3, 5, 6), 3: draw(1, 2, 4, 5, 6)}
AMOUNTS = {1: (2, 3), 2: (2, 1, 0, 3), 3: (1, 2, 3, 0, 2, 1)}
CROPS = {1: (-2, 2), 2: (-1, 2, 1, -3), 3: (-2, 1, 2, -1, 0, -2)}

CASES = [
    Case(f"{mode} {axes} {amounts}", lambda x, a=amounts, m=mode: f.pad(x, a, m), (INPUTS[axes],))
    for mode in ("constant", "reflect", "replicate", "circular")
    for axes in (1, 2, 3)
    for amounts in (AMOUNTS[axes], CROPS[axes])
]
CASES += [
    Case("constant value", lambda x: f.pad(x, (1, -2, 0, 4), value=2.5), (INPUTS[2],)),
    Case("constant first axis", lambda x: f.pad(x, (0, 0, 0, 0, 1, 1)), (INPUTS[1],)),
    *(
        Case(f"{m} no batch", lambda x, m=m: f.pad(x, (1, 2), m), (INPUTS[1][0],))
        for m in ("reflect", "replicate", "circular")
    ),
]


BATCH = Batch(CASES)


@pytest.mark.xdist_group("padding")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_torch(case):
    BATCH.check(case)
