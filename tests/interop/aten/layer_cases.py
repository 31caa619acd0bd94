"""The law of rules of layers: torch's values and gradients in double precision, jitted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as tree

from interop import to_jax

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclass(frozen=True)
class Case:
    """A function of tensors, its inputs, and how far its values may be apart."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[torch.Tensor, ...]
    tolerance: float = 1e-10


class Wrapped(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(low: int, high: int, *shape: int) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(0))


def check(case: Case) -> None:
    """Asserts that both sides agree, in values and in gradients for all inputs."""
    inputs = [x.double().requires_grad_() for x in case.inputs]
    expected = [x for x in tree.tree_leaves(case.function(*inputs)) if isinstance(x, torch.Tensor)]
    weights = [torch.cos(torch.arange(x.numel()).double()).reshape(x.shape) for x in expected]
    smooth = [x.requires_grad for x in expected]
    total = sum((x * w).sum() for x, w, s in zip(expected, weights, smooth, strict=True) if s)
    wanted = torch.autograd.grad(total, inputs, materialize_grads=True, allow_unused=True)
    with jax.enable_x64(True):
        net = to_jax(Wrapped(case.function))

        def loss(inputs: list[jax.Array]) -> Any:
            found = jax.tree.leaves(net({}, *inputs))
            terms = [
                jnp.sum(x * w.numpy())
                for x, w, s in zip(found, weights, smooth, strict=True)
                if s
            ]
            return sum(terms), found

        arrays = [jnp.asarray(x.detach().numpy()) for x in inputs]
        run = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)
        (_, found), slopes = run(arrays)
    eps = case.tolerance
    for have, want in zip(found, expected, strict=True):
        assert str(have.dtype) == str(want.dtype).removeprefix("torch."), case.name
        np.testing.assert_allclose(have, want.detach(), rtol=eps, atol=eps)
    for have, want in zip(slopes, wanted, strict=True):
        np.testing.assert_allclose(
            have, want, rtol=20 * eps, atol=20 * eps, err_msg=f"{case.name}: gradient"
        )
