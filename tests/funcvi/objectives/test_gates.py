"""KL of hurdles and zero inflation: the gate is summed over, what is behind it is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import funcvi as fv
from funcvi.objectives.enumeration import finite_support, mixture_parts

KEY = jax.random.key(31)

if not hasattr(dist, "HurdleGamma"):  # numpyro 0.21
    pytest.skip("this numpyro has no hurdle distributions", allow_module_level=True)


def bernoulli_kl(q, p):
    return q * jnp.log(q / p) + (1 - q) * jnp.log((1 - q) / (1 - p))


GATES = {
    "HurdleGamma": lambda g: dist.HurdleGamma(g, 2.0, 1.5),
    "HurdleLogNormal": lambda g: dist.HurdleLogNormal(g, 0.3, 1.5),
    "HurdleProbs": lambda g: dist.HurdleProbs(dist.Exponential(1.3), g),
    "HurdleLogits": lambda g: dist.HurdleLogits(dist.Exponential(1.3), jnp.log(g / (1 - g))),
    "expanded": lambda g: dist.HurdleGamma(g, 2.0, 1.5).expand([3]),
    "batch": lambda g: dist.HurdleGamma(g * jnp.ones((3, 1)), jnp.array([2.0, 3.0]), 1.5),
    "transformed": lambda g: dist.TransformedDistribution(
        dist.HurdleGamma(g, 2.0, 1.5), dist.transforms.AffineTransform(0.0, 2.0)
    ),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", GATES)
def test_the_gradient_of_a_gate_has_no_noise(name):
    """Behind equal gates both are the same, so one draw gives the gates' own divergence."""
    make = GATES[name]
    size = np.prod(make(0.3).batch_shape, initial=1.0)

    def loss(g, key):
        return fv.kl(make(g), make(0.6), key=key, num_samples=1)

    for seed in range(3):
        value, slope = jax.value_and_grad(loss)(0.3, jax.random.key(seed))
        exact, exact_slope = jax.value_and_grad(bernoulli_kl)(0.3, 0.6)
        np.testing.assert_allclose([value, slope], [size * exact, size * exact_slope], rtol=1e-5)


def test_what_is_behind_the_gate_is_pathwise():
    """Its own divergence, weighted by one minus the gate; scored, its gradient is noisier."""
    theta = jnp.array([0.3, 2.0, 1.5])
    p = dist.HurdleGamma(0.5, 3.0, 1.0)

    def loss(t, key, estimator):
        q = dist.HurdleGamma(t[0], t[1], t[2])
        return fv.kl(q, p, key=key, num_samples=30, estimator=estimator)

    def exact(t):
        inner = dist.kl_divergence(dist.Gamma(t[1], t[2]), dist.Gamma(3.0, 1.0))
        return bernoulli_kl(t[0], 0.5) + (1 - t[0]) * inner

    keys = jax.random.split(KEY, 300)
    spread = {}
    for estimator in (None, "score_function"):
        grad = jax.jit(jax.vmap(lambda k, e=estimator: jax.grad(loss)(theta, k, e)))
        found = np.asarray(grad(keys), np.float64)
        error = found.std(0) / np.sqrt(300)
        assert np.all(np.abs(found.mean(0) - jax.grad(exact)(theta)) < 5 * error + 1e-5)
        spread[estimator] = found.std(0)
    assert (spread[None] < 0.7 * spread["score_function"]).all()


def test_a_hurdle_over_finitely_many_values_is_summed_exactly():
    k = np.arange(6)

    def log_hurdle(gate, probs):
        inside = stats.binom.logpmf(k, 5, probs) - np.log1p(-stats.binom.pmf(0, 5, probs))
        return np.where(k == 0, np.log(gate), np.log1p(-gate) + inside)

    def exact(t):
        log_q = log_hurdle(t[0], t[1])
        return np.sum(np.exp(log_q) * (log_q - log_hurdle(0.6, 0.5)))

    def loss(t):
        q = dist.HurdleProbs(dist.Binomial(5, t[1]), t[0])
        p = dist.HurdleProbs(dist.Binomial(5, 0.5), 0.6)
        return fv.kl(q.expand([2]), p, key=None) / 2

    t = np.array([0.3, 0.4])
    value, slope = jax.value_and_grad(loss)(jnp.asarray(t))
    slopes = [(exact(t + e) - exact(t - e)) / 2e-5 for e in np.eye(2) * 1e-5]
    assert float(value) == pytest.approx(exact(t), rel=1e-5)
    np.testing.assert_allclose(slope, slopes, rtol=1e-4)


@pytest.mark.parametrize(
    "q",
    [
        dist.HurdlePoisson(0.3, 2.0),
        dist.HurdleProbs(dist.Normal(0.0, 1.0).mask(True), 0.3),
        dist.ZeroInflatedPoisson(0.3, 2.0),
        dist.ZeroInflatedDistribution(dist.DiscreteUniform(2, 5), gate=0.3),
    ],
    ids=["unbounded", "density", "zero-inflated", "zero is no value of it"],
)
def test_what_is_summed(q):
    density = isinstance(q, dist.HurdleProbs) and not q.is_discrete
    assert finite_support(q) is None
    assert (mixture_parts(q) is not None) == density


def test_a_forced_pathwise_names_what_to_use():
    q = dist.HurdleGamma(0.3, 2.0, 1.5)
    with pytest.raises(ValueError, match="the gate gets no gradient") as refused:
        fv.kl(q, q, key=KEY, estimator="pathwise")
    assert 'Use estimator="enumeration"' in str(refused.value)
