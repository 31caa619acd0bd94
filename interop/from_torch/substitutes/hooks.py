"""Hooks that forward hangs on its activations."""

from collections.abc import Callable
from typing import Any

import torch

from interop.from_torch.functions import hooked

FUNCTIONS: dict[Any, Callable[..., Any]] = {torch.Tensor.register_hook: hooked}
