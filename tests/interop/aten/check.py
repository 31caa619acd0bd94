"""The laws of rules, for many functions at once: torch's values, dtypes, shapes and gradients.

All functions of a group are exported as one module and compiled once in each precision. Each has
its own copy of the inputs, so that a gradient that is NaN at a kink hides nothing of another.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils import _pytree as tree

from interop import to_jax

Functions = Mapping[str, Callable[..., Any]]

WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiles sooner; what is compiled runs once."""

KINKS = torch.tensor([-3.0, -2, -1.5, -1, -0.5, -0.0, 0.0, 0.3, 0.5, 1, 1.5, 2, 2.5, 7])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def draw_integers(low: int, high: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


class All(torch.nn.Module):
    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, *inputs: list[torch.Tensor]) -> Any:
        return [f(*own) for f, own in zip(self.functions.values(), inputs, strict=True)]


def check(functions: Functions, *inputs: torch.Tensor, tolerance: float = 1.0) -> None:
    """Asserts both sides agree on every function at these inputs, in single and double."""
    for wide in (False, True):
        eps = tolerance * (1e-10 if wide else 1e-5)
        given = [
            x.detach().to(WIDE.get(x.dtype, x.dtype)) if wide else x.detach().clone()
            for x in inputs
        ]
        with jax.enable_x64(wide):
            _check(functions, given, eps, wide)


def _check(functions: Functions, inputs: list[torch.Tensor], eps: float, wide: bool) -> None:
    arrays = [jnp.asarray(x.numpy()) for x in inputs]
    moving = [i for i, x in enumerate(inputs) if x.is_floating_point() or x.is_complex()]
    for i in moving:
        inputs[i].requires_grad_()
    expected = [_tensors(function(*inputs)) for function in functions.values()]
    smooth = [[x.requires_grad for x in outputs] for outputs in expected]
    net = to_jax(All(functions), downcast=not wide)

    @partial(jax.jit, compiler_options=FAST)
    def both(moved: list[list[jax.Array]]) -> Any:
        def total(moved: list[list[jax.Array]]) -> Any:
            given = [list(arrays) for _ in functions]
            for own, values in zip(given, moved, strict=True):
                for i, x in zip(moving, values, strict=True):
                    own[i] = x
            found = [jax.tree.leaves(outputs) for outputs in net({}, *given)]
            summed = 0.0
            for outputs, kinds in zip(found, smooth, strict=True):
                for x, s in zip(outputs, kinds, strict=True):
                    summed += jnp.real(jnp.sum(x * _weights(x))) if s else 0.0
            return jnp.asarray(summed), found

        gradients, found = jax.grad(total, has_aux=True)(moved)
        return found, jax.tree.map(jnp.conj, gradients)  # torch's convention

    found, gradients = both([[arrays[i] for i in moving] for _ in functions])
    for name, want, have, gradient in zip(functions, expected, found, gradients, strict=True):
        assert len(want) == len(have), name
        for w, h in zip(want, have, strict=True):
            if wide:
                assert h.dtype.name == str(w.dtype).removeprefix("torch."), name
            _equal(h, w, eps, name)
        moved = [w for w in want if w.requires_grad]
        if moved:
            total = sum((w * torch.from_numpy(np.array(_weights(w)))).sum() for w in moved)
            slopes = torch.autograd.grad(
                total.real, [inputs[i] for i in moving], materialize_grads=True, retain_graph=True
            )
            for w, h in zip(slopes, gradient, strict=True):
                _equal(h, w, 20 * eps, f"the gradient of {name}")


def _tensors(outputs: Any) -> list[torch.Tensor]:
    return [x for x in tree.tree_leaves(outputs) if isinstance(x, torch.Tensor)]


def _weights(x: Any) -> np.ndarray:
    """The same for both sides; in the precision of the output."""
    size = int(np.prod(x.shape))
    kind = np.float64 if str(x.dtype).endswith(("64", "128")) else np.float32
    kind = np.float32 if str(x.dtype).endswith("complex64") else kind
    return (np.cos(np.arange(size)) + 0.3).reshape(tuple(x.shape)).astype(kind)


def _equal(have: Any, want: torch.Tensor, eps: float, name: str) -> None:
    want = want.detach().resolve_conj().resolve_neg().clone()  # also of torch's lazy zeros
    values = want.float().numpy() if want.dtype in (torch.bfloat16, torch.float16) else want.numpy()
    if values.dtype in (np.float32, np.complex64):
        eps = max(eps, 1e-5)  # also where all else is in double
    np.testing.assert_allclose(have, values, rtol=eps, atol=eps, err_msg=name)
