"""What forward does to the gradients of its activations: hooks, and values taken past them."""

from collections.abc import Callable
from typing import Any

import torch

from interop._torch import data_getter
from interop.from_torch.functions import hooked

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.register_hook: hooked,
    data_getter(): torch.Tensor.detach,
}
