"""What happens between chunks of a fit, what it carries, and what its loss does not read."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import funcvi as fv
from funcvi import fitting
from tests.funcvi.compiles import compilations
from tests.funcvi.fits import KEY, START, fit, noisy

LOOPS = ["compiled", "host"]

# ---- pure pieces ---------------------------------------------------------------------------------


def test_init_step_and_scan_are_what_fit_drives():
    optimizer = optax.adam(0.1)
    take = fitting.step(noisy, optimizer)
    carry, losses = jax.jit(lambda carry: fitting.scan(take, carry, KEY, 60), donate_argnums=())(
        fitting.init(START, optimizer)
    )
    result = fit(num_steps=60)
    np.testing.assert_allclose(losses, result.losses, rtol=1e-5)
    first, value = take(fitting.init(START, optimizer), jax.random.fold_in(KEY, 0))
    assert value == pytest.approx(float(result.losses[0]), rel=1e-6)
    assert int(first.step) == 1
    np.testing.assert_allclose(carry.params["x"], result.params["x"], rtol=1e-5)


# ---- loops ---------------------------------------------------------------------------------------


def test_both_loops_end_alike_and_the_result_says_which_ran():
    fits = {loop: fit(num_steps=150, loop=loop) for loop in LOOPS}
    np.testing.assert_allclose(fits["host"].losses, fits["compiled"].losses, rtol=1e-5, atol=1e-6)
    assert {loop: f.loop for loop, f in fits.items()} == {loop: loop for loop in LOOPS}
    assert fit().loop == "compiled"


# ---- callbacks -----------------------------------------------------------------------------------


def unmeasured(shift):
    """A program of its own, whose speed is not known yet: its chunks begin with one step."""
    return lambda params, key: noisy(params, key) + shift


@pytest.mark.parametrize("loop", LOOPS)
def test_a_callback_is_told_and_may_end_the_fit(loop):
    calls = []

    def callback(steps, loss, params):
        calls.append((steps, loss, jax.tree.map(np.array, params)))
        return steps >= 100

    loss = unmeasured(1.0 if loop == "host" else 2.0)
    result = fit(loss=loss, num_steps=2000, loop=loop, callback=callback)
    assert result.status == "interrupted"
    assert "by the callback, after" in result.reason
    steps = [c[0] for c in calls]
    assert steps == sorted(steps)
    assert steps[-1] == len(result.losses) >= 100
    np.testing.assert_array_equal(calls[-1][2]["x"], result.params["x"])
    last = steps[-2] if len(steps) > 1 else 0
    assert calls[-1][1] == pytest.approx(float(result.losses[last:].mean()), rel=1e-5)
    whole = fit(loss=loss, num_steps=2000)
    np.testing.assert_allclose(result.losses, whole.losses[: steps[-1]], rtol=1e-5, atol=1e-6)
    joined = fit(params=result, loss=loss, num_steps=2000 - steps[-1])
    np.testing.assert_allclose(joined.losses, whole.losses, rtol=1e-5, atol=1e-6)


def test_a_callback_that_raises_loses_nothing():
    def callback(steps, loss, params):
        if steps >= 11:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left") as raised:
        fit(loss=unmeasured(3.0), num_steps=2000, callback=callback)
    saved = raised.value.fit
    assert len(saved.losses) >= 11
    assert saved.status == "interrupted"
    assert "is the attribute fit of this error" in raised.value.__notes__[0]
    joined = fit(params=saved, loss=unmeasured(3.0), num_steps=2000 - len(saved.losses))
    np.testing.assert_array_equal(joined.losses, fit(loss=unmeasured(3.0), num_steps=2000).losses)


def test_an_error_in_a_loss_that_was_fitted_before_carries_the_fit_so_far():
    broken = False

    def check(x):
        if broken:
            raise OSError("gone")
        return x

    def loss(params, key):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        value = jax.pure_callback(check, shape, jax.lax.stop_gradient(params["y"]))
        return noisy(params, key) + 0 * value

    for _ in range(3):
        fit(loss=loss, num_steps=20)
    broken = True
    with pytest.raises(Exception, match="gone") as raised:
        fit(loss=loss, num_steps=20)
    assert len(raised.value.fit.losses) == 0


@pytest.mark.parametrize("answer", [1.5, "stop", {}])
def test_a_callback_must_answer_in_so_many_words(answer):
    with pytest.raises(TypeError, match="callback must return None, or True to end the fit"):
        fit(callback=lambda *_: answer)


def test_chunks_are_sized_by_time():
    moments = []

    def slow(params, key):  # ten milliseconds a step
        def sleep(x):
            time.sleep(0.01)
            return x

        shape = jax.ShapeDtypeStruct((), jnp.float32)
        zero = jax.pure_callback(sleep, shape, jax.lax.stop_gradient(params["y"]))
        return noisy(params, key) + 0 * zero

    fit(loss=slow, num_steps=150, callback=lambda *_: moments.append(time.perf_counter()))
    assert np.diff(moments).max() < 1.5
    assert len(moments) < 75


# ---- Ctrl-C --------------------------------------------------------------------------------------

ENDLESS = """
import jax, optax, signal, sys
import funcvi as fv
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
def loss(params, key):
    return (params["x"] - 3.0) ** 2 + jax.random.normal(key)
