"""The first chunk of a fit, started on a guess while the loss is being traced.

Tracing a loss takes as long as thousands of cheap steps. A loss that was fitted before probably
computes the same now: its first chunk runs meanwhile, and counts only if the trace turns out equal,
arrays included. Nothing is lost otherwise, since a chunk changes nothing.
"""

from collections.abc import Hashable
from contextlib import suppress
from typing import NamedTuple
from weakref import WeakKeyDictionary

import jax
import numpy as np

from funcvi._types import Loss
from funcvi.fitting.loops import Constants, Loops, Traces
from funcvi.fitting.steps import Carry, Rest

__all__ = ["Guess", "guess", "remember"]


class Guess(NamedTuple):
    """What a loss was when it was last fitted."""

    situation: Hashable
    key: Hashable
    loops: Loops
    constants: Constants
    repeated: bool  # it was the same the time before, or there was no time before

    def holds(self, traces: Traces) -> bool:
        """Whether loss and optimiser are so still."""
        return self.key == traces.key and all(
            map(_same, jax.tree.leaves(self.constants), jax.tree.leaves(traces.constants))
        )


_guesses: "WeakKeyDictionary[Loss, Guess]" = WeakKeyDictionary()


def guess(loss: Loss, carry: Carry, rest: Rest) -> Guess | None:
    """The guess for arguments of these shapes, if there is one."""
    with suppress(TypeError):  # of a method, or what is compared by content that has no hash
        last = _guesses.get(loss)
        return last if last and last.situation == _situation(carry, rest) else None
    return None


def remember(
    loss: Loss, carry: Carry, rest: Rest, traces: Traces, loops: Loops, last: Guess | None
) -> None:
    """For the next time. A loss with effects (``jax.debug.print``) is never run on a guess."""
    if traces.loss.function.jaxpr.effects:
        return
    repeated = last is None or last.holds(traces)
    new = Guess(_situation(carry, rest), traces.key, loops, traces.constants, repeated)
    with suppress(TypeError):  # see guess
        _guesses[loss] = new


def _situation(carry: Carry, rest: Rest) -> Hashable:
    leaves, structure = jax.tree.flatten((carry, rest))
    return structure, tuple(map(jax.typeof, leaves))


def _same(old: jax.Array | np.ndarray, new: jax.Array | np.ndarray) -> bool:
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        return old.dtype == new.dtype and old.shape == new.shape and old.tobytes() == new.tobytes()
    return old is new
