"""Steps whose loss or gradient is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcvi as fv
from tests.funcvi.fits import KEY, fit, leaves_close


def sometimes_nan(params, key):
    bad = jax.random.bernoulli(key, 0.2)
    return jnp.where(bad, jnp.nan, 1.0) * (params["x"] - 3.0) ** 2


def test_a_non_finite_step_is_skipped_and_counted():
    result = fit(params={"x": 0.0}, loss=sometimes_nan, num_steps=200)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(200))
    bad = np.asarray(jax.vmap(lambda k: jax.random.bernoulli(k, 0.2))(keys))
    assert 20 < bad.sum() < 60
    assert result.num_skipped == bad.sum()
    np.testing.assert_array_equal(np.isnan(result.losses), bad)
    assert "were skipped" in result.reason
    # As if the bad steps had never been: params and optimiser untouched by them.
    params, losses = {"x": jnp.zeros(())}, []
    optimizer = optax.adam(0.1)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for _ in range(int((~bad).sum())):
        value, gradient = jax.value_and_grad(lambda p: (p["x"] - 3.0) ** 2)(params)
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(value))
    np.testing.assert_allclose(result.losses[~bad], losses, rtol=1e-4, atol=1e-6)
    leaves_close(result.params, params)
    leaves_close(result.carry.optimizer_state, state)


def test_a_gradient_that_is_not_finite_skips_too():
    def loss(params, key):
        return jnp.sqrt(params["x"] ** 2)  # finite at zero, its gradient is not

    result = fit(params={"x": 0.0}, loss=loss, num_steps=5)
    assert result.num_skipped == 5
    assert float(result.params["x"]) == 0.0


def test_a_run_of_them_ends_with_the_last_good_params():
    def loss(params, key):
        x = params["x"]
        return jnp.where(x > 2.5, jnp.nan, -x) + 0.0 * params["other"]

    params = {"x": 0.0, "other": 0.0}
    result = fit(optax.sgd(1.0), params, loss=loss, num_steps=500, patience=7)
    assert result.status.name == "diverged"
    assert "7 times in a row after step 2" in result.reason
    assert "moved params['x'] by 1" in result.reason
    assert "Lower the learning rate" in result.reason
    assert float(result.params["x"]) == 2.0  # the last at which the loss was finite
    np.testing.assert_array_equal(result.losses, [0.0, -1.0, -2.0, *[np.nan] * 7])
    assert result.num_skipped == 7
    again = fit(optax.sgd(1.0), result, loss=loss, num_steps=20, patience=7)
    assert float(again.params["x"]) == 2.0
    assert len(again.losses) == 10 + 8


def test_a_divergence_in_a_later_chunk_keeps_its_losses():
    def loss(params, key):
        return jnp.where(params["x"] > 5499.5, jnp.nan, -params["x"])

    result = fit(optax.sgd(1.0), {"x": 0.0}, loss=loss, num_steps=9000)
    assert result.status.name == "diverged"
    assert result.losses.shape == (5510,)
    assert float(result.params["x"]) == 5499.0


@pytest.mark.parametrize("num_steps", [3, 50])
def test_a_loss_that_is_never_finite_says_so(num_steps):
    def loss(params, key):
        return params["x"] * jnp.nan

    result = fit(params={"x": 1.0}, loss=loss, num_steps=num_steps)
    assert result.status.name == "diverged"
    assert "non-finite at the initial params" in result.reason
    assert f"{min(num_steps, 10)} times in a row" in result.reason
    assert float(result.params["x"]) == 1.0


def test_a_continuation_after_a_divergence_starts_the_optimizer_anew():
    def loss(params, key):
        return jnp.where(params["x"] > 1.0, jnp.nan, -params["x"])

    failed = fv.fit(loss, {"x": 0.0}, optax.adam(0.3), key=jax.random.key(0), num_steps=50)
    assert failed.status.name == "diverged"
    assert 0.8 < failed.params["x"] <= 1.0
    again = fv.fit(loss, failed, optax.adam(0.3), key=jax.random.key(0), num_steps=1)
    (adam, *_) = again.carry.optimizer_state
    assert int(adam.count) == 1  # a fresh one
    assert float(adam.mu["x"]) == pytest.approx(-0.1)
    small = fv.fit(loss, failed, optax.adam(0.3), key=jax.random.key(0), num_steps=3, patience=1)
    assert small.params["x"] == failed.params["x"]


def test_skipped_steps_at_the_end_are_told():
    def loss(params, key):
        return jnp.where(params["x"] > 1.0, jnp.nan, -params["x"])

    ended = fv.fit(loss, {"x": 0.0}, optax.sgd(0.1), key=jax.random.key(0), num_steps=16)
    assert "non-finite step(s) were skipped, the last" in ended.reason


@pytest.mark.parametrize(
    "optimizer", [optax.adam(0.1), optax.rmsprop(0.1)], ids=["adam", "rmsprop"]
)
def test_a_huge_gradient_does_not_end_learning_in_silence(optimizer):
    """Squared it is infinite, so that every later step would be zero."""

    def loss(params, key):
        return jnp.exp(-2 * params["u"]) + params["u"]

    start = {"u": jnp.float32(-23.0)}
    result = fit(params=start, loss=loss, optimizer=optimizer, num_steps=100)
    assert result.status == fv.Status.diverged
    assert "the optimizer's state was non-finite" in result.reason
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result.carry.optimizer_state))
    # What the reason recommends.
    clipped = optax.chain(optax.clip(1e6), optax.clip_by_global_norm(1.0), optimizer)
    result = fit(params=start, loss=loss, optimizer=clipped, num_steps=3000)
    assert float(result.params["u"]) == pytest.approx(np.log(2) / 2, abs=1e-2)


def test_what_was_infinite_before_may_stay_so():
    """A state may begin at infinity: the best value so far."""
    optimizer = optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau())
    result = fit(
        params={"x": jnp.zeros(())},
        loss=lambda params, key: (params["x"] - 3.0) ** 2,
        optimizer=optimizer,
        num_steps=300,
    )
    assert result.num_skipped == 0
    assert float(result.params["x"]) == pytest.approx(3.0, abs=0.5)