def callback(steps, loss, params):
    if steps > 100 and not told:
        told.append(print("running", flush=True))
told = []
fit = fv.fit(loss, {"x": 0.0}, optax.adam(0.1), key=jax.random.key(0), num_steps=10**9,
             callback=callback, loop=sys.argv[1])
print(fit.status, len(fit.losses) > 100, float(fit.params["x"]), fit.reason)
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_ctrl_c_returns_the_fit_so_far_within_two_seconds(loop):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, loop], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    no_answer = threading.Timer(120, process.kill)
    no_answer.start()
    try:
        assert process.stdout.readline() == "running\n"
        pressed = time.perf_counter()
        process.send_signal(signal.SIGINT)
        line = process.stdout.readline()
        assert time.perf_counter() - pressed < 2.0
        status, many, x, reason = line.split(maxsplit=3)
        assert (status, many) == ("interrupted", "True")
        assert abs(float(x) - 3.0) < 0.5
        assert reason.startswith("by Ctrl-C, after")
        assert process.wait(30) == 0
    finally:
        no_answer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def resident_megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_steps_from_the_host_keep_no_buffers():
    fit(num_steps=100, loop="host")
    before = resident_megabytes()
    fit(num_steps=20_000, loop="host")
    assert resident_megabytes() - before < 20


