"""Connectionist temporal classification as one operation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import library
from torch.nn import functional

from interop.from_torch.substitutes.common import reduced


@library.custom_op("interop::ctc_loss", mutates_args=())
def _ctc_loss(
    log_p: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    blank: int,
    zero_infinity: bool,
) -> torch.Tensor:
    return functional.ctc_loss(
        log_p, targets, input_lengths, target_lengths, blank, "none", zero_infinity
    )


@_ctc_loss.register_fake
def _(log_p: torch.Tensor, *_: Any) -> torch.Tensor:
    return log_p.new_empty(log_p.shape[1])


def _ignore_gradient(ctx: Any, *gradients: Any) -> Any:
    raise NotImplementedError("interop::ctc_loss is for torch.export alone")


_ctc_loss.register_autograd(_ignore_gradient)


def ctc_loss(
    log_p: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str | int = "mean",
    zero_infinity: bool = False,
) -> torch.Tensor:
    """One operation, which has a rule, of lengths as tensors; then the reduction."""
    reduction = reduction if isinstance(reduction, str) else ("none", "mean", "sum")[reduction]
    lengths = []
    for given in (input_lengths, target_lengths):
        given = given if isinstance(given, torch.Tensor) else torch.tensor(given)
        lengths.append(given.to(torch.int64).reshape(-1))
    alone = log_p.dim() == 2
    loss = torch.ops.interop.ctc_loss(
        log_p.unsqueeze(1) if alone else log_p,
        targets.unsqueeze(0) if alone and targets.dim() == 1 else targets,
        *lengths,
        blank,
        zero_infinity,
    )
    if reduction == "mean":
        loss = loss / lengths[1].clamp(min=1).to(loss.dtype)
    return loss.squeeze(0) if alone and reduction == "none" else reduced(loss, reduction)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    functional.ctc_loss: ctc_loss,
    torch.ctc_loss: ctc_loss,
}
