"""Simulation-based calibration: ranks of true parameters are uniform (arXiv:1804.06788)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive
from scipy import stats

import funcvi as fv

KEY = jax.random.key(0)
DRAWS = 99
X = jnp.stack([jnp.ones(30), jnp.linspace(-2.0, 2.0, 30)], axis=1)


def regression(y: Any = None) -> None:
    weights = numpyro.sample("weights", dist.Normal(0.0, 2.0).expand((2,)).to_event(1))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    numpyro.sample("y", dist.Normal(X @ weights, scale).to_event(1), obs=y)


def p_values(ranks: np.ndarray) -> list[float]:
    """By entry, that ranks (data sets, entries) are uniform on 0 to 99."""
    within = np.random.default_rng(0).uniform(size=ranks.shape)  # a rank stands for a hundredth
    spread = (ranks + within) / (DRAWS + 1)
    return [float(stats.kstest(x, "uniform").pvalue) for x in spread.T]


def flat(sites: Any) -> np.ndarray:
    return np.concatenate(
        [np.asarray(sites["weights"]), np.asarray(sites["scale"])[..., None]], axis=-1
    )


@pytest.mark.slow
def test_mapped_posteriors_are_calibrated() -> None:
    """Those whose k-hat is not too large, and the test sees spreads a fifth too small."""
    count = 400
    data = Predictive(regression, num_samples=count)(KEY)

    def posterior(y: Any, key: Any) -> fv.Posterior:
        return fv.batch_and_match(fv.target(regression, y), key=key)

    many = jax.jit(jax.vmap(posterior))(data["y"], jax.random.split(KEY, count))
    found = fv.diagnose_each(many, key=jax.random.key(1), num_samples=2000)
    kept = np.array([d.verdict not in ("wrong", "unreliable") for d in found])
    assert kept.sum() > 0.8 * count
    draws = flat(fv.sample(many, jax.random.key(2), (DRAWS,)))[:, kept]
    truth = flat(data)[kept]
    assert min(p_values(np.sum(draws < truth, axis=0))) > 1e-3
    narrow = draws.mean(0) + 0.8 * (draws - draws.mean(0))
    assert min(p_values(np.sum(narrow < truth, axis=0))) < 0.05


@pytest.mark.slow
def test_reliable_posteriors_are_calibrated() -> None:
    """fv.infer, whatever rung it ends at, of Gamma posteriors that are far from normal."""

    def model(y: Any = None) -> None:
        rate = numpyro.sample("rate", dist.Gamma(0.8, 1.0))
        numpyro.sample("y", dist.Exponential(rate).expand((2,)).to_event(1), obs=y)

    count = 40
    data = Predictive(model, num_samples=count)(KEY)
    ranks = []
    for i, key in enumerate(jax.random.split(jax.random.key(1), count)):
        posterior, report = fv.infer(fv.target(model, data["y"][i]), key=key)
        assert report.verdict == "reliable"
        draws = fv.sample(posterior, jax.random.fold_in(key, 1), (DRAWS,))["rate"]
        ranks.append(int(jnp.sum(draws < data["rate"][i])))
    assert min(p_values(np.array(ranks)[:, None])) > 1e-3
