"""torch.distributions: what it asks of values that are not there yet, and how it makes tensors."""

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import torch
from torch.distributions import Distribution, Wishart, constraints

from interop._torch import all_true, rejection_sampler
from interop.from_torch.forward import ForwardMode
from interop.from_torch.sources import frames_in_export

_TRIES = 40
"""Of a von Mises draw, of which at least 0.65 are accepted."""


def _codes(*owners: Any) -> frozenset[CodeType]:
    """Of the functions that classes define."""
    members = [f for owner in owners for f in vars(owner).values()]
    return frozenset(f.__code__ for f in members if isinstance(f, FunctionType))


_CHECKS = _codes(Distribution)
_CONSTRAINTS = _codes(*(c for c in vars(constraints).values() if isinstance(c, type)))
_WISHART = _codes(Wishart)
_SAMPLER = rejection_sampler.__code__


class Questions:
    """Answers what distributions ask while one module is exported."""

    def __init__(self) -> None:
        self._tries: dict[int, int] = {}  # of the samplers that run now, by their frames

    def functions(self) -> dict[Any, Callable[..., Any]]:
        """What is called in place of functions of torch."""
        return {
            all_true: self._is_all_true,
            torch.Tensor.__bool__: self._truth,
            torch.Tensor.any: self._any,
            torch.Tensor.all: self._all,
        }

    def _is_all_true(self, x: torch.Tensor) -> Any:
        """What a distribution checks of its parameters and values holds: JAX could not raise."""
        return True if _asking() in _CHECKS else all_true(x)

    def _truth(self, x: torch.Tensor) -> bool:
        """Matrices are as a constraint wants them, and no Wishart draw is singular."""
        asking = _asking()
        if asking in _CONSTRAINTS or asking in _WISHART:
            return asking in _CONSTRAINTS
        return torch.Tensor.__bool__(x)

    def _any(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Of the draws that a rejection sampler accepts, some."""
        return True if _asking() is _SAMPLER else torch.Tensor.any(x, *args, **kwargs)

    def _all(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """A rejection sampler ends after so many tries that all are accepted."""
        frame = _caller()
        if frame is None or frame.f_code is not _SAMPLER:
            return torch.Tensor.all(x, *args, **kwargs)
        tries = self._tries.get(id(frame), 0) + 1
        self._tries[id(frame)] = tries
        return tries > _TRIES and bool(self._tries.pop(id(frame)))


def _caller() -> Any:
    """The frame that called the function which is replaced."""
    for frame in frames_in_export():
        of_mode = frame.f_code.co_name == "__torch_function__"
        of_mode = of_mode or isinstance(frame.f_locals.get("self"), ForwardMode)
        if frame.f_code not in _OWN and not of_mode:
            return frame
    return None


def _asking() -> CodeType | None:
    frame = _caller()
    return None if frame is None else frame.f_code


_OWN = {*_codes(Questions), _asking.__code__, _caller.__code__}


def new(x: torch.Tensor, *size: Any, **kwargs: Any) -> torch.Tensor:
    """``x.new(size)``, of which stand-ins make a tensor that holds the size."""
    if len(size) == 1 and isinstance(size[0], torch.Size):
        return x.new_empty(size[0])
    return x.new(*size, **kwargs)


FUNCTIONS: dict[Any, Callable[..., Any]] = {torch.Tensor.new: new}
