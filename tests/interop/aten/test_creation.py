import jax
import numpy as np
import pytest
import torch

from interop import ConversionError, to_jax
from tests.interop.aten.check import All, check, draw

X = draw(3, 4)


def test_creation():
    functions = {
        "arange": lambda x: (torch.arange(5), torch.arange(2, 9, 3), torch.arange(1.0, 2, 0.3)),
        "arange down": lambda x: torch.arange(3, -2, -2),
        "linspace": lambda x: (torch.linspace(0, 1, 7), torch.linspace(3, -2, 1)),
        "linspace whole": lambda x: torch.linspace(0, 10, 4, dtype=torch.int64),
        "logspace": lambda x: torch.logspace(-1, 2, 4, base=2),
        "full": lambda x: (torch.full((2, 3), 7), torch.full((2,), 0.5), x.new_full((2,), 3)),
        "full like": lambda x: torch.full_like(x, 2) * x,
        "fill": lambda x: torch.fill(x.clone(), 2.5) + x,
        "fill with a tensor": lambda x: torch.zeros_like(x).fill_(x.sum()),
        "ones": lambda x: (torch.ones(2), torch.ones_like(x, dtype=torch.int32), x.new_ones(3)),
        "zeros": lambda x: (torch.zeros(2, dtype=torch.bool), x.new_zeros((2, 2))),
        "eye": lambda x: (torch.eye(3), torch.eye(2, 4)),
        "triangles": lambda x: (torch.tril_indices(3, 4, 1), torch.triu_indices(3, 4)),
        "scalar": lambda x: torch.scalar_tensor(2.0) * x,
        "empty": lambda x: torch.where(torch.ones(2, 3) > 0, 0.0, torch.empty(2, 3)),
        "item": lambda x: torch.where(x > 0, x, torch.tensor(3.0).item()),
    }
    check(functions, X)


def test_item_is_traced():
    net = to_jax(All({"item": lambda x: x.sum().item() * x}))
    x = np.ones(3, np.float32)
    np.testing.assert_allclose(jax.jit(lambda x: net({}, [x])[0])(x), 3 * x)


def test_a_shape_that_depends_on_values_is_refused():
    net = to_jax(All({"zeros": lambda x: torch.zeros(x.sum().item()) + 1}), downcast=True)
    with pytest.raises(ConversionError):
        net({}, [np.ones(3, np.int32)])
