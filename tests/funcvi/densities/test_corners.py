"""No corner in a log density where the law has none: its formula may have one, of abs or clip.

Such a place has no probability, but parameters start there: logits of zero, a location on an edge.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.scipy.special import xlogy

import funcvi as fv
from funcvi.densities.log_prob import log_prob

CUTS = np.array([-0.8, 0.0, 0.8])


def bounded(base, low=None, high=None):
    return lambda t: dist.TruncatedDistribution(base(t, 1.0), low=low, high=high)


# Laws of a parameter that is zero at the special place, and a value.
LAWS = {
    "Bernoulli, 0": (lambda t: dist.Bernoulli(logits=t), 0),
    "Bernoulli, 1": (lambda t: dist.Bernoulli(logits=t), 1),
    "Bernoulli, probs": (lambda t: dist.Bernoulli(probs=0.5 + t), 1),
    "Binomial": (lambda t: dist.Binomial(5, logits=t), 2),
    "Geometric": (lambda t: dist.Geometric(logits=t), 2),
    "Categorical": (lambda t: dist.Categorical(logits=jnp.stack([t, 0.0, 0.0])), 1),
    "Multinomial": (
        lambda t: dist.Multinomial(5, logits=jnp.stack([t, 0.0, 0.0])), np.array([1, 2, 2])
    ),
    "NegativeBinomial": (lambda t: dist.NegativeBinomialLogits(3.2, t), 2),
    "zero inflated": (
        lambda t: dist.ZeroInflatedDistribution(dist.Poisson(1.7), gate_logits=t), 0
    ),
    "hurdle": (lambda t: dist.HurdleDistribution(dist.Poisson(1.7), gate_logits=t), 0),
    "relaxed": (lambda t: dist.RelaxedBernoulliLogits(0.7, t), 0.5),
    "ordered": (lambda t: dist.OrderedLogistic(t, CUTS), 1),
    "BetaBinomial": (lambda t: dist.BetaBinomial(1.0 + t, 1.0, 5), 0),
    "Poisson": (lambda t: dist.Poisson(1.0 + t), 0),
    "StudentT": (lambda t: dist.StudentT(3.0, t, 1.0), 0.0),
    "Logistic": (lambda t: dist.Logistic(t, 1.0), 0.0),
    "SoftLaplace": (lambda t: dist.SoftLaplace(t, 1.0), 0.0),
    "VonMises": (lambda t: dist.VonMises(t, 1.0), 0.0),
    "Beta": (lambda t: dist.Beta(1.0 + t, 1.0), 0.5),
    "normal above": (bounded(dist.Normal, low=0.0), 1.0),
    "normal below": (bounded(dist.Normal, high=0.0), -1.0),
    "normal between": (bounded(dist.Normal, -1.0, 1.0), 0.5),
    "logistic above": (bounded(dist.Logistic, low=0.0), 1.0),
    "Cauchy above": (bounded(dist.Cauchy, low=0.0), 1.0),
    "folded": (lambda t: dist.FoldedDistribution(dist.Normal(t, 1.0)), 1.0),
    "mixture": (
        lambda t: dist.MixtureSameFamily(
            dist.Categorical(logits=jnp.stack([t, 0.0])), dist.Normal(jnp.zeros(2), 1.0)
        ),
        1.0,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.mark.few(9)
@pytest.mark.parametrize("name", LAWS)
def test_derivatives_at_a_special_place_are_those_beside_it(name):
    law, x = LAWS[name]

    def of(t):
        return log_prob(law(t), x)

    first, second = jax.jit(jax.grad(of)), jax.jit(jax.grad(jax.grad(of)))
    step = 1e-4
    slope = (of(step) - of(-step)) / (2 * step)  # of values, which no corner spoils
    curvature = (of(step) - 2 * of(0.0) + of(-step)) / step**2
    np.testing.assert_allclose(first(0.0), slope, atol=1e-6)
    np.testing.assert_allclose(second(0.0), curvature, atol=1e-5)


@pytest.mark.parametrize(
    ("objective", "slope"),
    [
        (lambda q: fv.expectation(q, lambda z: 1.0 * z), 0.25),
        (lambda q: fv.kl(q, dist.Bernoulli(probs=0.3)), -0.25 * np.log(0.3 / 0.7)),
        (lambda q: fv.kl(dist.Bernoulli(probs=0.3), q), 0.5 - 0.3),
        (lambda q: fv.importance_weighted_elbo(
            q, lambda z: xlogy(z, 0.3) + xlogy(1 - z, 0.7), key=jax.random.key(0), num_samples=2,
        ), None),
    ],
)  # fmt: skip
def test_a_coin_at_logits_of_zero_has_its_gradient(objective, slope):
    def of(logits):
        return objective(dist.Bernoulli(logits=logits))

    beside = (jax.grad(of)(1e-9) + jax.grad(of)(-1e-9)) / 2
    assert float(jax.grad(of)(0.0)) == pytest.approx(float(beside), abs=1e-6)
    if slope is not None:
        assert float(jax.grad(of)(0.0)) == pytest.approx(slope, abs=1e-6)
