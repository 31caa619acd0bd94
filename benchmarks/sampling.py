"""Draws, alone and with gradients, against torch, numpyro and TFP, and against the machine.

One process runs every side in turn and tables give medians and ratios of ours to theirs, so a ratio
below one means that ours is faster. Compiling is not timed, but in the fit loop. Usage:

    python benchmarks/sampling.py [--device cpu|gpu] [--size N] [--repeats R] [--output FILE]
                                  [--rows Gamma,Beta] [--fit-steps 1000]

A sampler that misses its target, ``DRAWS`` or ``GRADIENT`` times torch, is bold; ``WHY`` says why.
"""

import argparse
import contextlib
import os
import platform
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as nd
from sampling_cases import CASES, MODERATE, WIDE, Case, absent_from_numpyro
from sampling_fits import elbo, fits
from sampling_limits import Limit, Machine, limit_of, limits_table
from sampling_sides import (
    LONG,
    SLOW,
    Cell,
    Device,
    Program,
    Timing,
    in_turn,
    log,
    of_another_law,
    programs,
    torch,
)

DRAWS, GRADIENT = 1.0, 0.5
"""The targets: at most this many times torch."""

_LOOPS = (
    "XLA runs four loops (noise, draw, gradient, sum), each into fresh memory; "
    "torch's draw is one vectorised pass"
)
_FOUR = "XLA vectorises over the last axis alone, here four wide"
_SMALL = f"{_FOUR}; products of many small matrices are not vectorised"
WHY: dict[tuple[str, str, str], str] = {
    ("HalfNormal", "moderate", "gradient"): _LOOPS,
    ("Uniform", "moderate", "gradient"): _LOOPS,
    ("Independent Normal of 4", "moderate", "gradient"): _FOUR,
    ("MultivariateNormal of 4", "moderate", "gradient"): _SMALL,
    ("LowRankMultivariateNormal of 4, rank 2", "moderate", "gradient"): _SMALL,
}
"""Reasons for misses, by (distribution, "moderate" or "wide", "draws" or "gradient")."""

OTHERS = ("torch", "numpyro", "TFP")


@dataclass(frozen=True)
class Row:
    """One case at one set of parameters."""

    case: Case
    parameters: str
    draws: dict[str, Cell]
    gradient: dict[str, Cell]
    of_another_law: set[str]

    def misses(self) -> list[str]:
        """Which of "draws" and "gradient" miss the target, or failed."""
        found = []
        for what, cells, target in (
            ("draws", self.draws, DRAWS),
            ("gradient", self.gradient, GRADIENT),
        ):
            ours, torchs = cells["ours"], cells["torch"]
            if isinstance(ours, str):
                missed = ours != "refused"
            else:
                missed = isinstance(torchs, Timing) and ours.median > target * torchs.median
            if missed:
                found.append(what)
        return found

    def text(self) -> str:
        """The row of its table."""
        misses = self.misses()
        cells = [self.case.name]
        for what, times in (("draws", self.draws), ("gradient", self.gradient)):
            ours = times["ours"]
            cells.append(ours if isinstance(ours, str) else f"{1e3 * ours.median:.2f}")
            for side in OTHERS:
                words = _ratio(ours, times[side]) + " †" * (side in self.of_another_law)
                cells.append(f"**{words}**" if side == "torch" and what in misses else words)
        reasons = (WHY.get((self.case.name, self.parameters, what), "") for what in misses)
        cells.append("; ".join(filter(None, reasons)))
        return f"| {' | '.join(cells)} |"


def _ratio(ours: Cell, theirs: Cell) -> str:
    """Ours to theirs, or why there is none."""
    if isinstance(theirs, str):
        return theirs
    if isinstance(ours, str):
        return f"alone: {1e3 * theirs.median:.2f} ms"
    return f"{ours.median / theirs.median:.2f}{' ~' * (ours.unsteady or theirs.unsteady)}"


def measure(
    cases: list[Case], size: int, repeats: int, device: Device
) -> tuple[list[Row], list[Limit]]:
    rows, limits = [], []
    for case in cases:
        others: set[str] = set()
        for parameters in ("moderate", "wide") if case.has_shape else ("moderate",):
            log(f"{case.name}, {parameters}")
            values = case.generate(np.random.default_rng(0), size, parameters == "wide")
            both = programs(case, values, jax.random.key(0), device)
            if parameters == "moderate":
                others = of_another_law(both[0])
            draws, gradient = (in_turn(sides, repeats) for sides in both)
            rows.append(Row(case, parameters, draws, gradient, others))
            log("  " + rows[-1].text())
            if parameters == "moderate":
                for what, sides, cells in (
                    ("draws", both[0], draws),
                    ("gradient", both[1], gradient),
                ):
                    ours, timing = sides["ours"], cells["ours"]
                    if isinstance(ours, Program) and isinstance(timing, Timing):
                        limits.append(limit_of(case, values, what, ours, timing))
            del both
            device.release()
            jax.clear_caches()
    return rows, limits


def draws_table(rows: list[Row]) -> list[str]:
    return [
        "| distribution | draws, ms | / torch | / numpyro | / TFP "
        "| with gradient, ms | / torch | / numpyro | / TFP | why |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(row.text() for row in rows),
    ]


