"""Simple families against scipy, in both widths."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import funcvi as fv

N = 100_000
LAWS = {
    "Normal": (dist.Normal(0.4, 1.3), stats.norm(0.4, 1.3)),
    "HalfNormal": (dist.HalfNormal(1.3), stats.halfnorm(0, 1.3)),
    "LogNormal": (dist.LogNormal(0.4, 0.5), stats.lognorm(0.5, scale=np.exp(0.4))),
    "Cauchy": (dist.Cauchy(0.4, 1.3), stats.cauchy(0.4, 1.3)),
    "HalfCauchy": (dist.HalfCauchy(1.3), stats.halfcauchy(0, 1.3)),
    "Laplace": (dist.Laplace(0.4, 1.3), stats.laplace(0.4, 1.3)),
    "Logistic": (dist.Logistic(0.4, 1.3), stats.logistic(0.4, 1.3)),
    "Gumbel": (dist.Gumbel(0.4, 1.3), stats.gumbel_r(0.4, 1.3)),
    "Exponential": (dist.Exponential(1.3), stats.expon(0, 1 / 1.3)),
    "Weibull": (dist.Weibull(1.3, 0.7), stats.weibull_min(0.7, scale=1.3)),
    "Pareto": (dist.Pareto(1.3, 2.1), stats.pareto(2.1, scale=1.3)),
    "Uniform": (dist.Uniform(-0.4, 1.3), stats.uniform(-0.4, 1.7)),
    "StudentT": (dist.StudentT(2.5, 0.4, 1.3), stats.t(2.5, 0.4, 1.3)),
    "Beta": (dist.Beta(0.7, 2.5), stats.beta(0.7, 2.5)),
    "InverseGamma": (dist.InverseGamma(2.5, 1.3), stats.invgamma(2.5, scale=1.3)),
    "Kumaraswamy": (dist.Kumaraswamy(1.7, 2.5), None),
}


def distribution_function(name, x):
    if name == "Kumaraswamy":
        return 1 - (1 - x**1.7) ** 2.5
    return LAWS[name][1].cdf(x)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", LAWS)
def test_law(name, x64):
    with jax.enable_x64(x64):
        width = jnp.float64 if x64 else jnp.float32
        d = jax.tree.map(lambda x: jnp.asarray(x, width), LAWS[name][0])
        x = np.asarray(fv.sample(d, jax.random.key(5), (N,)))
        assert x.dtype == width
    x = x.astype(float)
    found = stats.kstest(x, lambda x: distribution_function(name, x))
    assert found.pvalue > 0.005


def test_both_tails_are_fine():
    """Quantiles of one in a million, where 23 random bits give a dozen values."""
    x = np.sort(np.asarray(fv.sample(dist.Cauchy(), jax.random.key(0), (4_000_000,)), float))
    for ends in (-x[:40], x[-40:]):
        assert len(np.unique(ends)) == 40
        # 40 of 4e6: the tail probability of the inner one is 1e-5, give or take a sixth.
        assert stats.cauchy.sf(np.abs(ends).min()) == pytest.approx(1e-5, rel=0.6)
