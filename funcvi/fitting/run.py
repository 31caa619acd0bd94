"""A fit on its way: the steps taken so far, and what drives them from the host."""

import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from funcvi._types import Key, Params
from funcvi.fitting.loops import CHUNK, Constants, Loops
from funcvi.fitting.steps import Carry

__all__ = ["Callback", "Run", "drive"]

#: ``callback(steps, loss, params)``; True ends the fit.
Callback: TypeAlias = Callable[[int, float, Params], bool | None]

_LONGEST = 0.4  # seconds of a chunk: Ctrl-C is answered, and a callback called, that often
_BAR = 0.1  # seconds between updates of a bar that a person can follow


@dataclass
class Run:
    """The steps taken so far; consistent at any moment, for Ctrl-C may come at any."""

    loops: Loops
    kind: str
    constants: Constants
    carry: Carry
    key: Key
    args: tuple[object, ...]
    patience: int

    def __post_init__(self) -> None:
        self._first = int(self.carry.step)
        self._losses = array("d")  # numbers: an array of JAX's for each step would be kilobytes
        self.begun: tuple[Carry, jax.Array] | None = None  # a chunk that is on its way

    def within(self, seconds: float, most: int) -> int:
        """How many steps to take, by the time that a step has taken; one if that is unknown."""
        per_step = self.loops.seconds_per_step
        return max(1, min(most, CHUNK, int(seconds / per_step) if per_step else 1))

    def begin(self, most: int) -> None:
        """Start a compiled chunk without waiting for it; the next ``advance`` does."""
        self.begun = self._chunk(self.within(_LONGEST, most))

    def advance(self, count: int) -> np.ndarray:
        """Take ``count`` steps, at most a chunk; the losses of those that were taken."""
        before = len(self._losses)
        if self.kind == "compiled":
            carry, buffer = self.begun or self._chunk(count)
            losses = np.asarray(buffer, float)  # waits for the chunk
            self._losses.frombytes(losses[: int(carry.step) - int(self.carry.step)].tobytes())
            self.carry, self.begun = carry, None
        else:
            for _ in range(count):
                carry, loss = self.loops.one(self.constants, self.carry, self.key, self.args)
                self._losses.append(float(loss))
                self.carry = carry
                if self.gave_up:
                    break
        return np.array(self._losses[before:], jnp.result_type(float))

    def _chunk(self, count: int) -> tuple[Carry, jax.Array]:
        return self.loops.chunk(
            self.constants, self.carry, self.key, count, self.patience, self.args
        )

    @property
    def gave_up(self) -> bool:
        """Whether too many steps in a row were not finite."""
        return int(self.carry.run) >= self.patience

    @property
    def taken(self) -> int:
        """Steps of this run."""
        return int(self.carry.step) - self._first

    @property
    def losses(self) -> np.ndarray:
        """Of the steps taken."""
        return np.array(self._losses[: self.taken], jnp.result_type(float))


def drive(run: Run, num_steps: int, progress: bool | None, callback: Callback | None) -> str | None:
    """Takes the steps; says who ended them early, if anyone did."""
    shown = sys.stderr.isatty() if progress is None else progress
    bar = tqdm.tqdm(total=num_steps, unit="step", mininterval=_BAR, disable=not shown)
    with bar:
        if run.loops.seconds_per_step is None and run.kind == "compiled":
            run.advance(0)  # compiles, which is not a step's time
        most = CHUNK
        while run.taken < num_steps and not run.gave_up:
            begun, started = run.begun, time.perf_counter()
            left = num_steps - run.taken
            losses = run.advance(run.within(_BAR if shown else _LONGEST, min(left, most)))
            if not begun:
                seconds = max(time.perf_counter() - started, 1e-7)
                run.loops.seconds_per_step, most = seconds / len(losses), 10 * len(losses)
            bar.set_postfix_str(f"loss {losses[-1]:.4g}", refresh=False)
            bar.update(len(losses))
            if callback is not None:
                answer = callback(int(run.carry.step), float(losses.mean()), run.carry.params)
                if not isinstance(answer, (bool, np.bool_, jax.Array, type(None))):
                    raise TypeError(
                        "callback must return None, or True to end the fit, got "
                        f"{type(answer).__name__}."
                    )
                if answer and run.taken < num_steps:
                    return "by the callback"
    return None
