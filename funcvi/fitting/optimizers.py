"""When two optimisers are known to be the same without tracing them."""

import types
from collections.abc import Hashable

import numpy as np
import optax

__all__ = ["evaluates", "written"]


def written(optimizer: optax.GradientTransformation) -> Hashable | None:
    """How optax built the optimiser, where that says all that it does; else None.

    ``optax.adam(1e-2)`` is closures of optax's over numbers: equal code over equal numbers is the
    same optimiser, and need not be traced, which takes longer than tracing most losses. Anything
    that may read more (a schedule of the user's, an object, a mask that may be mutated) is traced.
    """
    try:
        return _parts((optimizer.init, optimizer.update))
    except (_Unknown, ValueError, OverflowError, RecursionError):  # an empty cell, a cycle
        return None


def evaluates(known: Hashable) -> bool:
    """Whether an optimiser that is known so calls ``value_fn``, which optax hands on by name."""
    if isinstance(known, types.CodeType):
        return "value_fn" in (*known.co_varnames, *known.co_consts)
    return isinstance(known, tuple) and any(map(evaluates, known))


class _Unknown(Exception):
    """There is a part that only tracing tells."""


def _parts(value: object) -> Hashable:
    if value is None or isinstance(value, (str, bytes, bool, np.generic)):
        return type(value), value
    if isinstance(value, (int, float)):  # optax's schedules turn their own 100 into 100.0
        return "number", float(value).hex()
    if isinstance(value, tuple):
        return type(value), *map(_parts, value)
    if isinstance(value, types.FunctionType) and value.__module__.partition(".")[0] == "optax":
        cells = tuple(_parts(cell.cell_contents) for cell in value.__closure__ or ())
        named = tuple((k, _parts(v)) for k, v in (value.__kwdefaults__ or {}).items())
        return value.__code__, cells, _parts(value.__defaults__), named
    raise _Unknown
