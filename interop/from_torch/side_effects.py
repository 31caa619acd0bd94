"""What forward changes beside what it returns: attributes that the next call would read."""

import gc
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch.utils.weak import WeakIdKeyDictionary

from interop._torch import FakeTensor, HigherOrderOperator, tables_of
from interop.errors import ConversionError, keeps
from interop.from_torch.calls import Flat
from interop.from_torch.contents import mark, tensors_in, with_tensors
from interop.from_torch.export import Recorded
from interop.from_torch.forward import ForwardMode
from interop.from_torch.lowering import Exported
from interop.from_torch.program import walk
from interop.from_torch.sources import own_line

__all__ = ["Attributes", "Fresh", "attributes_of", "do_the_same", "refuse_memory"]


_RANDOM = {
    *("rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm"),
    *("bernoulli", "multinomial", "normal", "poisson", "binomial", "rrelu", "gumbel_softmax"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    *("bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_"),
    *("random_", "uniform_"),
}


class Fresh(ForwardMode):
    """Knows the tensors that forward makes of constants, parameters and buffers: masks, tables.

    Of the others it knows which live on after the call, and where they were made.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._tensors: dict[int, tuple[torch.Tensor, bool]] = {}  # and whether of constants alone
        module.register_forward_pre_hook(lambda part, _: self._begin(part))
        self._state: set[int] = set()
        self._others: Any = WeakIdKeyDictionary()

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """In place of ``func(*args, **kwargs)``."""
        out = func(*args, **kwargs)
        given = {id(x) for x in tensors_in((args, kwargs))}
        made = [x for x in tensors_in(out) if id(x) not in self._state]
        new = [x for x in made if id(x) not in given]
        if getattr(func, "__name__", "") in _RANDOM:  # torch would draw once, and keep that
            for x in made:
                self._tensors.pop(id(x), None)
        elif given <= self._tensors.keys():
            constant = all(self._tensors[at][1] for at in given)
            self._tensors.update((id(x), (x, constant)) for x in new)
        elif new and not isinstance(func, HigherOrderOperator):  # which remembers its results
            line = own_line()
            self._others.update([(x, line) for x in new if isinstance(x, FakeTensor)])
        return out

    def _begin(self, module: torch.nn.Module) -> None:
        """By now they are what forward is traced with."""
        state = (*module.parameters(), *module.buffers())
        self._tensors.update((id(x), (x, False)) for x in state)
        self._state = {id(x) for x in state}

    def refuse_leaks(self) -> None:
        """Refuse a module that keeps a tensor in a place that is not looked at.

        Raises:
            ConversionError: naming the line where it was made.
        """
        if self._others:
            gc.collect()  # cycles
        alive = list(self._others)
        if lines := {self._others[x] for x in _held(alive)}:
            raise ConversionError(keeps("a tensor of " + ", ".join(sorted(lines))))

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether it is one of them."""
        return id(tensor) in self._tensors

    def computed(self, tensors: list[torch.Tensor]) -> bool:
        """Whether all are some of them, and not parameters and buffers themselves."""
        known = bool(tensors) and all(map(self.has, tensors))
        return known and not all(id(x) in self._state for x in tensors)

    def is_constant(self, tensor: torch.Tensor) -> bool:
        """Whether it is one of no parameter or buffer."""
        return self.has(tensor) and self._tensors[id(tensor)][1]


def _held(alive: list[torch.Tensor]) -> list[torch.Tensor]:
    """Those that something of Python holds beside this list, and not only a gradient's graph.

    All at once: to find what refers to something takes a pass over all that there is.
    """
    if not alive:
        return []
    holders = gc.get_referrers(*alive)
    outside = (x for x in holders if x is not alive and not isinstance(x, FrameType))
    found = {id(x) for holder in outside for x in gc.get_referents(holder)}
    return [x for x in alive if id(x) in found]


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


class Trace(NamedTuple):
    """One run of forward: the program, its attributes before and after, and what it made."""

    recorded: Recorded
    call: Flat
    before: Attributes
    after: Attributes
    fresh: "Fresh"


def refuse_memory(
    trace: Trace,
    again: Callable[[Attributes], Trace],
    lower: Callable[[Trace], Exported],
    state: Mapping[str, torch.Tensor],
) -> None:
    """Refuse a module whose next call would differ for what this one has left in attributes.

    What is computed of parameters and constants alone may be kept, as every call computes it again
    from those it gets: if the next call leaves it as it is.

    Args:
        trace: the run.
        again: runs the module as it would be with other attributes.
        lower: the program of a run.
        state: parameters and buffers by name.

    Raises:
        ConversionError: naming the attribute.
    """
    changed: Attributes = {}
    kept: set[tuple[str, str]] = set()
    for at, now in trace.after.items():
        old = trace.before.get(at)
        if old is None or now.mark != old.mark:
            changed[at] = Attribute(now.mark, with_tensors(now.value, _zeros))
            if trace.fresh.computed(tensors_in(now.value)):
                kept.add(at)
    if kept:
        following = again({at: changed[at] for at in kept})
        kept = {at for at in kept if following.before[at].mark == following.after[at].mark}
    others = changed.keys() - kept
    constants = trace.recorded.constants(state) if others else set()
    wrong = {at for at in others if _name(at) in constants}
    if others and not wrong:
        following = again({at: changed[at] for at in others})
        wrong = set() if do_the_same(trace, following, lower) else others
    if wrong:
        raise ConversionError(keeps(", ".join(sorted(f"'{_name(at)}'" for at in wrong))))


def _name(at: tuple[str, str]) -> str:
    return ".".join(filter(None, at))


def do_the_same(one: Trace, other: Trace, lower: Callable[[Trace], Exported]) -> bool:
    """Whether two runs do the same with their inputs: mostly what was recorded tells already."""
    traces = (one, other)
    if not any(t.recorded.calls for t in traces):
        recorded, again = (t.recorded.operations() for t in traces)
        if recorded == again:
            return True
    first, second = (_operations(lower(t)) for t in traces)
    return first == second


def _operations(exported: Exported) -> list[Any]:
    places = [(type(p), getattr(p, "name", None)) for p in exported.inputs]
    return [places, *((s.operation, repr(s.args), repr(s.kwargs)) for s in walk(exported.program))]


def _zeros(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros(tuple(map(int, tensor.shape)), dtype=tensor.dtype)
