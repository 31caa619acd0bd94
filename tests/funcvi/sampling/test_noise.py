"""Base noise against scipy and against the hash that jax itself uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from funcvi.sampling import noise

KEY = jax.random.key(7)
F32, F64 = jnp.dtype("float32"), jnp.dtype("float64")
N = 200_000


def tail_sign(key, shape, dtype):
    sign, v = noise.signed_tail(key, shape, dtype)
    return sign * v


LAWS = {
    "uniform": (noise.uniform, stats.uniform()),
    "normal": (noise.normal, stats.norm()),
    "exponential": (noise.exponential, stats.expon()),
    "signed_tail": (tail_sign, stats.uniform(-1, 2)),
    "both/normal": (lambda *a: noise.normal_and_exponential(*a)[0], stats.norm()),
    "both/exponential": (lambda *a: noise.normal_and_exponential(*a)[1], stats.expon()),
}


def kind(implementation):
    return jax.random.key(7, impl=implementation)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("name", LAWS)
def test_laws(name, implementation):
    draw, law = LAWS[name]
    x = np.asarray(draw(kind(implementation), (N,), F32))
    assert x.dtype == F32
    assert stats.kstest(x.astype(float), law.cdf).pvalue > 0.01


@pytest.mark.parametrize("name", LAWS)
def test_laws_in_float64(name):
    draw, law = LAWS[name]
    with jax.enable_x64(True):
        x = np.asarray(draw(KEY, (N,), F64))
        assert x.dtype == F64
        assert len(np.unique(x)) == N  # 32 bits would repeat four or five
    assert stats.kstest(x, law.cdf).pvalue > 0.01


def test_neighbours_and_the_two_words_are_independent():
    z, e = (np.asarray(x, float) for x in noise.normal_and_exponential(KEY, (N,), F32))
    bound = 4 / np.sqrt(N)
    for a, b in [(z[1:], z[:-1]), (e[1:], e[:-1]), (z, e), (z**2, e), (z[1:], e[:-1])]:
        assert abs(np.corrcoef(a, b)[0, 1]) < bound


def test_the_hash_is_threefry():
    data = jax.random.key_data(KEY)
    counts = jnp.concatenate([jnp.arange(5, dtype=jnp.uint32), jnp.full(5, 2, jnp.uint32)])
    expected = threefry_2x32(data, counts).reshape(2, 5)
    np.testing.assert_array_equal(jnp.stack(noise.words(KEY, (5,), stream=2)), expected)


def test_streams_and_keys_differ():
    first = noise.words(KEY, (100,))
    others = [noise.words(KEY, (100,), stream=1), noise.words(jax.random.key(8), (100,))]
    for a in (first[0], first[1]):
        for b in (*others[0], *others[1]):
            assert not (a == b).any()
    assert not (first[0] == first[1]).any()


def test_a_legacy_key_is_its_typed_one():
    legacy = jax.random.PRNGKey(7)
    np.testing.assert_array_equal(noise.normal(legacy, (9,), F32), noise.normal(KEY, (9,), F32))


def test_shape_does_not_change_the_stream():
    flat = noise.normal(KEY, (24,), F32)
    np.testing.assert_array_equal(noise.normal(KEY, (2, 3, 4), F32), flat.reshape(2, 3, 4))
    assert noise.normal(KEY, (), F32).shape == ()
    assert noise.normal(KEY, (3, 0), F32).shape == (3, 0)


def test_huge_shapes_have_distinct_indices():
    high, low = jax.eval_shape(lambda: noise._index((2**20, 2**13)))
    assert high.shape == low.shape == (2**20, 2**13)
    with pytest.raises(ValueError, match="too large"):
        jax.eval_shape(lambda: noise._index((2, 2**32)))
    # The same arithmetic where it can be looked at: low counts inside a row, high counts rows.
    shape = (3, 5)
    _, low = noise._index(shape)
    np.testing.assert_array_equal(low, np.arange(15).reshape(shape))


def test_normal_quantiles_of_every_tail():
    v = np.concatenate([np.geomspace(2.0**-32, 1, 50_001), np.linspace(1e-3, 1 - 1e-6, 50_001)])
    v = np.float32(v[v < 1])
    z = np.asarray(noise._normal(jnp.ones_like(jnp.asarray(v)), jnp.asarray(v)), float)
    expected = -stats.norm.ppf(v.astype(float) / 2)
    np.testing.assert_allclose(z, expected, rtol=1e-6, atol=1e-7)


def test_ends_of_the_bits_stay_inside():
    ends = jnp.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1], jnp.uint32)
    sign, v = noise._signed_tail(ends, ends, F32)
    assert ((v > 0) & (v < 1)).all()
    np.testing.assert_array_equal(sign, [1, 1, 1, -1, -1])
    assert (noise._exponential(ends, ends, F32) > 0).all()
    assert np.isfinite(noise._exponential(ends, ends, F32)).all()
    with jax.enable_x64(True):
        u = noise._unit(ends, ends)
        assert ((u > 0) & (u < 1)).all()


def test_jit_and_vmap():
    draw = jax.jit(lambda key: noise.normal(key, (5,), F32))
    np.testing.assert_allclose(draw(KEY), noise.normal(KEY, (5,), F32), rtol=1e-6)
    keys = jax.random.split(KEY, 3)
    each = jnp.stack([noise.normal(k, (5,), F32) for k in keys])
    np.testing.assert_allclose(jax.vmap(draw)(keys), each, rtol=1e-6)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "raw"])
def test_keys_are_split_as_jax_splits_them(implementation):
    key = jax.random.PRNGKey(7) if implementation == "raw" else kind(implementation)

    def data(keys):
        return np.asarray(keys if implementation == "raw" else jax.random.key_data(keys))

    for count in (1, 2, 5):
        ours, theirs = noise.split(key, count), jax.random.split(key, count)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(data(ours), data(theirs))
    many = jax.random.split(key, 4)
    ours, theirs = (
        jax.jit(jax.vmap(lambda k, s=s: s(k, 3)))(many) for s in (noise.split, jax.random.split)
    )
    np.testing.assert_array_equal(data(ours), data(theirs))
