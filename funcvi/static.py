"""When two calls are the same program: what a compiled fit may be reused for.

``jax.jit`` compares static arguments by identity. For a loss that is too weak (a global that it
reads may have been rebound since: training would go on against the stale one), and for an
optimiser too strong (``optax.adam(1e-2)`` written twice is the same program).
"""

import functools
import sys
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import numpy as np
import optax

__all__ = ["Static", "same_optimizer"]


class Static:
    """A function together with the objects that it refers to, compared by identity.

    Rebinding a variable that the function reads makes it another program. Mutating an object in
    place cannot be seen: pass data that changes as an argument.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.referred = tuple(_referred(function, set()))

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.referred)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Static)
            and len(self.referred) == len(other.referred)
            and all(a is b for a, b in zip(self.referred, other.referred, strict=True))
        )


def _referred(value: Any, seen: set[int]) -> Iterator[Any]:
    """The value itself and, for the user's own code, what it reads from closures and globals."""
    if isinstance(value, types.MethodType):  # made anew at each access
        yield from _referred(value.__func__, seen)
        yield value.__self__
        return
    if isinstance(value, functools.partial):
        yield functools.partial
        for part in (value.func, *value.args, *value.keywords, *value.keywords.values()):
            yield from _referred(part, seen)
        return
    yield value
    if id(value) in seen:
        return
    seen.add(id(value))
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):  # a target holds its model
            yield from _referred(getattr(value, field.name, None), seen)
    elif isinstance(value, types.FunctionType) and _is_followed(value):
        for cell in value.__closure__ or ():
            yield from _referred(_contents(cell), seen)
        for name in _names(value.__code__):
            if name in value.__globals__:
                yield from _referred(value.__globals__[name], seen)


def _is_followed(function: types.FunctionType) -> bool:
    """The user's code, and funcvi's, whose closures hold it; no other library's."""
    root = (function.__module__ or "").partition(".")[0]
    installed = "-packages" in function.__code__.co_filename
    return root == "funcvi" or not (installed or root in sys.stdlib_module_names)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


class _Optimizer(optax.GradientTransformationExtraArgs):
    """An optax transformation that equals another one built by the same call."""

    structure: Any

    def __hash__(self) -> int:
        return hash(self.structure)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Optimizer) and bool(self.structure == other.structure)

    def __ne__(self, other: object) -> bool:
        return not self == other


def same_optimizer(optimizer: optax.GradientTransformation) -> Any:
    """The optimiser, compared by how optax built it where that can be told."""
    result = _Optimizer(optimizer.init, optimizer.update)
    # Taken now: a mask or a dict of transformations that is mutated later is another program.
    result.structure = _structure((optimizer.init, optimizer.update), ())
    return result


def _structure(value: Any, inside: tuple[Any, ...]) -> Any:
    """A hashable description: equal only if the values behave alike.

    optax's own closures are described by their code and contents, a user's function (a schedule)
    as :class:`Static` does, small data by value, and everything else by identity.
    """
    if isinstance(value, (str, bytes, bool, type(None), np.generic)):
        return type(value), value
    if isinstance(value, (int, float)):
        return "number", value  # a schedule may turn its own 100 into 100.0
    if any(value is outer for outer in inside):
        return "cycle"
    inside = (*inside, value)
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_structure(v, inside) for v in value)
    if type(value) is dict:
        return dict, tuple((k, _structure(v, inside)) for k, v in value.items())
    if isinstance(value, (np.ndarray, jax.Array)) and value.size <= 64 and _is_plain(value):
        return type(value), str(value.dtype), value.shape, np.asarray(value).tobytes()
    if isinstance(value, types.MethodType):
        return "method", value.__func__, _structure(value.__self__, inside)
    if isinstance(value, functools.partial):
        return "partial", _structure((value.func, value.args, value.keywords), inside)
    if isinstance(value, types.FunctionType):
        if not (value.__module__ or "").startswith("optax."):
            return Static(value)
        cells = tuple(_structure(_contents(c), inside) for c in value.__closure__ or ())
        defaults = _structure((value.__defaults__, value.__kwdefaults__), inside)
        return value.__code__, cells, defaults
    return _Same(value)


def _is_plain(array: Any) -> bool:
    """A concrete array of numbers, so no traced one and no keys."""
    return not isinstance(array, jax.core.Tracer) and isinstance(array.dtype, np.dtype)


class _Same:
    """Equal to nothing but the same object, which it keeps alive."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value
