"""The laws of rules on arrays: torch's values, dtypes and gradients, jitted, in both precisions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as tree

from interop import to_jax


@dataclass(frozen=True)
class Case:
    """A function of tensors, its inputs in single precision, and what of it is compared."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[torch.Tensor, ...]
    gradient: bool = True
    tolerance: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def integers(low: int, high: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


class Wrapped(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


def check(case: Case, wide: bool) -> None:
    """Asserts that both sides agree on ``case``."""
    inputs = [
        x.to(WIDE[x.dtype]) if wide and x.dtype in WIDE else x.clone() for x in case.inputs
    ]
    eps = case.tolerance * (1e-10 if wide else 2e-5)
    with jax.enable_x64(wide):
        _check(case, inputs, eps, wide)


def _check(case: Case, inputs: list[torch.Tensor], eps: float, wide: bool) -> None:
    moving = [
        i for i, x in enumerate(inputs) if case.gradient and (x.is_floating_point() or x.is_complex())
    ]
    arrays = [jnp.asarray(x.numpy()) for x in inputs]
    for i in moving:
        inputs[i].requires_grad_()
    expected = [x for x in tree.tree_leaves(case.function(*inputs)) if isinstance(x, torch.Tensor)]
    net = to_jax(Wrapped(case.function))
    weights = [
        draw(*x.shape, seed=7, dtype=x.dtype) if x.is_floating_point() or x.is_complex() else None
        for x in expected
    ]
    smooth = [x.requires_grad for x in expected]

    @jax.jit
    def both(moved: list[jax.Array]) -> Any:
        def loss(moved: list[jax.Array]) -> Any:
            given = list(arrays)
            for i, x in zip(moving, moved, strict=True):
                given[i] = x
            outputs = [x for x in jax.tree.leaves(net({}, *given)) if isinstance(x, jax.Array)]
            total = jnp.zeros(())
            for x, w, s in zip(outputs, weights, smooth, strict=True):
                if w is not None and s:
                    total = total + jnp.real(jnp.sum(x * w.numpy()))
            return total, outputs

        if not moving:
            return [], loss([])[1]
        gradients, outputs = jax.grad(loss, has_aux=True)(moved)
        return [jnp.conj(g) for g in gradients], outputs  # torch's convention

    gradients, outputs = both([arrays[i] for i in moving])
    for want, have in zip(expected, outputs, strict=True):
        if wide:
            assert str(have.dtype) == str(want.dtype).removeprefix("torch."), case.name
        np.testing.assert_allclose(have, want.detach().resolve_conj(), rtol=eps, atol=eps)
    if not any(smooth) or not moving:
        return
    total = sum(
        (x * w).sum().real if x.is_complex() else (x * w).sum()
        for x, w, s in zip(expected, weights, smooth, strict=True)
        if s and w is not None
    )
    found = torch.autograd.grad(total, [inputs[i] for i in moving], materialize_grads=True)
    for want, have in zip(found, gradients, strict=True):
        np.testing.assert_allclose(
            have, want.resolve_conj(), rtol=20 * eps, atol=20 * eps, err_msg=case.name
        )
