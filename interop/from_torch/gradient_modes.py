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
    without_function_modes,
)
from interop.errors import ConversionError
from interop.from_torch.contents import tensors_in
from interop.from_torch.detached import DETACHES, Detached, is_in_place
from interop.from_torch.forward import ForwardMode
from interop.from_torch.side_effects import Fresh
from interop.from_torch.sources import frames_in_export, own_frame
from interop.from_torch.ungraded import Ungraded

__all__ = ["GradientModes"]

_STOPS = (torch.Tensor.detach_, torch.detach_)
_FLAGS = (torch.Tensor.requires_grad_, flag_setter())
_SET_DATA = data_setter()


class GradientModes(ForwardMode):
    """``inference_mode``, ``requires_grad_(False)`` and ``detach_`` as ``detach``.

    Args:
        module: what is exported.
        fresh: knows which tensors are made of the module's own.
    """

    def __init__(self, module: torch.nn.Module, fresh: Fresh) -> None:
        super().__init__()
        self._stopped: dict[int, weakref.ref[torch.Tensor]] = {}
        self._detached = Detached()
        self._fresh = fresh
        self._ungraded = Ungraded()
        module.register_forward_hook(lambda _, inputs, out: self._refuse_lost(tensors_in(out)))

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """In place of ``func(*args, **kwargs)``."""
        if is_differentiating():
            raise ConversionError(
                "torch.func differentiates in forward, of which torch.export loses the inputs "
                f"({own_frame()}). Use torch.autograd.grad(..., create_graph=True), or convert "
                "what is differentiated and take jax.grad of it."
            )
        if func in DETACHES and _is_of_functional():
            return args[0].clone()  # an input of JAX may require a gradient
        if func in _STOPS:
            self._is_stopped(args[0], False)
            return args[0]
        if func in _FLAGS:
            return args[0] if self._is_stopped(*args, **kwargs) else func(*args, **kwargs)
        if func == _SET_DATA:
            return self._set_data(*args)
        if self._stopped:
            self._refuse_stopped(func, args, kwargs)
            args, kwargs = pytree.tree_map_only(torch.Tensor, self._current, (args, kwargs))
        if not torch.is_inference_mode_enabled():
            return self._called(func, args, kwargs)
        if args and is_in_place(func):
            name = func.__name__
            raise ConversionError(
                f"{name} changes a tensor in place under torch.inference_mode, past its gradient "
                f"({own_frame()}). Compute a new tensor instead."
            )
        return pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, func(*args, **kwargs))

    def _refuse_lost(self, results: list[torch.Tensor]) -> None:
        with without_function_modes():  # to which a look is a call
            self._detached.refuse_lost(results)
            self._ungraded.refuse_others(results)

    def _called(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func in DETACHES and self._ungraded.has(args[0]):
            return self._ungraded.detached(args[0])

        def function() -> Any:
            return self._detached.call(func, args, kwargs, self._has_gradient)

        out = self._ungraded.call(function, func, args, kwargs, self._has_gradient)
        if func in DETACHES:
            self._detached.add(out, args[0])
        return out

    def _has_gradient(self, tensor: torch.Tensor) -> bool:
        """Whether it may: of a tensor made of inputs, torch.export does not say."""
        smooth = tensor.is_floating_point() or tensor.is_complex()
        if not smooth or self._ungraded.has(tensor):
            return False
        return tensor.requires_grad or not self._fresh.has(tensor)

    def _refuse_stopped(self, func: Any, args: Any, kwargs: Any) -> None:
        """A write that gives a tensor a gradient again."""
        target = args[0] if args and is_in_place(func) else kwargs.get("out")
        if isinstance(target, torch.Tensor) and self._current(target) is not target:
            others = [x for x in tensors_in((args[1:], kwargs)) if x is not target]
            if torch.is_grad_enabled() and any(map(self._has_gradient, others)):
                raise ConversionError(
                    f"{func.__name__} writes what has a gradient into a tensor whose gradient was "
                    f"stopped in place ({own_frame()}): write into a clone of its detach()"
                )

    def _set_data(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        """``tensor.data = value``, a write past its gradient."""
        if value.shape != tensor.shape or value.dtype != tensor.dtype:
            raise ConversionError(
                f"data of {tensor.dtype} {list(tensor.shape)} is set to {value.dtype} "
                f"{list(value.shape)} ({own_frame()}): keep shape and dtype, or make a new tensor"
            )
        alias = tensor.detach()
        self._detached.add(alias, tensor)
        self._detached.call(torch.Tensor.copy_, (alias, value.detach()), {}, lambda _: False)

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
