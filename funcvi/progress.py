"""A progress bar that costs nothing to speak of: tqdm, fed once a chunk."""

import sys
from typing import Any

__all__ = ["Progress"]

_INTERVAL = 0.1  # seconds between updates that a person can follow
_FIRST = 10  # steps in the first chunk, to learn how long one takes


class Progress:
    """Chooses chunk lengths so that the bar moves about ten times a second."""

    def __init__(self, total: int, shown: bool | None) -> None:
        self._total = total
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._bar: Any = None
        self._length = float(_FIRST)

    def __enter__(self) -> "Progress":
        if self._shown:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, unit="step", mininterval=_INTERVAL)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def next_chunk(self, most: int) -> int:
        """How many steps to take before looking again."""
        return max(1, min(most, int(self._length))) if self._shown else most

    def update(self, count: int, loss: float, seconds: float) -> None:
        """Tell the bar what the last chunk did."""
        if self._bar is None:
            return
        self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        self._bar.update(count)
        # Never more than tenfold at once: the first chunk includes compilation.
        target = count * _INTERVAL / max(seconds, 1e-6)
        self._length = min(max(target, 1.0), 10 * self._length)
