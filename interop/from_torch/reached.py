"""What the code of a module can reach outside it: globals, closures, defaults, classes, objects."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch

from interop._torch import tables_of
from interop.from_torch.contents import PLAIN, entries, is_foreign

__all__ = ["Place", "Reach", "reached"]

_MAKING = {"__init_subclass__", "__class_getitem__", "__set_name__", "__reduce__", "__reduce_ex__"}


class Place(NamedTuple):
    """Where a value is that code can reach, and how to read it and put one there."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], None]


class Reach(NamedTuple):
    """All that forward may change.

    Attributes:
        places: names that can be bound to something else.
        containers: by name; an object's attributes are one.
        caches: functions that remember their results.
    """

    places: list[Place]
    containers: list[tuple[str, Any]]
    caches: list[Any]


def reached(module: torch.nn.Module) -> Reach:
    """What forward and all that it calls may change, save for attributes of the module's parts and
    of the objects among them: those are copied before forward runs."""
    walk = _Walk()
    for part in module.modules():
        name = type(part).__name__
        walk.follow(tables_of(part)[2], name, own=True)
        walk.follow(type(part), name)
    return walk.reach


class _Walk:
    """From functions to what their code names, as far as it goes.

    Methods are followed once some code names them: without that, one model of a large library
    reaches most of the library.
    """

    def __init__(self) -> None:
        self.reach = Reach([], [], [])
        self._seen: dict[int, Any] = {}  # kept, so that ids stay theirs
        self._names = {"forward"}
        self._waiting: dict[str, list[tuple[Any, str, bool]]] = {}
        self._queue: deque[tuple[Any, str, bool]] = deque()

    def follow(self, value: Any, path: str, own: bool = False) -> None:
        """All that a value reaches. ``own``: a part's, of which a copy runs."""
        self._later(value, path, own)
        while self._queue:
            self._visit(*self._queue.popleft())

    def _visit(self, value: Any, path: str, own: bool) -> None:
        if isinstance(value, (*PLAIN, torch.Tensor, torch.nn.Module, ModuleType)):
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        match value:
            case FunctionType():
                if not is_foreign(value):
                    self._function(value)
            case MethodType():
                self._later(value.__func__, path)
                self._later(value.__self__, path)
            case partial():
                for part in (value.func, *value.args, *value.keywords.values()):
                    self._later(part, path, own)
            case staticmethod() | classmethod():
                self._later(value.__func__, path)
            case property():
                self._later(value.fget, path)
            case dict() | list() | tuple() | set() | deque():
                if not own and not isinstance(value, tuple):
                    self.reach.containers.append((path, value))
                held = entries(value)
                for part in held.values() if isinstance(held, dict) else held:
                    self._later(part, path, own)
                if not is_foreign(type(value)):
                    self._object(value, path, own)
            case type():
                if not is_foreign(value):
                    self._class(value)
            case _ if hasattr(type(value), "cache_clear"):
                self.reach.caches.append(value)
                self._later(value.__wrapped__, path)
            case _:
                if not is_foreign(type(value)):
                    self._object(value, path, own)

    def _later(self, value: Any, path: str, own: bool = False) -> None:
        self._queue.append((value, path, own))

    def _place(self, name: str, read: Callable[[], Any], write: Callable[[Any], None]) -> None:
        self.reach.places.append(Place(name, read, write))
        self._later(read(), name)

    def _function(self, function: FunctionType) -> None:
        code, called = function.__code__, function.__name__
        defaults = function.__defaults__ or ()
        names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
        named = {**dict(zip(names, defaults, strict=True)), **(function.__kwdefaults__ or {})}
        for name, value in named.items():
            self._later(value, f"the default of {called}'s '{name}'")
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__":
                self._place(f"'{name}' around {called}", *_of_cell(cell))
        self._later(vars(function), f"an attribute of {called}")
        used = set(_names(code))
        self._table(function.__globals__, used)
        for name in sorted(used - self._names):
            self._queue.extend(self._waiting.pop(name, ()))
        self._names |= used

    def _table(self, table: dict[str, Any], used: Iterable[str], of: str = "") -> None:
        """The globals that code names, and in modules among them what it names there."""
        for name in sorted(used):
            if name not in table:
                continue
            value = table[name]
            if not isinstance(value, ModuleType):
                write = partial(table.__setitem__, name)
                self._place(f"the global '{of}{name}'", partial(table.get, name), write)
            elif not of and not is_foreign(value):
                self._table(vars(value), used, f"{name}.")

    def _class(self, one: type) -> None:
        for base in one.__bases__:
            self._later(base, base.__name__)
        for name, value in list(vars(one).items()):
            path = f"'{name}' of {one.__name__}"
            if isinstance(value, (*PLAIN, dict, list, set, deque, torch.Tensor)):
                if not name.startswith("__"):
                    read = partial(_attribute, one, name)
                    self._place(path, read, partial(setattr, one, name))
            elif name in self._names or (name.startswith("__") and name not in _MAKING):
                self._later(value, path)
            else:
                self._waiting.setdefault(name, []).append((value, path, False))

    def _object(self, value: Any, path: str, own: bool) -> None:
        self._later(type(value), path)
        if isinstance(held := getattr(value, "__dict__", None), dict):
            self._later(held, f"an attribute of {path}", own)


def _names(code: CodeType) -> Iterator[str]:
    """What a function's code names, that of the functions within it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _attribute(of: Any, name: str) -> Any:
    return vars(of).get(name)


def _of_cell(cell: CellType) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    def read() -> Any:
        try:
            return cell.cell_contents
        except ValueError:  # empty
            return None

    return read, partial(setattr, cell, "cell_contents")
