"""Where forward stops gradients in ways of which torch.export records nothing."""

import weakref
from typing import Any

import torch

from interop._torch import (
    data_setter,
    flag_setter,
    functional_inputs,
    is_differentiating,
    pytree,
)
from interop.errors import ConversionError
from interop.from_torch.detached import Detached, is_in_place
from interop.from_torch.forward import ForwardMode
from interop.from_torch.sources import frames_in_export, own_frame

__all__ = ["GradientModes"]

_DETACHES = (torch.Tensor.detach, torch.detach)
_STOPS = (torch.Tensor.detach_, torch.detach_)
_FLAGS = (torch.Tensor.requires_grad_, flag_setter())
_SET_DATA = data_setter()


class GradientModes(ForwardMode):
    """``inference_mode``, ``requires_grad_(False)`` and ``detach_`` as ``detach``."""

    def __init__(self) -> None:
        super().__init__()
        self._stopped: dict[int, weakref.ref[torch.Tensor]] = {}
        self._detached = Detached()

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """In place of ``func(*args, **kwargs)``."""
        if is_differentiating():
            raise ConversionError(
                "torch.func differentiates in forward, of which torch.export loses the inputs "
                f"({own_frame()}). Use torch.autograd.grad(..., create_graph=True), or convert "
                "what is differentiated and take jax.grad of it."
            )
        if func in _DETACHES and _is_of_functional():
            return args[0].clone()  # an input of JAX may require a gradient
        if func in _STOPS:
            self._is_stopped(args[0], False)
            return args[0]
        if func in _FLAGS:
            return args[0] if self._is_stopped(*args, **kwargs) else func(*args, **kwargs)
        if func == _SET_DATA:
            return self._set_data(*args)
        if self._stopped:
            args, kwargs = pytree.tree_map_only(torch.Tensor, self._current, (args, kwargs))
        if not torch.is_inference_mode_enabled():
            out = self._detached.call(func, args, kwargs)
            if func in _DETACHES:
                self._detached.add(out, args[0])
            return out
        if args and is_in_place(func):
            name = func.__name__
            raise ConversionError(
                f"{name} changes a tensor in place under torch.inference_mode, past its gradient "
                f"({own_frame()}). Compute a new tensor instead."
            )
        return pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, func(*args, **kwargs))

    def _set_data(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        """``tensor.data = value``, a write past its gradient."""
        if value.shape != tensor.shape or value.dtype != tensor.dtype:
            raise ConversionError(
                f"data of {tensor.dtype} {list(tensor.shape)} is set to {value.dtype} "
                f"{list(value.shape)} ({own_frame()}): keep shape and dtype, or make a new tensor"
            )
        alias = tensor.detach()
        self._detached.add(alias, tensor)
        self._detached.call(torch.Tensor.copy_, (alias, value.detach()), {})

    def _is_stopped(self, tensor: torch.Tensor, requires_grad: bool = True) -> bool:
        """Noted, and not done: the tensor may be the user's own."""
        self._stopped.pop(id(tensor), None)
        if not requires_grad:
            self._stopped[id(tensor)] = weakref.ref(tensor)
        return not requires_grad

    def _current(self, tensor: torch.Tensor) -> torch.Tensor:
        stopped = self._stopped.get(id(tensor))
        return tensor.detach() if stopped is not None and stopped() is tensor else tensor


def _is_of_functional() -> bool:
    """Whether ``torch.autograd.functional`` detaches what it differentiates by."""
    codes = (frame.f_code for frame in frames_in_export())
    return functional_inputs.__code__ in codes
