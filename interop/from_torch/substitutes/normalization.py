"""Running statistics, changed in sight of torch.export."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from interop._torch import BatchNorm


def instance_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None = None,
    running_var: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """torch.export forgets that running statistics change: here they do in sight."""
    if use_input_stats and running_mean is not None and running_var is not None:
        axes = list(range(2, input.dim()))
        count = math.prod(input.shape[2:])
        wide = input.detach().to(running_mean.dtype)
        mean = wide.mean(axes).mean(0)
        var = wide.var(axes, correction=0).mean(0) * (count / max(count - 1, 1))
        running_mean.copy_((1 - momentum) * running_mean + momentum * mean)
        running_var.copy_((1 - momentum) * running_var + momentum * var)
        running_mean = running_var = None
    return functional.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


def _averages_without_end(part: torch.nn.Module) -> bool:
    return (
        isinstance(part, BatchNorm)
        and part.momentum is None
        and part.track_running_stats
        and part.training
    )


def _averaging(part: Any, _: Any) -> Callable[..., torch.Tensor]:
    """The momentum is one over a count that is a tensor."""

    def forward(input: torch.Tensor) -> torch.Tensor:
        part._check_input_dim(input)
        part.num_batches_tracked.add_(1)
        share = 1.0 / part.num_batches_tracked.to(part.running_mean.dtype)
        fresh = (torch.zeros_like(part.running_mean), torch.zeros_like(part.running_var))
        out = functional.batch_norm(
            input, *fresh, part.weight, part.bias, training=True, momentum=1.0, eps=part.eps
        )
        for running, new in zip((part.running_mean, part.running_var), fresh, strict=True):
            running.copy_((1 - share) * running + share * new.detach())
        return out

    return forward


FUNCTIONS: dict[Any, Callable[..., Any]] = {functional.instance_norm: instance_norm}
MODULES: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any], Any]], ...] = (
    (_averages_without_end, _averaging),
)
