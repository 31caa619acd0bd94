"""Pareto k-hat, its error, and smoothed weights, against ArviZ's and against known tails."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from funcvi.diagnostics import pareto_k_hat, psis
from funcvi.pareto import tail_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # ArviZ announces its next major version
    from arviz.stats.stats import psislw


LOG_RATIOS = {
    "normal, light": lambda rng, n: 0.3 * rng.normal(size=n),
    "normal, heavier": lambda rng, n: 2.0 * rng.normal(size=n),
    "Pareto 0.3": lambda rng, n: 0.3 * rng.exponential(size=n),
    "Pareto 0.7": lambda rng, n: 0.7 * rng.exponential(size=n),
    "Pareto 1.5": lambda rng, n: 1.5 * rng.exponential(size=n),
    "Pareto 6": lambda rng, n: 6.0 * rng.exponential(size=n),
    "bounded": lambda rng, n: np.log(rng.uniform(size=n)),
    "shifted far": lambda rng, n: 5000.0 + rng.exponential(size=n),
    "some ties": lambda rng, n: np.round(rng.normal(size=n), 2),
    "ties at the cutoff": lambda rng, n: np.round(rng.normal(size=n), 1),
    "half outside": lambda rng, n: np.where(rng.random(n) < 0.5, -np.inf, rng.normal(size=n)),
    "most outside": lambda rng, n: np.where(rng.random(n) < 0.9, -np.inf, rng.normal(size=n)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [100, 1000, 4000])
@pytest.mark.parametrize("name", LOG_RATIOS)
def test_k_hat_and_the_smoothed_weights_equal_arviz(name, n, dtype):
    values = LOG_RATIOS[name](np.random.default_rng(1), n).astype(dtype)
    expected, k = psislw(values.astype(np.float64))
    log_weights, k_hat = psis(values)
    assert k_hat == pareto_k_hat(values) == pytest.approx(float(k), abs=1e-10)
    assert log_weights.dtype == np.float64
    if dtype == np.float32:
        assert pareto_k_hat(jnp.asarray(values)) == k_hat
    # Sorted: which of two equal ratios comes first is chance.
    np.testing.assert_allclose(np.sort(log_weights), np.sort(expected), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("n", [2, 5, 10, 20, 21, 25, 40, 99])
def test_few_draws_equal_arviz(n):
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=n)
        expected, k = psislw(values.copy())
        log_weights, k_hat = psis(values)
        assert k_hat == pytest.approx(float(k), abs=1e-10)
        np.testing.assert_allclose(log_weights, expected, atol=1e-10)


def test_smoothed_weights_sum_to_one_and_keep_the_order():
    values = 0.9 * np.random.default_rng(3).exponential(size=3000)
    log_weights, _ = psis(values)
    assert np.exp(log_weights).sum() == pytest.approx(1.0, abs=1e-12)
    assert (np.diff(log_weights[np.argsort(values)]) >= 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_ratio_is_refused(bad):
    for function in (pareto_k_hat, psis):
        with pytest.raises(ValueError, match=f"finite or -inf log ratios, got {bad} among them"):
            function(np.array([0.0, bad, 1.0]))
        with pytest.raises(ValueError, match="got -inf among them"):
            function(np.full(10, -np.inf))
        with pytest.raises(ValueError, match=r"shape \(draws,\), got \(2, 3\)"):
            function(np.zeros((2, 3)))


@pytest.mark.parametrize("k", [0.3, 0.7, 1.5])
def test_k_hat_recovers_the_shape_of_a_pareto_tail(k):
    # Standard error (1 + k) / sqrt(tail) with 3 sqrt(100,000) = 949 in the tail, and the prior.
    values = k * np.random.default_rng(2).exponential(size=100_000)
    assert pareto_k_hat(values) == pytest.approx(k, abs=4 * (1 + k) / np.sqrt(949))


def test_k_hat_of_constant_ratios_and_of_a_few_that_carry_everything():
    assert pareto_k_hat(np.zeros(1000)) == -np.inf
    assert pareto_k_hat(np.full(1000, -3e5)) == -np.inf
    spike = np.zeros(1000)
    spike[3] = 100.0
    assert pareto_k_hat(spike) == np.inf
    assert pareto_k_hat(np.where(np.arange(1000) < 4, 0.0, -1e4)) == np.inf
    # As many equal spikes as make one point of the grid an exponential, whose shape is 0 / 0.
    assert -np.inf < pareto_k_hat(np.where(np.arange(4000) < 110, 0.0, -10.0)) < 0


#: Ratios whose tail has shape k: of a generalised Pareto, and of a Student t with 1 / k degrees.
TAILS = {
    "Pareto": lambda rng, k, n: k * rng.exponential(size=n),
    "Student t": lambda rng, k, n: np.log(np.abs(rng.standard_t(1 / k, size=n))),
}


@pytest.mark.parametrize("n", [1000, 4000])
@pytest.mark.parametrize("tail", TAILS)
def test_the_error_is_that_over_seeds(tail, n):
    rng = np.random.default_rng(4)
    for k in (0.3, 0.7, 1.2):
        found = [tail_of(TAILS[tail](rng, k, n)) for _ in range(300)]
        k_hats = np.array([t.k_hat for t in found])
        errors = np.array([t.standard_error for t in found])
        # The standard deviation of 300 is known to a relative 1 / sqrt(600) = 4 %.
        assert k_hats.std() == pytest.approx(errors.mean(), rel=0.16)
