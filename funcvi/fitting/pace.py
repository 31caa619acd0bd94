"""How many steps to take before looking again, and the bar that is moved then."""

import sys
from types import TracebackType

import tqdm

__all__ = ["Bar", "Pace"]

_LONGEST = 0.4  # seconds of a chunk: Ctrl-C is answered, and a callback called, that often
_BAR = 0.1  # seconds between updates of a bar that a person can follow


class Pace:
    """Chooses the lengths of chunks by the time that a step has taken."""

    def __init__(self, most: int, seconds_per_step: float | None, shown: bool) -> None:
        self._most = most
        self._target = _BAR if shown else _LONGEST
        self._length = self._target / seconds_per_step if seconds_per_step else 1.0

    def next_chunk(self, left: int) -> int:
        """How many steps to take now."""
        return max(1, min(left, self._most, int(self._length)))

    def update(self, count: int, seconds: float) -> float:
        """What the last chunk took; the seconds of one step."""
        per_step = max(seconds, 1e-7) / count
        self._length = min(self._target / per_step, 10.0 * count)
        return per_step


class Bar:
    """tqdm, or nothing."""

    def __init__(self, total: int, shown: bool | None) -> None:
        self.shown = sys.stderr.isatty() if shown is None else shown
        self._bar: tqdm.tqdm[None] | None = None
        if self.shown:
            self._bar = tqdm.tqdm(total=total, unit="step", mininterval=_BAR)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int, loss: float) -> None:
        """Tells what the last chunk did."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            self._bar.update(count)
