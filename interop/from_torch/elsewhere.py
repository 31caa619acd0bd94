"""What forward changes outside the module: default arguments, closures and globals of its code."""

import copy
from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from types import CellType, FunctionType
from typing import Any, NamedTuple

import torch

from interop._torch import pytree
from interop.errors import ConversionError, keeps
from interop.from_torch.lowering import Exported
from interop.from_torch.side_effects import Fresh, do_the_same

__all__ = ["Elsewhere"]

_CONTAINERS = (list, dict, set, deque)
_PLAIN = (bool, int, float, complex, str, type(None))


class Place(NamedTuple):
    """A value that the code of a module's methods can reach, and how to put one there."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], None] | None


class Elsewhere:
    """Values outside a module as they are now, to tell what forward changed, and to put it back."""

    def __init__(self, module: torch.nn.Module) -> None:
        functions = dict.fromkeys(f for part in module.modules() for f in _methods(part))
        self._before = [
            (place, value, _mark(value), _contents(value))
            for function in functions
            for place in _places(function)
            if isinstance(value := place.read(), (*_CONTAINERS, *_PLAIN, torch.Tensor))
        ]

    def refuse_memory(
        self, exported: Exported, fresh: Fresh, again: Callable[[], Exported]
    ) -> None:
        """Refuse a module whose next call would differ for what this one has left here.

        Args:
            exported: the program.
            fresh: knew what forward made of constants, which is the same in every call.
            again: exports the module as it would be now.

        Raises:
            ConversionError: naming the place.
        """
        changed = {
            place.name: [x for x in pytree.tree_leaves(value) if isinstance(x, torch.Tensor)]
            for place, _, mark, _ in self._before
            if _mark(value := place.read()) != mark
        }
        kept = [name for name, tensors in changed.items() if not all(map(fresh.has, tensors))]
        if kept:
            raise ConversionError(keeps(", ".join(kept)))
        numbers = {name for name, tensors in changed.items() if not tensors}
        self.put_back({name for name in changed if name not in numbers})
        if numbers and not do_the_same(exported, again()):
            raise ConversionError(keeps(", ".join(sorted(numbers))))

    def put_back(self, names: Collection[str] | None = None) -> None:
        """As it was, for the caller's own use of the module: these, or all."""
        for place, value, mark, contents in self._before:
            if _mark(place.read()) == mark or (names is not None and place.name not in names):
                continue
            if isinstance(value, dict | set):
                value.clear()
                value.update(contents)
            elif isinstance(value, list | deque):
                value.clear()
                value.extend(contents)
            if place.write is not None and place.read() is not value:
                place.write(value)


def _methods(part: torch.nn.Module) -> Iterator[FunctionType]:
    """The functions of a part that are not torch's own."""
    own = [vars(part).get("forward"), *(f for c in type(part).__mro__ for f in vars(c).values())]
    for function in own:
        function = getattr(function, "__func__", function)
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        if isinstance(function, FunctionType) and not _is_of_torch(function):
            yield function


def _is_of_torch(function: FunctionType) -> bool:
    return (function.__module__ or "").split(".")[0] == "torch"  # none: made by exec


def _places(function: FunctionType) -> Iterator[Place]:
    code = function.__code__
    defaults = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    named = {**dict(zip(names, defaults, strict=True)), **(function.__kwdefaults__ or {})}
    for name, value in named.items():
        yield Place(f"the default of {function.__name__}'s '{name}'", partial(_itself, value), None)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name != "__class__":
            yield Place(f"'{name}' around {function.__name__}", *_of_cell(cell))
    table = function.__globals__
    for name in code.co_names:
        if name in table:
            read, write = partial(table.get, name), partial(table.__setitem__, name)
            yield Place(f"the global '{name}'", read, write)


def _itself(value: Any) -> Any:
    return value


def _of_cell(cell: CellType) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    def read() -> Any:
        try:
            return cell.cell_contents
        except ValueError:  # empty
            return None

    return read, partial(setattr, cell, "cell_contents")


def _contents(value: Any) -> Any:
    """A copy of a container, or nothing."""
    return copy.copy(value) if isinstance(value, _CONTAINERS) else None


def _mark(value: Any) -> Any:
    """Equal where nothing changed: plain values by value, containers by their entries."""
    if isinstance(value, _PLAIN):
        return type(value), repr(value)
    if isinstance(value, dict):
        return id(value), tuple((id(k), _shallow(v)) for k, v in value.items())
    if isinstance(value, _CONTAINERS):
        return id(value), tuple(map(_shallow, value))
    return id(value)


def _shallow(value: Any) -> Any:
    return (type(value), repr(value)) if isinstance(value, _PLAIN) else id(value)
