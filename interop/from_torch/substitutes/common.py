"""What several substitutes are made of."""

import torch


def with_gradient_of(values: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """These values, with the gradient of the other tensor where it is finite."""
    change = gradient - gradient.detach()
    return values.detach() + torch.where(change == 0, change, 0)


def reduced(loss: torch.Tensor, reduction: str) -> torch.Tensor:
    """As a loss's ``reduction`` says."""
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss
