import itertools

import pytest
import torch
from torch.nn import functional as f

from tests.interop.aten.layer_cases import Batch, Case, draw, integers

X = {1: draw(2, 3, 5), 2: draw(2, 3, 5, 7), 3: draw(1, 2, 3, 4, 5)}
SIZES = {1: [(8,), (3,), (10,)], 2: [(8, 5), (10, 14), (1, 9)], 3: [(5, 3, 7)]}
FACTORS = {1: [1.7, 2], 2: [(0.6, 2.3), 2], 3: [(1.4, 0.7, 2)]}


def _case(axes, mode, **how):
    name = f"{mode} {axes} {how}"
    return Case(name, lambda x: f.interpolate(x, mode=mode, **how), (X[axes],))


CASES = []
for axes, mode in (
    *((n, m) for n in (1, 2, 3) for m in ("nearest", "nearest-exact", "area")),
    (1, "linear"),
    (2, "bilinear"),
    (2, "bicubic"),
    (3, "trilinear"),
):
    smooth = mode.endswith(("linear", "cubic"))
    for align in (False, True) if smooth else (None,):
        for size in SIZES[axes]:
            CASES.append(_case(axes, mode, size=size, align_corners=align))
        for factor in FACTORS[axes]:
            CASES.append(_case(axes, mode, scale_factor=factor, align_corners=align))
for mode, align in itertools.product(("bilinear", "bicubic"), (False, True)):
    for size in ((3, 4), (8, 3), (9, 14)):
        CASES.append(_case(2, mode, size=size, align_corners=align, antialias=True))
    CASES.append(_case(2, mode, scale_factor=0.6, align_corners=align, antialias=True))
CASES.append(
    _case(2, "bilinear", scale_factor=1.7, recompute_scale_factor=True, align_corners=False)
)

GRID2 = torch.cat(
    [draw(2, 4, 3, 2), torch.tensor([-1, 0, 1.0, 3]).view(1, 4, 1, 1).expand(2, 4, 1, 2)], 2
)
GRID3 = draw(1, 3, 2, 4, 3)
for mode, padding, align in itertools.product(
    ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (False, True)
):
    CASES.append(
        Case(
            f"grid 2 {mode} {padding} {align}",
            lambda x, g, h=(mode, padding, align): f.grid_sample(x, g, *h),
            (X[2], GRID2),
        )
    )
    if mode != "bicubic":
        CASES.append(
            Case(
                f"grid 3 {mode} {padding} {align}",
                lambda x, g, h=(mode, padding, align): f.grid_sample(x, g, *h),
                (X[3], GRID3),
            )
        )
CASES += [
    Case("affine 2", lambda t: f.affine_grid(t, (2, 3, 4, 5), False), (draw(2, 2, 3),)),
    Case("affine 2 aligned", lambda t: f.affine_grid(t, (2, 3, 4, 3), True), (draw(2, 2, 3),)),
    Case("affine 3", lambda t: f.affine_grid(t, (1, 3, 4, 5, 2), False), (draw(1, 3, 4),)),
    Case("whole numbers", lambda x: f.interpolate(x, 7), (integers(0, 9, 1, 2, 3).float(),)),
]


BATCH = Batch(CASES)


@pytest.mark.few(2)
@pytest.mark.xdist_group("interpolation")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_torch(case):
    BATCH.check(case)
