"""Writes through boolean masks."""

from typing import Any

import pytest
import torch

from tests.interop.module_cases import Of, agree, numbers


def written(m: Any, x: torch.Tensor, mask: Any, value: Any) -> torch.Tensor:
    y = x * m.w
    y[mask(y)] = value(m)
    return y**2


@pytest.mark.parametrize(
    ("mask", "value"),
    [
        (lambda y: y > 0, lambda m: 3.0),
        (lambda y: y.sum(-1) > 0, lambda m: 0),
        (lambda y: y > 0, lambda m: m.w.sum()),
        (lambda y: y.sum() > 0, lambda m: 2.0),
    ],
    ids=["each", "rows", "a tensor", "all or none"],
)
def test_a_number_is_written_where_a_mask_is_true(mask: Any, value: Any) -> None:
    agree(Of(lambda m, x: written(m, x, mask, value), w=numbers(3, seed=1)), numbers(4, 3))
