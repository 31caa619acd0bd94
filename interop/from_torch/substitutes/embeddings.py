"""Rows of a table that are shortened to a norm."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from interop.from_torch.substitutes.common import with_gradient_of


def embedding(
    input: torch.Tensor,
    weight: torch.Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> torch.Tensor:
    """Rows no longer than ``max_norm``. The weight, which torch shortens in place, stays."""
    how = (padding_idx, None, norm_type, scale_grad_by_freq, sparse)
    return functional.embedding(input, _renormed(weight, input, max_norm, norm_type), *how)


def _renormed(
    weight: torch.Tensor, input: torch.Tensor, max_norm: float | None, norm_type: float
) -> torch.Tensor:
    if max_norm is None:
        return weight
    short = torch.ops.aten.embedding_renorm(weight.detach(), input.reshape(-1), max_norm, norm_type)
    return with_gradient_of(short, weight)


def embedding_bag(
    input: torch.Tensor,
    weight: torch.Tensor,
    offsets: torch.Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    *more: Any,
    **named: Any,
) -> torch.Tensor:
    """The same of bags."""
    if weight.dtype == torch.long and input.is_floating_point():
        input, weight = weight, input  # torch takes the older order with a warning
    short = _renormed(weight, input, max_norm, norm_type)
    return functional.embedding_bag(input, short, offsets, None, norm_type, *more, **named)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    functional.embedding: embedding,
    functional.embedding_bag: embedding_bag,
}
