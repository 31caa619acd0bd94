"""Chains in a normal's own coordinates, where the posterior is nearly round."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import ndtri
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer.hmc import hmc

from funcvi._types import Key
from funcvi.inference.paths import Normal

__all__ = ["Chains", "Mixing", "chains", "energy_mixing", "mixing"]

_ACCEPTANCE = 0.9


class Chains(NamedTuple):
    """Draws of shape (chains, draws, size), and how they went.

    Attributes:
        num_gradients: taken in all.
        divergent: the share of steps whose integration diverged.
        energy: of each draw, (chains, draws).
    """

    draws: Array
    num_gradients: Array
    divergent: Array
    energy: Array


class Mixing(NamedTuple):
    """By coordinate: potential scale reduction, and effective sample size."""

    r_hat: np.ndarray
    effective: np.ndarray


def chains(
    log_density: Callable[[Array], Array],
    normal: Normal,
    starts: Array,
    key: Key,
    num_warmup: int,
    num_draws: int,
) -> Chains:
    """The No-U-Turn sampler, all chains at once.

    Hoffman and Gelman 2014, jmlr.org/papers/v15/hoffman14a.html, as numpyro has it; the normal is
    its mass matrix.

    Args:
        log_density: of a vector (size,).
        normal: whose coordinates are sampled.
        starts: shape (chains, size).
        key: a key.
        num_warmup: steps that adapt step sizes and scales, and are dropped.
        num_draws: steps after them.
    """

    def potential(noise: Array) -> Array:
        return -log_density(normal.loc + normal.factor @ noise)

    def one(start: Array, chain_key: Key) -> tuple[Array, ...]:
        init, advance = hmc(potential, algo="NUTS")
        first = init(
            start, num_warmup, step_size=0.5, target_accept_prob=_ACCEPTANCE, rng_key=chain_key
        )

        def step(state: object, _: None) -> tuple[object, tuple[Array, ...]]:
            new = advance(state)
            return new, (new.z, new.num_steps, new.diverging, new.energy)

        _, out = lax.scan(step, first, None, length=num_warmup + num_draws)
        return out

    noise = jnp.linalg.solve(normal.factor, (starts - normal.loc).T).T
    found, steps, diverging, energy = jax.vmap(one)(noise, jax.random.split(key, len(starts)))
    kept = found[:, num_warmup:]
    draws = normal.loc + kept @ normal.factor.T
    return Chains(
        draws, jnp.sum(steps), jnp.mean(diverging[:, num_warmup:]), energy[:, num_warmup:]
    )


def mixing(draws: np.ndarray) -> Mixing:
    """How far chains of shape (chains, draws, size) agree, in the middle and in the tails.

    R-hat is that of the ranks and of the ranks of distances from the median; the effective sample
    size the smallest of the ranks', and of those of the 5 % and the 95 % quantile
    (Vehtari et al. 2021, arXiv:1903.08008).
    """
    folded = np.abs(draws - np.median(draws, axis=(0, 1)))
    low, high = (np.quantile(draws, p, axis=(0, 1)) for p in (0.05, 0.95))
    scores = _normal_scores(draws)
    sizes = [
        effective_sample_size(x) for x in (scores, 1.0 * (draws <= low), 1.0 * (draws <= high))
    ]
    r_hats = [split_gelman_rubin(x) for x in (scores, _normal_scores(folded))]
    return Mixing(np.max(r_hats, axis=0), np.min(sizes, axis=0))


def energy_mixing(energy: np.ndarray) -> float:
    """The least of all chains' shares of the energy's variance that one step can change.

    About one where momenta explore the posterior, low where they cannot keep up with its tails or
    its neck (Betancourt 2016, arXiv:1604.00695).
    """
    return float(np.min(np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)))


def _normal_scores(values: np.ndarray) -> np.ndarray:
    count = values.shape[0] * values.shape[1]
    flat = values.reshape(count, -1)
    ranks = np.argsort(np.argsort(flat, axis=0), axis=0) + 1
    return np.asarray(ndtri((ranks - 0.375) / (count + 0.25))).reshape(values.shape)
