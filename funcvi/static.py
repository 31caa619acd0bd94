"""When two calls are the same program: what a compiled fit may be reused for.

``jax.jit`` compares static arguments by identity. For a loss that is too weak (a global that it reads
may have been rebound since: training would go on against the stale one), and for an optimiser too
strong (``optax.adam(1e-2)`` written twice is the same program).
"""

import types
from collections.abc import Iterator
from typing import Any

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
        return hash((id(self.function), tuple(map(id, self.referred))))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Static)
            and self.function is other.function
            and len(self.referred) == len(other.referred)
            and all(a is b for a, b in zip(self.referred, other.referred, strict=True))
        )


def _referred(function: Any, seen: set[int]) -> Iterator[Any]:
    """What a Python function reads from its closure and globals, and so on inside its own module."""
    if not isinstance(function, types.FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    values = [_contents(cell) for cell in function.__closure__ or ()]
    values += [
        function.__globals__[n] for n in _names(function.__code__) if n in function.__globals__
    ]
    for value in values:
        yield value
        if getattr(value, "__module__", None) == function.__module__:
            yield from _referred(value, seen)


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

    def __hash__(self) -> int:
        return hash(_structure(tuple(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Optimizer) and _structure(tuple(self)) == _structure(tuple(other))

    def __ne__(self, other: object) -> bool:
        return not self == other


def same_optimizer(optimizer: optax.GradientTransformation) -> Any:
    """The optimiser, compared by how optax built it where that can be told."""
    return _Optimizer(optimizer.init, optax.with_extra_args_support(optimizer).update)


def _structure(value: Any) -> Any:
    """A hashable description: equal only if the values behave alike.

    optax's own closures are described by their code and contents; everything else by identity.
    """
    if isinstance(value, (int, float, str, bytes, bool, type(None))):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_structure(v) for v in value)
    if isinstance(value, types.FunctionType) and value.__module__.startswith("optax."):
        cells = tuple(_structure(_contents(c)) for c in value.__closure__ or ())
        return value.__code__, cells, _structure(value.__defaults__)
    return _Same(value)


class _Same:
    """Equal to nothing but the same object, which it keeps alive."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value
