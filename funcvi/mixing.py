"""Whether chains have mixed: R-hat, effective sample sizes, and how their energies move."""

from typing import NamedTuple

import numpy as np
from jax.scipy.special import ndtri
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

__all__ = ["Mixing", "energy_mixing", "mixing"]


class Mixing(NamedTuple):
    """By coordinate: potential scale reduction, and effective sample size."""

    r_hat: np.ndarray
    effective: np.ndarray


def mixing(draws: np.ndarray) -> Mixing:
    """How far chains of shape (chains, draws, size) agree, in the middle and in the tails.

    R-hat is that of the ranks and of the ranks of distances from the median; the effective sample
    size the smallest of the ranks', and of those of the 5 % and the 95 % quantile
    (Vehtari et al. 2021, arXiv:1903.08008).
    """
    with np.errstate(invalid="ignore", divide="ignore"):  # of chains that stand still
        return _mixing(draws)


def _mixing(draws: np.ndarray) -> Mixing:
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
    with np.errstate(invalid="ignore", divide="ignore"):
        changed = np.mean(np.diff(energy, axis=1) ** 2, axis=1)
        return float(np.min(changed / np.var(energy, axis=1)))


def _normal_scores(values: np.ndarray) -> np.ndarray:
    count = values.shape[0] * values.shape[1]
    flat = values.reshape(count, -1)
    ranks = np.argsort(np.argsort(flat, axis=0), axis=0) + 1
    return np.asarray(ndtri((ranks - 0.375) / (count + 0.25))).reshape(values.shape)
