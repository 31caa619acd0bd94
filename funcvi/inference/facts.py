"""What is known once a normal approximation is fitted, for the report and for lines of progress."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from funcvi.diagnostics import Diagnosis
from funcvi.inference.report import Report, Rung, Trust
from funcvi.targets import Target

__all__ = ["Facts"]


class Facts(NamedTuple):
    """What is known by the normal approximation.

    ``outside`` says that the log density is not finite at many draws, if it is so; ``say`` is what
    a line of progress goes to.
    """

    target: Target
    diagnosis: Diagnosis
    climbs: int
    evaluations: int
    began: float
    effective_size: float
    outside: str
    say: Callable[[str], None]

    def say_normal(self, why: str, then: str) -> None:
        """The line of the first rung."""
        d = self.diagnosis
        self.say(
            f"normal: {self.climbs} climbs, ELBO {d.elbo:.1f} ± {d.elbo_standard_error:.1g}, k-hat "
            f"{d.k_hat:.2f}: {why} → {then}"
        )

    def normal(self, trust: Trust, message: str, why: str, careful: tuple[str, ...] = ()) -> Report:
        """The report, where there is no further rung."""
        self.say_normal(why, trust)
        return self.report(trust, Rung.normal, message, self.effective_size, careful=careful)

    def report(
        self,
        trust: Trust,
        rung: Rung,
        message: str,
        effective_size: float,
        r_hat: float = math.nan,
        careful: tuple[str, ...] = (),
        more: int = 0,
    ) -> Report:
        """With what is known of the normal approximation, and of time."""
        d = self.diagnosis
        return Report(
            trust,
            rung,
            message,
            d.elbo,
            d.elbo_standard_error,
            d.k_hat,
            d.k_hat_standard_error,
            effective_size,
            r_hat,
            careful,
            self.evaluations + more,
            time.monotonic() - self.began,
        )
