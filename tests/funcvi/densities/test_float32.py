"""Log densities and their gradients in float32 against 50 digits, at our own draws."""

import itertools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro.distributions as dist
import pytest
from mpmath import loggamma, mpf

from funcvi.densities.log_prob import log_prob
from funcvi.sampling.draw import raw_sample

EPS = 2.0**-23


def log_beta(a, b):
    return loggamma(a) + loggamma(b) - loggamma(a + b)


def log_choose(n, k):
    return loggamma(n + 1) - loggamma(k + 1) - loggamma(n - k + 1)


def log(x):
    return mpmath.log(x)


def power_law(x, alpha, low, high):
    s = alpha + 1
    if s == 0:
        return alpha * log(x) - log(log(high / low))
    return alpha * log(x) + log(s / (high**s - low**s))


def student(x, df, loc, scale):
    z = (x - loc) / scale
    norm = loggamma((df + 1) / 2) - loggamma(df / 2) - log(df * mpmath.pi) / 2 - log(scale)
    return norm - (df + 1) / 2 * log(1 + z * z / df)


def waiting(k, a, log_share, log_rest):
    return loggamma(a + k) - loggamma(a) - loggamma(k + 1) + a * log_share + k * log_rest


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


SIZES = (1e-3, 0.3, 1, 3, 30, 1e5, 1e7)
#: Names of the parameters, their values, and the density of (x, *parameters).
LAWS = {
    "Gamma": (
        {"concentration": SIZES, "rate": (1e-2, 1, 1e4)},
        lambda x, a, r: a * log(r) + (a - 1) * log(x) - r * x - loggamma(a),
    ),
    "Chi2": (
        {"df": SIZES},
        lambda x, k: (k / 2 - 1) * log(x) - x / 2 - loggamma(k / 2) - k / 2 * log(2),
    ),
    "InverseGamma": (
        {"concentration": (1e-2, 1, 30, 1e5), "rate": (1e-2, 1, 1e2)},
        lambda x, a, r: a * log(r) - (a + 1) * log(x) - r / x - loggamma(a),
    ),
    "Beta": (
        {"concentration1": SIZES, "concentration0": SIZES[1:]},
        lambda x, a, b: (a - 1) * log(x) + (b - 1) * log(1 - x) - log_beta(a, b),
    ),
    "Kumaraswamy": (
        {"concentration1": (0.1, 1, 3, 1e3), "concentration0": (0.1, 1, 3, 1e4)},
        lambda x, a, b: log(a * b) + (a - 1) * log(x) + (b - 1) * log(1 - x**a),
    ),
    "Weibull": (
        {"scale": (1e-3, 1, 1e3), "concentration": (0.1, 1, 3, 1e4)},
        lambda x, s, k: log(k / s) + (k - 1) * log(x / s) - (x / s) ** k,
    ),
    "StudentT": (
        {"df": (0.1, 1, 3, 1e3, 1e7), "loc": (0, 1e4), "scale": (1e-2, 1, 1e2)},
        student,
    ),
    "VonMises": (
        {"loc": (0.5, -3.1), "concentration": (1e-3, 1, 49, 51, 1e5, 1e7)},
        lambda x, m, k: k * mpmath.cos(x - m) - log(2 * mpmath.pi * mpmath.besseli(0, k)),
    ),
    "DoublyTruncatedPowerLaw": (
        {"alpha": (-100, -3, -1.0001, -1, -0.9999, 2, 100), "low": (1e-3, 1), "high": (11, 1e3)},
        power_law,
    ),
    "Poisson": (
        {"rate": (1e-3, 1, 8, 1e3, 1e7)},
        lambda k, r: k * log(r) - r - loggamma(k + 1),
    ),
    "BernoulliProbs": (
        {"probs": (1e-20, 0.3, 1 - EPS / 2)},
        lambda k, p: k * log(p) + (1 - k) * log(1 - p),
    ),
    "BinomialLogits": (
        {"logits": (-20, -1, 0, 3, 20), "total_count": (1, 30, 10**6)},
        lambda k, z, n: log_choose(n, k) + k * log(sigmoid(z)) + (n - k) * log(sigmoid(-z)),
    ),
    "BinomialProbs": (
        {"probs": (1e-7, 0.3, 0.999), "total_count": (1, 30, 10**6)},
        lambda k, p, n: log_choose(n, k) + k * log(p) + (n - k) * log(1 - p),
    ),
    "GammaPoisson": (
        {"concentration": (0.3, 1, 30, 1e5), "rate": (1e-2, 1, 1e3)},
        lambda k, a, r: waiting(k, a, log(r / (1 + r)), -log(1 + r)),
    ),
    "NegativeBinomialProbs": (
        {"total_count": (0.3, 1, 30, 1e4), "probs": (1e-3, 0.3, 0.999)},
        lambda k, a, p: waiting(k, a, log(1 - p), log(p)),
    ),
    "NegativeBinomialLogits": (
        {"total_count": (0.3, 1, 30, 1e4), "logits": (-10, 0, 7)},
        lambda k, a, z: waiting(k, a, log(sigmoid(-z)), log(sigmoid(z))),
    ),
    "NegativeBinomial2": (
        {"mean": (0.3, 1, 1e5), "concentration": (0.3, 1, 30, 1e5)},
        lambda k, m, a: waiting(k, a, log(a / (a + m)), log(m / (a + m))),
    ),
    "BetaBinomial": (
        {"concentration1": (0.3, 30, 1e6), "concentration0": (1, 1e6), "total_count": (1, 10**5)},
        lambda k, a, b, n: log_choose(n, k) + log_beta(a + k, b + n - k) - log_beta(a, b),
    ),
    "BetaNegativeBinomial": (
        {"concentration1": (1, 30, 1e4), "concentration0": (3, 1e4), "n": (1, 1e3)},
        lambda k, a, b, n: waiting(k, n, 0, 0) + log_beta(a + k, b + n) - log_beta(a, b),
    ),
}


