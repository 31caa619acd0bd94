"""torch.distributions: what it asks of values that are not there yet, and how it makes tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from interop._torch import all_true
from interop.from_torch.sources import frames_in_export

_HOME = Path(torch.distributions.__file__).parent
_CHECKS = str(_HOME / "distribution.py")
_ANSWERS = {str(_HOME / "constraints.py"): True, str(_HOME / "wishart.py"): False}
_VON_MISES = str(_HOME / "von_mises.py")

_TRIES = 40
"""Of a von Mises draw, of which at least 0.65 are accepted."""


def _caller() -> Any:
    """The frame that called the function which is replaced."""
    for frame in frames_in_export():
        if frame.f_code.co_name != "__torch_function__" and frame.f_code.co_filename != __file__:
            return frame
    return None


def _caller_file() -> str | None:
    frame = _caller()
    return None if frame is None else frame.f_code.co_filename


def is_all_true(x: torch.Tensor) -> Any:
    """What a distribution checks of its parameters and values holds: JAX could not raise."""
    return True if _caller_file() == _CHECKS else all_true(x)


def truth(x: torch.Tensor) -> bool:
    """Matrices are as a constraint wants them, and no Wishart draw is singular."""
    file = _caller_file()
    return _ANSWERS[file] if file in _ANSWERS else torch.Tensor.__bool__(x)


def any_of(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """Of the draws that a rejection sampler accepts, some."""
    return True if _caller_file() == _VON_MISES else torch.Tensor.any(x, *args, **kwargs)


def all_of(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """A rejection sampler ends after so many tries that all are accepted."""
    frame = _caller()
    if frame is None or frame.f_code.co_filename != _VON_MISES:
        return torch.Tensor.all(x, *args, **kwargs)
    tries = _tries.get(id(frame), 0) + 1
    _tries[id(frame)] = tries
    return tries > _TRIES and bool(_tries.pop(id(frame)))


_tries: dict[int, int] = {}
"""Of the samplers that run now, by their frames."""


def new(x: torch.Tensor, *size: Any, **kwargs: Any) -> torch.Tensor:
    """``x.new(size)``, of which stand-ins make a tensor that holds the size."""
    if len(size) == 1 and isinstance(size[0], torch.Size):
        return x.new_empty(size[0])
    return x.new(*size, **kwargs)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    all_true: is_all_true,
    torch.Tensor.__bool__: truth,
    torch.Tensor.any: any_of,
    torch.Tensor.all: all_of,
    torch.Tensor.new: new,
}
