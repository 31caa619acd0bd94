"""Training steps of Bayesian networks, and of sampled activations, against torch and numpyro.

    python benchmarks/networks.py [--steps 300] [--rounds 7] [--output FILE] [--rows MLP,CNN]

Every side has the same architecture, batch, prior, closed-form KL and Adam. torch runs eagerly: its
layers are written by hand with ``weight_mu`` and ``weight_log_sigma``, with the same estimator as
ours, draws of the weights ("plain") or of each layer's output ("local"; of convolutions our side
flips signs of one draw by row, which keeps the covariance of pixels). numpyro has AutoNormal
over the same weights and its steps in one compiled scan. Rounds of ``--steps`` steps alternate in
one process after everything is compiled; the table has medians.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import torch
import torch.nn.functional as f
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

import funcvi as fv
import interop

DATA, RATE, START = 10_000, 1e-3, 0.05


def mlp(features: int, hidden: int, depth: int, classes: int) -> Any:
    layers: list[Any] = [torch.nn.Linear(features, hidden), torch.nn.ReLU()]
    for _ in range(depth - 1):
        layers += [torch.nn.Linear(hidden, hidden), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(hidden, classes))


def cnn(size: int, channels: int, classes: int) -> Any:
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, channels, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(channels, 2 * channels, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(2 * channels * (size // 4) ** 2, classes),
    )


# name: (module, batch, shape of one input)
CASES: dict[str, tuple[Callable[[], Any], int, tuple[int, ...]]] = {
    "MLP 13-50-10": (lambda: mlp(13, 50, 1, 10), 100, (13,)),
    "MLP 64-128-128-10": (lambda: mlp(64, 128, 2, 10), 100, (64,)),
    "MLP 784-400-400-10": (lambda: mlp(784, 400, 2, 10), 100, (784,)),
    "CNN 8x8, 8 and 16 channels": (lambda: cnn(8, 8, 10), 64, (1, 8, 8)),
    "CNN 28x28, 16 and 32 channels": (lambda: cnn(28, 16, 10), 64, (1, 28, 28)),
}


# ---- torch ---------------------------------------------------------------------------------------


class Bayesian(torch.nn.Module):
    """A linear or convolutional layer with normal weights."""

    def __init__(self, layer: Any, local: bool) -> None:
        super().__init__()
        self.local = local
        self.apply_to = (
            (lambda x, w, b: f.conv2d(x, w, b, padding=layer.padding))
            if isinstance(layer, torch.nn.Conv2d)
            else f.linear
        )
        for name in ("weight", "bias"):
            value = getattr(layer, name).detach()
            setattr(self, f"{name}_mu", torch.nn.Parameter(value.clone()))
            log_sigma = torch.full_like(value, float(np.log(START)))
            setattr(self, f"{name}_log_sigma", torch.nn.Parameter(log_sigma))

    def forward(self, x: Any) -> Any:
        weight, bias = self.weight_log_sigma.exp(), self.bias_log_sigma.exp()
        if self.local:
            mean = self.apply_to(x, self.weight_mu, self.bias_mu)
            variance = self.apply_to(x * x, weight * weight, bias * bias)
            return mean + variance.sqrt() * torch.randn_like(mean)
        return self.apply_to(
            x,
            self.weight_mu + weight * torch.randn_like(weight),
            self.bias_mu + bias * torch.randn_like(bias),
        )

    def kl(self) -> Any:
        pairs = (self.weight_mu, self.weight_log_sigma), (self.bias_mu, self.bias_log_sigma)
        return sum(
            (0.5 * (mu * mu + (2 * log_sigma).exp() - 1) - log_sigma).sum()
            for mu, log_sigma in pairs
        )


def torch_side(module: Any, x: Any, y: Any, steps: int, local: bool) -> Callable[[], None]:
    layers = [
        Bayesian(m, local) if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)) else m
        for m in module
    ]
    net = torch.nn.Sequential(*layers)
    random = [m for m in layers if isinstance(m, Bayesian)]
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = sum(m.kl() for m in random)
            loss = loss + DATA * f.cross_entropy(net(inputs), labels)
            loss.backward()
            optimizer.step()

    return run


# ---- ours ----------------------------------------------------------------------------------------


def log_likelihood(logits: Any, labels: Any) -> Any:
    return -optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def our_side(module: Any, x: Any, y: Any, steps: int, estimator: Any) -> Callable[[], None]:
    net = interop.to_jax(module)
    bayesian = fv.bayesian(net, net.params, dist.Normal(0.0, 1.0), scale=START)
    loss = bayesian.negative_elbo(log_likelihood, data_size=DATA, estimator=estimator)
    optimizer, args = optax.adam(RATE), (jnp.asarray(x), jnp.asarray(y, np.int32))

    def run() -> None:
        fit = fv.fit(
            loss,
            bayesian.params,
            optimizer,
            key=jax.random.key(0),
            num_steps=steps,
            args=args,
            progress=False,
        )
        jax.block_until_ready(fit.params)

    return run


# ---- numpyro -------------------------------------------------------------------------------------


def numpyro_side(module: Any, x: Any, y: Any, steps: int) -> Callable[[], None]:
    net = interop.to_jax(module)
    inputs, labels = jnp.asarray(x), jnp.asarray(y, np.int32)

    def model(x: Any, y: Any) -> None:
        weights = {
            name: numpyro.sample(name, dist.Normal(jnp.zeros(w.shape), 1.0).to_event(w.ndim))
            for name, w in net.params.items()
        }
        logits = net(weights, x)
        with numpyro.plate("data", DATA, subsample_size=len(x)):
            numpyro.sample("y", dist.Categorical(logits=logits), obs=y)

    start = numpyro.infer.init_to_value(values=net.params)
    svi = SVI(model, AutoNormal(model, init_loc_fn=start), optax.adam(RATE), Trace_ELBO())
    state = svi.init(jax.random.key(0), inputs, labels)

    @jax.jit
    def train(state: Any, x: Any, y: Any) -> Any:
        return jax.lax.scan(lambda s, _: svi.update(s, x, y), state, None, length=steps)

    return lambda: jax.block_until_ready(train(state, inputs, labels)) and None


# ---- sampled activations -------------------------------------------------------------------------

SHAPE, CHANNELS = (1, 16, 300, 300), 32


def activations(steps: int) -> dict[str, Callable[[], None]]:
    """z = mean + sqrt(variance) * noise of 1 x 16 x 300 x 300, then a 3 x 3 convolution."""
    rng = np.random.default_rng(0)
    mean, raw = (rng.standard_normal(SHAPE).astype(np.float32) for _ in range(2))
    module = torch.nn.Conv2d(SHAPE[1], CHANNELS, 3, padding=1)
    their_mean, their_raw = (torch.from_numpy(a).requires_grad_() for a in (mean, raw))

    def their_step() -> None:
        for _ in range(steps):
            z = torch.distributions.Normal(their_mean, f.softplus(their_raw).sqrt()).rsample()
            module.zero_grad()
            their_mean.grad = their_raw.grad = None
            module(z).square().mean().backward()

    net = interop.to_jax(module)

    def loss(params: Any, mean: Any, raw: Any, key: Any) -> Any:
        z = fv.sample(fv.from_moments(dist.Normal, mean, jax.nn.softplus(raw)), key)
        return jnp.mean(net(params, z) ** 2)

    step = jax.jit(jax.grad(loss, (0, 1, 2)))
    ours, keys = jax.device_put((mean, raw)), jax.random.split(jax.random.key(0), steps)

    def our_step() -> None:
        for key in keys:
            jax.block_until_ready(step(net.params, *ours, key))

    return {"ours": our_step, "torch": their_step}


# ---- the table -----------------------------------------------------------------------------------


def in_turn(sides: dict[str, Callable[[], None]], rounds: int, steps: int) -> dict[str, float]:
    """Median milliseconds a step."""
    for side in sides.values():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            time.sleep(0.1)
            started = time.perf_counter()
            side()
            times[name].append(1e3 * (time.perf_counter() - started) / steps)
    return {name: statistics.median(t) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", default="", help="parts of names, with commas")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    wanted = options.rows.split(",")
    lines = [
        "# Bayesian networks: milliseconds a training step",
        "",
        f"CPU; medians of {options.rounds} rounds of {options.steps} steps in turn (fewer for the "
        "large ones). torch is eager, its Bayesian layers written by hand with the estimator that "
        "we use; numpyro has AutoNormal, which draws weights, in one compiled scan. Ratios above "
        "one: ours is faster.",
        "",
        "| network | estimator | ours | torch | numpyro | torch / ours | numpyro / ours |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines[-2:]))
    for name, (make, batch, shape) in CASES.items():
        if not any(part in name for part in wanted):
            continue
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch, *shape)).astype(np.float32)
        y = rng.integers(0, 10, batch)
        steps = options.steps if np.prod(shape) < 700 else max(1, options.steps // 5)
        for estimator in ("local", "plain"):
            torch.manual_seed(0)
            module = make()
            sides = {
                "ours": our_side(module, x, y, steps, estimator),
                "torch": torch_side(module, x, y, steps, estimator == "local"),
                "numpyro": numpyro_side(module, x, y, steps),
            }
            t = in_turn(sides, options.rounds, steps)
            lines.append(
                f"| {name}, batch {batch} | {estimator} | {t['ours']:.3f} | {t['torch']:.3f} "
                f"| {t['numpyro']:.3f} | {t['torch'] / t['ours']:.2f} "
                f"| {t['numpyro'] / t['ours']:.2f} |"
            )
            print(lines[-1], flush=True)
            jax.clear_caches()
    if any(part in "activations" for part in wanted):
        t = in_turn(activations(5), options.rounds, 5)
        lines += [
            "",
            "Sampled activations: means and variances of (1, 16, 300, 300), Normal draws, a "
            "3 x 3 convolution to 32 channels, gradients of all of them: "
            f"ours {t['ours']:.1f} ms, torch {t['torch']:.1f} ms, "
            f"torch / ours {t['torch'] / t['ours']:.2f}.",
        ]
        print(lines[-1])
    lines += [
        "",
        "Small networks gain what torch spends on dispatch. Large ones spend their time in "
        "products and convolutions, where XLA on CPU is at par with torch's libraries and at half "
        "their speed; numpyro's compiled scan convolves in a loop, which XLA does slowly.",
        "",
        f"funcvi {fv.__version__}, jax {jax.__version__}, numpyro {numpyro.__version__}, "
        f"torch {version('torch')}, Python {platform.python_version()}",
    ]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
