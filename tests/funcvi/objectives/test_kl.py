"""fv.kl against torch's closed forms, quadrature and summed series: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import torch
import torch.distributions as td
from scipy import stats

import funcvi as fv
from tests.funcvi.objectives.oracles import (
    CLOSED,
    ENUMERATED,
    KEY,
    PATHWISE,
    SCORED,
    assert_mean,
    differentiated,
    kl_by_quadrature,
    torch_oracle,
    value_and_gradient,
)

needs_hurdles = pytest.mark.skipif(
    not hasattr(dist, "HurdleGamma"), reason="this numpyro has no hurdle distributions"
)


@pytest.mark.parametrize("case", CLOSED.values(), ids=CLOSED)
def test_closed_forms_equal_torch_and_need_no_key(case):
    q, p, torch_q, torch_p, theta = case

    def loss(theta):
        return fv.kl(q(theta), p(theta))

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(theta))
    exact, slope = torch_oracle(torch_q, torch_p, theta)
    np.testing.assert_allclose(value, exact, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=5e-5, atol=5e-6)


@pytest.mark.parametrize("case", ENUMERATED.values(), ids=ENUMERATED)
def test_small_discrete_supports_are_summed_exactly_without_a_key(case):
    test_closed_forms_equal_torch_and_need_no_key(case)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", PATHWISE)
@pytest.mark.parametrize("estimator", [None, "sticking_the_landing"])
def test_pathwise_is_unbiased(name, estimator):
    q, p, torch_q, torch_p, theta = PATHWISE[name]
    if name == "Uniform Normal" and estimator:
        # The score of a support that moves has a mean other than zero: dropping it biases.
        with pytest.raises(ValueError, match="the support of Uniform moves with its parameters"):
            value_and_gradient(q, p, theta, estimator=estimator)
        return
    values, gradients = value_and_gradient(q, p, theta, estimator=estimator)
    exact, slope = torch_oracle(torch_q, torch_p, theta)
    assert_mean(values, exact)
    assert_mean(gradients, slope)


@pytest.mark.parametrize("case", SCORED.values(), ids=SCORED)
def test_the_score_function_is_chosen_for_unbounded_counts_and_is_unbiased(case):
    q, p, torch_q, torch_p, theta = case
    values, gradients = value_and_gradient(q, p, theta)
    assert values.std() > 0
    exact, slope = torch_oracle(torch_q, torch_p, theta)
    assert_mean(values, exact)
    assert_mean(gradients, slope)


@pytest.mark.parametrize("name", ["Normal", "Gamma", "MultivariateNormal"])
@pytest.mark.parametrize("estimator", ["pathwise", "sticking_the_landing", "score_function"])
def test_every_estimator_agrees_with_the_closed_form(name, estimator):
    q, p, torch_q, torch_p, theta = CLOSED[name]
    values, gradients = value_and_gradient(q, p, theta, estimator=estimator)
    exact, slope = torch_oracle(torch_q, torch_p, theta)
    assert values.std() > 0
    assert_mean(values, exact)
    assert_mean(gradients, slope)


QUADRATURE = {
    "StudentT Normal": (
        lambda t: dist.StudentT(t[0], t[1], t[2]),
        lambda t: dist.Normal(t[3], t[4]),
        lambda t: lambda x: stats.t.logpdf(x, t[0], t[1], t[2]),
        lambda t: lambda x: stats.norm.logpdf(x, t[3], t[4]),
        [8.0, 0.2, 0.7, -0.3, 1.5],
        (-np.inf, np.inf),
        50,
    ),
    "Weibull Gamma": (
        lambda t: dist.Weibull(t[0], t[1]),
        lambda t: dist.Gamma(t[2], t[3]),
        lambda t: lambda x: stats.weibull_min.logpdf(x, t[1], scale=t[0]),
        lambda t: lambda x: stats.gamma.logpdf(x, t[2], scale=1 / t[3]),
        [1.3, 1.7, 2.0, 1.2],
        (0, np.inf),
        50,
    ),
    "Kumaraswamy Beta": (
        lambda t: dist.Kumaraswamy(t[0], t[1]),
        lambda t: dist.Beta(t[2], t[3]),
        lambda t: (
            lambda x: (
                np.log(t[0] * t[1]) + (t[0] - 1) * np.log(x) + (t[1] - 1) * np.log1p(-(x ** t[0]))
            )
        ),
        lambda t: lambda x: stats.beta.logpdf(x, t[2], t[3]),
        [1.5, 2.5, 2.0, 3.0],
        (0, 1),
        50,
    ),
    "VonMises": (
        lambda t: dist.VonMises(t[0], t[1]),
        lambda t: dist.VonMises(t[2], t[3]),
        lambda t: lambda x: stats.vonmises.logpdf(x, t[1], t[0]),
        lambda t: lambda x: stats.vonmises.logpdf(x, t[3], t[2]),
        [0.3, 2.0, -0.5, 1.0],
        (-np.pi, np.pi),
        50,
    ),
    "mixture, weights and components": (
        lambda t: dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.stack([t[0], 1 - t[0]])), dist.Normal(t[1:3], t[3:5])
        ),
        lambda t: dist.Normal(t[5], 1.0),
        lambda t: (
            lambda x: np.logaddexp(
                np.log(t[0]) + stats.norm.logpdf(x, t[1], t[3]),
                np.log(1 - t[0]) + stats.norm.logpdf(x, t[2], t[4]),
            )
        ),
        lambda t: lambda x: stats.norm.logpdf(x, t[5], 1.0),
        [0.3, 0.0, 3.0, 1.0, 0.8, 2.5],
        (-20, 20),
        50,
    ),
    "mixture of families": (
        lambda t: dist.MixtureGeneral(
            dist.Categorical(probs=jnp.stack([t[0], 1 - t[0]])),
            [dist.Gamma(t[1], t[2]), dist.LogNormal(t[3], t[4])],
        ),
        lambda t: dist.Gamma(t[5], 1.0),
        lambda t: (
            lambda x: np.logaddexp(
                np.log(t[0]) + stats.gamma.logpdf(x, t[1], scale=1 / t[2]),
                np.log(1 - t[0]) + stats.lognorm.logpdf(x, t[4], scale=np.exp(t[3])),
            )
        ),
        lambda t: lambda x: stats.gamma.logpdf(x, t[5]),
        [0.3, 2.0, 3.0, 0.5, 0.4, 1.5],
        (0, np.inf),
        50,
    ),
    "transformed mixture": (
        lambda t: dist.TransformedDistribution(
            dist.MixtureSameFamily(
                dist.Categorical(probs=jnp.stack([t[0], 1 - t[0]])), dist.Normal(t[1:3], 0.5)
            ),
            dist.transforms.ExpTransform(),
        ),
        lambda t: dist.LogNormal(t[3], 1.0),
        lambda t: (
            lambda x: np.logaddexp(
                np.log(t[0]) + stats.norm.logpdf(x, t[1], 0.5),
                np.log(1 - t[0]) + stats.norm.logpdf(x, t[2], 0.5),
            )
        ),
        lambda t: lambda x: stats.norm.logpdf(x, t[3], 1.0),
        [0.3, -0.5, 1.0, 0.2],
        (-15, 15),
        50,
    ),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("case", QUADRATURE.values(), ids=QUADRATURE)
def test_values_and_gradients_equal_quadrature(case):
    q, p, log_q, log_p, theta, (low, high), num_samples = case
    values, gradients = value_and_gradient(q, p, theta, num_samples=num_samples)

    def exact(theta):
        return kl_by_quadrature(log_q(theta), log_p(theta), low, high)

    value, slope = differentiated(exact, theta)
    assert_mean(values, value)
    assert_mean(gradients, slope)


@needs_hurdles
def test_a_density_does_not_cover_an_atom():
    with pytest.raises(ValueError, match="gives zero a probability, p = Gamma has a density"):
        fv.kl(dist.HurdleGamma(0.3, 2.0, 1.0), dist.Gamma(2.0, 1.0), key=KEY)


@needs_hurdles
def test_a_hurdle_over_a_density_has_a_gate_gradient():
    theta = [0.3, 2.0, 1.5, 0.5, 3.0, 1.0]
    values, gradients = value_and_gradient(
        lambda t: dist.HurdleGamma(t[0], t[1], t[2]),
        lambda t: dist.HurdleGamma(t[3], t[4], t[5]),
        theta,
    )

    def exact(t):
        gates = td.kl_divergence(td.Bernoulli(t[0]), td.Bernoulli(t[3]))
        return gates + (1 - t[0]) * td.kl_divergence(td.Gamma(t[1], t[2]), td.Gamma(t[4], t[5]))

    t = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    value = exact(t)
    value.backward()
    assert_mean(values, value.item())
    assert_mean(gradients, t.grad.numpy())


def test_zero_inflated_and_negative_binomial_equal_their_summed_series():
    k = np.arange(400)

    def log_zip(gate, rate):
        base = np.log1p(-gate) + stats.poisson.logpmf(k, rate)
        return np.where(k == 0, np.logaddexp(np.log(gate), base), base)

    def exact(t):
        log_q = log_zip(t[0], t[1])
        return np.sum(np.exp(log_q) * (log_q - stats.nbinom.logpmf(k, t[2], 1 - t[3])))

    theta = [0.3, 2.0, 3.0, 0.4]
    values, gradients = value_and_gradient(
        lambda t: dist.ZeroInflatedPoisson(t[0], t[1]),
        lambda t: dist.NegativeBinomialProbs(t[2], t[3]),
        theta,
    )
    value, slope = differentiated(exact, theta)
    assert_mean(values, value)
    assert_mean(gradients, slope)
