"""Factors of correlations whose mass is beside singular matrices, in models and along draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms
from scipy import special, stats

import funcvi as fv
from funcvi.densities.log_prob import log_prob
from funcvi.vector_bijections import CorrelationFactor

KEY = jax.random.key(0)


@pytest.mark.parametrize("concentration", [0.05, 0.3, 5.0])
def test_a_prior_sees_correlations_that_round_to_one(concentration: float) -> None:
    """Of a guide as wide as this they were 2.0, 2.6 and 41.3."""

    def model() -> None:
        numpyro.sample("L", dist.LKJCholesky(2, concentration))

    guide = fv.mean_field(fv.target(model))
    loss = fv.negative_elbo(guide, num_samples=50_000)
    params = {"L": {"loc": jnp.array([0.3]), "scale": jnp.array([2.0])}}
    value, slopes = jax.jit(jax.value_and_grad(lambda params: loss(params, KEY)))(params)
    z = np.linspace(-200, 200, 400_001)
    log_p = 2 * concentration * (np.log(2) - np.logaddexp(z, -z))  # of tanh(z)
    log_p -= (2 * concentration - 1) * np.log(2) + special.betaln(concentration, concentration)

    def exact(scale: float) -> float:
        log_q = stats.norm(0.3, np.exp(scale)).logpdf(z)
        return float(np.trapezoid(np.exp(log_q) * (log_q - log_p), z))

    np.testing.assert_allclose(value, exact(2.0), rtol=0.02)
    slope = (exact(2.001) - exact(1.999)) / 0.002
    np.testing.assert_allclose(slopes["L"]["scale"][0], slope, rtol=0.02)


def test_draws_see_them_too() -> None:
    """Of partial correlations 2 Beta(a, a) - 1: 7.2 for 15.5."""
    beta = stats.beta(0.05, 0.05)

    def divergence(a: Any) -> Any:
        q, p = dist.LKJCholesky(2, a), dist.LKJCholesky(2, 1.0)
        return fv.kl(q, p, key=KEY, num_samples=100_000, estimator="pathwise")

    np.testing.assert_allclose(divergence(0.05), -beta.entropy(), rtol=0.02)


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("concentration", [0.5, 3.0])
def test_elsewhere_density_and_determinant_are_numpyros(size: int, concentration: float) -> None:
    d = dist.LKJCholesky(size, jnp.array([concentration, 2.0]))
    x = fv.sample(d, KEY, (5,))
    np.testing.assert_allclose(log_prob(d, x), d.log_prob(x), rtol=1e-5, atol=3e-5)
    z = jax.random.normal(KEY, (4, size * (size - 1) // 2))
    theirs = transforms.CorrCholeskyTransform()
    found = CorrelationFactor().log_abs_det_jacobian(z, theirs(z))
    np.testing.assert_allclose(found, theirs.log_abs_det_jacobian(z, theirs(z)), atol=1e-5)


def test_large_concentrations_keep_their_digits() -> None:
    """numpyro's is off by 5e-4."""
    d = dist.LKJCholesky(2, 1e5)
    x = fv.sample(d, KEY, (50,))
    r = np.float64(x[:, 1, 0])
    true = stats.beta(1e5, 1e5).logpdf((1 + r) / 2) - np.log(2)
    np.testing.assert_allclose(log_prob(d, x), true, rtol=2e-5, atol=0.02)
    at_zero = log_prob(d, jnp.eye(2))
    np.testing.assert_allclose(at_zero, stats.beta(1e5, 1e5).logpdf(0.5) - np.log(2), rtol=1e-6)
