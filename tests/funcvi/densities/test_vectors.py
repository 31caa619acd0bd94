"""Log densities of vectors in float32 against fifty digits, at our own draws."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import numpyro.distributions as dist
import pytest

import funcvi as fv
from funcvi.densities.log_prob import log_prob

KEY = jax.random.key(0)


@pytest.mark.parametrize("df", [0.5, 5.0, 1e4, 1e7])
def test_student_vectors_of_many_degrees_of_freedom(df: float) -> None:
    """At 1e7 it was off by 2.5 in a density of one."""
    factor = np.float32([[1.0, 0.0, 0.0], [0.5, 0.4, 0.0], [-0.3, 0.2, 2.0]])
    d = dist.MultivariateStudentT(df, jnp.zeros(3), factor)
    x = fv.sample(d, KEY, (200,))
    z = np.linalg.solve(np.float64(factor), np.float64(x).T).T
    log_det = mp.log(float(np.prod(np.diag(np.float64(factor)))))
    with mp.workdps(50):
        half = mp.mpf(df) / 2
        norm = mp.loggamma(half + 1.5) - mp.loggamma(half) - 1.5 * mp.log(2 * half * mp.pi)
        true = [
            float(norm - log_det - (half + 1.5) * mp.log1p(mp.mpf(square) / df))
            for square in np.sum(z**2, axis=-1)
        ]
    np.testing.assert_allclose(log_prob(d, x), true, rtol=1e-5, atol=1e-5)


def test_student_vectors_broadcast() -> None:
    d = dist.MultivariateStudentT(
        jnp.array([3.0, 4.0]), jnp.ones((5, 1, 3)), jnp.stack([jnp.eye(3), 2 * jnp.eye(3)])
    )
    x = fv.sample(d, KEY, (7,))
    np.testing.assert_allclose(log_prob(d, x), d.log_prob(x), rtol=1e-5, atol=1e-5)


def test_skewed_angles_see_the_density_of_their_base() -> None:
    """Of a concentration of 1e4 numpyro's is off by 3e-4."""
    loc, skewness = np.float64([1.0, 2.0]), np.float64([0.25, 0.5])
    k = np.float64([1.0, 1e4])
    base = dist.VonMises(jnp.asarray(loc), jnp.asarray(k)).to_event(1)
    d = dist.SineSkewed(base, jnp.asarray(skewness))
    x = fv.sample(d, KEY, (200,))
    gap = np.float64(x) - loc
    with mp.workdps(50):
        norm = sum(float(mp.log(2 * mp.pi * mp.besseli(0, c)) - c) for c in k)
    falls = np.sum(2 * k * np.sin(gap / 2) ** 2, axis=-1)
    true = np.log1p(np.sum(skewness * np.sin(gap), axis=-1)) - norm - falls
    np.testing.assert_allclose(log_prob(d, x), true, rtol=1e-5, atol=2e-5)
