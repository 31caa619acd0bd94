"""Draws in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import funcvi as fv

KEY = jax.random.key(0)


def test_sizes_law_and_independence():
    chunks = list(fv.sample_in_chunks(dist.Gamma(0.7, 2.0), KEY, 25_000, chunk_size=10_000))
    assert [len(c) for c in chunks] == [10_000, 10_000, 5_000]
    assert stats.kstest(np.concatenate(chunks), stats.gamma(0.7, scale=0.5).cdf).pvalue > 0.01
    assert len(np.unique(np.concatenate(chunks))) > 24_900


def test_joints_and_posteriors():
    joint = {"a": dist.Normal(jnp.zeros(2)), "b": dist.Beta(1.0, 2.0)}
    *_, last = fv.sample_in_chunks(joint, KEY, 7, chunk_size=3)
    assert jax.tree.map(jnp.shape, last) == {"a": (1, 2), "b": (1,)}

    target = fv.target(lambda x: -(x["a"] ** 2), supports={"a": dist.constraints.positive})
    guide = fv.mean_field(target)
    posterior = guide(guide.init(KEY))
    chunks = list(fv.sample_in_chunks(posterior, KEY, 5, chunk_size=3))
    assert [c["a"].shape for c in chunks] == [(3,), (2,)]


def test_one_compilation_serves_all_chunks_and_calls():
    d = dist.Laplace(0.3, 1.1)
    list(fv.sample_in_chunks(d, KEY, 64, chunk_size=17))
    with jax.log_compiles(False), jax.checking_leaks():
        from funcvi.sampling.chunks import _chunk

        before = _chunk._cache_size()
        list(fv.sample_in_chunks(dist.Laplace(0.5, 2.0), KEY, 100, chunk_size=17))
        assert _chunk._cache_size() == before


def test_a_chunk_larger_than_all():
    (only,) = fv.sample_in_chunks(dist.Normal(), KEY, 5)
    assert only.shape == (5,)


@pytest.mark.parametrize(("num_samples", "chunk_size"), [(0, 5), (5, 0), (-1, 5)])
def test_sizes_must_be_positive(num_samples, chunk_size):
    with pytest.raises(ValueError, match="must be positive"):
        fv.sample_in_chunks(dist.Normal(), KEY, num_samples, chunk_size=chunk_size)
