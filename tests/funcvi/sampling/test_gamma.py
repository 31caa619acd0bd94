"""Gamma draws: their law, their gradients, and an end at any concentration."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import funcvi as fv
from funcvi.sampling.gamma import standard_gamma

KEY = jax.random.key(0)


@pytest.mark.parametrize("concentration", [0.3, 5.0, 0.99e6, 1.01e6, 1e8])
def test_draws_follow_scipy(concentration):
    with jax.enable_x64(True):
        draws = np.asarray(standard_gamma(KEY, jnp.float64(concentration), (20_000,)))
    assert stats.kstest(draws, stats.gamma(concentration).cdf).pvalue > 0.01


@pytest.mark.parametrize("concentration", [1.01e6, 1e12, 1e30])
def test_gradient_of_large_concentrations_ends_and_is_right(concentration):
    # E[x] is the concentration itself, and the spread of dx/dc is of order 1 / sqrt(concentration).
    gradient = jax.grad(lambda c: standard_gamma(KEY, c, (1000,)).mean())(
        jnp.float32(concentration)
    )
    assert gradient == pytest.approx(1.0, abs=1e-3)


def test_small_and_large_in_one_batch():
    c = jnp.array([1e-6, 0.5, 3.0, 1e8])
    slopes = jax.grad(lambda c: standard_gamma(KEY, c, (2000, 4)).mean(0).sum())(c)
    assert np.isfinite(slopes).all()
    np.testing.assert_allclose(slopes[1:], 1.0, atol=0.15)


def test_nan_stays_where_it_is():
    draws = standard_gamma(KEY, jnp.array([1.0, jnp.nan, 2.0]), (3,))
    np.testing.assert_array_equal(np.isnan(draws), [False, True, False])


@pytest.mark.parametrize(
    "d",
    [
        dist.Gamma(jnp.array([2.0, 3.0]), 4.0),
        dist.Chi2(jnp.array([2.0, 3.0])),
        dist.Gamma(2, 3).expand((2, 4)).to_event(1),
        dist.Gamma(jnp.ones((3, 1)), 2.0).expand((3, 4)),
        dist.Gamma(2.0, 3.0).mask(False),
    ],
    ids=["batch", "chi2", "expanded event", "interstitial", "masked"],
)
def test_shapes_and_means(d):
    draws = fv.sample(d, KEY, (4000,))
    assert draws.shape == d.shape((4000,))
    assert draws.dtype == jnp.float32
    error = np.sqrt(d.variance / 4000)
    np.testing.assert_array_less(np.abs(draws.mean(0) - d.mean), 5 * error)


def test_draws_are_as_wide_as_the_distribution():
    with jax.enable_x64(True):
        narrow = dist.Normal(jnp.float32(0.0), jnp.float32(1.0))
        assert fv.sample(narrow, KEY).dtype == jnp.float32
        assert fv.kl(narrow, dist.Laplace(0.0, 1.0), key=KEY).dtype == jnp.float32
        assert fv.sample(dist.Normal(0.0, 1.0), KEY).dtype == jnp.float64
