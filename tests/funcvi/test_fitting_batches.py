"""Fits under JAX's transformations: a batch of fits equals as many fits."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import funcvi as fv
from tests.funcvi.fits import KEY, START, noisy

KEYS = jax.random.split(KEY, 3)
DATA = jnp.array([[1.0, 2.0], [-3.0, 0.5], [0.0, 0.0]])


def fit(loss=noisy, params=START, rate=0.1, key=KEY, num_steps=120, **options):
    return fv.fit(loss, params, optax.adam(rate), key=key, num_steps=num_steps, **options)


def with_data(params, key, data):
    return noisy(params, key) + jnp.sum((params["x"] - data) ** 2)


def with_rate(params, key, state):
    return jnp.sum(params["x"] ** 2) + params["y"] ** 2 + state, 0.9 * state


def starts(scale):
    return jax.tree.map(lambda x: scale * x, START)


SCALES = jnp.array([0.5, 1.0, 3.0])

BATCHES = {
    "keys": (lambda key: fit(key=key), KEYS),
    "params": (lambda scale: fit(params=starts(scale)), SCALES),
    "data": (lambda data: fit(with_data, args=(data,)), DATA),
    "data in the closure": (lambda data: fit(lambda p, k: with_data(p, k, data)), DATA),
    "learning rates": (lambda rate: fit(rate=rate), jnp.array([0.1, 0.01, 0.001])),
    "states": (lambda state: fit(with_rate, state=state), SCALES),
    "custom rules": (
        lambda data: fit(
            lambda p, k: jnp.sum(jax.nn.softplus(p["x"] * data)) + jnp.logaddexp(p["y"], 0.0)
        ),
        DATA,
    ),
    "some diverge": (
        lambda rate: fit(lambda p, k: jnp.where(p["y"] > 2.0, jnp.nan, -p["y"]), rate=rate),
        jnp.array([1.0, 1e-3]),
    ),
    "families": (
        lambda key: fit(
            lambda p, k: fv.kl(
                fv.family(dist.Normal)(p), dist.Normal(1.0, 2.0), key=k, estimator="pathwise"
            ),
            params=fv.family(dist.Normal).inverse(dist.Normal(0.0, 1.0)),
            key=key,
        ),
        KEYS,
    ),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_of_fits_is_as_many_fits(name):
    run, over = BATCHES[name]
    batch = jax.vmap(run)(over)
    statuses, reasons, skipped = batch.status, batch.reason, batch.num_skipped
    for i in range(len(over)):
        one = run(over[i])
        taken = len(one.losses)
        np.testing.assert_allclose(batch.losses[i][:taken], one.losses, rtol=1e-4, atol=1e-5)
        assert np.isnan(batch.losses[i][taken:]).all()
        for a, b in zip(jax.tree.leaves(batch.params), jax.tree.leaves(one.params), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4)
        assert statuses[i] == one.status
        assert reasons[i].split()[:5] == one.reason.split()[:5]
        assert skipped[i] == one.num_skipped
    assert f"[{len(over)}] fits" in repr(batch)


def test_a_batch_of_batches():
    batch = jax.vmap(lambda key: jax.vmap(lambda s: fit(key=key, params=starts(s)))(SCALES))(KEYS)
    assert batch.losses.shape == (3, 3, 120)
    assert [len(row) for row in batch.status] == [3, 3, 3]


def test_a_batch_is_continued_under_vmap():
    whole = jax.vmap(lambda key: fit(key=key, num_steps=100))(KEYS)
    half = jax.vmap(lambda key: fit(key=key, num_steps=50))(KEYS)
    joined = jax.vmap(lambda f, key: fit(params=f, key=key, num_steps=50))(half, KEYS)
    np.testing.assert_allclose(joined.losses, whole.losses, rtol=1e-5)
    with pytest.raises(ValueError, match=r"this is a batch of fits, of shape \(3,\)"):
        fit(params=half)


def sometimes_nan(params, key, data):
    bad = jax.random.uniform(jax.random.fold_in(key, 1)) < data[1]
    return jnp.where(bad, jnp.nan, (params["y"] - data[0]) ** 2 + 0.01 * jax.random.normal(key))


@pytest.mark.parametrize("changed", [False, True])
def test_a_batch_continued_is_as_many_continued_fits(changed):
    data = jnp.array([[1.0, 0.0], [2.0, 0.3], [3.0, 0.7], [4.0, 1.0]])  # the last two give up
    keys = jax.random.split(KEY, len(data))
    later = data * jnp.array([2.0, 0.5]) if changed else data

    def first(key, data):
        return fit(sometimes_nan, params={"y": 0.0}, key=key, args=(data,), patience=4)

    def again(before, key, data):
        return fit(sometimes_nan, params=before, key=key, args=(data,), patience=4, num_steps=90)

    batch = jax.vmap(again)(jax.vmap(first)(keys, data), keys, later)
    statuses, reasons = batch.status, batch.reason
    for i in range(len(data)):
        one = again(first(keys[i], data[i]), keys[i], later[i])
        assert int(batch.judged_from[i]) == int(one.judged_from)
        assert statuses[i] == one.status
        assert reasons[i].split()[:12] == one.reason.split()[:12]
        taken = len(one.losses)
        np.testing.assert_allclose(batch.losses[i][:taken], one.losses, rtol=1e-4, atol=1e-5)
        assert np.isnan(batch.losses[i][taken:]).all()
    assert f"{statuses.count('diverged')} diverged" in repr(batch)


def test_a_fit_inside_jit_is_a_fit():
    one = fit()
    np.testing.assert_allclose(jax.jit(lambda: fit())().losses, one.losses, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda k: fit(key=k))(KEY).losses, one.losses, rtol=1e-4)


def test_a_loss_that_was_fitted_before_is_fitted_under_a_transformation():
    def run(key, data):
        return fit(with_data, key=key, args=(data,), num_steps=30)

    for _ in range(3):
        one = run(KEY, DATA[0])
    for transformed in (
        jax.jit(run)(KEY, DATA[0]),
        jax.tree.map(lambda x: x[0], jax.vmap(run, (None, 0))(KEY, DATA)),
        jax.tree.map(lambda x: x[0], jax.jit(jax.vmap(run, (None, 0)))(KEY, DATA)),
        jax.tree.map(lambda x: x[0], jax.lax.map(lambda data: run(KEY, data), DATA)),
    ):
        np.testing.assert_allclose(transformed.losses, one.losses, rtol=1e-4, atol=1e-5)
    jax.jacfwd(lambda data: run(KEY, data).params["x"])(DATA[0])


def test_the_gradient_passes_through_a_fit():
    def end(rate):
        return fit(lambda p, k: jnp.sum(p["x"] ** 2) + p["y"] ** 2, rate=rate).losses[-1]

    rate, h = 0.003, 1e-4
    difference = (end(jnp.float32(rate + h)) - end(jnp.float32(rate - h))) / (2 * h)
    assert float(jax.grad(end)(rate)) == pytest.approx(float(difference), rel=2e-2)


@pytest.mark.parametrize("options", [{"loop": "host"}, {"callback": lambda *_: None}])
def test_what_needs_python_has_no_place_under_a_transformation(options):
    with pytest.raises(
        ValueError, match=r"under jax\.jit, vmap and grad a fit is one compiled scan"
    ):
        jax.vmap(lambda key: fit(key=key, **options))(KEYS)


def test_a_batch_of_keys_without_vmap_says_how():
    with pytest.raises(TypeError, match=r"jax.vmap\(lambda key: fv.fit"):
        fit(key=KEYS)


def test_a_loss_that_reads_nothing_is_refused_under_vmap_too():
    with pytest.raises(ValueError, match="does not read its params"):
        jax.vmap(lambda key: fit(lambda p, k: jax.random.normal(k), key=key))(KEYS)
