"""Statuses: what a fit may say of itself."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcvi as fv
from funcvi.fitting import Status
from funcvi.fitting.status import judge
from tests.funcvi.fits import fit

# All that judge reads of a fit without mishaps.
FINE = SimpleNamespace(run=0, skipped=0, params={}, good_params={})


def statuses(fall, noise, correlation, tolerance, repetitions=200):
    """Of losses that fall so over 1,000 steps, with AR(1) noise of this standard deviation."""
    rng = np.random.default_rng(0)
    steps = np.arange(1000)
    innovations = noise * np.sqrt(1 - correlation**2) * rng.normal(size=(repetitions, 1000))
    losses = np.zeros((repetitions, 1000))
    losses[:, 0] = noise * rng.normal(size=repetitions)
    for i in range(1, 1000):
        losses[:, i] = correlation * losses[:, i - 1] + innovations[:, i]
    found = [judge(x + fall(steps / 1000), FINE, 10, tolerance).status for x in losses]
    return {status: found.count(status) / repetitions for status in Status}


def test_status_converged():
    result = fit(loss=lambda p, k: jnp.sum((p["x"] - 3.0) ** 2) + p["y"] ** 2, num_steps=2000)
    assert result.status == "converged"
    assert "as many steps again would gain at most" in result.reason
    assert "the tolerance is 0.1 nats" in result.reason


def test_status_out_of_budget_when_still_falling_and_when_too_short():
    falling = fit(optax.sgd(1e-4), num_steps=400)
    assert falling.status == "out_of_budget"
    assert "still falling" in falling.reason
    assert "continue with fv.fit(loss, fit, optimizer, ...)" in falling.reason
    short = fit(num_steps=5)
    assert short.status == "out_of_budget"
    assert "5 finite losses are too few to judge" in short.reason


@pytest.mark.parametrize("rate", [1.01, 1.05, 1.1])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_status_diverged_when_the_loss_rises_and_stays_finite(rate, noise):
    def loss(params, key, noise):
        return params["x"] ** 2 + noise * jax.random.normal(key)

    args = (np.float32(noise),)
    result = fit(optax.sgd(rate), {"x": 1.0}, loss=loss, num_steps=200, args=args)
    assert result.status == "diverged"
    assert "the loss rose from" in result.reason
    assert "Lower the learning rate" in result.reason


def test_status_diverged_when_the_loss_fell_and_rose_again():
    losses = np.concatenate([np.linspace(100.0, 1.0, 100), np.linspace(1.0, 60.0, 100)])
    status, reason = judge(losses, FINE, 10, None)
    assert status == "diverged"
    assert "the loss rose from" in reason


# What as many steps again would gain, and the noise that may hide it. "converged" is false where
# the gain is above the tolerance: two and a half standard errors of a line through ten batches are
# passed by 2 % (Student's t with 8 degrees of freedom).
FALLS = {
    "linear": (lambda t: -0.2 * t, 0.2),
    "fast, then linear": (lambda t: 10 * np.exp(-20 * t) - 0.2 * t, 0.2),
    "slow exponential": (lambda t: np.exp(-t), np.exp(-1) - np.exp(-2)),
    "exponential": (lambda t: 10 * np.exp(-4 * t), 10 * (np.exp(-4) - np.exp(-8))),
    "inverse root": (lambda t: 8 / np.sqrt(1 + 1000 * t), 8 / 1000**0.5 * (1 - 0.5**0.5)),
}


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2, 1.0, 100.0])
@pytest.mark.parametrize("name", FALLS)
def test_what_is_called_converged_has_nothing_left_to_gain(name, noise, correlation):
    fall, gain = FALLS[name]
    assert statuses(fall, noise, correlation, 0.9 * gain)[Status.converged] <= 0.04


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_loss_at_its_minimum_is_converged_or_its_noise_is_told(correlation):
    def flat(t):
        return 0 * t

    precise = statuses(flat, 0.02, correlation, 0.1)
    assert precise[Status.converged] >= 0.95
    noisy = statuses(flat, 100.0, correlation, 0.1)
    assert noisy[Status.undecided] >= 0.94
    assert noisy[Status.converged] == noisy[Status.diverged] == 0.0


def test_undecided_says_what_the_noise_hides():
    result = fit(loss=lambda p, k: p["y"] ** 2 + 100 * jax.random.normal(k), num_steps=500)
    assert result.status == "undecided"
    assert "the noise hides changes below" in result.reason
    assert "raise num_samples" in result.reason


def test_the_tolerance_is_the_callers():
    def loss(params, key):
        return params["y"] ** 2 + 0.1 * jax.random.normal(key)

    assert fit(loss=loss, num_steps=500, tolerance=1.0).status == "converged"
    assert fit(loss=loss, num_steps=500, tolerance=1e-4).status == "undecided"
    assert "the tolerance is 0.0001 nats" in fit(loss=loss, num_steps=500, tolerance=1e-4).reason


def test_one_lucky_loss_does_not_count_as_converged():
    def loss(params, key):  # falls throughout, with noise larger than a step's fall
        return params["x"] + 2.0 * jax.random.normal(key)

    result = fit(optax.sgd(0.05), {"x": 0.0}, loss=loss, num_steps=2000)
    assert result.status == "out_of_budget"


def test_a_fit_whose_args_changed_is_judged_from_there():
    def loss(params, key, weight):
        return weight * ((params["x"] - 3.0) ** 2 + 10.0)

    def train(params, weight):
        return fit(params=params, loss=loss, args=(np.float32(weight),), num_steps=400)

    first = train({"x": 0.0}, 0.1)
    annealed = train(first, 1.0)  # the loss rises tenfold, and is exactly at its minimum
    assert annealed.status == "converged", annealed.reason
    assert annealed.judged_from == 400
    again = train(annealed, 1.0)
    assert again.judged_from == 400
    assert len(again.losses) == 1200


def test_a_change_of_one_number_among_many_is_a_change():
    def loss(params, key, data):
        return jnp.sum((params["x"] - data[:3]) ** 2) + data.sum()

    data = np.zeros(200_000, np.float32)
    first = fit(params={"x": 0.0}, loss=loss, args=(data,), num_steps=50)
    assert fit(params=first, loss=loss, args=(data,), num_steps=50).judged_from == 0
    data[123_457] = 1e-3
    assert fit(params=first, loss=loss, args=(data,), num_steps=50).judged_from == 50


def test_a_loss_with_a_state_may_rise():
    def loss(params, key, *, state):
        value = 3.0 + (params["x"] - 1.0) ** 2 + 1e-3 * jax.random.normal(key)
        return state * value, jnp.minimum(1.0, state + 1e-3)

    rising = fit(params={"x": 1.0}, loss=loss, state=0.1, num_steps=850)
    assert rising.status == "undecided"
    assert "perhaps because its state changed" in rising.reason
    settled = fit(params=rising, loss=loss, num_steps=4000)
    assert settled.status in ("converged", "undecided")
    assert "the loss rose" not in settled.reason


def test_equal_losses_of_a_loss_that_draws_bound_nothing():
    def rare(params, key):
        seen = jax.random.uniform(key) < 1e-3
        return jnp.where(seen, 1e3 * (params["x"] - 3.0) ** 2, 0.0)

    fits = [
        fit(optax.sgd(1e-5), {"x": 0.0}, loss=rare, key=jax.random.key(s), num_steps=1000)
        for s in range(6)
    ]
    assert {f.status for f in fits} == {"undecided"}
    assert sum("less often than once in 166 steps" in f.reason for f in fits) > 2
    certain = fit(loss=lambda p, k: jnp.sum(p["x"] ** 2) + p["y"] ** 2, num_steps=4000)
    assert certain.status == "converged"
    assert np.ptp(certain.losses[-1000:]) == 0.0


def test_a_fit_in_which_nothing_moved_says_so():
    stuck = fit(loss=lambda p, k: jax.nn.relu(p["y"]) + 3.0, params={"y": -1.0})
    assert "No parameter has moved since the start" in stuck.reason
    assert "No parameter has moved" not in fit().reason


def test_what_goes_to_and_fro_is_neither_still_nor_converged():
    def corner(params, key):
        return 5 * jnp.abs(params["x"] - 3.0)

    cycle = fit(optax.sgd(0.7), {"x": 0.0}, loss=corner, num_steps=1000)
    assert cycle.status == "undecided"
    assert "the loss goes up and down, by" in cycle.reason
    assert "lower the learning rate" in cycle.reason
    ends = fit(optax.sgd(1.0), {"x": 0.0}, loss=lambda p, k: (p["x"] - 3.0) ** 2, num_steps=1000)
    assert ends.params["x"] == 0.0
    assert ends.moved
    assert ends.status == "undecided"
    assert "are equal, though the last step moved params['x'] by" in ends.reason
    assert "No parameter has moved" not in ends.reason


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_steps_that_round_to_nothing_are_told(dtype):
    def loss(params, key):
        return (params["x"].astype(jnp.float32) - 100.0) ** 2

    def noisy(params, key):
        return loss(params, key) + 1e-3 * jax.random.normal(key)

    def train(start, optimizer, loss=loss):
        return fit(optimizer, {"x": jnp.asarray(start, dtype)}, loss=loss, num_steps=200)

    drawing = train(64.0, optax.adam(1e-2), noisy)
    assert drawing.status == "undecided"
    assert f"the last step moved no params: beside numbers of {dtype}" in drawing.reason
    stuck = train(64.0, optax.adam(1e-2))
    assert stuck.status == "undecided"
    assert "No parameter has moved since the start" in stuck.reason
    assert f"every step was zero, or rounds to nothing in {dtype}" in stuck.reason
    assert f"beside numbers of {dtype} steps round to nothing" in stuck.reason
    assert "Fit params of float32" in stuck.reason


def test_the_status_of_two_halves_is_that_of_the_whole():
    whole, half = fit(num_steps=800), fit(num_steps=400)
    joined = fit(params=half, num_steps=400)
    assert (joined.status, joined.reason) == (whole.status, whole.reason)


def test_a_status_is_a_string_of_its_name():
    assert [str(s) for s in Status] == [s.name for s in Status]
    assert Status("out_of_budget") is Status.out_of_budget


def test_the_report_is_readable():
    text = repr(fit(num_steps=50))
    assert text.startswith("Fit(50 steps, last loss ")
    assert len(text.splitlines()) == 1


def test_a_status_under_a_transformation_is_refused():
    def inner(key):
        result = fv.fit(
            lambda p, k: p["x"] ** 2, {"x": 1.0}, optax.adam(0.1), key=key, num_steps=50
        )
        return jnp.zeros(()) if result.status == "converged" else jnp.ones(())

    with pytest.raises(TypeError, match=r"return the fit from jax\.jit or jax\.vmap, and read it"):
        jax.jit(inner)(jax.random.key(0))
