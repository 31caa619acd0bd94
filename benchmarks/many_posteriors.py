"""Many small posteriors of one model: one mapped call beside a Python loop.

    python benchmarks/many_posteriors.py [--count 1000] [--rows 50] [--rounds 3]
        [--output benchmarks/results/many_posteriors.md]

Logistic regressions with three weights, each on data of its own. All sides run in one process, in
turn. A first call is made after ``jax.clear_caches()``, so it includes tracing and compiling; the
later ones have new data of the same shapes. The sides are ``jax.jit(jax.vmap(...))``, the same by
``jax.lax.map``, a loop over a function that is jitted with its data as arguments, and a plain
Python loop.
"""

import argparse
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import funcvi as fv

SIZE = 3


def model(x: Any, y: Any) -> None:
    """A logistic regression."""
    weights = numpyro.sample("weights", dist.Normal(0.0, 2.0).expand((SIZE,)).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


def datasets(count: int, rows: int, seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Inputs, outcomes and keys, with a leading axis of data sets."""
    x_key, w_key, y_key, key = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(x_key, (count, rows, SIZE))
    weights = jax.random.normal(w_key, (count, SIZE))
    logits = jnp.einsum("crs,cs->cr", x, weights)
    return x, jax.random.bernoulli(y_key, jax.nn.sigmoid(logits)), jax.random.split(key, count)


def batch_and_match(x: Any, y: Any, key: Any) -> fv.Posterior:
    """The normal posterior by scores."""
    return fv.batch_and_match(fv.target(model, x, y), key=key)


def laplace(x: Any, y: Any, key: Any) -> fv.Posterior:
    """The normal posterior by curvature."""
    guide = fv.laplace(fv.target(model, x, y))
    return guide(guide.init(key))


def loop(one: Callable[..., Any]) -> Callable[..., Any]:
    """One data set after the other."""

    def run(*data: jax.Array) -> Any:
        found = [one(*(x[i] for x in data)) for i in range(len(data[0]))]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    return run


def sides(one: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """By name, functions of all data; each call of this makes new ones, which compile again."""
    return {
        "jax.jit(jax.vmap(...))": jax.jit(jax.vmap(one)),
        "jax.jit(jax.lax.map(...))": jax.jit(lambda *data: jax.lax.map(lambda d: one(*d), data)),
        "loop over jax.jit(...)": loop(jax.jit(lambda *data: one(*data))),
        "loop": loop(one),
    }


def seconds(run: Callable[..., Any], data: tuple[jax.Array, ...]) -> tuple[float, Any]:
    """Wall time of a call, and what it returned."""
    start = time.perf_counter()
    found = jax.block_until_ready(run(*data))
    return time.perf_counter() - start, found


def moments(one: Callable[..., fv.Posterior]) -> Callable[..., Any]:
    """Means and standard deviations of the weights."""

    def run(*data: jax.Array) -> Any:
        q = one(*data).marginals()["weights"]
        return q.loc, q.scale

    return run


def rows_of(one: Callable[..., Any], count: int, rows: int, rounds: int) -> list[str]:
    """A line of the table for each side."""
    names = list(sides(one))
    first, later, found, made = {}, {name: [] for name in names}, {}, {}
    for name in names:
        jax.clear_caches()
        made[name] = sides(moments(one))[name]
        first[name], found[name] = seconds(made[name], datasets(count, rows, 0))
    for number in range(rounds):
        for name, run in made.items():
            if number == 0:  # what jax.clear_caches() took away from the others
                seconds(run, datasets(count, rows, 1))
            later[name].append(seconds(run, datasets(count, rows, 2 + number))[0])
    alone, spread = found["loop"]
    lines = []
    for name, times in later.items():
        middle = statistics.median(times)
        off = float(np.max(np.abs(found[name][0] - alone) / spread))
        lines.append(
            f"| {one.__name__} | {name} | {first[name]:.2f} | {middle:.3f} | "
            f"{1e3 * middle / count:.2f} | {statistics.median(later['loop']) / middle:.1f} | "
            f"{off:.1e} |"
        )
        print(lines[-1], flush=True)
    return lines


def verdicts(count: int, rows: int) -> str:
    """What ``fv.diagnose_each`` says of a batch, and in what time."""
    many = jax.jit(jax.vmap(batch_and_match))(*datasets(count, rows, 0))
    start = time.perf_counter()
    found = fv.diagnose_each(many, key=jax.random.key(9))
    spent = time.perf_counter() - start
    counts = ", ".join(f"{n} {v}" for v, n in Counter(str(d.verdict) for d in found).items())
    return f"fv.diagnose_each of them, 4000 draws each, {spent:.2f} s with compilation: {counts}."


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = [
        "# Many small posteriors",
        "",
        f"{options.count} logistic regressions of {SIZE} weights and {options.rows} rows. jax "
        f"{jax.__version__}, {platform.machine()}, {os.cpu_count()} cores. Seconds of the first "
        f"call with compilation, and the median of {options.rounds} later ones with new data; all "
        "sides in turn in one process. The last column is the largest difference of a mean "
        "from that of the loop, in standard deviations.",
        "",
        "| approximation | side | first call, s | later, s | ms each | loop / this | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in (batch_and_match, laplace):
        lines += rows_of(one, options.count, options.rows, options.rounds)
    lines += ["", verdicts(options.count, options.rows)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
