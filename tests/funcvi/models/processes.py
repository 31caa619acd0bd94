"""Gaussian processes, exact and approximate, and neural networks with priors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.hsgp.approximation import hsgp_squared_exponential

from tests.funcvi.models.entries import entry

RNG = np.random.default_rng(3)
X = np.linspace(-1.0, 1.0, 6)
Y = np.sin(3 * X) + RNG.normal(0.0, 0.1, 6)
YES = (Y > 0).astype(int)


def kernel(x, z, variance, length):
    return variance * jnp.exp(-0.5 * ((x[:, None] - z) / length) ** 2)


def process(x, y):
    variance, length, noise = (
        numpyro.sample(n, dist.LogNormal(0.0, 1.0)) for n in ("variance", "length", "noise")
    )
    covariance = kernel(x, x, variance, length) + (noise + 1e-4) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), covariance), obs=y)


def process_classifier(x, yes):
    length = numpyro.sample("length", dist.InverseGamma(3.0, 1.0))
    factor = jnp.linalg.cholesky(kernel(x, x, 1.0, length) + 1e-4 * jnp.eye(len(x)))
    unit = numpyro.sample("unit", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1))
    f = numpyro.deterministic("f", factor @ unit)
    numpyro.sample("yes", dist.Bernoulli(logits=f), obs=yes)


def process_counts(x, counts):
    """The latent function has the law itself."""
    length = numpyro.sample("length", dist.Gamma(3.0, 6.0))
    covariance = kernel(x, x, 1.0, length) + 1e-3 * jnp.eye(len(x))
    f = numpyro.sample("f", dist.MultivariateNormal(0.0, covariance))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("counts", dist.Poisson(jnp.exp(f)), obs=counts)


def inducing_points(x, y):
    length, noise = (numpyro.sample(n, dist.HalfNormal(1.0)) for n in ("length", "noise"))
    points = numpyro.sample("points", dist.Uniform(-1.0, 1.0).expand([2]).to_event(1))
    inner = jnp.linalg.cholesky(kernel(points, points, 1.0, length + 0.3) + 0.01 * jnp.eye(2))
    w = jax.scipy.linalg.solve_triangular(inner, kernel(points, x, 1.0, length + 0.3), lower=True)
    law = dist.LowRankMultivariateNormal(jnp.zeros(len(x)), w.T, jnp.full(len(x), noise**2 + 0.01))
    numpyro.sample("y", law, obs=y)


def basis_functions(x, y):
    """numpyro's Hilbert space approximation."""
    amplitude = numpyro.sample("amplitude", dist.LogNormal(0.0, 1.0))
    length = numpyro.sample("length", dist.InverseGamma(3.0, 1.0))
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 1.0))
    f = hsgp_squared_exponential(
        x=x, alpha=amplitude, length=length, ell=1.5, m=4, non_centered=True
    )
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(f, noise), obs=y)


def periodic_process(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    row = scale * jnp.exp(-jnp.minimum(jnp.arange(6.0), 6.0 - jnp.arange(6.0))) + 1e-2
    row = row.at[0].add(0.1)
    f = numpyro.sample("f", dist.CirculantNormal(jnp.zeros(6), covariance_row=row))
    numpyro.sample("y", dist.Normal(f, 0.2).to_event(1), obs=y)


def network(x, y):
    """Two hidden layers, and the precision of the noise."""
    w1 = numpyro.sample("w1", dist.Normal(jnp.zeros((1, 3)), 1.0))
    w2 = numpyro.sample("w2", dist.Normal(jnp.zeros((3, 3)), 1.0))
    w3 = numpyro.sample("w3", dist.Normal(jnp.zeros((3, 1)), 1.0))
    precision = numpyro.sample("precision", dist.Gamma(3.0, 1.0))
    out = (jnp.tanh(jnp.tanh(x[:, None] @ w1) @ w2) @ w3)[:, 0]
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(out, 1 / jnp.sqrt(precision)), obs=y)


def network_by_layers(x, yes):
    """As random_flax_module has it: a pytree of weights, each its own site, scales by layer."""
    sizes, h = (1, 3, 2, 1), x[:, None]
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        scale = numpyro.sample(f"layer {layer}/scale", dist.HalfNormal(1.0))
        kernel = numpyro.sample(
            f"layer {layer}/kernel", dist.Normal(0.0, scale).expand([fan_in, fan_out]).to_event(2)
        )
        bias = numpyro.sample(f"layer {layer}/bias", dist.Cauchy().expand([fan_out]).to_event(1))
        h = jnp.tanh(h @ kernel + bias)
    numpyro.sample("yes", dist.Bernoulli(logits=h[:, 0]), obs=yes)


def radial(y):
    """Gaussian shells."""
    x = numpyro.sample("x", dist.Uniform(-6.0, 6.0 * jnp.ones(2)).to_event(1))
    for centre in (-2.0, 2.0):
        numpyro.factor(f"shell {centre}", -10 * (jnp.linalg.norm(x - centre) - 1.0) ** 2)
    numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=y)


def copula(y):
    rho = numpyro.sample("rho", dist.Uniform(-0.9, 0.9))
    rates = numpyro.sample("rates", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
    correlation = jnp.array([[1.0, 0.0], [0.0, 1.0]]) + rho * jnp.array([[0.0, 1.0], [1.0, 0.0]])
    law = dist.GaussianCopula(dist.Logistic(0.5, rates), correlation_matrix=correlation)
    numpyro.sample("y", law, obs=y)


ENTRIES = [
    entry(process, X, Y),
    entry(process_classifier, X, YES),
    entry(process_counts, X, np.array([0, 1, 0, 3, 2, 1])),
    entry(inducing_points, X, Y),
    entry(basis_functions, X, Y),
    entry(periodic_process, Y),
    entry(network, X, Y),
    entry(network_by_layers, X, YES),
    entry(radial, 0.3),
    entry(copula, RNG.uniform(0.1, 0.9, (3, 2))),
]
