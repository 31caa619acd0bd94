"""What an oracle knows of a law of one number: its density in float64, from scipy."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats as st
from scipy.special import betaln


class Exact(NamedTuple):
    """What an oracle knows, in float64.

    Attributes:
        log_density: of x, and of 1 - x, which keeps its digits where x is nearly one.
        support: its two ends, inside which the density is positive but for gaps.
        knots: points amid the mass; of counts, where a sum may end.
        kinks: where the density jumps or bends.
        below, above: the mass on either side of x, where truncations need them.
    """

    log_density: Callable[[np.ndarray, np.ndarray], np.ndarray]
    support: tuple[float, float]
    knots: tuple[float, ...]
    kinks: tuple[float, ...] = ()
    below: Callable[[float], float] | None = None
    above: Callable[[float], float] | None = None


def of(frozen, kinks=()):
    """The oracle of a law that scipy has."""
    if isinstance(frozen.dist, st.rv_discrete):
        low, high = frozen.support()
        far = np.ceil(frozen.mean() + 50 * frozen.std() + 50)  # beyond, less than rounding
        return Exact(lambda x, _: frozen.logpmf(x), (low, high), (far,))
    knots = tuple(frozen.ppf([0.01, 0.2, 0.5, 0.8])) + tuple(frozen.isf([0.01, 1e-4]))
    return Exact(
        lambda x, _: frozen.logpdf(x), frozen.support(), knots, kinks, frozen.cdf, frozen.sf
    )


def unit(log_density, knots=(0.01, 0.2, 0.5, 0.8, 0.99)):
    return Exact(log_density, (0.0, 1.0), knots)


def beta(a, b):
    return unit(lambda x, c: (a - 1) * np.log(x) + (b - 1) * np.log(c) - betaln(a, b))


def kumaraswamy(a, b):
    def log_density(x, c):
        rest = np.where(c < 1e-3, -np.expm1(a * np.log1p(-c)), 1 - x**a)
        return np.log(a * b) + (a - 1) * np.log(x) + (b - 1) * np.log(rest)

    return unit(log_density)


def soft_laplace(loc, scale):
    frozen = st.hypsecant(loc, scale)

    def log_density(x, _):  # scipy's underflows
        z = np.abs(x - loc) / scale
        return np.log(2 / (np.pi * scale)) - z - np.log1p(np.exp(-2 * z))

    return of(frozen)._replace(log_density=log_density)


def laplace(loc, scale):
    def log_density(x, _):  # scipy's underflows
        return -np.abs(x - loc) / scale - np.log(2 * scale)

    return of(st.laplace(loc, scale), (loc,))._replace(log_density=log_density)


def truncated(base: Exact, low: float, high: float) -> Exact:
    # From the side on which the mass is small.
    right = base.below(low) > 0.5
    mass = base.above(low) - base.above(high) if right else base.below(high) - base.below(low)
    inner = tuple(k for k in base.knots if low < k < high)
    kinks = tuple(k for k in base.kinks if low < k < high)
    return Exact(lambda x, c: base.log_density(x, c) - np.log(mass), (low, high), inner, kinks)


def folded(base: Exact) -> Exact:
    def log_density(x, _):
        return np.logaddexp(base.log_density(x, 1 - x), base.log_density(-x, 1 + x))

    fold = [abs(k) for k in (*base.knots, *base.kinks)]
    return Exact(log_density, (0.0, np.inf), tuple(fold), tuple(abs(k) for k in base.kinks))


def moved(base: Exact, there, back, log_slope) -> Exact:
    """The law of ``there`` of a draw: its inverse, and the logarithm of its slope at a draw."""

    def log_density(x, c):
        z, rest = back(x, c)
        return base.log_density(z, rest) - log_slope(z, x, c)

    with np.errstate(over="ignore"):
        ends = sorted(float(there(np.float64(e))) for e in base.support)
        move = [tuple(float(there(np.float64(k))) for k in ks) for ks in (base.knots, base.kinks)]
    return Exact(log_density, tuple(ends), *move)


def affine(base: Exact, loc: float, scale: float) -> Exact:
    def back(x, c):
        z = (x - loc) / scale
        return z, (c if (loc, scale) == (0.0, 1.0) else 1 - z)

    return moved(base, lambda z: loc + scale * z, back, lambda z, x, c: np.log(abs(scale)))


def exp(base: Exact) -> Exact:
    return moved(base, np.exp, lambda x, c: (np.log(x), 1 - np.log(x)), lambda z, x, c: np.log(x))


def sigmoid(base: Exact) -> Exact:
    def back(x, c):
        z = np.log(x) - np.log(c)
        return z, 1 - z

    return moved(base, lambda z: 1 / (1 + np.exp(-z)), back, lambda z, x, c: np.log(x) + np.log(c))


def mixed(first: Exact, second: Exact, weight: float) -> Exact:
    def one(part, x, c):
        inside = (x >= part.support[0]) & (x <= part.support[1])
        return np.where(inside, part.log_density(x, c), -np.inf)

    def log_density(x, c):
        return np.logaddexp(
            np.log(weight) + one(first, x, c), np.log1p(-weight) + one(second, x, c)
        )

    ends = zip(first.support, second.support, strict=True)
    low, high = (pick(pair) for pick, pair in zip((min, max), ends, strict=True))
    edges = [e for part in (first, second) for e in part.support if low < e < high]
    kinks = (*first.kinks, *second.kinks, *edges)
    return Exact(log_density, (low, high), (*first.knots, *second.knots), kinks)


def inflated(gate: float, rate: float) -> Exact:
    base = of(st.poisson(rate))

    def log_density(x, c):
        rest = np.log1p(-gate) + base.log_density(x, c)
        return np.where(x == 0, np.logaddexp(np.log(gate), rest), rest)

    return base._replace(log_density=log_density)


def categorical(*logits):
    logits = np.array(logits) - np.logaddexp.reduce(logits)
    return Exact(lambda x, c: logits[x.astype(int)], (0, len(logits) - 1), ())


def atom(place: float) -> Exact:
    """All mass at one value, which the oracle sums over."""
    return Exact(lambda x, c: np.where(x == place, 0.0, -np.inf), (place, place), ())