def test_ctrl_c_in_a_callback_keeps_the_fit():
    def callback(steps, loss, params):
        signal.raise_signal(signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        result = fit(num_steps=5000, callback=callback)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.status == "interrupted"
    assert len(result.losses) >= 1


# ---- state ---------------------------------------------------------------------------------------


def counting(params, key, *, state):
    """Keeps a moving mean of the value, and counts the steps that it saw."""
    value = (params["x"] - 3.0) ** 2 + 0.1 * jax.random.normal(key)
    bad = jnp.where(state["count"] == 5, jnp.nan, 1.0)
    mean = 0.9 * state["mean"] + 0.1 * jax.lax.stop_gradient(value)
    return value * bad, {"mean": mean, "count": state["count"] + 1}


def test_a_state_goes_from_step_to_step():
    def quiet(params, key, state):
        value, after = counting(params, key, state={**state, "count": state["count"] + 100})
        return value, {**after, "count": after["count"] - 100}

    start = {"mean": jnp.zeros(()), "count": jnp.int32(0)}
    result = fit(params={"x": 0.0}, loss=quiet, state=start, num_steps=200)
    expected = 0.0
    for value in result.losses:
        expected = 0.9 * expected + 0.1 * value
    assert float(result.state["mean"]) == pytest.approx(expected, rel=1e-4)
    assert int(result.state["count"]) == 200
    assert result.state["count"].dtype == jnp.int32
    half = fit(params={"x": 0.0}, loss=quiet, state=start, num_steps=100)
    joined = fit(params=half, loss=quiet, num_steps=100)
    np.testing.assert_array_equal(joined.losses, result.losses)
    assert int(joined.state["count"]) == 200


@pytest.mark.parametrize("loop", LOOPS)
def test_a_step_that_is_skipped_leaves_the_state(loop):
    start = {"mean": 0.0, "count": 0}
    result = fit(params={"x": 0.0}, loss=counting, state=start, num_steps=20, patience=4, loop=loop)
    assert int(result.state["count"]) == 5  # the step that would make it six is skipped for ever
    assert result.num_skipped == 4
    assert np.isfinite(result.state["mean"])


BAD_STATES = {
    "no state comes back": (lambda p, k, state: p["x"], "loss must return .value, state."),
    "another structure": (lambda p, k, state: (p["x"], (state,)), "state of the structure"),
    "another shape": (
        lambda p, k, state: (p["x"], {"m": jnp.zeros(3)}),
        r"state\['m'\] must stay float32\[\], the loss returned float32\[3\]",
    ),
    "another dtype": (
        lambda p, k, state: (p["x"], {"m": jnp.int32(1)}),
        r"state\['m'\] must stay float32\[\], the loss returned int32\[\]",
    ),
    "no place for it": (lambda p, k: p["x"], r"loss must take \(params, key, state=\)"),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_a_state_must_keep_its_form(name):
    loss, message = BAD_STATES[name]
    with pytest.raises(TypeError, match=message):
        fit(params={"x": 0.0}, loss=loss, state={"m": 0.0})


@pytest.mark.parametrize("start", [0, np.int32(0)])
def test_a_state_that_starts_as_an_integer_is_not_rounded(start):
    def annealed(params, key, *, state):
        return state * params["x"] ** 2, jnp.minimum(1.0, state + 1e-2)

    with pytest.raises(TypeError, match=r"returned float32\[\]; start it as a float, 0\.0 for 0"):
        fit(params={"x": 0.0}, loss=annealed, state=start)


# ---- what the loss does not read -----------------------------------------------------------------


def test_a_q_built_outside_of_the_loss_is_refused_before_anything_runs():
    params, family = fv.unconstrain(dist.Normal(0.0, 1.0))
    q = family(params)

    def loss(params, key):
        return fv.kl(q, dist.Normal(5.0, 5.0), key=key, num_samples=10)

    message = r"the loss does not read its params[\s\S]*call the family inside, def loss"
    with pytest.raises(ValueError, match=message):
        fit(params=params, loss=loss)


def test_some_that_are_not_read_are_named():
    def loss(params, key):
        return jnp.sum(jax.jit(lambda x, y: x**2)(params["x"], params["y"]))

    result = fit(loss=loss, num_steps=100)
    assert result.unread == ("params['y']",)
    assert "The loss does not read params['y']" in result.reason
    assert fit(num_steps=100).unread == ()


def test_compilations_are_shared_with_a_state():
    def run():
        return fit(params={"x": 0.0}, loss=counting, state={"mean": 0.0, "count": 9}, num_steps=9)

    run()
    with compilations() as later:
        run()
    assert later.compiled == 0


UNDIFFERENTIABLE = {
    "stop_gradient": jax.lax.stop_gradient,
    "rounding": jnp.round,
    "comparison": lambda x: jnp.where(x > 0.3, 1.0, 2.0),
    "product with zero": lambda x: 0.0 * x,
    "in jit": jax.jit(jax.lax.stop_gradient),
    "in scan": lambda x: jax.lax.scan(lambda c, _: (jnp.floor(c), None), x, None, length=2)[0],
    "beside data": lambda x: jax.lax.stop_gradient(x) * jnp.arange(5000.0)[: x.size].sum(),
}


@pytest.mark.parametrize("through", UNDIFFERENTIABLE.values(), ids=UNDIFFERENTIABLE)
def test_params_that_no_gradient_reaches_are_named_or_refused(through):
    def partly(params, key):
        return jnp.sum(through(params["x"])) + (params["y"] - 1.0) ** 2

    result = fit(loss=partly, num_steps=5)
    assert result.unread == ("params['x']",)
    assert "only through what has no derivative" in result.reason
    with pytest.raises(ValueError, match="every gradient of the loss is zero") as refused:
        fit(loss=lambda p, k: jnp.sum(through(p["x"])), num_steps=5)
    assert len(str(refused.value).splitlines()) <= 3


def test_args_that_a_callback_changes_are_those_of_the_start():
    data = np.zeros(3, np.float32)

    def spoil(steps, loss, params):
        data[:] = 100.0

    def loss(params, key, data):
        return ((params["x"] - data) ** 2).sum()

    for loop, num_steps in (("compiled", 5500), ("host", 200)):
        data[:] = 0.0
        ended = fv.fit(
            loss, {"x": jnp.ones(())}, optax.sgd(0.1), key=KEY,
            num_steps=num_steps, args=(data,), callback=spoil, loop=loop,
        )  # fmt: skip
        assert abs(ended.params["x"]) < 1e-3
