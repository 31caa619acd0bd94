"""Small modules, tensors and comparisons that the tests of to_jax share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

import interop

KEY = jax.random.key(3)


class Of(nn.Module):
    """A module of one function, and of parameters by name."""

    def __init__(self, function: Any, **parameters: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.function(self, *inputs, **named)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def array(tensor: torch.Tensor) -> Any:
    return jnp.asarray(tensor.detach().numpy())


def same(found: Any, expected: torch.Tensor) -> None:
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5, atol=1e-5)


def agree(module: nn.Module, *inputs: torch.Tensor) -> None:
    """Outputs, and gradients for parameters and inputs, in evaluation mode."""
    module.eval()
    net = interop.to_jax(module)
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    expected = module(*inputs)
    weights = torch.cos(torch.arange(expected.numel(), dtype=expected.dtype)).reshape(
        expected.shape
    )
    module.zero_grad()
    (expected * weights).sum().backward()

    def total(params: Any, *inputs: Any) -> Any:
        found = net(params, *inputs)
        return jnp.sum(found * array(weights)), found

    slopes, found = jax.jit(jax.grad(total, (0, *range(1, 1 + len(inputs))), has_aux=True))(
        net.params, *map(array, inputs)
    )
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5, atol=1e-5)
    for name, parameter in module.named_parameters():
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        np.testing.assert_allclose(slopes[0][name], grad, rtol=1e-4, atol=1e-5, err_msg=name)
    for slope, x in zip(slopes[1:], inputs, strict=True):
        grad = torch.zeros_like(x) if x.grad is None else x.grad
        np.testing.assert_allclose(slope, grad, rtol=1e-4, atol=1e-5)
