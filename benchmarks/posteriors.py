"""fv.infer with its defaults on posteriors whose means and spreads are known.

    python benchmarks/posteriors.py FOLDER [NAME ...] [--seeds 0 1 2] [--method auto]
        [--output benchmarks/results/posteriors.md]

FOLDER has ``models.py`` (``load(name)``, a numpyro model and its data) and ``score.py``
(``score(name, draws)``), and a folder for each posterior; the table says how far the means are off,
in standard deviations at most, and the standard deviations, in logarithms on average.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import funcvi as fv

GOOD, BAD = 0.1, 0.25


def module(path: Path) -> Any:
    """A file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def row(folder: Path, name: str, seed: int, method: str) -> dict[str, Any]:
    """One posterior, in a fresh state of JAX: wall time has all compilation in it."""
    jax.clear_caches()
    model = module(folder / "models.py").load(name)[0]
    start = time.perf_counter()
    target = fv.target(model)
    posterior, report = fv.infer(target, key=jax.random.key(seed), method=method)
    seconds = time.perf_counter() - start
    if isinstance(posterior, fv.EmpiricalPosterior):
        draws = posterior.values
    else:
        draws = fv.sample(posterior, jax.random.key(seed + 100), (10_000,))
    numbers = {site: np.asarray(x) for site, x in draws.items()}
    found = module(folder / "score.py").score(name, numbers, root=str(folder))
    return {
        "name": name,
        "size": target.size,
        "seed": seed,
        "mean": found["max_mean_err"],
        "sd": found["mean_abs_log_sd"],
        "k": report.k_hat,
        "rung": str(report.rung),
        "verdict": str(report.verdict),
        "evaluations": report.evaluations,
        "seconds": seconds,
    }


def table(rows: list[dict[str, Any]], method: str) -> str:
    """The rows, and what they come to."""
    names = dict.fromkeys(r["name"] for r in rows)
    within = [n for n in names if all(worst(r) <= GOOD for r in rows if r["name"] == n)]
    trusted = [n for n in names if all(r["verdict"] == "reliable" for r in rows if r["name"] == n)]
    wrong = [r for r in rows if r["verdict"] == "reliable" and worst(r) > BAD]
    lines = [
        f"# fv.infer, method={method!r}: posteriors with known answers",
        "",
        f"jax {jax.__version__}, {'float64' if jax.config.read('jax_enable_x64') else 'float32'}, "
        f"{platform.machine()}, {os.cpu_count()} cores. Largest error of a mean in standard "
        "deviations, mean error of log standard deviations; seconds with compilation.",
        "",
        f"{len(within)} of {len(names)} within {GOOD} in both on every seed; reliable on every "
        f"seed: {len(trusted)}; called reliable with an error above {BAD}: {len(wrong)}; median "
        f"{statistics.median(r['seconds'] for r in rows):.1f} s.",
        "",
        "| posterior | d | seed | means | log sds | k-hat | rung | verdict | evaluations | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['name']} | {r['size']} | {r['seed']} | {r['mean']:.3f} | {r['sd']:.3f} | "
            f"{r['k']:.2f} | {r['rung']} | {r['verdict']} | {r['evaluations']:_} | "
            f"{r['seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def worst(result: dict[str, Any]) -> float:
    """The larger of both errors."""
    return max(result["mean"], result["sd"])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--method", default="auto")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    sys.path.insert(0, str(options.folder))
    known = sorted(p.name for p in options.folder.iterdir() if (p / "reference.json").exists())
    rows = []
    for name in options.names or known:
        for seed in options.seeds:
            rows.append(row(options.folder, name, seed, options.method))
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()})
    text = table(rows, options.method)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
