"""Tensors made under ``torch.no_grad``, and copies in place of their detached aliases."""

from collections.abc import Callable
from typing import Any

import torch

from interop._torch import share_memory, version
from interop.errors import ConversionError
from interop.from_torch.contents import tensors_in
from interop.from_torch.detached import is_in_place
from interop.from_torch.sources import own_frame

__all__ = ["Ungraded"]


class _Twin:
    """A copy of a tensor, and in which of the two something was written, and where."""

    def __init__(self, copy: torch.Tensor, tensor: torch.Tensor) -> None:
        self.pair = (copy, tensor)
        self.written: dict[int, str] = {}


class Ungraded:
    """Knows what was made under ``torch.no_grad`` and has no gradient since.

    Such a tensor's detached alias may get a gradient, by a write, which the tensor does not get:
    it is a copy here, and after a write into one of the two the other must not be read.
    """

    def __init__(self) -> None:
        self._tensors: dict[int, torch.Tensor] = {}
        self._twins: list[_Twin] = []

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether it is one."""
        return id(tensor) in self._tensors

    def detached(self, tensor: torch.Tensor) -> torch.Tensor:
        """In place of its alias."""
        copy = tensor.clone()
        self._tensors[id(copy)] = copy
        self._twins.append(_Twin(copy, tensor))
        return copy

    def call(
        self,
        function: Callable[[], Any],
        func: Any,
        args: Any,
        kwargs: Any,
        has_gradient: Callable[[torch.Tensor], bool],
    ) -> Any:
        """``function()``, which is ``func(*args, **kwargs)``.

        Args:
            has_gradient: whether a tensor may have one.

        Raises:
            ConversionError: it reads what a write into a twin has changed in torch.
        """
        given = tensors_in((args, kwargs))
        self.refuse_others(given)
        own = [x for x in given if self.has(x)] if torch.is_grad_enabled() else []
        shown = [x for twin in self._twins for x in twin.pair]
        versions = [version(x) for x in (*own, *shown)]
        out = function()
        silent = is_in_place(func) or bool(kwargs.get("inplace")) or "out" in kwargs
        if silent or versions != [version(x) for x in (*own, *shown)]:
            self._write(tensors_in(args[0]) if args and is_in_place(func) else given)
            if own and any(map(has_gradient, given)):
                kept = self._tensors.items()
                self._tensors = {i: x for i, x in kept if not any(share_memory(x, t) for t in own)}
        if not torch.is_grad_enabled():
            others = [x for x in given if not self.has(x)]
            new = [x for x in tensors_in(out) if not any(share_memory(x, o) for o in others)]
            self._tensors.update((id(x), x) for x in new)
        return out

    def _write(self, tensors: list[torch.Tensor]) -> None:
        """Under no_grad no gradient comes with it, and the twin is written into as well."""
        seen: set[int] = set()
        while tensors:
            written = tensors.pop()
            for twin in self._twins:
                for i, one in enumerate(twin.pair):
                    if id(one) in seen or not share_memory(written, one):
                        continue
                    seen.add(id(one))
                    if torch.is_grad_enabled() or twin.written:
                        twin.written[i] = own_frame()
                    elif id(other := twin.pair[1 - i]) not in seen:
                        other.copy_(one)
                        tensors.append(other)

    def refuse_others(self, read: list[torch.Tensor]) -> None:
        """Refuse to read a tensor whose twin was written into."""
        for twin in self._twins:
            for i, where in twin.written.items():
                if any(share_memory(x, twin.pair[1 - i]) for x in read):
                    raise ConversionError(
                        "a tensor made under torch.no_grad and its detached alias are used both "
                        f"after a write into one ({where}): write into a clone()"
                    )
