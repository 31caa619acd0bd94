"""fv.fit against hand-written loops: optimisers, continuation, dtypes, the progress bar."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from tests.funcvi.fits import (
    KEY,
    OPTIMIZERS,
    START,
    WITH_VALUE,
    by_hand,
    fit,
    leaves_close,
    noisy,
)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", [*OPTIMIZERS, *WITH_VALUE])
def test_equals_a_hand_written_scan_with_the_same_keys(name):
    build = {**OPTIMIZERS, **WITH_VALUE}[name]
    result = fit(build(), num_steps=40)
    params, losses = by_hand(noisy, START, build(), KEY, 40, value_fn=name in WITH_VALUE)
    # The same operations in the same order; XLA fuses a scan and a while loop differently.
    leaves_close(result.params, params)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-4, atol=1e-6)
    assert result.losses.shape == (40,)
    assert result.num_skipped == 0


def test_an_optimizer_whose_update_takes_no_extra_arguments():
    result = fit(optax.contrib.sam(optax.sgd(0.05), optax.sgd(0.01)), num_steps=200)
    assert np.abs(np.asarray(result.params["x"]) - 3.0).max() < 0.2


@pytest.mark.parametrize("name", ["adam", "clip and schedule", "lbfgs", "MultiSteps"])
def test_a_split_run_is_one_run(name):
    build = {**OPTIMIZERS, **WITH_VALUE}[name]
    whole = fit(build(), num_steps=100)
    part = fit(build(), num_steps=30)
    joined = fit(build(), part, num_steps=70)
    jax.tree.map(np.testing.assert_array_equal, joined.params, whole.params)
    np.testing.assert_array_equal(joined.losses, whole.losses)
    assert len(part.losses) == 30


def test_more_steps_than_a_chunk_holds():
    whole = fit(optax.sgd(1e-3), num_steps=7300)
    _, losses = by_hand(noisy, START, optax.sgd(1e-3), KEY, 7300)
    np.testing.assert_allclose(whole.losses, losses, rtol=1e-3, atol=1e-5)


def test_another_key_draws_otherwise():
    assert fit(key=jax.random.key(4)).losses[0] != fit().losses[0]


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_typed_and_legacy_keys_of_every_kind(make, impl):
    with jax.default_prng_impl(impl):
        key = make(0)
        first = float(noisy(START, jax.random.fold_in(key, 0)))
        assert fit(key=key, num_steps=5).losses[0] == pytest.approx(first)
    if make is jax.random.PRNGKey and impl == "rbg":  # and is no key elsewhere
        with pytest.raises(TypeError, match=r"key must be a single key .*, got uint32\[4\]"):
            fit(key=key)


# ---- dtypes, structures, progress ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("build", [lambda: optax.adam(0.1), lambda: optax.sgd(0.1, momentum=0.9)])
def test_params_keep_their_dtype(dtype, build):
    with jax.enable_x64(dtype == jnp.float64):
        params = {"x": jnp.zeros(3, dtype)}
        result = fit(build(), params, loss=lambda p, k: jnp.sum((p["x"] - 1.0) ** 2))
        assert result.params["x"].dtype == dtype
        assert np.abs(np.asarray(result.params["x"], float) - 1.0).max() < 0.2
        assert result.losses.dtype == (np.float64 if dtype == jnp.float64 else np.float32)


def test_mixed_dtypes_and_nested_containers():
    params = ({"a": jnp.zeros(2, jnp.bfloat16)}, [jnp.ones(()), (jnp.ones((1, 2)),)])

    def loss(params, key):
        return sum(jnp.sum((x - 2.0) ** 2).astype(float) for x in jax.tree.leaves(params))

    result = fit(params=params, loss=loss, num_steps=200)
    assert jax.tree.structure(result.params) == jax.tree.structure(params)
    for leaf, start in zip(jax.tree.leaves(result.params), jax.tree.leaves(params), strict=True):
        assert leaf.dtype == start.dtype
        assert np.abs(np.asarray(leaf, float) - 2.0).max() < 0.1


def test_what_the_caller_gave_is_left_alone():
    params = {"x": np.array([1.0, -2.0], np.float32), "y": np.float32(0.5)}
    fit(params=params)
    np.testing.assert_array_equal(params["x"], [1.0, -2.0])
    part = fit()
    kept = jax.tree.map(np.array, part.params)
    fit(params=part)
    jax.tree.map(np.testing.assert_array_equal, part.params, kept)


def test_the_progress_bar_is_shown_on_demand_and_changes_nothing(capsys):
    quiet = fit(num_steps=300)
    assert capsys.readouterr() == ("", "")  # no terminal here
    shown = fit(num_steps=300, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "300/300" in err
    assert "loss" in err
    np.testing.assert_array_equal(shown.losses, quiet.losses)
    fit(num_steps=300, progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_progress_bar_is_shown_in_a_terminal(capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(num_steps=50)
    assert "50/50" in capsys.readouterr().err
    fit(num_steps=50, progress=False)
    assert capsys.readouterr().err == ""
