"""Pareto k-hat against ArviZ's, and what fv.diagnose says of good and bad posteriors."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv
from funcvi.diagnostics import pareto_k_hat

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # ArviZ announces its next major version
    from arviz.stats.stats import psislw

KEY = jax.random.key(8)


def log_ratios(name, n):
    rng = np.random.default_rng(1)
    return {
        "normal, light": lambda: 0.3 * rng.normal(size=n),
        "normal, heavier": lambda: 2.0 * rng.normal(size=n),
        "Pareto 0.3": lambda: 0.3 * rng.exponential(size=n),
        "Pareto 0.7": lambda: 0.7 * rng.exponential(size=n),
        "Pareto 1.5": lambda: 1.5 * rng.exponential(size=n),
        "Pareto 6": lambda: 6.0 * rng.exponential(size=n),
        "bounded": lambda: np.log(rng.uniform(size=n)),
        "shifted far": lambda: 5000.0 + rng.exponential(size=n),
        "some ties": lambda: np.round(rng.normal(size=n), 2),
    }[name]()


NAMES = [
    "normal, light", "normal, heavier", "Pareto 0.3", "Pareto 0.7", "Pareto 1.5", "Pareto 6",
    "bounded", "shifted far", "some ties",
]  # fmt: skip


@pytest.mark.parametrize("n", [100, 1000, 4000])
@pytest.mark.parametrize("name", NAMES)
def test_k_hat_equals_arviz(name, n):
    values = log_ratios(name, n)
    _, expected = psislw(values.copy())
    assert pareto_k_hat(values) == pytest.approx(float(expected), abs=1e-10)


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


def normal_target(scale=1.0, log_evidence=0.0):
    return fv.target(
        lambda x: dist.Normal(2.0, scale).log_prob(x["a"]) + log_evidence,
        supports={"a": constraints.real},
    )


def posterior(target, loc, scale):
    guide = fv.mean_field(target)
    return guide(guide.family.inverse({"a": dist.Normal(loc, scale)}))


def test_an_exact_posterior_has_the_log_evidence_without_error():
    target = normal_target(log_evidence=-3.5)
    found = fv.diagnose(posterior(target, 2.0, 1.0), key=KEY)
    assert found.elbo == pytest.approx(-3.5, abs=1e-5)
    assert found.elbo_standard_error < 1e-6
    assert found.reliable
    assert found.message.startswith("good;")
    assert str(found).splitlines()[0] == "ELBO   -3.50 +- 0.00 nats (4000 draws)"


def test_the_elbo_and_its_error():
    target = normal_target()
    found = fv.diagnose(posterior(target, 2.5, 0.8), key=KEY, num_samples=10_000)
    exact = -float(fv.kl(dist.Normal(2.5, 0.8), dist.Normal(2.0, 1.0)))
    assert abs(found.elbo - exact) < 5 * found.elbo_standard_error
    # log p - log q = (z^2 - (0.8 z + 0.5)^2) / 2 + constant with z standard normal.
    spread = np.sqrt((0.36 / 2) ** 2 * 2 + 0.4**2)
    assert found.elbo_standard_error == pytest.approx(spread / 100, rel=0.05)


# p / q of two centred normals has the tail of a Pareto with k = 1 - (scale of q / scale of p)^2.
@pytest.mark.parametrize(
    ("scale", "word", "reliable"),
    [(1.2, "good;", True), (0.9, "good;", True), (0.45, "unreliable", False)],
)
def test_a_posterior_too_narrow_is_unreliable(scale, word, reliable):
    target = normal_target()
    found = fv.diagnose(posterior(target, 2.0, scale), key=KEY)
    assert found.reliable == reliable
    assert found.message.startswith(word)
    if scale < 1:
        assert found.k_hat == pytest.approx(1 - scale**2, abs=0.35)
    assert f"k-hat  {found.k_hat:.2f}: {word}" in str(found)


def test_a_posterior_elsewhere_is_wrong():
    target = normal_target()
    found = fv.diagnose(posterior(target, -3.0, 0.3), key=KEY)
    assert found.k_hat > 1
    assert not found.reliable
    assert found.message.startswith("wrong; the posterior misses much of the target's mass")


def test_a_posterior_that_leaves_the_target_says_so():
    target = fv.target(
        lambda x: jnp.where(x["a"] > 0, -x["a"], -jnp.inf), supports={"a": constraints.real}
    )
    found = fv.diagnose(posterior(target, 0.0, 1.0), key=KEY, num_samples=1000)
    assert not found.reliable
    assert found.elbo == -np.inf
    assert "of 1000 draws have a non-finite log density" in found.message
    count = int(found.message.split()[0])
    assert 400 < count < 600  # half of them, within six standard errors


def test_the_threshold_depends_on_the_number_of_draws():
    # 1 - 1 / log10(1000) = 0.667, below 0.7.
    target = normal_target()
    message = fv.diagnose(posterior(target, 2.0, 0.2), key=KEY, num_samples=1000).message
    assert "unreliable (above 0.67)" in message


def test_too_few_draws_are_refused():
    target = normal_target()
    with pytest.raises(ValueError, match="at least 100 draws, got num_samples=50"):
        fv.diagnose(posterior(target, 2.0, 1.0), key=KEY, num_samples=50)
