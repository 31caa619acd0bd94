"""Closed forms in float32 against fifty digits, from near to far and from small to large."""

import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import numpyro.distributions as dist
import pytest
from mpmath import mpf

import funcvi as fv
from funcvi.objectives.closed_forms import closed_form


@pytest.fixture(autouse=True)
def _digits():
    with mp.workdps(60):
        yield


def exact(values):
    return [mpf(float(x)) for x in values]


def gamma_kl(a, b, c, d):
    gap = mp.loggamma(c) - mp.loggamma(a) + (a - c) * mp.digamma(a)
    return gap + c * mp.log(b / d) + a * (d / b - 1)


def dirichlet_kl(old, new):
    total = sum(old)
    kl = mp.loggamma(total) - mp.loggamma(sum(new))
    for a, c in zip(old, new, strict=True):
        kl += mp.loggamma(c) - mp.loggamma(a) + (a - c) * (mp.digamma(a) - mp.digamma(total))
    return kl


def weibull_gamma_kl(scale, k, a, b):
    kl = mp.log(k) - a * mp.log(scale * b) + a * mp.euler / k + mp.loggamma(a)
    return kl + scale * b * mp.gamma(1 + 1 / k) - mp.euler - 1


def normal_kl(m, s, n, t):
    return mp.log(t / s) + (s * s + (m - n) ** 2) / (2 * t * t) - mpf(1) / 2


def near(seed, *, spread=None, count=1):
    """Parameters over ten orders of magnitude, and others beside them or far away."""
    rng = np.random.default_rng(seed)
    old = np.float32(10 ** rng.uniform(-4, 6, count))
    spread = rng.choice([1e-3, 0.03, 1.0]) if spread is None else spread
    return old, np.float32(old * np.exp(spread * rng.normal(size=count)))


def is_right(ours, true, relative=1e-5, absolute=1e-6):
    assert abs(float(ours) - float(true)) < max(absolute, relative * abs(float(true)))


@pytest.mark.few(4)
@pytest.mark.parametrize("seed", range(30))
def test_gammas(seed):
    (a, b), (c, d) = near(seed, count=2)
    # What half a unit in the last place of a rate is worth is beyond any formula.
    rounding = 1e-7 * float(c) * abs(float(np.log(a / c) - np.log(b / d)))
    true = gamma_kl(*exact((a, b, c, d)))
    is_right(fv.kl(dist.Gamma(a, b), dist.Gamma(c, d)), true, absolute=1e-6 + rounding)


def test_gammas_of_a_hundred_thousand():
    ours = fv.kl(dist.Gamma(1e5, 1e5), dist.Gamma(1.001e5, 1e5))
    is_right(ours, gamma_kl(*exact((1e5, 1e5, np.float32(1.001e5), 1e5))))


@pytest.mark.few(4)
@pytest.mark.parametrize("seed", range(30))
def test_dirichlets_and_betas(seed):
    old, new = near(seed, count=2 + seed % 4)
    true = dirichlet_kl(exact(old), exact(new))
    is_right(fv.kl(dist.Dirichlet(old), dist.Dirichlet(new)), true)
    true = dirichlet_kl(exact(old[:2]), exact(new[:2]))
    is_right(fv.kl(dist.Beta(*old[:2]), dist.Beta(*new[:2])), true)


@pytest.mark.few(2)
@pytest.mark.parametrize("seed", range(10))
def test_dirichlets_far_apart(seed):
    """Where nearly all mass is in one component, float32 keeps four digits."""
    old, new = near(seed, spread=4.0, count=3)
    true = dirichlet_kl(exact(old), exact(new))
    is_right(fv.kl(dist.Dirichlet(old), dist.Dirichlet(new)), true, 3e-4)


@pytest.mark.parametrize("k", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("a", [0.5, 2.0, 30.0])
def test_weibull_and_gamma(a, k):
    true = weibull_gamma_kl(*exact(np.float32([1.3, k, a, 0.8])))
    is_right(fv.kl(dist.Weibull(1.3, k), dist.Gamma(a, 0.8)), true)


@pytest.mark.parametrize(("s", "t"), [*itertools.product([1e-3, 1.0, 1.0001, 1e3], repeat=2)])
def test_normals(s, t):
    true = normal_kl(*exact(np.float32([0.3, s, 0.2, t])))
    is_right(fv.kl(dist.Normal(0.3, s), dist.Normal(0.2, t)), true)


@pytest.mark.parametrize("size", [2, 300])
def test_normal_vectors(size):
    """Of the same law the divergence is zero, whatever its size; else as numpy has it."""
    root = np.random.default_rng(size).normal(size=(size, size)) / np.sqrt(size)
    covariance = root @ root.T + np.eye(size)
    q = dist.MultivariateNormal(jnp.zeros(size), jnp.asarray(covariance))
    assert abs(float(fv.kl(q, q))) < 1e-6
    p = dist.MultivariateNormal(jnp.full(size, 0.1), 2.0 * jnp.eye(size))
    trace = np.trace(covariance) / 2 + 0.01 * size / 2 - size
    true = (trace + size * np.log(2.0) - np.linalg.slogdet(covariance)[1]) / 2
    is_right(fv.kl(q, p), true)


PAIRS = {
    "gamma": lambda x: (dist.Gamma(x, 2 * x), dist.Gamma(2.0, 1.5)),
    "prior": lambda x: (dist.Gamma(2.0, 1.5), dist.Gamma(x, 2 * x)),
    "chi2": lambda x: (dist.Chi2(x), dist.Gamma(2.0, 1.5)),
    "beta": lambda x: (dist.Beta(x, 2.0), dist.Beta(1.0, x)),
    "dirichlet": lambda x: (dist.Dirichlet(x * jnp.arange(1.0, 4)), dist.Dirichlet(jnp.ones(3))),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("x", [0.02, 0.7, 5.0, 90.0])
@pytest.mark.parametrize("name", PAIRS)
def test_two_derivatives(name, x):
    """Against numpyro's formula in float64, whose terms are not large here."""
    from numpyro.distributions.kl import kl_divergence

    with jax.enable_x64(True):
        for derivative in (jax.grad, jax.hessian):
            ours = derivative(lambda x: closed_form(*PAIRS[name](x)))(jnp.float64(x))
            theirs = derivative(lambda x: kl_divergence(*PAIRS[name](x)))(jnp.float64(x))
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)
