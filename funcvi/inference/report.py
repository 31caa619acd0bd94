"""What inference found, and how far it can be trusted."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Report", "Rung", "Trust"]


class Trust(StrEnum):
    """Whether a posterior can be trusted; compares equal to its words."""

    reliable = "reliable"
    with_care = "use with care"
    failed = "failed"


class Rung(StrEnum):
    """What the posterior is made by."""

    normal = "normal"
    importance = "importance"
    chains = "chains"


@dataclass(frozen=True)
class Report:
    """What :func:`fv.infer` found; printing it says what it means.

    Attributes:
        verdict: whether means and spreads can be trusted.
        rung: what the posterior is made by.
        message: why, and what to try, in a sentence or two.
        elbo: of the normal approximation, nats, a lower bound of the evidence.
        elbo_standard_error: its Monte Carlo error.
        k_hat: Pareto shape of its importance ratios.
        k_hat_standard_error: its standard error.
        effective_size: of the draws, the smallest of all coordinates; of a normal, of its draws by
            their importance weights, NaN where those have none.
        r_hat: of the chains, the largest of all coordinates; NaN where none ran.
        careful: the sites that the verdict is about, unless it is ``reliable``.
        evaluations: of the log density or its gradient, about.
        seconds: of wall time, compilation included.
    """

    verdict: Trust
    rung: Rung
    message: str
    elbo: float
    elbo_standard_error: float
    k_hat: float
    k_hat_standard_error: float
    effective_size: float
    r_hat: float
    careful: tuple[str, ...]
    evaluations: int
    seconds: float

    def __str__(self) -> str:
        r_hat = f", R-hat {self.r_hat:.3f}" if self.rung == Rung.chains else ""
        lines = [
            f"{self.verdict}: {self.message}",
            f"by {self.rung}; effective draws {self.effective_size:.0f}{r_hat}",
            f"the normal approximation: ELBO {self.elbo:.2f} ± {self.elbo_standard_error:.1g} "
            f"nats, k-hat {self.k_hat:.2f} ± {self.k_hat_standard_error:.1g}",
            f"{self.evaluations:_} evaluations in {self.seconds:.1f} s",
        ]
        if self.careful:
            lines.insert(1, f"sites: {', '.join(self.careful)}")
        return "\n".join(lines)
