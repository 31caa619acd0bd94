"""Batch and match: the normal distribution whose scores are those of a target, in closed form."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from funcvi._types import Key
from funcvi.inference.paths import Normal
from funcvi.sampling import noise

__all__ = ["matched"]

_WIDEST = 1e12  # where a target is flat, there is no end to it


def matched(
    log_density: Callable[[Array], Array], start: Normal, key: Key, num_steps: int, num_samples: int
) -> Normal:
    r"""The normal distribution that batch and match ends at.

    In every step the normal distribution that fits the scores of a batch best, and is close to the
    last one: it minimises

    .. math:: \lambda_t\,\mathcal D(q; B_t) + \mathrm{KL}(q_t \| q)

    with the divergence of scores in the covariance's norm, which has a closed form: no step size
    is tuned. Cai et al. 2024, arXiv:2402.14758. As there the weight is the number of scores in a
    batch to that of steps; in the second half it is 2 to the number of steps, for an average. All
    is written in the coordinates of the last normal, so that badly scaled targets lose no digits.

    Args:
        log_density: of a vector (size,).
        start: the first normal distribution.
        key: of the draws.
        num_steps: of batches.
        num_samples: draws in each, in mirrored pairs; pairs with a non-finite score are left out.
    """
    size = start.loc.shape[0]
    score = jax.vmap(jax.grad(log_density))

    def step(normal: Normal, inputs: tuple[Array, Key]) -> tuple[Normal, None]:
        number, step_key = inputs
        half = noise.normal(step_key, (num_samples // 2, size), start.loc.dtype)
        draws = jnp.concatenate([half, -half])
        scores = score(normal.loc + draws @ normal.factor.T) @ normal.factor
        finite = jnp.all(jnp.isfinite(scores), axis=1)
        finite = jnp.tile(finite[: num_samples // 2] & finite[num_samples // 2 :], 2)
        late = number - num_steps // 2  # from there on the steps average what batches say
        weight = jnp.where(late < 0, num_samples * size / (1.0 + number), 2 / (2.0 + late))
        new = _closest(normal, draws, jnp.where(finite[:, None], scores, 0), finite, weight)
        sane = (
            jnp.all(jnp.abs(new.factor) < _WIDEST)
            & jnp.all(jnp.isfinite(new.loc))
            & jnp.any(finite)
        )
        return jax.tree.map(partial(jnp.where, sane), new, normal), None

    numbers = jnp.arange(num_steps, dtype=start.loc.dtype)
    return lax.scan(step, start, (numbers, noise.split(key, num_steps)))[0]


def _closest(normal: Normal, draws: Array, scores: Array, kept: Array, weight: Array) -> Normal:
    """The minimiser, from draws and scores in the coordinates of the last normal distribution."""
    count = jnp.maximum(jnp.sum(kept), 1)
    mean = jnp.sum(scores, axis=0) / count
    centred = jnp.where(kept[:, None], scores - mean, 0)
    spread = jnp.where(kept[:, None], draws, 0)  # mirrored: their mean is zero
    share = weight / (1 + weight)
    unit = jnp.eye(draws.shape[1], dtype=draws.dtype)
    of_scores = weight * centred.T @ centred / count + share * jnp.outer(mean, mean)
    of_noise = unit + weight * spread.T @ spread / count
    # S U S + S = V for the covariance S: with V = L L^T, S = L f(L^T U L) L^T, f by eigenvalues.
    root = jnp.linalg.cholesky(of_noise)
    values, axes = jnp.linalg.eigh(root.T @ of_scores @ root)
    scales = jnp.sqrt(2 / (1 + jnp.sqrt(1 + 4 * jnp.maximum(values, 0))))
    factor = root @ axes * scales
    move = share * factor @ (factor.T @ mean)
    return Normal(normal.loc + normal.factor @ move, normal.factor @ factor)
