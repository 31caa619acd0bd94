"""Writes through detached aliases: ``y.detach().zero_()`` changes ``y``, past its gradient."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from interop._torch import pytree, share_memory, version
from interop.errors import ConversionError
from interop.from_torch.sources import own_frame
from interop.from_torch.substitutes.common import with_gradient_of

__all__ = ["Detached", "is_in_place"]

_OPERATORS = "add and floordiv lshift matmul mod mul or pow rshift sub truediv xor"
_WRITES = {"__setitem__", *(f"__i{name}__" for name in _OPERATORS.split())}
_STATISTICS = {"batch_norm": ("training", False), "instance_norm": ("use_input_stats", True)}
"""Functions that write running statistics, of which torch's versions say nothing, and their sixth
argument, which says whether they do, by name and default."""


class Detached:
    """Aliases without a gradient, views of them, and the tensors whose memory they share.

    torch.export would give what is written through an alias to the tensor itself without the
    gradient that torch leaves to it, so it is given back.
    """

    def __init__(self) -> None:
        self._bases: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, alias: torch.Tensor, tensor: torch.Tensor) -> None:
        """``alias`` is ``tensor`` without its gradient."""
        if alias is not tensor:
            self._bases[id(alias)] = (alias, self._base(tensor))

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``func(*args, **kwargs)``, and the gradients of what it writes through aliases."""
        given = list(_tensors((args, kwargs))) if self._bases else []
        aliases = [x for x in given if id(x) in self._bases]
        if not aliases:
            return func(*args, **kwargs)
        bases = {id(b): b for b in map(self._base, aliases)}
        before = {i: (version(b), b.clone() if _is_smooth(b) else b) for i, b in bases.items()}
        out = func(*args, **kwargs)
        known = {id(x) for x in given}
        for x in _tensors(out):
            shared = [a for a in aliases if id(x) not in known and share_memory(x, a)]
            if shared:
                self._bases[id(x)] = (x, self._base(shared[0]))
        for i, base in bases.items():
            was, gradient = before[i]
            silent = is_in_place(func) or _writes_statistics(func, args, kwargs)
            if _is_smooth(base) and (silent or version(base) != was):
                self._give_back(base, gradient, func, given, (args, kwargs))
        return out

    def _give_back(
        self, base: torch.Tensor, gradient: torch.Tensor, func: Any, given: list[Any], called: Any
    ) -> None:
        others = [x for x in given if id(x) not in self._bases and share_memory(x, base)]
        if others:  # is it they that are written into?
            args, kwargs = called
            targets = list(_tensors(kwargs["out"] if "out" in kwargs else args[:1]))
            if any(x is y for x in targets for y in others):
                return
            if not any(id(x) in self._bases for x in targets):
                name = getattr(func, "__name__", str(func))
                raise ConversionError(
                    f"{name} is given a tensor and its detached alias, and writes into their "
                    f"memory ({own_frame()}): pass a clone of one"
                )
        values = with_gradient_of(base, gradient)
        if base.requires_grad and base.is_leaf:
            with torch.no_grad():
                base.copy_(values)
        else:
            base.copy_(values)

    def _base(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._bases.get(id(tensor), (tensor, tensor))[1]


def is_in_place(func: Any) -> bool:
    """Whether a function of torch writes into its first argument."""
    name = getattr(func, "__name__", "")
    return name in _WRITES if name.startswith("__") else name.endswith("_")


def _writes_statistics(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    name, default = _STATISTICS.get(getattr(func, "__name__", ""), ("", False))
    return bool(args[5] if name and len(args) > 5 else kwargs.get(name, default))


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (x for x in pytree.tree_leaves(tree) if isinstance(x, torch.Tensor))


def _is_smooth(x: torch.Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()
