"""Scrambled Sobol' points: a net for every key, each point uniform, and normals made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from funcvi.sampling.noise import normal_of_fraction
from funcvi.sampling.of_normals import draw_of_normals, num_normals
from funcvi.sampling.sobol import sobol_normals, sobol_words

KEYS = jax.random.split(jax.random.key(4), 2000)


def test_each_dyadic_interval_and_each_box_of_a_plane_has_its_points():
    words = np.asarray(sobol_words(KEYS[0], 64, 40))
    assert all(sorted(words[:, j] >> 26) == list(range(64)) for j in range(40))
    for bits in range(7):  # the first two coordinates are a net of quality zero
        first = (words[:, 0].astype(np.uint64) >> (32 - bits)).astype(int) if bits else 0
        second = (words[:, 1].astype(np.uint64) >> (26 + bits)).astype(int) if bits < 6 else 0
        assert len(set(zip(*np.broadcast_arrays(first, second), strict=True))) == 64


@pytest.mark.slow
def test_each_point_is_uniform_over_keys_and_pairs_are_uncorrelated():
    words = jax.jit(jax.vmap(lambda key: sobol_words(key, 8, 4)))(KEYS)
    u = (np.asarray(words) + 0.5) / 2**32
    assert (
        min(stats.kstest(u[:, i, j], "uniform").pvalue for i in range(8) for j in range(4)) > 1e-4
    )
    for i in range(4):
        for j in range(i):
            assert abs(np.corrcoef(u[:, 3, i], u[:, 3, j])[0, 1]) < 4.5 / len(KEYS) ** 0.5


@pytest.mark.parametrize("x64", [False, True])
def test_normals_are_the_quantiles_of_the_fractions(x64):
    with jax.enable_x64(x64):
        dtype = jnp.result_type(float)
        high = np.array([0, 1, 2**20, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 1], np.uint32)
        z = normal_of_fraction(jnp.asarray(high), jnp.full(7, 2**31, jnp.uint32), dtype)
        u = high.astype(float) + 0.5
        exact = np.where(u < 2**31, stats.norm.ppf(u / 2**32), stats.norm.isf(1 - u / 2**32))
        np.testing.assert_allclose(z, exact, rtol=1e-6 if x64 else 1e-5, atol=1e-7)
        assert sobol_normals(KEYS[0], 4, 3, dtype).dtype == dtype


TRIL = jnp.array([[1.0, 0.0], [0.5, 2.0]])
MAPS = {
    "normal": (dist.Normal(jnp.arange(3.0), 2.0).to_event(1), 3),
    "expanded": (dist.Normal(1.0, 2.0).expand((2, 3)).to_event(2), 6),
    "vector": (dist.MultivariateNormal(jnp.ones(2), scale_tril=TRIL), 2),
    "vectors": (dist.MultivariateNormal(jnp.ones((3, 2)), scale_tril=TRIL).to_event(1), 6),
    "low rank": (dist.LowRankMultivariateNormal(jnp.ones(2), TRIL, jnp.ones(2)), 4),
    "image": (dist.LogNormal(jnp.arange(3.0), 0.5).to_event(1), 3),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", MAPS)
def test_draws_of_independent_normals_have_the_mean_and_covariance(name):
    d, size = MAPS[name]
    assert num_normals(d) == size
    x = draw_of_normals(d, jax.random.normal(KEYS[0], (40_000, size)))
    assert x.shape == (40_000, *d.event_shape)
    error = jnp.sqrt(d.variance / len(x))
    assert bool(jnp.all(jnp.abs(x.mean(0) - d.mean) < 4.5 * error))
    np.testing.assert_allclose(x.var(0), d.variance, rtol=0.1)
    if x.ndim == 2 and hasattr(d, "covariance_matrix"):
        np.testing.assert_allclose(np.cov(x.T), d.covariance_matrix, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    "d",
    [
        dist.StudentT(4.0),
        dist.FoldedDistribution(dist.Normal()),
        dist.HalfNormal(),
        dist.Normal().mask(False),
        dist.LogNormal().expand((3,)).to_event(1),
    ],
)
def test_others_are_no_maps_of_normals(d):
    assert num_normals(d) is None
