"""What forward does with gradients: hooks, values taken past them, and gradients of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from interop._torch import data_getter, gradient_getter
from interop.errors import ConversionError
from interop.from_torch.functions import hooked
from interop.from_torch.sources import own_frame

_grad: Any = torch.autograd.grad


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[torch.Tensor | None, ...]:
    """``torch.autograd.grad``, past whose results no gradient goes without ``create_graph``."""
    how = (create_graph, only_inputs, allow_unused, False, materialize_grads)
    if is_grads_batched:
        many = [grad_outputs] if isinstance(grad_outputs, torch.Tensor) else list(grad_outputs)
        size = next(len(g) for g in many if g is not None)
        rows = [
            _grad(outputs, inputs, [g if g is None else g[i] for g in many], True, *how)
            for i in range(size)
        ]
        found = tuple(_stacked(column) for column in zip(*rows, strict=True))
    else:
        found = _grad(outputs, inputs, grad_outputs, retain_graph, *how)
    return found if create_graph else tuple(g if g is None else g.detach() for g in found)


def _stacked(gradients: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    given = [g for g in gradients if g is not None]
    return torch.stack(given) if given else None


def backward(
    tensor: torch.Tensor,
    gradient: torch.Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """``tensor.backward()`` in forward, whose gradients are read from ``grad``."""
    if create_graph:
        raise ConversionError(
            f"backward(create_graph=True) in forward ({own_frame()}): use "
            "torch.autograd.grad(..., create_graph=True)"
        )
    tensor.backward(gradient, retain_graph, False, inputs)


def gradient_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """``tensor.grad``, which has no gradient."""
    found = tensor.grad
    return found if found is None or found.requires_grad else found.detach()


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.register_hook: hooked,
    data_getter(): torch.Tensor.detach,
    torch.autograd.grad: grad,
    torch.Tensor.backward: backward,
    gradient_getter(): gradient_of,
}
