"""A convolutional torch network of digits, before and after ``fv.bayesian``: is it calibrated?

    python benchmarks/digits.py [--mnist FILE.npz] [--seeds 3] [--output FILE]

scikit-learn's digits (8 x 8; 1,297 training and 500 test images) and, where given, 10,000 MNIST
images (X, y; 28 x 28; the first 8,000 train, the last 2,000 test). The network is converted from
torch and trained by maximum likelihood; then, from there, all its weights or those of its last two
layers get a mean-field posterior, in as many steps. Images out of the distribution are the test
images with their pixels shuffled, and test images turned by a quarter; a network that knows what it
does not know has a high entropy on them.
"""

import argparse
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import funcvi as fv
import interop

BATCH, DRAWS = 100, 50
PRIOR = 4.0
"""Prior standard deviation of a weight, times the root of its layer's inputs. Narrow priors of so
many weights are stronger than so few images: mean-field posteriors then fall back to them."""


def network(size: int) -> Any:
    channels = 16
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, channels, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(channels, 2 * channels, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(2 * channels * (size // 4) ** 2, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )


def log_likelihood(logits: Any, labels: Any) -> Any:
    return -optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def in_batches(loss: Any) -> Any:
    """The loss of a random batch of the data."""

    def of_batch(params: Any, key: Any, x: Any, y: Any) -> Any:
        rows, own = jax.random.split(key)
        chosen = jax.random.randint(rows, (BATCH,), 0, len(x))
        return loss(params, own, x[chosen], y[chosen])

    return of_batch


def trained(loss: Any, params: Any, x: Any, y: Any, steps: int, key: Any) -> Any:
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    return fv.fit(
        in_batches(loss), params, optimizer, key=key, num_steps=steps, args=(x, y), progress=False
    ).params


def scores(predicted: Any, others: dict[str, Any], y: Any) -> list[float]:
    """Accuracy, log likelihood, calibration error, entropies, and how well entropy tells apart."""
    p = predicted.probabilities
    chosen = jnp.log(p[jnp.arange(len(y)), y])
    found = [
        float(jnp.mean(jnp.argmax(p, -1) == y)),
        float(chosen.mean()),
        float(fv.networks.calibration_error(p, y)),
        float(predicted.entropy.mean()),
    ]
    for other in others.values():
        entropies = np.concatenate([predicted.entropy, other.entropy])
        outside = np.repeat([0, 1], [len(predicted.entropy), len(other.entropy)])
        found += [float(other.entropy.mean()), float(roc_auc_score(outside, entropies))]
    return found


def one(x: Any, y: Any, train: int, steps: int, seed: int) -> dict[str, list[float]]:
    torch.manual_seed(seed)
    net = interop.to_jax(network(x.shape[-1]))
    key = jax.random.key(seed)
    shuffled = np.random.default_rng(seed).permutation(x.shape[-1] ** 2)
    x, y = jnp.asarray(x), jnp.asarray(y)
    seen, labels, test = x[:train], y[:train], x[train:]
    outside = {
        "shuffled": test.reshape(len(test), -1)[:, shuffled].reshape(test.shape),
        "turned": jnp.rot90(test, axes=(2, 3)),
    }

    def likelihood(params: Any, key: Any, x: Any, y: Any) -> Any:
        return -log_likelihood(net(params, x), y).mean()

    found = {}
    began = time.perf_counter()
    point = trained(likelihood, net.params, seen, labels, steps, key)
    spent = time.perf_counter() - began
    plain = {n: fv.networks.predicted_classes(net(point, v)[None]) for n, v in outside.items()}
    found["as converted"] = [
        *scores(fv.networks.predicted_classes(net(point, test)[None]), plain, y[train:]),
        spent,
    ]
    weights = {n.split(".")[0]: w for n, w in net.params.items() if w.ndim > 1}
    inputs = {layer: np.prod(w.shape[1:]) for layer, w in weights.items()}
    prior = {
        name: dist.Normal(0.0, float(PRIOR / np.sqrt(inputs[name.split(".")[0]])))
        for name in net.params
    }
    for kind, only in (("fv.bayesian", None), ("its last two layers", ["7.*", "9.*"])):
        own = {n: p for n, p in prior.items() if only is None or n[0] in "79"}
        bayesian = fv.bayesian(net, point, own, only=only)
        loss = bayesian.negative_elbo(log_likelihood, data_size=train)
        began = time.perf_counter()
        posterior = trained(loss, bayesian.params, seen, labels, steps, key)
        spent = time.perf_counter() - began

        def predict(x: Any, net: Any = bayesian, posterior: Any = posterior) -> Any:
            return fv.networks.predicted_classes(
                net.predict(posterior, x, key=key, num_samples=DRAWS)
            )

        others = {n: predict(v) for n, v in outside.items()}
        found[kind] = [
            *scores(predict(test), others, y[train:]),
            spent,
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--mnist", type=Path, help="an .npz of X (image, 28, 28) and y")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.data))
    digits = (bunch.images[order, None] / 16).astype(np.float32)
    sets = {"digits, 8 x 8": (digits, bunch.target[order].astype(np.int32), 1297, 4000)}
    if options.mnist:
        data = np.load(options.mnist)
        images = (data["X"][:, None] / 255).astype(np.float32)
        sets["MNIST, 28 x 28"] = (images, data["y"].astype(np.int32), 8000, 1500)
    lines = [
        "# Digits: a converted torch network before and after `fv.bayesian`",
        "",
        f"Means over {options.seeds} seeds; {DRAWS} draws. Entropies in nats (at most 2.30); AUC: "
        "how well entropy tells test images from those out of the distribution.",
        "",
        "| data | network | accuracy | log likelihood | calibration error | entropy: test "
        "| shuffled | AUC | turned | AUC | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines[-2:]))
    for name, (x, y, train, steps) in sets.items():
        runs = [one(x, y, train, steps, seed) for seed in range(options.seeds)]
        for kind in runs[0]:
            mean = np.mean([run[kind] for run in runs], axis=0)
            cells = [f"{v:.4f}" for v in mean[:3]] + [f"{v:.2f}" for v in mean[3:8]]
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} | {mean[8]:.0f} |")
            print(lines[-1], flush=True)
    lines += [
        "",
        f"funcvi {fv.__version__}, jax {jax.__version__}, torch {version('torch')}, "
        f"Python {platform.python_version()}",
    ]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
