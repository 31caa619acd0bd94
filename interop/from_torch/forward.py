"""Modes that see what forward calls, and none of what torch.export calls for itself."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from interop._torch import METADATA

__all__ = ["ForwardMode", "forward_runs"]

_runs: ContextVar[bool] = ContextVar("_runs", default=False)


@contextlib.contextmanager
def forward_runs() -> Iterator[None]:
    """What is called within is forward's."""
    token = _runs.set(True)
    try:
        yield
    finally:
        _runs.reset(token)


class ForwardMode(TorchFunctionMode):
    """Calls of forward, save for those that ask for a tensor's form or are in a body of control
    flow, go to :meth:`call`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch calls in place of every function."""
        kwargs = kwargs or {}
        if torch.compiler.is_dynamo_compiling() or not _runs.get() or func in METADATA:
            return func(*args, **kwargs)
        return self.call(func, args, kwargs)

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """In place of ``func(*args, **kwargs)``."""
        raise NotImplementedError
