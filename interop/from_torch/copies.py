"""A copy of a module's structure that shares its tensors."""

import copy
import functools
from collections import deque
from collections.abc import Iterable
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from interop._torch import tables_of
from interop.from_torch.contents import entries

__all__ = ["structure_of"]


def structure_of(module: torch.nn.Module) -> torch.nn.Module:
    """Its own parts and attributes, the same parameters and buffers.

    Functions among the attributes that hold a part in a closure or a default, which
    ``copy.deepcopy`` leaves as they are, hold the copy's part.
    """
    walk = _Walk(module)
    memo: dict[int, Any] = {id(tensor): tensor for tensor in walk.shared}
    walk.copy_functions(memo)
    return copy.deepcopy(module, memo)


class _Walk:
    """Over all that the parts of a module hold.

    Attributes:
        shared: parameters and buffers, tensors of their memory, and computed tensors, which
            ``copy.deepcopy`` refuses.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._parts = {id(part) for part in module.modules()}
        self._seen: dict[int, bool] = {}
        self._found: list[FunctionType] = []
        self.shared: list[torch.Tensor] = []
        self._storages: set[int] = set()
        tables = [tables_of(part) for part in module.modules()]
        for parameters, buffers, _ in tables:
            held = [t for t in (*parameters.values(), *buffers.values()) if t is not None]
            self.shared += held
            self._storages |= {p for p in map(_storage, held) if p}
        for *_, attributes in tables:
            self.reaches(attributes)

    def reaches(self, value: Any) -> bool:
        """Whether a part can be had from a value."""
        if id(value) in self._parts:
            return True
        if isinstance(value, torch.Tensor):
            if not value.is_leaf or _storage(value) in self._storages:
                self.shared.append(value)
            return False
        if id(value) not in self._seen:
            self._seen[id(value)] = False
            inner = [self.reaches(child) for child in _children(value)]
            self._seen[id(value)] = any(inner)
            if any(inner) and isinstance(value, FunctionType):
                self._found.append(value)
        return self._seen[id(value)]

    def copy_functions(self, memo: dict[int, Any]) -> None:
        """Put copies in ``memo``, and fill their cells at the end: they may hold each other."""
        cells: dict[int, tuple[CellType, CellType]] = {}
        for f in self._found:
            for cell in f.__closure__ or ():
                cells.setdefault(id(cell), (cell, CellType()))
        made = {}
        for f in self._found:
            closure = tuple(cells[id(cell)][1] for cell in f.__closure__ or ())
            made[id(f)] = FunctionType(f.__code__, f.__globals__, f.__name__, None, closure)
            made[id(f)].__dict__.update(f.__dict__)
        memo |= made
        for f in self._found:
            made[id(f)].__defaults__ = self._copied(f.__defaults__, memo)
            made[id(f)].__kwdefaults__ = self._copied(f.__kwdefaults__, memo)
        for old, new in cells.values():
            for contents in _contents(old):
                new.cell_contents = self._copied(contents, memo)

    def _copied(self, value: Any, memo: dict[int, Any]) -> Any:
        """What reaches no part stays the same object."""
        return copy.deepcopy(value, memo) if self.reaches(value) else value


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict | list | tuple | set | frozenset | deque):
        held = entries(value)
        return [*(held.values() if isinstance(held, dict) else held), *_attributes(value)]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        held = [c for cell in value.__closure__ or () for c in _contents(cell)]
        return [*held, value.__defaults__, value.__kwdefaults__]
    if isinstance(value, _OPAQUE):
        return []
    return _attributes(value)


def _attributes(value: Any) -> list[Any]:
    slots = [n for kind in type(value).__mro__ for n in _names(getattr(kind, "__slots__", ()))]
    held = [getattr(value, name) for name in slots if hasattr(value, name)]
    return [vars(value), *held] if hasattr(value, "__dict__") else held


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


_OPAQUE = (type, ModuleType)  # deepcopy leaves them as they are


def _storage(tensor: torch.Tensor) -> int:
    """Where its memory is; zero if it has none."""
    dense = tensor.layout == torch.strided and not is_lazy(tensor)
    return tensor.untyped_storage().data_ptr() if dense and tensor.device.type != "meta" else 0


def _contents(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # empty
        return []
