"""Parameters and buffers that forward reaches by another path than the attribute they are held by.

``self.blocks = [self.weight]``, a closure, a ``functools.partial``: what torch.export meets there
it takes for a constant, with the values of the day.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from interop._torch import HigherOrderOperator, is_plain, pytree, tables_of
from interop.errors import ConversionError
from interop.from_torch.forward import ForwardMode
from interop.from_torch.sources import frames_in_export, own_frame
from interop.memory import memory, overlaps

__all__ = ["Aliases", "state_of"]


class Aliases(ForwardMode):
    """While torch.export runs: state met on another path is what the module's attribute holds.

    Args:
        module: the copy that is exported, its parts in the modes that they are exported in.
        originals: the parts of the module that it is a copy of, in the same order.
    """

    def __init__(self, module: torch.nn.Module, originals: Iterable[torch.nn.Module]) -> None:
        super().__init__()
        self._places: dict[Any, tuple[torch.nn.Module, str, bool]] = {}
        self._storages: dict[int, dict[str, torch.Tensor]] = {}
        for part in module.modules():
            parameters, buffers, _ = tables_of(part)
            for name, tensor in {**parameters, **buffers}.items():
                key = None if tensor is None else memory(tensor)
                if key is not None:
                    self._places.setdefault(key, (part, name, tensor.requires_grad))
                    storage = tensor.untyped_storage().data_ptr()
                    self._storages.setdefault(storage, {})[name] = tensor
        self._begun: dict[Any, torch.Tensor] = {}  # while forward runs, which may replace buffers
        module.register_forward_pre_hook(lambda *_: self._begin())
        module.register_forward_hook(lambda *_: self._begun.clear())
        pairs = zip(originals, module.modules(), strict=True)
        self._other_mode = {id(o): o for o, part in pairs if o.training != part.training}

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """In place of ``func(*args, **kwargs)``."""
        if self._other_mode:
            self._refuse_originals()
        current = self._current
        if isinstance(func, HigherOrderOperator):  # which takes a tensor once

            def current(tensor: torch.Tensor) -> torch.Tensor:
                value = self._current(tensor)
                return value if value is tensor else value.clone()

        args, kwargs = pytree.tree_map_only(torch.Tensor, current, (args, kwargs))
        return func(*args, **kwargs)

    def _begin(self) -> None:
        self._begun = {key: getattr(part, n) for key, (part, n, _) in self._places.items()}

    def _current(self, tensor: torch.Tensor) -> torch.Tensor:
        key = memory(tensor) if is_plain(tensor) else None
        if key is None:
            return tensor
        place = self._places.get(key)
        if place is None:
            for other, state in self._storages.get(tensor.untyped_storage().data_ptr(), {}).items():
                _refuse_overlap(f"a tensor of {own_frame()}", tensor, other, state)
            _refuse_computed(f"a tensor of {own_frame()}", tensor)
            return tensor
        part, name, requires_grad = place
        value = self._begun[key] if key in self._begun else getattr(part, name)
        return value.detach() if requires_grad and not tensor.requires_grad else value

    def _refuse_originals(self) -> None:
        """A part that is not of the copy has the mode of the day."""
        for frame in frames_in_export():
            if frame.f_code.co_varnames[:1] != ("self",):
                continue
            part = self._other_mode.get(id(frame.f_locals.get("self")))
            if part is not None:
                wanted = "evaluation" if part.training else "training"
                raise ConversionError(
                    f"a {type(part).__name__} is called past the module that has it, so it cannot "
                    f"be put in {wanted} mode ({own_frame()}). Call it as an attribute of the "
                    "module, or put the module in that mode before converting."
                )


def state_of(
    constant: torch.Tensor, name: str, state: Mapping[str, torch.Tensor]
) -> tuple[str, bool] | None:
    """Which parameter or buffer a constant is, and whether without its gradient.

    Raises:
        ConversionError: it is a view into one, or computed, whose values it would keep.
    """
    key = memory(constant)
    if key is None:
        return None
    for other, tensor in state.items():
        if memory(tensor) == key:
            return other, tensor.requires_grad and not constant.requires_grad
    for other, tensor in state.items():
        _refuse_overlap(f"'{name}'", constant, other, tensor)
    _refuse_computed(f"'{name}'", constant)
    return None


def _refuse_computed(what: str, tensor: torch.Tensor) -> None:
    """Refuse what torch would pass a gradient on from: a cache that an earlier call filled."""
    if tensor.grad_fn is not None:
        raise ConversionError(
            f"{what} was computed from parameters before forward, so it would keep today's values "
            "and pass on no gradient: compute it in forward, clear the cache that holds it, or "
            "detach it"
        )


def _refuse_overlap(what: str, one: torch.Tensor, name: str, tensor: torch.Tensor) -> None:
    if overlaps({"": one, name: tensor}):
        raise ConversionError(
            f"{what} is a view into '{name}' that was made before forward, so it would keep "
            f"today's values: make it in forward, of '{name}'"
        )
