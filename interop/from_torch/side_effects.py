"""What forward changes beside what it returns: attributes that the next call would read."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from interop._torch import pytree, tables_of
from interop.errors import ConversionError, keeps
from interop.from_torch.forward import ForwardMode
from interop.from_torch.lowering import Constant, Exported
from interop.from_torch.program import walk

__all__ = ["Attributes", "Fresh", "attributes_of", "do_the_same", "refuse_memory"]


class Fresh(ForwardMode):
    """Knows the tensors that forward makes of nothing that a call could change: masks, tables."""

    def __init__(self) -> None:
        super().__init__()
        self._tensors: dict[int, torch.Tensor] = {}

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """In place of ``func(*args, **kwargs)``."""
        out = func(*args, **kwargs)
        if all(map(self.has, _tensors((args, kwargs)))):
            self._tensors.update((id(x), x) for x in _tensors(out))
        return out

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether it is one of them."""
        return id(tensor) in self._tensors


class Attribute(NamedTuple):
    """What a part holds beside parameters, buffers and parts; ``mark`` is equal if unchanged."""

    mark: Any
    value: Any


Attributes = dict[tuple[str, str], Attribute]
"""By part and name."""


def attributes_of(module: torch.nn.Module) -> Attributes:
    """As they are now, containers copied."""
    return {
        (path, name): Attribute(_mark(value), pytree.tree_map(lambda x: x, value))
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
    for at, (mark, value) in after.items():
        old = before.get(at)
        if (old is None or mark != old.mark) and not _all_fresh(value, fresh):
            changed[at] = pytree.tree_map_only(torch.Tensor, _zeros, value)
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
    tensors = list(_tensors(value))
    return bool(tensors) and all(map(fresh.has, tensors))


def _zeros(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros(tuple(map(int, tensor.shape)), dtype=tensor.dtype)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (x for x in pytree.tree_leaves(tree) if isinstance(x, torch.Tensor))


def _mark(value: Any) -> Any:
    """Equal where nothing changed: numbers by value, the rest by identity."""
    if isinstance(value, bool | int | float | complex | str | None):
        return type(value), repr(value)
    if isinstance(value, list | tuple):
        return type(value), id(value), tuple(map(_mark, value))
    if isinstance(value, dict):
        return type(value), id(value), tuple((k, _mark(v)) for k, v in value.items())
    return type(value), id(value)
