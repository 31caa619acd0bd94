"""What a value holds, containers and plain objects looked into."""

import copy
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch

__all__ = ["PLAIN", "is_foreign", "mark", "tensors_in", "with_tensors"]

PLAIN = (bool, int, float, complex, str, type(None))

_FOREIGN = (sys.stdlib_module_names | {"torch", "numpy", "jax", "jaxlib"}) - {"__main__"}


def is_foreign(value: type | FunctionType | ModuleType) -> bool:
    """Whether it is of a library that keeps nothing of what it is given."""
    home = value.__name__ if isinstance(value, ModuleType) else value.__module__
    return (home or "").split(".")[0] in _FOREIGN  # none: made by exec


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


_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
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
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, _CONTAINERS):
        return [(None, part) for part in list(value)]
    if isinstance(value, MethodType):
        return [(None, value.__self__)]
    if isinstance(value, partial):
        return [(None, part) for part in (value.func, *value.args, *value.keywords.values())]
    return list(vars(value).items())
