"""Writes through masks, whose places torch.export would look up."""

from collections.abc import Callable
from typing import Any

import torch


def set_item(x: torch.Tensor, index: Any, value: Any) -> None:
    """``x[mask] = number`` at every place, in the mask's favour or not."""
    masks = isinstance(index, torch.Tensor) and index.dtype is torch.bool
    single = not isinstance(value, torch.Tensor) or value.dim() == 0
    if masks and single and index.dim() <= x.dim():
        wide = index.reshape((*index.shape, *[1] * (x.dim() - index.dim())))
        x.masked_fill_(wide, value)
    else:
        x[index] = value


FUNCTIONS: dict[Any, Callable[..., Any]] = {torch.Tensor.__setitem__: set_item}
