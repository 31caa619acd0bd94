"""A fit on its way: the steps taken so far, and what drives them from the host."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from funcvi._types import Key, Params
from funcvi.fitting.loops import CHUNK, Constants, Loops
from funcvi.fitting.pace import Bar, Pace
from funcvi.fitting.steps import Carry

__all__ = ["Callback", "Run", "drive"]

#: ``callback(steps, loss, params)``; True ends the fit.
Callback: TypeAlias = Callable[[int, float, Params], bool | None]


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
        self._chunks: list[np.ndarray] = []
        self._values: list[float] = []  # losses of steps taken from the host
        self._begun: tuple[Carry, jax.Array] | None = None

    def begin(self, count: int) -> None:
        """Start a compiled chunk without waiting for it; the next ``advance`` does."""
        self._begun = self.loops.chunk(
            self.constants, self.carry, self.key, count, self.patience, self.args
        )

    def advance(self, count: int) -> np.ndarray:
        """Take ``count`` steps, at most a chunk; the losses of those that were taken."""
        if self.kind == "compiled":
            if self._begun is None:
                self.begin(count)
            assert self._begun is not None
            taken, (carry, buffer) = self.taken, self._begun
            losses = np.asarray(buffer)  # waits for the chunk
            self._chunks.append(losses[: int(carry.step) - self._first - taken].copy())
            self.carry, self._begun = carry, None
            return self._chunks[-1]
        first = len(self._values)
        for _ in range(count):
            carry, loss = self.loops.one(self.constants, self.carry, self.key, self.args)
            self._values.append(float(loss))  # an array for each step would be kilobytes
            self.carry = carry
            if self.gave_up:
                break
        return np.asarray(self._values[first:], jnp.result_type(float))

    @property
    def begun(self) -> bool:
        """Whether a chunk is on its way."""
        return self._begun is not None

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
        values = np.asarray(self._values, jnp.result_type(float))
        return np.concatenate([*self._chunks, values])[: self.taken]


def drive(run: Run, num_steps: int, progress: bool | None, callback: Callback | None) -> str | None:
    """Takes the steps; says who ended them early, if anyone did."""
    with Bar(num_steps, progress) as bar:
        pace = Pace(CHUNK, run.loops.seconds_per_step, bar.shown)
        if run.loops.seconds_per_step is None and run.kind == "compiled":
            run.advance(0)  # compiles, which is not a step's time
        while run.taken < num_steps and not run.gave_up:
            begun, started = run.begun, time.perf_counter()
            losses = run.advance(pace.next_chunk(num_steps - run.taken))
            if not begun:
                run.loops.seconds_per_step = pace.update(len(losses), time.perf_counter() - started)
            bar.update(len(losses), float(losses[-1]))
            if callback is not None:
                answer = callback(int(run.carry.step), float(losses.mean()), run.carry.params)
                if not isinstance(answer, (bool, np.bool_, jax.Array, type(None))):
                    raise TypeError(
                        "callback must return None, or True to end the fit, got "
                        f"{type(answer).__name__}."
                    )
                if answer:
                    return "by the callback"
    return None
