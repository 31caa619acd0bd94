"""Compares objectives at random with brute force: no number may be wrong in silence.

    python tools/fuzz_objectives.py --minutes 30 --seed 0 --only kl    # minutes of CPU time

Hypothesis draws families, parameters, compositions, estimators, dtypes and transformations; the
value, the gradient and the second derivative of each are compared with quadrature or sums in
float64, within standard errors; what fails is drawn again with sixteen times the keys and shrunk.
"""

import argparse
import collections
import gc
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import hypothesis
import jax
from fuzzing.cases import OBJECTIVES, Case
from fuzzing.check import FAULTS, Outcome, check
from fuzzing.strategies import cases

_ROUND = 25  # examples, after which compiled programs are forgotten
_SHRINKS = 40  # cases run to shrink a finding


class Found(Exception):
    """A case whose outcome is a fault."""


class Run:
    """Counts and findings of a run, which lasts until a deadline."""

    def __init__(self, objectives=None, quiet=False):
        self.objectives, self.quiet = objectives, quiet
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.reasons: collections.Counter[str] = collections.Counter()
        self.examples: dict[str, str] = {}
        self.findings: list[tuple[Case, Outcome]] = []
        self.known: dict[Case, Outcome] = {}

    def one_round(
        self,
        seed: int,
        deadline: float,
        only: str | None,
        size: int = _ROUND,
        shrinks: int = _SHRINKS,
    ) -> None:
        """As many cases as ``size``, or fewer where one is found and shrunk."""
        worst: list[tuple[Case, Outcome]] = []
        kinds: set[str] = set()
        left = [shrinks]

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=size,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            verbosity=hypothesis.Verbosity.quiet,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        )
        @hypothesis.given(cases(only))
        def test(case: Case) -> None:
            if case not in self.known:
                left[0] -= bool(worst)
                if time.process_time() > deadline or left[0] < 0:
                    return
                self.known[case] = self._outcome(case, counted=not worst)
            outcome = self.known[case]
            if outcome.name in FAULTS and (not kinds or outcome.name in kinds):
                kinds.add(outcome.name)
                worst.append((case, outcome))
                raise Found

        try:
            test()
        except Found:
            self.findings.append(worst[-1])  # the smallest is run last
            self._say(f"{worst[-1][1].name}: {worst[-1][1].detail}\n    {worst[-1][0]}")
        finally:
            self.known.clear()
            jax.clear_caches()
            gc.collect()

    def _outcome(self, case: Case, counted: bool) -> Outcome:
        outcome = check(case, self.objectives)
        if counted:
            self.counts[case.objective, outcome.name] += 1
            if outcome.name == "refused":
                self.reasons[outcome.detail.splitlines()[0][:110]] += 1
            elif outcome.name in ("not a number", "undecided"):
                self.examples.setdefault(
                    f"{outcome.name}: {case.q}", f"{outcome.detail}\n    {case}"
                )
        return outcome

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)

    def table(self) -> str:
        """The number of cases of each objective by outcome."""
        names = sorted({name for _, name in self.counts})
        rows = [["", *names]]
        rows += [
            [kind, *(str(self.counts[kind, name]) for name in names)]
            for kind in OBJECTIVES
            if any(self.counts[kind, name] for name in names)
        ]
        return "\n".join("".join(f"{cell:>14}" for cell in row) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of CPU time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=OBJECTIVES)
    parser.add_argument("--examples", action="store_true", help="of what is not a number, too")
    arguments = parser.parse_args()
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    jax.config.update("jax_disable_most_optimizations", True)
    run, start = Run(), time.process_time()
    deadline = start + 60 * arguments.minutes
    seed = arguments.seed * 1_000_000
    while time.process_time() < deadline:
        run.one_round(seed, deadline, arguments.only)
        seed += 1
        print(f"{sum(run.counts.values())} cases, {len(run.findings)} findings", flush=True)
    print(run.table())
    for reason, count in run.reasons.most_common(30):
        print(f"{count:6} refused: {reason}")
    if arguments.examples:
        for name, example in run.examples.items():
            print(f"{name}\n    {example}")
    print(f"{time.process_time() / 60:.1f} CPU minutes")
    for case, outcome in run.findings:
        print(f"{outcome.name}: {outcome.detail}\n    {case}")
    sys.exit(bool(run.findings))


if __name__ == "__main__":
    main()
