"""Simulation-based calibration of fv.infer: are ranks uniform where it says "reliable"?

    python benchmarks/calibration.py [--regressions 200] [--hierarchies 120] [--mixtures 120]
        [--mapped 1000] [--seed 0] [--output benchmarks/results/calibration.md]

Parameters are drawn from the prior and data from the model; among draws of the right posterior the
rank of the parameter is uniform, whatever the data are picked by (Talts et al. 2018,
arXiv:1804.06788). So it must be among the posteriors of each verdict that claims to be right. The
p-values are those of a chi-squared test over ten bins, and of Kolmogorov and Smirnov's.
"""

import argparse
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import Predictive
from scipy import stats

import funcvi as fv

DRAWS, BINS = 99, 10  # ranks 0 to 99
INPUTS = jnp.stack([jnp.ones(20), jnp.linspace(-2.0, 2.0, 20)], axis=1)


def regression(y: Any = None) -> None:
    """Two weights and a scale, twenty rows."""
    weights = numpyro.sample("weights", dist.Normal(0.0, 2.0).expand((2,)).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("rows", len(INPUTS)):
        numpyro.sample("y", dist.Normal(INPUTS @ weights, scale), obs=y)


def hierarchy(y: Any = None) -> None:
    """Eight groups of three observations, centred: some of the data sets are too hard."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    with numpyro.plate("groups", 8, dim=-2):
        centre = numpyro.sample("centre", dist.Normal(mean, spread))
        with numpyro.plate("rows", 3, dim=-1):
            numpyro.sample("y", dist.Normal(centre, 1.0), obs=y)


def mixture(y: Any = None) -> None:
    """Two components of ordered means, sixty observations; which is whose is summed out."""
    share = numpyro.sample("share", dist.Beta(4.0, 4.0))
    low = numpyro.sample("low", dist.Normal(-2.0, 1.0))
    gap = numpyro.sample("gap", dist.LogNormal(1.0, 0.4))
    means = jnp.stack([low, low + gap])
    parts = dist.Categorical(probs=jnp.stack([share, 1 - share]))
    with numpyro.plate("rows", 60):
        numpyro.sample("y", dist.MixtureSameFamily(parts, dist.Normal(means, 1.0)), obs=y)


MODELS: dict[str, Callable[..., None]] = {
    "regression": regression,
    "hierarchy": hierarchy,
    "mixture": mixture,
}


class Ranked(NamedTuple):
    """The verdict of one posterior, and the ranks of the true values by entry."""

    verdict: str
    how: str
    ranks: Mapping[str, int]


def simulated(model: Callable[..., None], key: jax.Array, count: int) -> dict[str, jax.Array]:
    """Draws of the prior, with data."""
    return dict(Predictive(model, num_samples=count)(key))


def ranks_of(draws: Mapping[str, Any], truth: Mapping[str, Any]) -> dict[str, int]:
    """By entry, how many draws, (draws, *site), are below the truth."""
    ranks = {}
    for name, value in truth.items():
        below = np.sum(np.asarray(draws[name]) < np.asarray(value), axis=0)
        for index in np.ndindex(below.shape):
            entry = f"{name}[{', '.join(map(str, index))}]" if index else name
            ranks[entry] = int(below[index])
    return ranks


def inferred(name: str, count: int, seed: int) -> Iterator[Ranked]:
    """By fv.infer, one data set after the other."""
    model = MODELS[name]
    data_key, key = jax.random.split(jax.random.key(seed))
    data = simulated(model, data_key, count)
    for i, one_key in enumerate(jax.random.split(key, count)):
        infer_key, draw_key = jax.random.split(one_key)
        target = fv.target(model, data["y"][i])
        posterior, report = fv.infer(target, key=infer_key)
        draws = fv.sample(posterior, draw_key, (DRAWS,))
        truth = {n: data[n][i] for n in target.shapes}
        yield Ranked(str(report.verdict), str(report.rung), ranks_of(draws, truth))


def mapped(name: str, count: int, seed: int) -> Iterator[Ranked]:
    """By fv.batch_and_match under jax.vmap, and fv.diagnose_each."""
    model = MODELS[name]
    data_key, key, judge_key, draw_key = jax.random.split(jax.random.key(seed), 4)
    data = simulated(model, data_key, count)

    def posterior(y: jax.Array, key: jax.Array) -> fv.Posterior:
        return fv.batch_and_match(fv.target(model, y), key=key)

    many = jax.jit(jax.vmap(posterior))(data["y"], jax.random.split(key, count))
    draws = jax.jit(lambda p: fv.sample(p, draw_key, (DRAWS,)))(many)
    found = fv.diagnose_each(many, key=judge_key, num_samples=40_000)
    names = [n for n in data if n != "y"]
    for i, diagnosis in enumerate(found):
        ranks = ranks_of({n: draws[n][:, i] for n in names}, {n: data[n][i] for n in names})
        yield Ranked(str(diagnosis.verdict), "normal", ranks)


def p_values(ranks: list[int]) -> tuple[float, float]:
    """That ranks 0 to 99 are uniform: chi-squared over ten bins, and Kolmogorov-Smirnov's."""
    counts = np.bincount(np.asarray(ranks) // (-(-(DRAWS + 1) // BINS)), minlength=BINS)
    # Ranks are spread over the hundredth that each stands for, so that they have no ties.
    within = np.random.default_rng(0).uniform(size=len(ranks))
    spread = (np.asarray(ranks) + within) / (DRAWS + 1)
    return float(stats.chisquare(counts).pvalue), float(stats.kstest(spread, "uniform").pvalue)


def section(title: str, rows: list[Ranked], spent: float) -> list[str]:
    """The table of one model."""
    counts = Counter((r.verdict, r.how) for r in rows)
    told = ", ".join(f"{n} {verdict} by {how}" for (verdict, how), n in counts.most_common())
    lines = [
        f"## {title}",
        "",
        f"{len(rows)} data sets in {spent:.0f} s: {told}.",
        "",
        "| verdict | parameter | data sets | mean rank / 99 | chi-squared p | KS p |",
        "|---|---|---|---|---|---|",
    ]
    for verdict in dict.fromkeys(v for (v, _), _ in counts.most_common()):
        of = [r.ranks for r in rows if r.verdict == verdict]
        if len(of) < 5 * BINS // 2:
            continue
        for name in of[0]:
            ranks = [r[name] for r in of]
            chi, ks = p_values(ranks)
            mean = np.mean(ranks) / DRAWS
            lines.append(f"| {verdict} | {name} | {len(of)} | {mean:.3f} | {chi:.3f} | {ks:.3f} |")
    return [*lines, ""]


def main() -> None:
    """Infer, rank, test, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--regressions", type=int, default=200)
    parser.add_argument("--hierarchies", type=int, default=120)
    parser.add_argument("--mixtures", type=int, default=120)
    parser.add_argument("--mapped", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jobs = [
        ("Regression, fv.infer", inferred, "regression", options.regressions),
        ("Hierarchy, fv.infer", inferred, "hierarchy", options.hierarchies),
        ("Mixture, fv.infer", inferred, "mixture", options.mixtures),
        (
            "Regression, fv.batch_and_match in one call, by the verdicts of fv.diagnose_each",
            mapped,
            "regression",
            options.mapped,
        ),
    ]
    lines = [
        "# Simulation-based calibration",
        "",
        f"jax {jax.__version__}, float64, {platform.machine()}, {os.cpu_count()} cores, seed "
        f"{options.seed}. Ranks of the true parameters among {DRAWS} draws, of data sets drawn "
        "from the prior; p-values that they are uniform, for each verdict of 25 data sets or "
        "more.",
        "",
    ]
    for title, how, name, count in jobs:
        if not count:
            continue
        start, rows = time.perf_counter(), []
        for row in how(name, count, options.seed):
            rows.append(row)
            if how is inferred and len(rows) % 20 == 0:
                print(title, len(rows), f"{time.perf_counter() - start:.0f} s", flush=True)
        lines += section(title, rows, time.perf_counter() - start)
        print("\n".join(lines), flush=True)
        if options.output:
            options.output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
