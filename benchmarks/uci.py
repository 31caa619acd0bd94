"""UCI regression by mean-field VI: one hidden layer of 50, the standard 20 splits.

    python benchmarks/uci.py PATH [--splits 20] [--steps 5000] [--sets yacht,energy]
                             [--output FILE]

PATH has NAME.npz files with X, y and ``test``, the rows of each split's test set (the splits of
Hernandez-Lobato and Adams 2015, arXiv:1502.05336). Inputs and targets are standardised on the
training rows; scores are in the units of y. Two networks: one noise for all rows, as in the
published figures, and a second output for the logarithm of each row's noise.
"""

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

import funcvi as fv

SETS = {
    "bostonHousing": "Boston",
    "concrete": "Concrete",
    "energy": "Energy",
    "wine-quality-red": "Wine",
    "yacht": "Yacht",
}
# RMSE and test log likelihood, Table 1 of Gal and Ghahramani 2016, arXiv:1506.02142: Graves's VI
# and PBP (both arXiv:1502.05336), and MC dropout.
PUBLISHED = {
    "Boston": ((4.32, -2.90), (3.01, -2.57), (2.97, -2.46)),
    "Concrete": ((7.19, -3.39), (5.67, -3.16), (5.23, -3.04)),
    "Energy": ((2.65, -2.39), (1.80, -2.04), (1.66, -1.99)),
    "Wine": ((0.65, -0.98), (0.64, -0.97), (0.62, -0.93)),
    "Yacht": ((6.89, -3.43), (1.02, -1.63), (1.11, -1.55)),
}
HIDDEN = 50
PRIOR = 2.0
"""Prior standard deviation of a weight, times the root of its layer's inputs."""


def network(w: Any, x: Any) -> tuple[Any, Any]:
    """Mean of each row, and the noise's standard deviation, in standardised units."""
    hidden = jax.nn.relu(x @ w["first"]["kernel"] + w["first"]["bias"])
    outputs = hidden @ w["last"]["kernel"] + w["last"]["bias"]
    mean, *log_noise = jnp.moveaxis(outputs, -1, 0)
    return mean, jnp.exp(w["log_noise"] + (log_noise[0] if log_noise else jnp.zeros_like(mean)))


def log_likelihood(output: Any, y: Any) -> Any:
    return dist.Normal(*output).log_prob(y)


def start(features: int, outputs: int, key: Any) -> Any:
    first, last = jax.random.split(key)
    sizes = jnp.array([1.0, 0.1])[:outputs]
    return {
        "first": {
            "kernel": jax.random.normal(first, (features, HIDDEN)) / jnp.sqrt(features),
            "bias": jnp.zeros(HIDDEN),
        },
        "last": {
            "kernel": sizes * jax.random.normal(last, (HIDDEN, outputs)) / jnp.sqrt(HIDDEN),
            "bias": jnp.zeros(outputs),
        },
        "log_noise": jnp.array(-1.0),
    }


def scores(x: Any, y: Any, tests: Any, outputs: int, steps: int) -> Any:
    """RMSE, mean test log likelihood and seconds of each split, compiled once for all."""
    features, size = x.shape[1], len(y) - len(tests[0])
    prior = {
        "first.kernel": dist.Normal(0.0, PRIOR / np.sqrt(features)),
        "last.kernel": dist.Normal(0.0, PRIOR / np.sqrt(HIDDEN)),
        "*": dist.Normal(0.0, 1.0),
    }

    def bayesian(key: Any) -> Any:
        only = ["first.*", "last.*"]
        return fv.bayesian(network, start(features, outputs, key), prior, only=only)

    net = bayesian(jax.random.key(0))
    loss = net.negative_elbo(log_likelihood, data_size=size)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    predict = jax.jit(lambda p, x, key: net.predict(p, x, key=key, num_samples=500))
    found = []
    for seed, test in enumerate(tests):
        train = np.setdiff1d(np.arange(len(y)), test)
        x_scale = x[train].std(0)
        x_scale[x_scale == 0] = 1.0
        y_mean, y_scale = y[train].mean(), y[train].std()
        inputs = ((x - x[train].mean(0)) / x_scale).astype(np.float32)
        targets = ((y - y_mean) / y_scale).astype(np.float32)
        key = jax.random.key(seed)
        began = time.perf_counter()
        fit = fv.fit(
            loss,
            bayesian(key).params,
            optimizer,
            key=key,
            num_steps=steps,
            args=(jnp.asarray(inputs[train]), jnp.asarray(targets[train])),
            progress=False,
        )
        seconds = time.perf_counter() - began
        means, noise = predict(fit.params, jnp.asarray(inputs[test]), key)
        logs = dist.Normal(means, noise).log_prob(jnp.asarray(targets[test]))
        score = jax.nn.logsumexp(logs, axis=0) - np.log(len(means)) - np.log(y_scale)
        error = (fv.networks.predicted_values(means).mean - targets[test]) * y_scale
        found.append((float(jnp.sqrt(jnp.mean(error**2))), float(score.mean()), seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    header = "| data | rows | figure | one noise | noise by row | VI (Graves) | PBP | dropout |"
    lines = [header, "|---|---|---|---|---|---|---|---|"]
    reached = {figure: np.zeros(3, int) for figure in ("RMSE", "log likelihood")}
    print("\n".join(lines), flush=True)
    seconds = []
    for file in options.sets.split(","):
        data, name = np.load(options.path / f"{file}.npz"), SETS[file]
        x, y, tests = data["X"].astype(np.float64), data["y"].ravel(), data["test"]
        tests = tests[: options.splits]
        found = np.array([scores(x, y, tests, outputs, options.steps) for outputs in (1, 2)])
        # axes (network, split, figure)
        mean, error = found.mean(1), found.std(1) / np.sqrt(found.shape[1])
        seconds.append(np.median(found[..., 2]))
        for figure, sign in (("RMSE", -1), ("log likelihood", 1)):
            at = 0 if figure == "RMSE" else 1
            published = [both[at] for both in PUBLISHED[name]]
            ours = round(float(max(sign * mean[:, at])), 2)
            reached[figure] += [ours >= sign * p for p in published]
            cells = [f"{m:.2f} ± {e:.2f}" for m, e in zip(mean[:, at], error[:, at], strict=True)]
            cells += [f"{p:.2f}" for p in published]
            lines.append(f"| {name} | {len(y)} | {figure} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    count = len(options.sets.split(","))
    text = [
        "# UCI regression: one hidden layer of 50, mean-field",
        "",
        f"{options.splits} standard splits, {options.steps:,} full-batch Adam steps by local "
        "reparameterisation, the same settings for every set; mean ± standard error over splits. "
        "Log likelihoods in nats a row. Published: Table 1 of arXiv:1506.02142, with one noise.",
        "",
        *lines,
        "",
        f"The better of the two networks is at least as good, of {count} sets, on",
        *(
            f"- {n[0]} of VI, {n[1]} of PBP and {n[2]} of dropout by {figure};"
            for figure, n in reached.items()
        ),
        "",
        f"{np.mean(seconds):.0f} s a split.",
        "",
        f"funcvi {fv.__version__}, jax {jax.__version__}; Python {platform.python_version()}",
    ]
    print("\n".join(text[-6:]))
    if options.output:
        options.output.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
