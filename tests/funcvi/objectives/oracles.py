"""What the tests of objectives compare with: torch, quadrature, finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import torch
import torch.distributions as td
from scipy import integrate

import funcvi as fv

KEY = jax.random.key(20)
STANDARD_ERRORS = 5  # a right estimator fails one comparison in two million


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
