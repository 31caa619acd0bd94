"""What a value holds, containers and plain objects looked into."""

import copy
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch

__all__ = ["PLAIN", "entries", "is_foreign", "mark", "refill", "tensors_in", "with_tensors"]

PLAIN = (bool, int, float, complex, str, type(None))

_FOREIGN = (sys.stdlib_module_names | {"torch", "numpy", "jax", "jaxlib"}) - {"__main__"}


def is_foreign(value: type | FunctionType | ModuleType) -> bool:
    """Whether it is of a library that keeps nothing of what it is given."""
    home = value.__name__ if isinstance(value, ModuleType) else value.__module__
    return (home or "").split(".")[0] in _FOREIGN  # none: made by exec


_CONTAINERS = (OrderedDict, dict, list, tuple, set, frozenset, deque)


def entries(container: Any) -> Any:
    """What a container holds, in one of the built-in kind that it is of.

    Its class is not asked: a mapping that loads what it names would load all.
    """
    kind = _kind(container)
    if kind is None:  # a stand-in that only says that it is one
        return []
    return kind(kind.items(container) if issubclass(kind, dict) else kind.__iter__(container))


def refill(container: Any, held: Any) -> None:
    """Make a container hold what ``entries`` gave, past its class too."""
    kind = _kind(container)
    kind.clear(container)
    if issubclass(kind, dict):
        for name, value in held.items():
            kind.__setitem__(container, name, value)
    else:
        (kind.update if kind is set else kind.extend)(container, held)


def _kind(container: Any) -> Any:
    return next((kind for kind in _CONTAINERS if issubclass(type(container), kind)), None)


def mark(value: Any) -> Any:
    """Equal where nothing changed: numbers by value, what is looked into by its parts, the rest by
    identity."""
    marks = []
    for one in _reached(value):
        names = tuple((_shallow(name), _shallow(part)) for name, part in _parts(one))
        marks.append((*_shallow(one), names))
    return marks


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Each once."""
    return [one for one in _reached(value) if isinstance(one, torch.Tensor)]


def with_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A copy of what is looked into, with other tensors in their place; the rest is shared."""
    memo: dict[int, Any] = {}
    for one in _reached(value):
        memo.update((id(name), name) for name, _ in _parts(one))
        if isinstance(one, torch.Tensor):
            memo[id(one)] = change(one)
        elif not _is_open(one):
            memo[id(one)] = one
    return copy.deepcopy(value, memo)


def _reached(value: Any) -> list[Any]:
    """It and all that it holds, each once."""
    found: dict[int, Any] = {}
    left = [value]
    while left:
        one = left.pop()
        if id(one) not in found:
            found[id(one)] = one
            left += [part for _, part in _parts(one)]
    return list(found.values())


def _shallow(value: Any) -> tuple[Any, Any]:
    return type(value), (repr(value) if isinstance(value, PLAIN) else id(value))


_CLOSED = (torch.Tensor, torch.nn.Module, type, FunctionType)


def _is_open(value: Any) -> bool:
    """Whether it is looked into: a container, a bound call, an object that somebody wrote."""
    if isinstance(value, (*_CONTAINERS, MethodType, partial)):
        return True
    has_parts = isinstance(getattr(value, "__dict__", None), dict)
    return has_parts and not isinstance(value, _CLOSED) and not is_foreign(type(value))


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """By key: what it holds."""
    if not _is_open(value):
        return []
    if isinstance(value, _CONTAINERS):
        held = entries(value)
        pairs = held.items() if isinstance(held, dict) else ((None, part) for part in held)
        return [*pairs, *_attributes(value).items()]
    if isinstance(value, MethodType):
        return [(None, value.__self__)]
    if isinstance(value, partial):
        return [(None, part) for part in (value.func, *value.args, *value.keywords.values())]
    return list(vars(value).items())


def _attributes(container: Any) -> dict[str, Any]:
    """Of a container of a class that somebody wrote."""
    held = getattr(container, "__dict__", None)
    return held if isinstance(held, dict) else {}