@pytest.mark.few(5)
@pytest.mark.parametrize("name", LAWS)
def test_log_densities_at_draws(name):
    grids, exact = LAWS[name]
    rows = np.array(list(itertools.product(*grids.values())))
    whole = {n for n in grids if n == "total_count" and "Negative" not in name}
    given = {
        n: jnp.asarray(rows[:, i].astype(np.int32 if n in whole else np.float32))
        for i, n in enumerate(grids)
    }
    moving = {n: v for n, v in given.items() if n not in whole}
    make = getattr(dist, name)
    x = raw_sample(make(**given), jax.random.key(1), ())

    def density(moving, x):
        return log_prob(make(**{**given, **moving}, validate_args=False), x)

    values = jax.jit(density)(moving, x)
    slopes = jax.jit(jax.grad(lambda *args: density(*args).sum()))(moving, x)
    continuous = not make(**given).is_discrete
    for i in range(len(rows)):
        if continuous and not (1e-37 < abs(float(x[i])) < 1e37 and x[i] != 1):
            continue  # zero or infinite: the density is, too
        with mpmath.workdps(60):
            at = [mpf(float(v[i])) for v in (x, *given.values())]
            each = [slope(exact, at, j) for j in range(len(at))]
            places = range(0 if continuous else 1, len(at))
            rounding = sum(abs(each[j] * at[j]) for j in places) * EPS
            right = exact(*at)
            assert abs(mpf(float(values[i])) - right) < 1e-5 * (1 + abs(right)) + rounding, at
            for j, n in enumerate(given, 1):
                if n in moving:
                    rounding = sum(abs(slope(exact, moved(at, k), j) - each[j]) for k in places)
                    size = 1 / max(abs(at[j]), mpf("1e-6"))
                    error = abs(mpf(float(slopes[n][i])) - each[j])
                    assert error < 5e-5 * (abs(each[j]) + size) + 4 * rounding, (n, at)


def moved(at, j, by=EPS):
    return [*at[:j], at[j] * (1 + by), *at[j + 1 :]]


def slope(exact, at, j):
    step = mpf(10) ** -20
    if at[j] == 0:
        return (exact(*at[:j], step, *at[j + 1 :]) - exact(*at)) / step if j else mpf(0)
    return (exact(*moved(at, j, step)) - exact(*moved(at, j, -step))) / (2 * step * at[j])
