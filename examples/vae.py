"""A variational autoencoder of scikit-learn's digits, its two networks from torch: a picture.

python examples/vae.py [--output vae.png] [--steps 5000]

A pixel of these digits counts the dark ones of 16, so its likelihood is Binomial(16, p).
"""

import argparse
import time

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro.distributions as dist
import optax
import torch
from sklearn.datasets import load_digits

import funcvi as fv
import interop

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LATENT, HIDDEN, PIXELS, LEVELS = 8, 128, 64, 16
BATCH, TEST_ROWS, RATE = 128, 297, 2e-3


def data():
    """Counts of dark pixels, of axes (image, pixel): training and test rows."""
    counts = load_digits().data.astype(np.float32)
    order = np.random.default_rng(0).permutation(len(counts))
    return counts[order[TEST_ROWS:]], counts[order[:TEST_ROWS]]


def networks():
    """Encoder and decoder, as their authors left them."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential
    encoder = layers(
        torch.nn.Linear(PIXELS, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, 2 * LATENT),
    )
    decoder = layers(
        torch.nn.Linear(LATENT, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, PIXELS),
    )
    return encoder, decoder


class Autoencoder:
    """Its parts as pure functions of ``params``."""

    def __init__(self):
        self.encoder, self.decoder = (interop.to_jax(module) for module in networks())
        self.params = {"encoder": self.encoder.params, "decoder": self.decoder.params}
        self.prior = dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1)

    def posterior(self, params, x):
        """q(z | x), one for each image."""
        mean, log_scale = jnp.split(self.encoder(params["encoder"], x / LEVELS), 2, axis=-1)
        return dist.Normal(mean, jnp.exp(log_scale)).to_event(1)

    def image(self, params, z):
        """p(x | z)."""
        return dist.Binomial(LEVELS, logits=self.decoder(params["decoder"], z)).to_event(1)

    def negative_elbo(self, params, key, x):
        """In nats an image."""
        q = self.posterior(params, x)
        fit = self.image(params, fv.sample(q, key)).log_prob(x)
        return (fv.kl(q, self.prior.expand(q.batch_shape)) - fit.sum()) / len(x)

    def negative_importance_weighted_elbo(self, params, key, x, num_samples):
        """In nats an image; nearer to -log p(x) the more draws there are."""

        def log_joint(z):
            return self.prior.log_prob(z) + self.image(params, z).log_prob(x)

        q = self.posterior(params, x)
        bound = fv.importance_weighted_elbo(q, log_joint, key=key, num_samples=num_samples)
        return -bound / len(x)


def train(model, x, num_steps, seed=0):
    def loss(params, key, x):
        rows, draw = jax.random.split(key)
        batch = x[jax.random.randint(rows, (BATCH,), 0, len(x))]
        return model.negative_elbo(params, draw, batch)

    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, num_steps))
    key = jax.random.key(seed)
    return fv.fit(loss, model.params, optimizer, key=key, num_steps=num_steps, args=(x,))


def bounds(model, params, x, draws=100):
    """Negative ELBO and negative importance-weighted bound of these images."""
    elbo = jax.vmap(model.negative_elbo, (None, 0, None))
    weighted = jax.jit(model.negative_importance_weighted_elbo, static_argnums=3)
    keys = jax.random.split(jax.random.key(1), draws)
    return float(jnp.mean(jax.jit(elbo)(params, keys, x))), float(
        weighted(params, keys[0], x, draws)
    )


def picture(model, params, x, path):
    """Digits, what the model makes of them, and digits that it draws."""
    q = model.posterior(params, x[:12])
    seen = model.image(params, fv.sample(q, jax.random.key(2))).mean
    drawn = model.image(params, fv.sample(model.prior, jax.random.key(3), (24,))).mean
    rows = {"test digits": x[:12], "reconstructed": seen, "drawn": drawn[:12], "": drawn[12:]}
    figure, axes = plt.subplots(len(rows), 12, figsize=(9, 3.4))
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(np.reshape(image, (8, 8)), cmap="gray_r", vmin=0, vmax=LEVELS)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", default="vae.png")
    parser.add_argument("--steps", type=int, default=5_000)
    options = parser.parse_args()
    x, test = map(jnp.asarray, data())
    model = Autoencoder()
    started = time.perf_counter()
    fit = train(model, x, options.steps)
    seconds = time.perf_counter() - started
    elbo, weighted = bounds(model, fit.params, test)
    print(f"{options.steps:,} steps of {BATCH} digits in {seconds:.1f} s, compilation included")
    print(
        f"{len(test)} test digits: ELBO {-elbo:.1f}, importance-weighted {-weighted:.1f} nats each"
    )
    picture(model, fit.params, test, options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
