"""What forward changes outside the module: default arguments, closures and globals of its code."""

import itertools
from collections.abc import Callable, Collection
from typing import Any

import torch

from interop.errors import ConversionError, keeps
from interop.from_torch.contents import PLAIN, entries, refill, tensors_in
from interop.from_torch.lowering import Exported
from interop.from_torch.reached import reached
from interop.from_torch.side_effects import Trace, do_the_same

__all__ = ["Elsewhere"]


class Elsewhere:
    """Values outside a module as they are now, to tell what forward changed, and to put it back."""

    def __init__(self, module: torch.nn.Module) -> None:
        found = reached(module)
        self._places = [(place, place.read()) for place in found.places]
        self._containers = [(name, x, entries(x)) for name, x in found.containers]
        self._caches = [(cache, cache.cache_info().misses) for cache in found.caches]

    def refuse_memory(
        self, trace: Trace, again: Callable[[], Trace], lower: Callable[[Trace], Exported]
    ) -> None:
        """Refuse a module whose next call would differ for what this one has left here.

        Args:
            trace: the run of forward.
            again: runs the module as it would be now.
            lower: the program of a run.

        Raises:
            ConversionError: naming the place.
        """
        changed = self._changed()
        kept = [
            name
            for name, tensors in changed.items()
            if not all(map(trace.fresh.is_constant, tensors))
        ]
        if kept:
            raise ConversionError(keeps(", ".join(kept)))
        numbers = {name for name, tensors in changed.items() if not tensors}
        self.put_back({name for name in changed if name not in numbers})
        if numbers and not do_the_same(trace, again(), lower):
            raise ConversionError(keeps(", ".join(sorted(numbers))))

    def _changed(self) -> dict[str, list[torch.Tensor]]:
        """By place: the tensors that were not there before."""
        changed: dict[str, list[torch.Tensor]] = {}
        for place, before in self._places:
            if _entries([now := place.read()]) != _entries([before]):
                changed.setdefault(place.name, []).extend(tensors_in(now))
        for name, container, before in self._containers:
            if _entries(container) != _entries(before):
                old = {id(x) for x in tensors_in(before)}
                new = [x for x in tensors_in(container) if id(x) not in old]
                changed.setdefault(name, []).extend(new)
        return changed

    def put_back(self, names: Collection[str] | None = None) -> None:
        """As it was, for the caller's own use of the module: these, or all."""
        for cache, misses in self._caches:
            if cache.cache_info().misses != misses:
                cache.cache_clear()
        for place, before in self._places:
            if (names is None or place.name in names) and place.read() is not before:
                place.write(before)
        for name, container, before in self._containers:
            if (names is None or name in names) and _entries(container) != _entries(before):
                refill(container, before)


def _entries(container: Any) -> list[Any]:
    """Equal where nothing changed: plain values by value, others by identity."""
    container = entries(container)
    if isinstance(container, dict):
        container = itertools.chain.from_iterable(container.items())
    return [(type(x), repr(x) if isinstance(x, PLAIN) else id(x)) for x in container]
