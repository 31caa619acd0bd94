"""Chains in a normal's own coordinates, where the posterior is nearly round."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from numpyro.infer.hmc import hmc

from funcvi._types import Key
from funcvi.inference.paths import Normal

__all__ = ["Chains", "chains"]

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
