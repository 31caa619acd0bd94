"""The law of rules of layers: torch's values and gradients in double precision, jitted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as tree

from interop import to_jax

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclass(frozen=True, eq=False)
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


class Batch:
    """Cases that share one export and one compiled function, when the first of them is checked."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = list(cases)
        self.found: dict[int, Any] | None = None

    def check(self, case: Case) -> None:
        """Asserts that both sides agree, in values and in gradients for all inputs."""
        if self.found is None:
            try:
                found = _of_jax(self.cases)
                self.found = {id(c): f for c, f in zip(self.cases, found, strict=True)}
            except Exception:
                self.found = {}  # each alone: then the one that fails does
        found = self.found[id(case)] if id(case) in self.found else _of_jax([case])[0]
        outputs, slopes, wanted_outputs, wanted = *found, *_of_torch(case)
        eps = case.tolerance
        for have, want in zip(outputs, wanted_outputs, strict=True):
            assert str(have.dtype) == str(want.dtype).removeprefix("torch."), case.name
            np.testing.assert_allclose(have, want.detach(), rtol=eps, atol=eps)
        for have, want in zip(slopes, wanted, strict=True):
            np.testing.assert_allclose(
                have, want, rtol=20 * eps, atol=20 * eps, err_msg=f"{case.name}: gradient"
            )


def _weights(x: Any) -> np.ndarray:
    return np.cos(np.arange(np.prod(x.shape, dtype=int), dtype=float)).reshape(tuple(x.shape))


def _of_torch(case: Case) -> tuple[list[torch.Tensor], Any]:
    inputs = [x.double().requires_grad_() for x in case.inputs]
    outputs = _tensors(case.function(*inputs))
    total = sum((x * torch.from_numpy(_weights(x))).sum() for x in outputs if x.requires_grad)
    slopes = torch.autograd.grad(total, inputs, materialize_grads=True, allow_unused=True)
    return outputs, slopes


def _tensors(outputs: Any) -> list[torch.Tensor]:
    return [x for x in tree.tree_leaves(outputs) if isinstance(x, torch.Tensor)]


def _of_jax(cases: Sequence[Case]) -> Any:
    """Outputs and gradients of each case."""

    def all_of(*inputs: torch.Tensor) -> Any:
        rest = iter(inputs)
        return [_tensors(c.function(*(next(rest) for _ in c.inputs))) for c in cases]

    with jax.enable_x64(True):
        net = to_jax(Wrapped(all_of))

        def loss(inputs: list[list[jax.Array]]) -> Any:
            found = net({}, *(x for own in inputs for x in own))
            smooth = [x for x in jax.tree.leaves(found) if jnp.issubdtype(x.dtype, jnp.floating)]
            return sum(jnp.sum(x * _weights(x)) for x in smooth), found

        arrays = [[jnp.asarray(x.double().numpy()) for x in c.inputs] for c in cases]
        run = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)
        (_, found), slopes = run(arrays)
    return list(zip(found, slopes, strict=True))
