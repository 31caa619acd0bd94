"""Writes through detached aliases: ``y.detach().zero_()`` changes ``y``, past its gradient."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch

from interop._torch import pytree, share_memory, version
from interop.errors import ConversionError
from interop.from_torch.sources import own_frame
from interop.from_torch.substitutes.common import with_gradient_of

__all__ = ["DETACHES", "Detached", "is_in_place"]

_OPERATORS = "add and floordiv lshift matmul mod mul or pow rshift sub truediv xor"
_WRITES = {"__setitem__", *(f"__i{name}__" for name in _OPERATORS.split())}
_STATISTICS = {"batch_norm": ("training", False), "instance_norm": ("use_input_stats", True)}
"""Functions that write running statistics, of which torch's versions say nothing, and their sixth
argument, which says whether they do, by name and default."""


DETACHES = (torch.Tensor.detach, torch.detach)


class _Alias(NamedTuple):
    """An alias or a view of one, the tensor whose memory it shows, and the alias it comes from."""

    alias: torch.Tensor
    base: torch.Tensor
    root: torch.Tensor


class Detached:
    """Aliases without a gradient, views of them, and the tensors whose memory they share.

    torch.export would give what is written through an alias to the tensor itself without the
    gradient that torch leaves to it, so it is given back. The alias has the gradient of what was
    written in torch, and not here: reading it is refused.
    """

    def __init__(self) -> None:
        self._aliases: dict[int, _Alias] = {}
        self._lost: dict[int, str] = {}  # roots by id: where a gradient was written into them

    def add(self, alias: torch.Tensor, tensor: torch.Tensor) -> None:
        """``alias`` is ``tensor`` without its gradient."""
        if alias is not tensor:
            self._aliases[id(alias)] = _Alias(alias, self._base(tensor), alias)

    def call(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        has_gradient: Callable[[torch.Tensor], bool],
    ) -> Any:
        """``func(*args, **kwargs)``, and the gradients of what it writes through aliases.

        Args:
            has_gradient: whether a tensor may have one.

        Raises:
            ConversionError: a gradient would be lost.
        """
        given = list(_tensors((args, kwargs))) if self._aliases else []
        known = {id(x) for x in given}
        if self._lost and torch.is_grad_enabled() and func not in DETACHES:
            self.refuse_lost(given[1:] if is_in_place(func) else given)
        aliases = [self._aliases[i] for i in known if i in self._aliases]
        if not aliases:
            return func(*args, **kwargs)
        bases = {id(a.base): a for a in aliases}
        before = {
            i: (version(a.base), a.base.clone() if _is_smooth(a.base) else a.base)
            for i, a in bases.items()
        }
        out = func(*args, **kwargs)
        for x in _tensors(out):
            shared = [a for a in aliases if id(x) not in known and share_memory(x, a.alias)]
            if shared:
                self._aliases[id(x)] = shared[0]._replace(alias=x)
        for i, alias in bases.items():
            was, gradient = before[i]
            silent = is_in_place(func) or _writes_statistics(func, args, kwargs)
            if _is_smooth(alias.base) and (silent or version(alias.base) != was):
                others = [x for x in given if id(x) not in self._aliases]
                if torch.is_grad_enabled() and any(map(has_gradient, others)):
                    self._lost[id(alias.root)] = own_frame()
                self._give_back(alias.base, gradient, func, given, (args, kwargs))
        return out

    def refuse_lost(self, read: Iterable[torch.Tensor]) -> None:
        """Refuse to read what has another gradient in torch."""
        for x in read:
            alias = self._aliases.get(id(x))
            if alias is not None and id(alias.root) in self._lost:
                raise ConversionError(
                    "a detached alias is read after a write of what has a gradient into it "
                    f"({self._lost[id(alias.root)]}): write into its clone()"
                )

    def _give_back(
        self, base: torch.Tensor, gradient: torch.Tensor, func: Any, given: list[Any], called: Any
    ) -> None:
        others = [x for x in given if id(x) not in self._aliases and share_memory(x, base)]
        if others:  # is it they that are written into?
            args, kwargs = called
            targets = list(_tensors(kwargs["out"] if "out" in kwargs else args[:1]))
            if any(x is y for x in targets for y in others):
                return
            if not any(id(x) in self._aliases for x in targets):
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
        alias = self._aliases.get(id(tensor))
        return tensor if alias is None else alias.base


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