def summary(rows: list[Row]) -> str:
    timed = [
        (row, what)
        for row in rows
        for what, cells in (("draws", row.draws), ("gradient", row.gradient))
        if isinstance(cells["ours"], Timing) and isinstance(cells["torch"], Timing)
    ]
    missed = [(row, what) for row, what in timed if what in row.misses()]
    names = ", ".join(f"{row.case.name} ({row.parameters}, {what})" for row, what in missed)
    return (
        f"{len(timed) - len(missed)} of {len(timed)} ratios to torch meet their targets (draws "
        f"{DRAWS:g}, with gradient {GRADIENT:g})." + (f" Missed: {names}." if missed else "")
    )


def versions(device: Device, load: float) -> str:
    found = []
    for package in ("funcvi", "jax", "jaxlib", "numpyro", "torch", "tfp-nightly"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    kind = f"; {jax.devices()[0].device_kind}" if device.platform == "gpu" else ""
    threads = f"; torch on {torch.get_num_threads()} threads" if torch and not kind else ""
    return (
        f"{', '.join(found)}; Python {platform.python_version()}; {model}, "
        f"{platform.machine()}, {os.cpu_count()} cores{threads}{kind}; "
        f"load average {load:.1f} at the start"
    )


def report(
    cases: list[Case], size: int, repeats: int, fit_steps: int, device: Device, load: float
) -> list[str]:
    machine = Machine.measured(device.platform)
    log(machine.words())
    rows, limits = measure(cases, size, repeats, device)
    samples = 1000
    fitted = fits(fit_steps, samples, min(repeats, 7), device)
    whole = elbo(size, repeats, device, machine.bytes)
    td = torch.distributions if torch else None
    absent = absent_from_numpyro(td, nd) if td else []
    moderate, wide = ([r for r in rows if r.parameters == p] for p in ("moderate", "wide"))
    return [
        f"# Draws: {device.heading}",
        "",
        f"{size:,} float32 numbers a call, of which a vector of 4 takes four; each draw has other "
        f"parameters. Medians of {repeats} calls, all sides in turn in one process, each call "
        "after a pause of 0.02 s and one untimed call; a side that "
        f"takes more than {SLOW:g} s a call has at most three, one that takes more than {LONG:g} s "
        "only its first. JAX sides are compiled before. torch's distribution is built before its "
        "draws, and with its gradient in every call, where its graph must be. The gradient is that "
        "of the sum of weights times draws, for all parameters. Ratios are ours to theirs; those "
        "to torch that miss a target are bold.",
        "",
        summary(rows),
        "",
        f"## Moderate parameters: shapes uniform from {MODERATE[0]:g} to {MODERATE[1]:g}",
        "",
        *draws_table(moderate),
        "",
        f"## Wide parameters: shapes log-uniform from {WIDE[0]:g} to {WIDE[1]:g}",
        "",
        *draws_table(wide),
        "",
        "*refused*: `fv.sample` raises an error when these draws are differentiated; *no rsample*: "
        "so does torch; *none*: so does numpyro; *none for weights*: numpyro's gradient leaves the "
        "mixture's weights out, silently; †: their draws are of another law than ours; *alone*: "
        "their time, where ours has none; ~: the median of one side "
        "is more than 1.5 times its least, so something else ran as well."
        + (f" torch alone has {', '.join(absent)}." if absent else ""),
        "",
        "## How far from the limit",
        "",
        f"For each number drawn, at the moderate parameters. This machine: {machine.words()}. The "
        "limit is the larger of two times: to move the bytes needed (parameters read and draws "
        "written; with gradient, parameters and weights read and gradients written) and to make "
        "the operations that XLA counts in the program, hashes among them, with transcendental "
        "functions at the rate of exponentials, the cheapest. Integer operations have no fused "
        "pairs, so hashes alone cannot reach it. Bytes moved are those that XLA counts in the "
        "compiled program.",
        "",
        *limits_table(limits, machine),
        "",
        "## Fitting Gamma to Gamma(5, 5)",
        "",
        f"{fit_steps:,} Adam steps of {samples:,} draws, KL by pathwise gradients. First calls are "
        "made after `jax.clear_caches()`, so they include tracing and compiling. Targets: warm at "
        "most 1/12 of torch; first and warm at most 0.6 of TFP.",
        "",
        *fitted,
        "",
        "## A whole ELBO with its gradient",
        "",
        *whole,
        "",
        versions(device, load),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--size", type=int, help="numbers a call: 1e6, or 1e8 on a GPU")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", help="only these, by their first words: Gamma,Beta")
    parser.add_argument("--fit-steps", type=int, default=1000)
    parser.add_argument("--output", help="also write the tables to this file")
    options = parser.parse_args()
    for message in ("Singular sample detected", "Low df values"):  # torch's Wishart
        warnings.filterwarnings("ignore", message=message)
    if options.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs some of the card
    load = os.getloadavg()[0]
    if load > 0.3:
        log(f"the load average is {load:.1f}: something else runs, and timings will show it")
    device = Device.named(options.device)
    if torch is not None:
        torch.manual_seed(0)
        torch.distributions.Distribution.set_default_validate_args(False)
    wanted = options.rows.split(",") if options.rows else [case.name.split()[0] for case in CASES]
    cases = [case for case in CASES if case.name.split()[0] in wanted]
    size = options.size or (10**8 if device.platform == "gpu" else 10**6)
    text = "\n".join(report(cases, size, options.repeats, options.fit_steps, device, load)) + "\n"
    print(text)
    if options.output:
        Path(options.output).write_text(text)


if __name__ == "__main__":
    main()
