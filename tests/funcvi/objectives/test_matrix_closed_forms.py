"""Closed forms of Wishart and LKJ laws in float32 against fifty digits.

Their draws lose the mass near a singular matrix: from Wishart's of concentration 2.01 in three
dimensions to that of 5 an average over draws gave 104 for 298.
"""

from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import numpyro.distributions as dist
import pytest

import funcvi as fv


@pytest.fixture(autouse=True)
def _digits() -> Any:
    with mp.workdps(50):
        yield


def wishart_kl(n: Any, ours: Any, m: Any, theirs: Any) -> Any:
    """The usual formula; e.g. Penny 2001, "KL-divergences of normal, gamma, Dirichlet and Wishart
    densities"."""
    p = ours.rows
    between = mp.inverse(theirs) * ours
    trace = sum(between[i, i] for i in range(p))

    def log_gamma(a: Any) -> Any:
        return sum(mp.loggamma(a - mp.mpf(i) / 2) for i in range(p))

    log_mean = sum(mp.digamma((n - i) / 2) for i in range(p))
    kl = n / 2 * (trace - p) - m / 2 * mp.log(mp.det(between))
    return kl + log_gamma(m / 2) - log_gamma(n / 2) + (n - m) / 2 * log_mean


def lkj_kl(a: Any, b: Any, size: int) -> Any:
    """By the normaliser of Lewandowski et al. 2009, equation 16, and its derivative."""

    def log_norm(eta: Any) -> Any:
        total = mp.mpf(0)
        for k in range(1, size):
            half = eta + mp.mpf(size - k - 1) / 2
            total += (size - k) * mp.log(mp.beta(half, half))
            total += (2 * eta - 2 + size - k) * (size - k) * mp.log(2)
        return total

    return log_norm(b) - log_norm(a) + (a - b) * mp.diff(log_norm, a)


WISHARTS = [
    (2.01, 5.0, 1.0), (2.1, 2.2, 1.0), (5.0, 2.1, 0.01), (100.0, 101.0, 0.01), (1e3, 1.1e3, 0.1)
]  # fmt: skip


@pytest.mark.parametrize("name", ["Wishart", "InverseWishart"])
@pytest.mark.parametrize(("n", "m", "step"), WISHARTS)
def test_wishart(n: float, m: float, step: float, name: str) -> None:
    rng = np.random.default_rng(0)
    first = np.float32(3 * np.eye(3) + np.tril(rng.normal(size=(3, 3))))
    second = np.float32(first + step * np.abs(np.tril(rng.normal(size=(3, 3)))))
    n, m = np.float32(n), np.float32(m)
    exact = [mp.matrix(np.float64(f).tolist()) for f in (first, second)]
    scales = [f * f.T for f in exact]
    if name == "InverseWishart":
        scales = [mp.inverse(scale) for scale in scales]
    true = wishart_kl(mp.mpf(float(n)), scales[0], mp.mpf(float(m)), scales[1])
    for kind in (getattr(dist, name), getattr(dist, name + "Cholesky")):
        ours = fv.kl(kind(n, scale_tril=first), kind(m, scale_tril=second))
        np.testing.assert_allclose(ours, float(true), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [2, 3, 6])
@pytest.mark.parametrize(("a", "b"), [(0.05, 1.0), (1.0, 0.05), (2.0, 2.01), (1e3, 1.1e3)])
def test_lkj(a: float, b: float, size: int) -> None:
    a, b = np.float32(a), np.float32(b)
    true = lkj_kl(mp.mpf(float(a)), mp.mpf(float(b)), size)
    for kind in (dist.LKJ, dist.LKJCholesky):
        ours = fv.kl(kind(size, a), kind(size, b))
        np.testing.assert_allclose(ours, float(true), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_batches_and_derivatives() -> None:
    """The draws agree where they lose nothing, in value and in both derivatives.

    A thousand at a time: of larger batches, jaxlib 0.10 hangs on two cores (docs/promises.md).
    """
    keys, eye = jax.random.split(jax.random.key(0), 100), jnp.eye(2)

    def pair(x: Any) -> Any:
        q = dist.WishartCholesky(x, scale_tril=jnp.stack([eye, x / 5 * eye]))
        return (q, dist.LKJCholesky(3, x)), (
            dist.WishartCholesky(7.0, scale_tril=1.2 * eye), dist.LKJCholesky(3, 2.0)
        )  # fmt: skip

    def drawn(x: Any, key: Any) -> Any:
        each = zip(*pair(x), strict=True)
        return sum(fv.kl(q, p, key=key, num_samples=1000, estimator="pathwise") for q, p in each)

    q, p = pair(6.0)
    assert fv.kl(q[0], p[0], estimator="closed_form").shape == ()
    for derivative in (lambda f: f, jax.grad, jax.hessian):
        exact = jax.jit(derivative(lambda x: sum(map(fv.kl, *pair(x)))))(6.0)
        of_draws = jax.jit(lambda key, d=derivative: d(drawn)(6.0, key))
        mean = np.mean([of_draws(key) for key in keys])
        np.testing.assert_allclose(mean, exact, rtol=0.03)
