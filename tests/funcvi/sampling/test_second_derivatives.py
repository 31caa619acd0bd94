"""Second derivatives of draws at a fixed quantile, against scipy's distribution functions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import optimize, stats

import funcvi as fv

KEY = jax.random.key(3)


def truncated(kind: Any, low: float | None, high: float | None) -> Callable[..., Any]:
    """The distribution function of a truncated one."""

    def cdf(x: Any, loc: float, scale: float) -> Any:
        base = kind(loc, scale)
        below = 0.0 if low is None else base.cdf(low)
        above = 1.0 if high is None else base.cdf(high)
        return (base.cdf(x) - below) / (above - below)

    return cdf


def edges(x: Any, low: float, high: float) -> Any:
    base = stats.norm(0.3, 1.2)
    return (base.cdf(x) - base.cdf(low)) / (base.cdf(high) - base.cdf(low))


def power(x: Any, alpha: float, low: float) -> Any:
    return (x ** (alpha + 1) - low ** (alpha + 1)) / (2.5 ** (alpha + 1) - low ** (alpha + 1))


CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[float, ...]]] = {
    "Gamma": (dist.Gamma, lambda x, a, b: stats.gamma.cdf(x * b, a), (1.4, 0.7)),
    "Gamma of few": (dist.Gamma, lambda x, a, b: stats.gamma.cdf(x * b, a), (0.4, 0.7)),
    "InverseGamma": (dist.InverseGamma, lambda x, a, b: stats.gamma.sf(b / x, a), (1.4, 0.7)),
    "Chi2": (dist.Chi2, stats.chi2.cdf, (3.0,)),
    "Weibull": (dist.Weibull, lambda x, s, k: stats.weibull_min.cdf(x / s, k), (1.3, 1.7)),
    "Gumbel": (dist.Gumbel, stats.gumbel_r.cdf, (0.3, 0.7)),
    "Kumaraswamy": (dist.Kumaraswamy, lambda x, a, b: 1 - (1 - min(x, 1) ** a) ** b, (1.3, 1.7)),
    "VonMises": (lambda k: dist.VonMises(0.4, k), lambda x, k: stats.vonmises.cdf(x, k, 0.4), (3,)),
    "between": (
        lambda m, s: dist.TruncatedNormal(m, s, low=-1.0, high=2.0),
        truncated(stats.norm, -1.0, 2.0),
        (0.5, 0.7),
    ),
    "above": (
        lambda m, s: dist.TruncatedNormal(m, s, low=0.5),
        truncated(stats.norm, 0.5, None),
        (0.5, 0.7),
    ),
    "far above": (
        lambda m, s: dist.TruncatedNormal(m, s, low=4.0),
        truncated(stats.norm, 4.0, None),
        (0.5, 0.9),
    ),
    "below": (
        lambda m, s: dist.TruncatedNormal(m, s, high=0.8),
        truncated(stats.norm, None, 0.8),
        (0.5, 0.7),
    ),
    "Cauchy": (
        lambda m, s: dist.TruncatedCauchy(m, s, low=-1.0, high=2.0),
        truncated(stats.cauchy, -1.0, 2.0),
        (0.5, 0.7),
    ),
    "edges": (lambda a, b: dist.TruncatedNormal(0.3, 1.2, low=a, high=b), edges, (-0.5, 1.4)),
    "power": (
        lambda alpha, low: dist.DoublyTruncatedPowerLaw(alpha, low, jnp.asarray(2.5)),
        power,
        (-1.4, 0.4),
    ),
}


@pytest.mark.few(5)
@pytest.mark.parametrize("name", CASES)
def test_draws_move_twice_as_their_quantile_does(name: str) -> None:
    make, cdf, theta = CASES[name]
    with jax.enable_x64(True):

        def draws(t: Any) -> Any:
            return fv.sample(make(*t), KEY, (4,))

        t = jnp.asarray(theta, float)
        x = np.asarray(draws(t))
        found = np.asarray(jax.jit(jax.jacfwd(jax.jacrev(draws)))(t))
        again = np.asarray(jax.jit(jax.jacrev(jax.jacfwd(draws)))(t))
    np.testing.assert_allclose(again, found, rtol=1e-9, atol=1e-12)
    h, basis = 1e-3, np.eye(len(theta))

    def quantile(i: int, t: Any) -> float:
        u = cdf(x[i], *theta)
        near = max(abs(x[i]), 0.1) / 4
        return optimize.brentq(lambda y: cdf(y, *t) - u, x[i] - near, x[i] + near, xtol=1e-15)

    for i in range(len(x)):
        expected = [
            [
                sum(
                    s * r * quantile(i, np.asarray(theta) + h * (s * e + r * f))
                    for s in (1, -1)
                    for r in (1, -1)
                )
                / (4 * h * h)
                for e in basis
            ]
            for f in basis
        ]
        scale = 1e-3 * np.abs(expected).max() + 1e-5
        np.testing.assert_allclose(found[i], expected, rtol=2e-3, atol=scale)
