import numpy as np
import pytest
import torch

from interop import Static, to_jax
from interop.errors import ConversionError
from tests.interop.aten.cases import Case, check_cases, grouped
from tests.interop.aten.check import draw

X = draw(2, 3, 4)
V = draw(6, seed=2)
COUNTS = torch.tensor([1, 0, 4])

CASES = [
    Case("repeat", lambda x: (x.repeat(2, 1, 3), x.repeat(2, 1, 1, 2), x.tile(2)), (X,)),
    Case("entries", lambda x: (x.repeat_interleave(2, 1), x.repeat_interleave(3)), (X,)),
    Case("entries from behind", lambda x: x.repeat_interleave(2, -1, output_size=8), (X,)),
    Case("not at all", lambda x: x.repeat_interleave(0, 1), (X,)),
    Case("a scalar", lambda x: x.sum().repeat_interleave(3), (X,)),
    Case("by a tensor", lambda x, n: x.repeat_interleave(n, 0, output_size=5), (V[:3], COUNTS)),
    Case("axis", lambda x, n: x.repeat_interleave(n, -2, output_size=5), (X, COUNTS)),
    Case("flat", lambda x, n: x.repeat_interleave(n, output_size=5), (X[:1, :, 0], COUNTS)),
    Case("one count", lambda x, n: x.repeat_interleave(n, 1, output_size=12), (X, COUNTS[2:])),
    Case("places", lambda n: torch.repeat_interleave(n, output_size=5), (COUNTS,)),
]


@grouped(CASES)
def test_agrees_with_torch(group, wide):
    check_cases(group, wide)


class Repeated(torch.nn.Module):
    def forward(self, x, counts, size=None):
        return x.repeat_interleave(counts, 1, output_size=size)


def test_without_a_size_names_the_ways_out():
    counts = COUNTS.numpy().astype(np.int32)
    net = to_jax(Repeated())
    with pytest.raises(ConversionError, match="output_size=, or pass the repeats"):
        net({}, X.numpy(), counts)
    np.testing.assert_array_equal(net({}, X.numpy(), Static(counts)), Repeated()(X, COUNTS))


def test_another_size_than_the_counts_sum_to_is_nan():
    counts = COUNTS.numpy().astype(np.int32)
    for size in (4, 6):
        assert np.isnan(to_jax(Repeated())({}, X.numpy(), counts, size)).all()
