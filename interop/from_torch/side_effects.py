"""What forward changes beside what it returns: attributes that the next call would read."""

import gc
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch.utils.weak import WeakIdKeyDictionary

from interop._torch import FakeTensor, HigherOrderOperator, tables_of
from interop.errors import ConversionError, keeps
from interop.from_torch.contents import mark, tensors_in, with_tensors
from interop.from_torch.forward import ForwardMode
from interop.from_torch.lowering import Constant, Exported
from interop.from_torch.program import walk
from interop.from_torch.sources import own_line

__all__ = ["Attributes", "Fresh", "attributes_of", "do_the_same", "refuse_memory"]


class Fresh(ForwardMode):
    """Knows the tensors that forward makes of nothing that a call could change: masks, tables.

    Of the others it knows which live on after the call, and where they were made.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tensors: dict[int, torch.Tensor] = {}
        self._others: Any = WeakIdKeyDictionary()

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """In place of ``func(*args, **kwargs)``."""
        out = func(*args, **kwargs)
        given = {id(x) for x in tensors_in((args, kwargs))}
        new = [x for x in tensors_in(out) if id(x) not in given]
        if given <= self._tensors.keys():
            self._tensors.update((id(x), x) for x in new)
        elif new and not isinstance(func, HigherOrderOperator):  # which remembers its results
            line = own_line()
            self._others.update([(x, line) for x in new if isinstance(x, FakeTensor)])
        return out

    def refuse_leaks(self) -> None:
        """Refuse a module that keeps a tensor in a place that is not looked at.

        Raises:
            ConversionError: naming the line where it was made.
        """
        if self._others:
            gc.collect()  # cycles
        alive = list(self._others)
        if lines := {self._others[x] for x in alive if _is_held(x, alive)}:
            raise ConversionError(keeps("a tensor of " + ", ".join(sorted(lines))))

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether it is one of them."""
        return id(tensor) in self._tensors


def _is_held(tensor: torch.Tensor, alive: list[torch.Tensor]) -> bool:
    """Whether something of Python holds it beside a list, and not only its gradient's graph."""
    holders = gc.get_referrers(tensor)
    return any(x is not alive and not isinstance(x, FrameType) for x in holders)


class Attribute(NamedTuple):
    """What a part holds beside parameters, buffers and parts; ``mark`` is equal if unchanged."""

    mark: Any
    value: Any


Attributes = dict[tuple[str, str], Attribute]
"""By part and name."""


def attributes_of(module: torch.nn.Module) -> Attributes:
    """As they are now, containers copied."""
    return {
        (path, name): Attribute(mark(value), with_tensors(value, lambda x: x))
        for path, part in module.named_modules()
        for name, value in tables_of(part)[2].items()
        if name not in _OWN
    }


_OWN = {*vars(torch.nn.Module()), "forward"}


def refuse_memory(
    before: Attributes,
    after: Attributes,
    exported: Exported,
    fresh: Fresh,
    again: Callable[[dict[tuple[str, str], Any]], Exported],
) -> None:
    """Refuse a module whose next call would differ for what this one has left in attributes.

    Args:
        before: the attributes before forward ran.
        after: when it ended.
        exported: the program.
        fresh: knew what forward made of constants, which is the same in every call.
        again: exports the module as it would be with other attributes.

    Raises:
        ConversionError: naming the attribute.
    """
    changed = {}
    for at, (now, value) in after.items():
        old = before.get(at)
        if (old is None or now != old.mark) and not _all_fresh(value, fresh):
            changed[at] = with_tensors(value, _zeros)
    names = {".".join(filter(None, at)) for at in changed}
    constants = {p.name for p in exported.inputs if isinstance(p, Constant)}
    if not names & constants and (not names or do_the_same(exported, again(changed))):
        return
    listed = ", ".join(f"'{name}'" for name in sorted(names & constants or names))
    raise ConversionError(keeps(listed))


def do_the_same(one: Exported, other: Exported) -> bool:
    """Whether two programs do the same with their inputs."""
    return _operations(one) == _operations(other)


def _operations(exported: Exported) -> list[Any]:
    places = [(type(p), getattr(p, "name", None)) for p in exported.inputs]
    return [places, *((s.operation, repr(s.args), repr(s.kwargs)) for s in walk(exported.program))]


def _all_fresh(value: Any, fresh: Fresh) -> bool:
    tensors = tensors_in(value)
    return bool(tensors) and all(map(fresh.has, tensors))


def _zeros(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros(tuple(map(int, tensor.shape)), dtype=tensor.dtype)
