"""A VAE of scikit-learn's digits, as long in torch as here: bounds and time.

    python benchmarks/vae.py [--steps 5000] [--rounds 4] [--output FILE]

The same networks from the same initial weights, likelihood, batch size, optimiser and schedule (see
``examples/vae.py``). Rounds of training, each with its own batches and draws, alternate in one
process; the bounds are of test digits.
"""

import argparse
import math
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch.distributions import Binomial, Independent, Normal, kl_divergence

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import vae


class TorchAutoencoder(torch.nn.Module):
    """The twin, in torch as it is usually written."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = vae.networks()

    def posterior(self, x: Any) -> Any:
        mean, log_scale = self.encoder(x / vae.LEVELS).chunk(2, dim=-1)
        return Independent(Normal(mean, log_scale.exp()), 1)

    def image(self, z: Any) -> Any:
        return Independent(Binomial(vae.LEVELS, logits=self.decoder(z)), 1)

    def negative_elbo(self, x: Any) -> Any:
        q = self.posterior(x)
        prior = Independent(Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 1)
        fit = self.image(q.rsample()).log_prob(x)
        return (kl_divergence(q, prior) - fit).mean()

    def weighted(self, x: Any, draws: int) -> Any:
        q = self.posterior(x)
        prior = Independent(Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 1)
        z = q.sample((draws,))
        weights = prior.log_prob(z) + self.image(z).log_prob(x) - q.log_prob(z)
        return -(torch.logsumexp(weights, 0) - math.log(draws)).mean()


def train_in_torch(model: Any, x: Any, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=vae.RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
    )
    for _ in range(steps):
        batch = x[torch.randint(len(x), (vae.BATCH,))]
        optimizer.zero_grad()
        model.negative_elbo(batch).backward()
        optimizer.step()
        schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    x, test = vae.data()
    torch_x, torch_test = torch.from_numpy(x), torch.from_numpy(test)
    ours_x, ours_test = jnp.asarray(x), jnp.asarray(test)
    model = vae.Autoencoder()
    times: dict[str, list[float]] = {"funcvi": [], "torch": []}
    bounds: dict[str, list[tuple[float, float]]] = {"funcvi": [], "torch": []}
    for seed in range(options.rounds):
        started = time.perf_counter()
        fit = vae.train(model, ours_x, options.steps, seed)
        jax.block_until_ready(fit.params)
        times["funcvi"].append(time.perf_counter() - started)
        bounds["funcvi"].append(vae.bounds(model, fit.params, ours_test))
        theirs = TorchAutoencoder()
        torch.manual_seed(seed)
        started = time.perf_counter()
        train_in_torch(theirs, torch_x, options.steps)
        times["torch"].append(time.perf_counter() - started)
        with torch.no_grad():
            each = [theirs.negative_elbo(torch_test).item() for _ in range(100)]
            bounds["torch"].append((statistics.mean(each), theirs.weighted(torch_test, 100).item()))
    first = times["funcvi"][0]
    ours, torchs = (statistics.median(t) for t in times.values())
    elbo, weighted = (statistics.mean(b) for b in zip(*bounds["funcvi"], strict=True))
    their_elbo, their_weighted = (statistics.mean(b) for b in zip(*bounds["torch"], strict=True))
    spread = statistics.stdev(b[0] for b in bounds["torch"])
    lines = [
        "# A variational autoencoder of digits, against torch",
        "",
        f"8 latent variables, two hidden layers of {vae.HIDDEN} on either side, Binomial pixels; "
        f"{options.steps:,} Adam steps of {vae.BATCH} digits, the same initial weights. Bounds on "
        f"{len(test)} test digits, nats each; 100 draws in the importance-weighted one. Means of "
        f"the bounds and medians of the times of {options.rounds} rounds in turn.",
        "",
        "| | ELBO | importance-weighted | seconds | with compilation |",
        "|---|---|---|---|---|",
        f"| funcvi | {-elbo:.2f} | {-weighted:.2f} | {ours:.1f} | {first:.1f} |",
        f"| torch {version('torch')}, eager | {-their_elbo:.2f} | {-their_weighted:.2f} "
        f"| {torchs:.1f} | {torchs:.1f} |",
        "",
        f"Time, ours to torch's: **{ours / torchs:.2f}** ({first / torchs:.2f} with compilation). "
        f"The bounds are {abs(elbo - their_elbo):.2f} and {abs(weighted - their_weighted):.2f} "
        f"nats apart; one training and the next of torch's differ by {spread:.2f} (standard "
        "deviation).",
        "",
        f"jax {jax.__version__}, Python {platform.python_version()}, CPU",
    ]
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
