"""Losses that look at values in Python, or that torch.export takes apart wrongly."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from interop.from_torch.substitutes.common import reduced, with_gradient_of


def gaussian_nll_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    var: torch.Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> torch.Tensor:
    """Without the look at the variance's sign; the bound on it passes the gradient, as in torch."""
    if not isinstance(var, torch.Tensor):
        var = var * torch.ones_like(input)
    if var.shape != input.shape and var.shape == input.shape[:-1]:
        var = var.unsqueeze(-1)
    var = with_gradient_of(var.clamp(min=eps), var)
    loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduced(loss, reduction)


def multilabel_margin_loss(
    input: torch.Tensor, target: torch.Tensor, *how: Any, **named: Any
) -> torch.Tensor:
    """Of one row it is a number, which torch forgets when it traces."""
    loss = functional.multilabel_margin_loss(input, target, *how, **named)
    return loss.reshape(()) if input.dim() < 2 else loss


def multi_margin_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Without slope at the kink; torch.export takes it apart into what has one."""
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    rows = input.reshape(-1, input.shape[-1])
    at = target.reshape(-1, 1)
    hinge = margin - rows.gather(1, at) + rows
    others = torch.arange(rows.shape[1], device=rows.device) != at
    hinge = torch.where((hinge > 0) & others, hinge, torch.zeros_like(hinge))
    hinge = hinge * hinge if p == 2 else hinge
    hinge = hinge if weight is None else hinge * weight[at]
    losses = hinge.sum(1) / rows.shape[1]
    return reduced(losses.reshape(target.shape), reduction)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    functional.gaussian_nll_loss: gaussian_nll_loss,
    functional.multi_margin_loss: multi_margin_loss,
    functional.multilabel_margin_loss: multilabel_margin_loss,
}
