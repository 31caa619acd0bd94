"""Brute force in float64: sums and double-exponential quadrature, differences along a line."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fuzzing.exact import Exact

# Takahasi and Mori 1974, doi:10.2977/prims/1195192451.
_REACH = 4.4


class Nodes(NamedTuple):
    """Where q has mass: x, 1 - x, the mass of each node, and both log densities."""

    x: np.ndarray
    rest: np.ndarray
    mass: np.ndarray
    log_q: np.ndarray
    log_p: np.ndarray

    def heavy(self) -> "Nodes":
        """Without those that no mean of what grows as a log weight shows in its digits."""
        with np.errstate(invalid="ignore"):
            light = self.mass * (1 + np.abs(self.log_p - self.log_q)) < 1e-18
        return Nodes(*(each[~light] for each in self))


class Answer(NamedTuple):
    """What a right objective gives: the value and two derivatives along the line.

    A derivative is NaN where no two steps of the differences agree; ``outside`` is the mass of q
    where p has none.
    """

    numbers: np.ndarray
    outside: float


def _piece(low: float, high: float, step: float):
    t = np.arange(-_REACH, _REACH + step / 2, step)
    if np.isinf(low) or np.isinf(high):
        finite, sign = (high, -1.0) if np.isinf(low) else (low, 1.0)
        away = np.exp(np.pi / 2 * np.sinh(t))
        weight = step * away * np.pi / 2 * np.cosh(t)
        return finite + sign * away, 1 - finite - sign * away, weight
    with np.errstate(over="ignore"):
        near, far = 1 / (1 + np.exp(-np.pi * np.sinh(t))), 1 / (1 + np.exp(np.pi * np.sinh(t)))
    x = np.where(near < 0.5, low + (high - low) * near, high - (high - low) * far)
    rest = (high - low) * far if high == 1 else 1 - x
    return x, rest, step * (high - low) * near * far * np.pi * np.cosh(t)


def nodes(q: Exact, p: Exact, discrete: bool, step: float) -> Nodes:
    low, high = q.support
    with np.errstate(all="ignore"):
        if discrete:
            x = np.arange(low, min(high, max(q.knots, default=high)) + 1)
            rest, weight = 1 - x, np.ones_like(x)
        else:
            inner = {k for k in (*q.knots, *q.kinks, *p.kinks, *p.support) if low < k < high}
            ends = [low, *sorted(inner), high]
            pieces = [_piece(a, b, step) for a, b in itertools.pairwise(ends)]
            x, rest, weight = (np.concatenate(each) for each in zip(*pieces, strict=True))
        log_q = q.log_density(x, rest)
        inside = (x >= p.support[0]) & (x <= p.support[1])
        log_p = np.where(inside, p.log_density(x, rest), -np.inf)
        mass = weight * np.exp(log_q)
    live = np.isfinite(log_q) & np.isfinite(mass) & (mass > 0)
    return Nodes(*(each[live] for each in (x, rest, mass, log_q, log_p)))


def answer(
    at: Callable[[float, float], float], step: float = 0.01, gap: float = 1e-5
) -> np.ndarray:
    """Value, slope and curvature at zero of a function of (place, quadrature's step).

    NaN if the value moves by more than ``gap`` when the quadrature's step is doubled.
    """
    fine, coarse = 1 / 16, 1 / 8
    here = at(0.0, fine)
    if not np.isfinite(here):
        return np.array([here, np.nan, np.nan])
    # Half the step squares the error.
    if not abs(here - at(0.0, coarse)) <= gap * (1 + abs(here)):
        return np.full(3, np.nan)
    f = {k: at(k * step / 2, fine) for k in (-4, -2, -1, 1, 2, 4)}

    def both(k: int, h: float):
        first = (8 * (f[k] - f[-k]) - (f[2 * k] - f[-2 * k])) / (12 * h)
        second = 16 * (f[k] + f[-k]) - (f[2 * k] + f[-2 * k]) - 30 * here
        return np.array([first, second / (12 * h * h)])

    wide, narrow = both(2, step), both(1, step / 2)
    with np.errstate(invalid="ignore"):
        agree = np.abs(wide - narrow) <= np.array([1e-6, 1e-5]) * (1 + np.abs(narrow))
    return np.array([here, *np.where(agree, narrow, np.nan)])


def divergence(n: Nodes) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.sum(n.mass * (n.log_q - n.log_p)))


def outside(n: Nodes) -> float:
    return float(n.mass[np.isneginf(n.log_p)].sum())


def of_pairs(n: Nodes, of: Callable[[np.ndarray], np.ndarray]) -> float:
    """The mean of a function of two log weights, on a grid of pairs."""
    n = n.heavy()
    weight = n.log_p - n.log_q
    pairs = np.stack(np.broadcast_arrays(weight[:, None], weight[None, :]))
    return float(n.mass @ of(pairs) @ n.mass)


def log_mean(pairs: np.ndarray, power: float = 1.0) -> np.ndarray:
    """The logarithm of a power mean of two weights; their geometric mean for a power of zero."""
    if power == 0:
        return pairs.mean(0)
    return (np.logaddexp(power * pairs[0], power * pairs[1]) - np.log(2)) / power


def forward(n: Nodes, moved: Exact) -> float:
    """The mean of two draws' self-normalised KL(p || q), whose weights stay when q has moved."""
    n = n.heavy()
    weight = n.log_p - n.log_q
    share = np.exp(weight[:, None] - np.logaddexp(weight[:, None], weight[None, :])) @ n.mass

    def of_two(pairs: np.ndarray) -> np.ndarray:
        shares = np.exp(pairs - np.logaddexp(*pairs))
        return np.sum(shares * pairs, axis=0) - log_mean(pairs)

    drift = moved.log_density(n.x, n.rest) - n.log_q
    return of_pairs(n, of_two) - 2 * float(np.sum(n.mass * share * drift))
