"""Derivatives beyond the first: right in mean, against sums and quadrature, or refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

import funcvi as fv

KEY = jax.random.key(5)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
GRID = jnp.asarray(NODES)
MASS = jnp.asarray(WEIGHTS / np.sqrt(2 * np.pi))
COUNTS = jnp.arange(60)


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def of_poisson(rate):
    q, p = dist.Poisson(rate), dist.Poisson(2.0)
    return jnp.sum(jnp.exp(q.log_prob(COUNTS)) * (q.log_prob(COUNTS) - p.log_prob(COUNTS)))


def of_normal(scale):
    z = 0.3 + scale * GRID
    return jnp.sum(MASS * (norm.logpdf(z, 0.3, scale) - norm.logpdf(z)))


def of_both(rate):
    return of_poisson(rate) + of_normal(rate)


def log_joint(z):
    return norm.logpdf(z) + norm.logpdf(2.0, z)


def of_two_draws(scale):
    """The importance-weighted bound with K = 2."""
    z = 0.3 + scale * GRID
    log_weight = log_joint(z) - norm.logpdf(z, 0.3, scale)
    pairs = logsumexp(jnp.stack(jnp.broadcast_arrays(log_weight[:, None], log_weight)), axis=0)
    return jnp.sum(MASS[:, None] * MASS * (pairs - jnp.log(2.0)))


def kl(q, p, estimator, x, key):
    return fv.kl(q(x), p, key=key, num_samples=50, estimator=estimator)


def normal(x):
    return dist.Normal(0.3, x)


def joint(x):
    return {"a": dist.Poisson(x), "b": dist.Normal(0.3, x)}


def bound(estimator, x, key):
    return fv.importance_weighted_elbo(
        normal(x), log_joint, key=key, num_samples=2, estimator=estimator
    )


P = {"a": dist.Poisson(2.0), "b": dist.Normal(0.0, 1.0)}
CASES = {
    "score": (partial(kl, dist.Poisson, dist.Poisson(2.0), "score_function"), of_poisson),
    "pathwise": (partial(kl, normal, dist.Normal(), "pathwise"), of_normal),
    "scored normal": (partial(kl, normal, dist.Normal(), "score_function"), of_normal),
    "landing": (partial(kl, normal, dist.Normal(), "sticking_the_landing"), of_normal),
    "joint": (partial(kl, joint, P, None), of_both),
    "bound": (partial(bound, "pathwise"), of_two_draws),
    "scored bound": (partial(bound, "score_function"), of_two_draws),
}
DERIVATIVES = {
    "gradient": lambda f: jax.grad(f),
    "hessian": lambda f: jax.hessian(f),
    "jvp of grad": lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (1.0,))[1],
    "grad of grad": lambda f: jax.grad(jax.grad(f)),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_right_in_mean(name):
    loss, exact = CASES[name]
    keys = jax.random.split(KEY, 4000)
    for kind, derivative in DERIVATIVES.items():
        each = jax.jit(jax.vmap(lambda k, d=derivative: d(lambda x: loss(x, k))(1.4)))(keys)
        error = float(each.std()) / np.sqrt(len(keys))
        assert abs(float(each.mean()) - float(derivative(exact)(1.4))) < 4 * error + 1e-9, kind


@pytest.mark.parametrize("name", ["score", "landing"])
def test_third_derivatives_too(name):
    loss, exact = CASES[name]

    def third(f):
        return jax.grad(jax.grad(jax.grad(f)))(1.4)

    keys = jax.random.split(KEY, 4000)
    each = jax.jit(jax.vmap(lambda k: third(lambda x: loss(x, k))))(keys)
    error = float(each.std()) / np.sqrt(len(keys))
    assert abs(float(each.mean()) - float(third(exact))) < 4 * error


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", ["hessian", "jvp of grad", "grad of grad"])
def test_the_doubly_reparameterised_bound_has_one_derivative(kind, compiled):
    second = DERIVATIVES[kind](lambda x: bound("doubly_reparameterised", x, KEY))
    with pytest.raises(ValueError, match=r"no right second derivative: use estimator=\"pathwise\""):
        (jax.jit(second) if compiled else second)(1.4)


def test_nor_has_its_gradient_one_in_the_data():
    def gradient(data):
        def loss(x):
            return fv.importance_weighted_elbo(
                normal(x),
                lambda z: norm.logpdf(z) + norm.logpdf(data, z),
                key=KEY,
                num_samples=2,
                estimator="doubly_reparameterised",
            )

        return jax.grad(loss)(1.4)

    with pytest.raises(ValueError, match="no right second derivative"):
        jax.grad(gradient)(2.0)
