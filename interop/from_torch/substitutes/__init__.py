"""What torch.export refuses or gets wrong, in equal terms that it takes, while it runs."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from interop.from_torch.forward import ForwardMode
from interop.from_torch.substitutes import (
    covariance,
    ctc,
    distributions,
    embeddings,
    gradients,
    losses,
    masks,
    normalization,
    packed,
    transformers,
)

__all__ = ["FUNCTIONS", "MODULES", "substitutes"]

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **covariance.FUNCTIONS,
    **ctc.FUNCTIONS,
    **distributions.FUNCTIONS,
    **embeddings.FUNCTIONS,
    **gradients.FUNCTIONS,
    **losses.FUNCTIONS,
    **masks.FUNCTIONS,
    **normalization.FUNCTIONS,
    **packed.FUNCTIONS,
}
"""For a function of torch, what is called in its place."""

MODULES = (*normalization.MODULES, *packed.MODULES, *transformers.MODULES)
"""Which modules, and what makes the forward that is called in place of theirs."""


@contextlib.contextmanager
def substitutes(module: torch.nn.Module) -> Iterator[None]:
    """Give parts of ``module``, which is a copy, exportable forwards, and replace functions."""
    for part in module.modules():
        for fits, forward in MODULES:
            if fits(part):
                part.forward = forward(part, part.forward)
    with _Functions():
        yield


class _Functions(ForwardMode):
    """Calls of torch's functions go to their substitutes, where they have one."""

    def __init__(self) -> None:
        super().__init__()
        self._functions = FUNCTIONS | distributions.Questions().functions()

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """In place of ``func(*args, **kwargs)``."""
        return self._functions.get(func, func)(*args, **kwargs)
