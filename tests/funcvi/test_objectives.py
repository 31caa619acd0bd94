"""fv.kl against torch's closed forms, quadrature and summed series: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import torch
import torch.distributions as td
from scipy import integrate, stats

import funcvi as fv

KEY = jax.random.key(20)
STANDARD_ERRORS = 5  # a right estimator fails one comparison in two million


needs_hurdles = pytest.mark.skipif(
    not hasattr(dist, "HurdleGamma"), reason="this numpyro has no hurdle distributions"
)


def value_and_gradient(q, p, theta, *, evaluations=100, num_samples=50, estimator=None):
    """Values and gradients at many keys: arrays (evaluations,) and (evaluations, parameters)."""

    def loss(theta, key):
        return fv.kl(q(theta), p(theta), key=key, num_samples=num_samples, estimator=estimator)

    each = jax.vmap(jax.value_and_grad(loss), (None, 0))
    keys = jax.random.split(KEY, evaluations)
    return [np.asarray(x, np.float64) for x in jax.jit(each)(jnp.asarray(theta, float), keys)]


def assert_mean(draws, exact, rounding=2e-5):
    """The mean over keys equals the exact value within its standard error and float32 rounding."""
    error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    allowed = STANDARD_ERRORS * error + rounding * (1 + np.abs(exact))
    assert np.all(np.abs(draws.mean(0) - exact) <= allowed), (draws.mean(0), exact, error)


def torch_oracle(q, p, theta):
    theta = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    value = td.kl_divergence(q(theta), p(theta)).sum()
    value.backward()
    return value.item(), theta.grad.numpy()


def differentiated(exact, theta, step=1e-4):
    """Value and central differences of a deterministic function; error of order step squared."""
    theta = np.asarray(theta, float)
    slopes = [
        (exact(theta + step * e) - exact(theta - step * e)) / (2 * step) for e in np.eye(len(theta))
    ]
    return exact(theta), np.array(slopes)


def kl_by_quadrature(q, p, low, high):
    def integrand(x):
        log_q = q(x)
        return np.exp(log_q) * (log_q - p(x))

    value, error = integrate.quad(integrand, low, high, limit=400, epsabs=1e-11, epsrel=1e-11)
    assert error < 1e-7
    return value


# ---- closed forms and pathwise, against torch ---------------------------------------------------

# (numpyro q, numpyro p, torch q, torch p, theta)
CLOSED = {
    "Normal": (
        lambda t: dist.Normal(t[0], t[1]),
        lambda t: dist.Normal(t[2], t[3]),
        lambda t: td.Normal(t[0], t[1]),
        lambda t: td.Normal(t[2], t[3]),
        [0.3, 1.2, -0.5, 2.0],
    ),
    "Gamma": (
        lambda t: dist.Gamma(t[0], t[1]),
        lambda t: dist.Gamma(t[2], t[3]),
        lambda t: td.Gamma(t[0], t[1]),
        lambda t: td.Gamma(t[2], t[3]),
        [2.3, 1.2, 0.5, 2.0],
    ),
    "Beta": (
        lambda t: dist.Beta(t[0], t[1]),
        lambda t: dist.Beta(t[2], t[3]),
        lambda t: td.Beta(t[0], t[1]),
        lambda t: td.Beta(t[2], t[3]),
        [2.3, 1.2, 0.5, 2.0],
    ),
    "Dirichlet": (
        lambda t: dist.Dirichlet(t[:3]),
        lambda t: dist.Dirichlet(t[3:]),
        lambda t: td.Dirichlet(t[:3]),
        lambda t: td.Dirichlet(t[3:]),
        [1.0, 2.0, 0.7, 3.0, 1.0, 1.5],
    ),
    "MultivariateNormal": (
        lambda t: dist.MultivariateNormal(t[:2], scale_tril=jnp.diag(t[2:4])),
        lambda t: dist.MultivariateNormal(t[4:6], scale_tril=jnp.diag(t[6:8])),
        lambda t: td.MultivariateNormal(t[:2], scale_tril=torch.diag(t[2:4])),
        lambda t: td.MultivariateNormal(t[4:6], scale_tril=torch.diag(t[6:8])),
        [0.3, -1.0, 1.2, 0.5, -0.5, 0.1, 2.0, 1.5],
    ),
    "Categorical probs": (
        lambda t: dist.Categorical(probs=jax.nn.softmax(t[:3])),
        lambda t: dist.Categorical(probs=jax.nn.softmax(t[3:])),
        lambda t: td.Categorical(probs=torch.softmax(t[:3], 0)),
        lambda t: td.Categorical(probs=torch.softmax(t[3:], 0)),
        [0.3, -1.0, 1.2, 0.5, -0.5, 0.1],
    ),
    "Independent Normal, batched": (
        lambda t: dist.Normal(t[:6].reshape(2, 3), 1.5).to_event(1),
        lambda t: dist.Normal(t[6:], 2.0).to_event(1),
        lambda t: td.Independent(td.Normal(t[:6].reshape(2, 3), 1.5), 1),
        lambda t: td.Independent(td.Normal(t[6:].expand(2, 3), 2.0), 1),
        [0.3, -1.0, 1.2, 0.5, -0.5, 0.1, 1.0, 2.0, 3.0],
    ),
}

PATHWISE = {
    "LogNormal LogNormal": (
        lambda t: dist.LogNormal(t[0], t[1]),
        lambda t: dist.LogNormal(t[2], t[3]),
        lambda t: td.LogNormal(t[0], t[1]),
        lambda t: td.LogNormal(t[2], t[3]),
        [0.3, 0.6, -0.2, 0.9],
    ),
    "Laplace Normal": (
        lambda t: dist.Laplace(t[0], t[1]),
        lambda t: dist.Normal(t[2], t[3]),
        lambda t: td.Laplace(t[0], t[1]),
        lambda t: td.Normal(t[2], t[3]),
        [0.3, 0.6, -0.2, 1.4],
    ),
    "Gumbel Normal": (
        lambda t: dist.Gumbel(t[0], t[1]),
        lambda t: dist.Normal(t[2], t[3]),
        lambda t: td.Gumbel(t[0], t[1]),
        lambda t: td.Normal(t[2], t[3]),
        [0.3, 0.6, -0.2, 1.4],
    ),
    "Exponential Gamma": (
        lambda t: dist.Exponential(t[0]),
        lambda t: dist.Gamma(t[1], t[2]),
        lambda t: td.Exponential(t[0]),
        lambda t: td.Gamma(t[1], t[2]),
        [0.7, 1.8, 0.9],
    ),
    "Gamma Exponential": (
        lambda t: dist.Gamma(t[0], t[1]),
        lambda t: dist.Exponential(t[2]),
        lambda t: td.Gamma(t[0], t[1]),
        lambda t: td.Exponential(t[2]),
        [2.2, 1.8, 0.9],
    ),
    "Beta Normal": (
        lambda t: dist.Beta(t[0], t[1]),
        lambda t: dist.Normal(t[2], t[3]),
        lambda t: td.Beta(t[0], t[1]),
        lambda t: td.Normal(t[2], t[3]),
        [2.2, 1.8, 0.9, 0.5],
    ),
    "Uniform Normal": (
        lambda t: dist.Uniform(t[0], t[1]),
        lambda t: dist.Normal(t[2], t[3]),
        lambda t: td.Uniform(t[0], t[1]),
        lambda t: td.Normal(t[2], t[3]),
        [-0.5, 1.8, 0.9, 1.1],
    ),
}

ENUMERATED = {
    "Bernoulli probs": (
        lambda t: dist.Bernoulli(probs=t[0]),
        lambda t: dist.Bernoulli(probs=t[1]),
        lambda t: td.Bernoulli(probs=t[0]),
        lambda t: td.Bernoulli(probs=t[1]),
        [0.3, 0.8],
    ),
    "Bernoulli logits, batched events": (
        lambda t: dist.Bernoulli(logits=t[:6].reshape(2, 3)).to_event(1),
        lambda t: dist.Bernoulli(logits=t[6:]).to_event(1),
        lambda t: td.Bernoulli(logits=t[:6].reshape(2, 3)),
        lambda t: td.Bernoulli(logits=t[6:].expand(2, 3)),
        [0.3, -1.0, 1.2, 0.5, -0.5, 0.1, 1.0, 2.0, -1.0],
    ),
    "Categorical logits": (
        lambda t: dist.Categorical(logits=t[:3]),
        lambda t: dist.Categorical(logits=t[3:]),
        lambda t: td.Categorical(logits=t[:3]),
        lambda t: td.Categorical(logits=t[3:]),
        [0.3, -1.0, 1.2, 0.5, -0.5, 0.1],
    ),
    "Binomial": (
        lambda t: dist.Binomial(7, probs=t[0]),
        lambda t: dist.Binomial(7, probs=t[1]),
        lambda t: td.Binomial(7, probs=t[0]),
        lambda t: td.Binomial(7, probs=t[1]),
        [0.3, 0.8],
    ),
    "Bernoulli expanded": (
        lambda t: dist.Bernoulli(probs=t[0]).expand([3, 2]).to_event(2),
        lambda t: dist.Bernoulli(probs=t[1]).expand([3, 2]).to_event(2),
        lambda t: td.Bernoulli(probs=t[0].expand(6)),
        lambda t: td.Bernoulli(probs=t[1].expand(6)),
        [0.3, 0.8],
    ),
}

SCORED = {
    "Poisson": (
        lambda t: dist.Poisson(t[0]),
        lambda t: dist.Poisson(t[1]),
        lambda t: td.Poisson(t[0]),
        lambda t: td.Poisson(t[1]),
        [2.5, 4.0],
    ),
    "Geometric": (
        lambda t: dist.Geometric(probs=t[0]),
        lambda t: dist.Geometric(probs=t[1]),
        lambda t: td.Geometric(probs=t[0]),
        lambda t: td.Geometric(probs=t[1]),
        [0.4, 0.6],
    ),
}


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


# ---- mixtures in every position ------------------------------------------------------------------


def _two(weights, locs, scale=0.7):
    return dist.MixtureSameFamily(dist.Categorical(probs=weights), dist.Normal(locs, scale))


def _mixture_kl(weights, locs, p_loc, p_scale, scale=0.7):
    def log_q(x):
        parts = [
            np.log(w) + stats.norm.logpdf(x, m, scale) for w, m in zip(weights, locs, strict=True)
        ]
        return np.logaddexp.reduce(parts)

    return kl_by_quadrature(log_q, lambda x: stats.norm.logpdf(x, p_loc, p_scale), -25, 25)


WEIGHTS = np.array([0.2, 0.3, 0.5])
LOCS = np.arange(9.0).reshape(3, 3) / 3
P_LOCS = np.array([0.0, 1.0, 2.0])


@pytest.mark.parametrize("form", ["weights shared", "independent", "expanded", "masked"])
def test_batched_mixtures(form):
    # Three rows and three components: weights on the wrong axis would broadcast in silence.
    w, locs = jnp.asarray(WEIGHTS), jnp.asarray(LOCS)
    rows = [_mixture_kl(WEIGHTS, LOCS[i], P_LOCS[i], 2.0) for i in range(3)]
    p = dist.Normal(jnp.asarray(P_LOCS), 2.0)
    if form == "weights shared":
        q, exact = _two(w, locs), sum(rows)
    elif form == "independent":
        q, p, exact = _two(w, locs).to_event(1), p.to_event(1), sum(rows)
    elif form == "expanded":
        q = _two(w, locs[0]).expand([3])
        exact = sum(_mixture_kl(WEIGHTS, LOCS[0], m, 2.0) for m in P_LOCS)
    else:
        mask = jnp.array([True, False, True])
        q, exact = _two(w, locs).mask(mask), rows[0] + rows[2]
    keys = jax.random.split(KEY, 200)
    found = jax.jit(jax.vmap(lambda k: fv.kl(q, p, key=k, num_samples=20)))(keys)
    assert_mean(np.asarray(found, float), exact)


def test_a_mixture_of_vectors():
    weights, locs = np.array([0.4, 0.6]), np.array([[0.0, 1.0], [2.0, -1.0]])

    def q(t):
        return dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.stack([t[0], 1 - t[0]])),
            dist.MultivariateNormal(jnp.asarray(locs), jnp.eye(2)),
        )

    p = dist.MultivariateNormal(jnp.zeros(2), 4.0 * jnp.eye(2))
    values, gradients = value_and_gradient(q, lambda t: p, weights[:1], num_samples=50)

    # Rotated, the two means lie on one axis: along the other both are one normal, KL closed.
    gap = np.linalg.norm(locs[1] - locs[0])
    direction = (locs[1] - locs[0]) / gap
    along = locs @ direction
    across = locs[0] @ np.array([-direction[1], direction[0]])

    def exact(t):
        mixed = _mixture_kl([t[0], 1 - t[0]], along, 0.0, 2.0, scale=1.0)
        normal = td.kl_divergence(td.Normal(across, 1.0), td.Normal(0.0, 2.0)).item()
        return mixed + normal

    value, slope = differentiated(exact, weights[:1])
    assert_mean(values, value)
    assert_mean(gradients, slope)


def test_a_mixture_of_discrete_components_takes_the_score_function():
    k = np.arange(200)

    def exact(t):
        log_q = np.logaddexp(
            np.log(t[0]) + stats.poisson.logpmf(k, t[1]),
            np.log(1 - t[0]) + stats.poisson.logpmf(k, t[2]),
        )
        return np.sum(np.exp(log_q) * (log_q - stats.poisson.logpmf(k, 3.0)))

    theta = [0.3, 1.0, 5.0]
    values, gradients = value_and_gradient(
        lambda t: dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.stack([t[0], 1 - t[0]])), dist.Poisson(t[1:])
        ),
        lambda t: dist.Poisson(3.0),
        theta,
    )
    value, slope = differentiated(exact, theta)
    assert_mean(values, value)
    assert_mean(gradients, slope)


# ---- zeros, masks, joints, dtypes ----------------------------------------------------------------


@pytest.mark.parametrize(
    "q",
    [
        lambda t: dist.Bernoulli(probs=jnp.stack([t[0], 0.0 * t[0], 1.0 + 0.0 * t[0]])).to_event(1),
        lambda t: dist.Categorical(
            logits=jnp.array([0.0, 1.0, -jnp.inf]) + t[0], validate_args=False
        ),
        lambda t: dist.Categorical(probs=jnp.stack([t[0], 1 - t[0], 0.0 * t[0]])),
    ],
    ids=["Bernoulli", "Categorical logits", "Categorical probs"],
)
def test_zero_probabilities_give_finite_values_and_gradients(q):
    if q(jnp.array([0.3])).event_shape:
        p = dist.Bernoulli(probs=jnp.full(3, 0.4)).to_event(1)
    else:
        p = dist.Categorical(probs=jnp.array([0.3, 0.3, 0.4]))
    value, gradient = jax.value_and_grad(lambda t: fv.kl(q(t), p))(jnp.array([0.3]))
    d = q(jnp.array([0.3]))
    if d.event_shape:
        probs = np.array([[0.7, 0.3], [1.0, 0.0], [0.0, 1.0]])
        reference = np.array([0.6, 0.4])
    else:
        probs, reference = np.asarray(d.probs, float), np.array([0.3, 0.3, 0.4])
    exact = np.sum(
        np.where(probs > 0, probs * np.log(np.where(probs > 0, probs, 1) / reference), 0)
    )
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    assert jnp.isfinite(gradient).all()


MASK = jnp.array([True, False, True])


@pytest.mark.parametrize("kind", [dist.Normal, dist.Laplace], ids=["closed", "drawn"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: d.mask(MASK),
        lambda d: d.mask(MASK).to_event(1),
        lambda d: d.mask(MASK).expand([1, 3]),
    ],
    ids=["mask", "mask in event", "mask expanded"],
)
def test_masked_elements_count_for_nothing(kind, wrap):
    q, p = wrap(dist.Normal(jnp.ones(3), 1.0)), kind(0.0, 1.0)
    p = p.expand([3]).to_event(1) if q.event_shape else p
    log_p = stats.norm.logpdf if kind is dist.Normal else stats.laplace.logpdf
    one = kl_by_quadrature(lambda x: stats.norm.logpdf(x, 1, 1), log_p, -15, 15)
    keys = jax.random.split(KEY, 100)
    found = jax.jit(jax.vmap(lambda k: fv.kl(q, p, key=k)))(keys)
    assert_mean(np.asarray(found, float), 2 * one)


def test_a_mask_on_both_sides_is_their_intersection():
    other = jnp.array([True, True, False])
    q, p = dist.Normal(jnp.arange(3.0), 1.0).mask(MASK), dist.Normal(5.0, 1.0).expand([3])
    assert float(fv.kl(q, p.mask(other))) == pytest.approx(12.5)


def test_joints_are_sums_over_members_whatever_their_nesting():
    n, g = dist.Normal(jnp.ones(2), 1.0), dist.Gamma(2.0, 1.0)
    p_n, p_g = dist.Normal(0.0, 1.0), dist.Gamma(1.0, 2.0)
    single = float(fv.kl(n, p_n)) + float(fv.kl(g, p_g))
    assert float(fv.kl({"n": n, "g": g}, {"g": p_g, "n": p_n})) == pytest.approx(single)
    assert float(fv.kl((n, g), [p_n, p_g])) == pytest.approx(single)
    nested = fv.kl({"a": (n, {"b": g})}, {"a": (p_n, {"b": p_g})})
    assert float(nested) == pytest.approx(single)


def test_members_of_a_joint_draw_independently():
    q, p = dist.Laplace(0.0, 1.0), dist.Normal(0.0, 1.0)
    keys = jax.random.split(KEY, 400)
    pair = jax.vmap(lambda k: fv.kl((q, q), (p, p), key=k, num_samples=10))(keys)
    single = jax.vmap(lambda k: fv.kl(q, p, key=k, num_samples=10))(keys)
    # Twice the variance, not four times as with shared draws; 400 draws tell within 40 %.
    assert 1.2 < float(pair.var() / single.var()) < 2.8


@pytest.mark.parametrize("name", ["Laplace Normal", "Gumbel Normal"])
def test_sums_over_batch(name):
    q, p, torch_q, torch_p, theta = PATHWISE[name]
    n = len(theta)
    thetas = np.asarray(theta)[:, None] * np.linspace(1.0, 1.5, 3)
    values, gradients = value_and_gradient(
        lambda t: q(t.reshape(n, 3)), lambda t: p(t.reshape(n, 3)), thetas.ravel()
    )
    exact, slope = torch_oracle(
        lambda t: torch_q(t.reshape(n, 3)), lambda t: torch_p(t.reshape(n, 3)), thetas.ravel()
    )
    assert_mean(values, exact)
    assert_mean(gradients, slope)


def test_sticking_the_landing_has_no_variance_at_the_optimum():
    def gradients(estimator):
        def loss(t, key):
            q = dist.Normal(t[0], t[1])
            return fv.kl(q, dist.Normal(0.5, 2.0), key=key, num_samples=10, estimator=estimator)

        each = jax.vmap(jax.grad(loss), (None, 0))
        return each(jnp.array([0.5, 2.0]), jax.random.split(KEY, 50))

    assert float(jnp.abs(gradients("sticking_the_landing")).max()) < 1e-6
    assert float(gradients("pathwise").std(0).min()) > 1e-2


def test_vmap_over_params_equals_a_loop():
    thetas = jnp.array([[0.5, 1.0], [1.0, 2.0], [2.0, 0.5]])

    @jax.jit
    def loss(t):
        return fv.kl(dist.Laplace(t[0], t[1]), dist.Normal(0.0, 1.0), key=KEY, num_samples=5)

    batched = jax.vmap(jax.value_and_grad(loss))(thetas)
    looped = [jax.value_and_grad(loss)(t) for t in thetas]
    np.testing.assert_allclose(batched[0], [v for v, _ in looped], rtol=1e-5)
    np.testing.assert_allclose(batched[1], [g for _, g in looped], rtol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_dtype_is_that_of_the_distributions(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        theta = jnp.asarray([2.0, 1.0], dtype)
        p = dist.Gamma(theta[1], theta[0])
        for estimator in (None, "pathwise", "score_function"):
            value, gradient = jax.eval_shape(
                jax.value_and_grad(
                    lambda t, e=estimator: fv.kl(
                        dist.Gamma(t[0], t[1]), p, key=KEY, num_samples=8, estimator=e
                    )
                ),
                theta,
            )
            assert value.dtype == gradient.dtype == dtype


def test_float64_is_float64_accurate():
    with jax.enable_x64(True):
        q, p, torch_q, torch_p, theta = CLOSED["Beta"]
        gradient = jax.grad(lambda t: fv.kl(q(t), p(t)))(jnp.asarray(theta, jnp.float64))
        np.testing.assert_allclose(gradient, torch_oracle(torch_q, torch_p, theta)[1], rtol=1e-8)


# ---- refusals ------------------------------------------------------------------------------------

NORMAL, POISSON = dist.Normal(0.0, 1.0), dist.Poisson(2.0)
MIXTURE = _two(jnp.array([0.5, 0.5]), jnp.array([0.0, 3.0]))

REFUSED = {
    "unknown estimator": (
        NORMAL,
        NORMAL,
        {"estimator": "rsample"},
        "must be one of closed_form, pathwise",
    ),
    "samples": (
        NORMAL,
        NORMAL,
        {"num_samples": 0},
        "num_samples must be a positive integer, got 0",
    ),
    "samples True": (NORMAL, NORMAL, {"num_samples": True}, "positive integer, got True"),
    "samples float": (NORMAL, NORMAL, {"num_samples": 5.0}, "positive integer, got 5.0"),
    "no closed form": (
        dist.Laplace(),
        NORMAL,
        {"estimator": "closed_form"},
        "Laplace and Normal has no closed form",
    ),
    "pathwise, discrete": (
        POISSON,
        POISSON,
        {"estimator": "pathwise"},
        'estimator="pathwise" would give a zero or biased gradient: Poisson is discrete.\n'
        'Use estimator="score_function"',
    ),
    "landing, discrete": (
        POISSON,
        POISSON,
        {"estimator": "sticking_the_landing"},
        'estimator="sticking_the_landing" would give',
    ),
    "pathwise, mixture": (
        dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.StudentT(jnp.array([3.0, 4.0]))
        ),
        NORMAL,
        {"estimator": "pathwise"},
        'its weights get no gradient.\nUse estimator="enumeration"',
    ),
    "enumeration, continuous": (
        NORMAL,
        NORMAL,
        {"estimator": "enumeration"},
        "no small finite support",
    ),
    "one draw for a baseline": (POISSON, POISSON, {"num_samples": 1}, "needs num_samples >= 2"),
    "infinite, real in positive": (
        NORMAL,
        dist.Gamma(1.0, 1.0),
        {},
        "KL(q || p) is infinite: q = Normal has support real, p = Gamma only positive",
    ),
    "infinite, wider interval": (
        dist.Uniform(-1.0, 1.0),
        dist.Uniform(0.0, 1.0),
        {},
        "Choose a q whose support lies inside p's",
    ),
    "infinite, counts in booleans": (POISSON, dist.Bernoulli(0.5), {}, "is infinite"),
    "infinite, counts in fewer": (dist.Binomial(5, 0.5), dist.Binomial(4, 0.5), {}, "is infinite"),
    "infinite, vector in ordered": (
        dist.Normal(jnp.zeros(2), 1.0).to_event(1),
        dist.TransformedDistribution(
            dist.Normal(jnp.zeros(2), 1.0).to_event(1), dist.transforms.OrderedTransform()
        ),
        {},
        "only ordered vector",
    ),
    "infinite, simplex in vector": (
        dist.Dirichlet(jnp.ones(3)),
        dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)),
        {},
        "is infinite",
    ),
    "mixed kinds": (
        POISSON,
        NORMAL,
        {},
        "q = Poisson is discrete and p = Normal is continuous: KL(q || p) is undefined",
    ),
    "column": (
        dist.Normal(jnp.zeros(3), 1.0),
        dist.Normal(jnp.zeros((3, 1)), 1.0),
        {},
        "q = Normal has batch shape (3,), p = Normal has (3, 1)",
    ),
    "p wider": (NORMAL, dist.Normal(jnp.zeros(3), 1.0), {}, "p must broadcast to q's"),
    "events": (
        dist.Normal(jnp.zeros(3), 1.0).to_event(1),
        dist.Normal(jnp.zeros(3), 1.0),
        {},
        "event shape (3,), p = Normal has ()",
    ),
    "names": (
        {"a": NORMAL},
        {"b": NORMAL},
        {},
        "q has members ['a'], p has ['b']: they must be the same",
    ),
    "lengths": ((NORMAL,), (NORMAL, NORMAL), {}, "they must be the same"),
    "no right estimator": (
        dist.RightCensoredDistribution(NORMAL, jnp.array(1)),
        NORMAL,
        {},
        "no estimator gives KL(q || p) a right gradient",
    ),
    "inside a joint": ({"a": {"b": POISSON}}, {"a": {"b": NORMAL}}, {}, "q['a']['b'] = Poisson"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refuses_with_a_reason(case):
    q, p, options, message = case
    with pytest.raises(ValueError, match=r".+") as refused:
        fv.kl(q, p, key=KEY, **options)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "q", [dist.Laplace(), MIXTURE, POISSON], ids=["drawn", "mixture", "scored"]
)
def test_a_missing_key_is_asked_for(q):
    p = POISSON if q is POISSON else NORMAL
    with pytest.raises(
        ValueError, match=r"is estimated from draws \(\w+\): pass key=jax.random.key"
    ):
        fv.kl(q, p)


@pytest.mark.parametrize(
    ("q", "p", "message"),
    [
        (
            dist.Normal,
            NORMAL,
            "q must be a numpyro distribution, got DistributionMeta: call the family on",
        ),
        (NORMAL, 3.0, "p must be a numpyro distribution, got float: call the family"),
        ({"a": NORMAL}, NORMAL, "must both be joints, or neither"),
        ({"a": {"b": NORMAL}}, {"a": NORMAL}, "q['a'] and p['a'] must both be joints"),
    ],
)
def test_refuses_what_is_no_distribution(q, p, message):
    with pytest.raises(TypeError) as refused:
        fv.kl(q, p)
    assert message in str(refused.value)


def test_refusals_hold_under_jit_where_bounds_are_traced():
    # Traced bounds cannot be compared; the fixed parts of a support still can.
    with pytest.raises(ValueError, match="is infinite"):
        jax.jit(lambda m: fv.kl(dist.Normal(m, 1.0), dist.Gamma(1.0, 1.0), key=KEY))(0.0)
    value = jax.jit(lambda a: fv.kl(dist.Uniform(0.0, a), dist.Uniform(0.0, 2.0), key=KEY))(1.0)
    assert float(value) == pytest.approx(np.log(2), rel=1e-5)
