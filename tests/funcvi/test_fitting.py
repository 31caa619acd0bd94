"""fv.fit against hand-written loops: optimisers, continuation, compilation, status."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import funcvi as fv
from funcvi.status import judge
from tests.funcvi.compiles import compilations

KEY = jax.random.key(3)
START = {"x": jnp.array([1.0, -2.0]), "y": jnp.array(0.5)}


def noisy(params, key):
    noise = jax.random.normal(key, (2,))
    return jnp.sum((params["x"] - 3.0 + 0.1 * noise) ** 2) + (params["y"] - params["x"][0]) ** 2


def fit(optimizer=None, params=START, *, loss=noisy, key=KEY, num_steps=60, **options):
    optimizer = optax.adam(0.1) if optimizer is None else optimizer
    return fv.fit(loss, params, optimizer, key=key, num_steps=num_steps, **options)


def by_hand(loss, params, optimizer, key, num_steps, value_fn=False):
    """What fit promises, as a plain scan."""

    def step(carry, i):
        params, state = carry
        step_key = jax.random.fold_in(key, i)
        value, gradient = jax.value_and_grad(loss)(params, step_key)
        extra = {}
        if value_fn:
            extra = {"value": value, "grad": gradient, "value_fn": lambda p: loss(p, step_key)}
        updates, state = optimizer.update(gradient, state, params, **extra)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def run(params):
        carry = params, optimizer.init(params)
        return jax.lax.scan(step, carry, jnp.arange(num_steps, dtype=jnp.int32))

    (params, _), losses = run(params)
    return params, losses


def leaves_close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


OPTIMIZERS = {
    "sgd with momentum": lambda: optax.sgd(0.05, momentum=0.9),
    "adam": lambda: optax.adam(0.1),
    "adamw": lambda: optax.adamw(0.1),
    "clip and schedule": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(0.3, 60))
    ),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(0.1), 3),
    "masked": lambda: optax.chain(
        optax.masked(optax.scale(0.5), {"x": True, "y": False}), optax.sgd(0.1)
    ),
    "multi_transform": lambda: optax.multi_transform(
        {"fast": optax.adam(0.1), "slow": optax.sgd(0.05)}, {"x": "fast", "y": "slow"}
    ),
    "MultiSteps": lambda: optax.MultiSteps(optax.sgd(0.1), 2),
}
WITH_VALUE = {
    "lbfgs": lambda: optax.lbfgs(),
    "reduce_on_plateau": lambda: optax.chain(
        optax.sgd(0.05), optax.contrib.reduce_on_plateau(patience=3)
    ),
    "polyak_sgd": lambda: optax.polyak_sgd(0.5),
}


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
    whole = fit(optax.sgd(1e-3), num_steps=2300)
    _, losses = by_hand(noisy, START, optax.sgd(1e-3), KEY, 2300)
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


# ---- compilation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OPTIMIZERS, *WITH_VALUE])
def test_the_same_shapes_compile_once(name):
    build = {**OPTIMIZERS, **WITH_VALUE}[name]
    optimizer = build()

    def loss(params, key):  # a new function, so that nothing is compiled yet
        return noisy(params, key)

    with compilations() as first:
        result = fit(optimizer, loss=loss)
    assert first.compiled > 0
    elsewhere, other_key, again = jax.tree.map(jnp.negative, START), jax.random.key(9), build()
    with compilations() as later:
        fit(optimizer, loss=loss, num_steps=17)
        fit(optimizer, elsewhere, loss=loss, key=other_key)
        fit(optimizer, result, loss=loss)
        fit(optimizer, loss=loss, progress=True)
        if name != "MultiSteps":  # an object of its own, compared by identity
            fit(again, loss=loss)
    assert later.compiled == 0


def test_python_floats_and_weak_types_do_not_recompile_a_continuation():
    def loss(params, key):
        return (params["x"] - 1.0) ** 2

    result = fit(params={"x": jnp.asarray(0.0)}, loss=loss)
    with compilations() as later:
        fit(params=result, loss=loss)
        fit(params={"x": 2.0}, loss=loss)
        fit(params={"x": np.float32(2.0)}, loss=loss)
    assert later.compiled == 0


def test_another_learning_rate_is_another_program():
    slow, fast = fit(optax.sgd(1e-4), num_steps=5), fit(optax.sgd(1e-1), num_steps=5)
    moved = [float(jnp.abs(f.params["x"] - START["x"]).max()) for f in (slow, fast)]
    assert moved[1] > 100 * moved[0]


def test_args_are_traced():
    def loss(params, key, data, temperature):
        return temperature * jnp.mean((params["x"] - data) ** 2)

    def fitted(value, temperature):
        args = (np.full(4, value, np.float32), np.float32(temperature))
        return fit(params={"x": 0.0}, loss=loss, args=args, num_steps=300).params["x"]

    assert float(fitted(2.0, 1.0)) == pytest.approx(2.0, abs=1e-2)
    with compilations() as later:
        assert float(fitted(-1.0, 2.0)) == pytest.approx(-1.0, abs=1e-2)
    assert later.compiled == 0


GLOBAL = 1.0
HELPER_GLOBAL = 1.0


def reads_a_global(params, key):
    return (params["x"] - GLOBAL) ** 2


def helper(x):
    return (x - HELPER_GLOBAL) ** 2


def calls_a_helper(params, key):
    return helper(params["x"])


class Model:
    def loss(self, params, key):
        return (params["x"] - GLOBAL) ** 2


SCALED = functools.partial(lambda scale, params, key: scale * (params["x"] - GLOBAL) ** 2, 2.0)
METHOD = Model().loss


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (reads_a_global, "GLOBAL"),
        (calls_a_helper, "HELPER_GLOBAL"),
        (SCALED, "GLOBAL"),
        (METHOD, "GLOBAL"),
    ],
    ids=["loss", "helper", "partial", "method"],
)
def test_a_rebound_global_is_seen(loss, name, monkeypatch):
    def fitted():
        return float(fit(params={"x": 0.0}, loss=loss, num_steps=300).params["x"])

    assert fitted() == pytest.approx(1.0, abs=1e-2)
    monkeypatch.setitem(globals(), name, -2.0)
    assert fitted() == pytest.approx(-2.0, abs=1e-2)
    monkeypatch.undo()
    with compilations() as later:
        assert fitted() == pytest.approx(1.0, abs=1e-2)
    assert later.compiled == 0


def test_a_rebound_closure_variable_is_seen():
    center = 1.0

    def loss(params, key):
        return (params["x"] - center) ** 2

    def fitted():
        return float(fit(params={"x": 0.0}, loss=loss, num_steps=300).params["x"])

    assert fitted() == pytest.approx(1.0, abs=1e-2)
    center = -2.0
    assert fitted() == pytest.approx(-2.0, abs=1e-2)


def test_a_rebound_global_behind_a_target_is_seen(monkeypatch):
    from numpyro.distributions import constraints

    def log_density(x):
        return -((x["a"] - GLOBAL) ** 2)

    target = fv.target(log_density, supports={"a": constraints.real})
    guide = fv.mean_field(target)
    loss = fv.negative_elbo(guide, estimator="sticking_the_landing")

    def fitted():
        result = fit(params=guide.init(KEY), loss=loss, num_steps=400)
        return float(result.params["a"]["loc"])

    assert fitted() == pytest.approx(1.0, abs=0.05)
    monkeypatch.setitem(globals(), "GLOBAL", -2.0)
    assert fitted() == pytest.approx(-2.0, abs=0.05)


def test_a_rebound_global_in_a_schedule_and_a_mutated_mask_are_seen(monkeypatch):
    schedule = optax.sgd(lambda count: 0.0 * count + 0.01 * GLOBAL)
    before = fit(schedule, num_steps=1).params["y"]
    monkeypatch.setitem(globals(), "GLOBAL", 10.0)
    after = fit(schedule, num_steps=1).params["y"]
    ratio = float((after - START["y"]) / (before - START["y"]))
    assert ratio == pytest.approx(10.0, rel=1e-4)

    mask = {"x": True, "y": False}
    frozen = optax.chain(optax.sgd(0.1), optax.masked(optax.set_to_zero(), mask))
    assert (fit(frozen, num_steps=3).params["x"] == START["x"]).all()
    mask["x"] = False
    assert (fit(frozen, num_steps=3).params["x"] != START["x"]).all()


def test_a_method_read_anew_is_one_program():
    model = Model()
    fit(params={"x": 0.0}, loss=model.loss)
    with compilations() as later:
        fit(params={"x": 0.0}, loss=model.loss)
    assert later.compiled == 0
    with compilations() as other:
        fit(params={"x": 0.0}, loss=Model().loss)
    assert other.compiled > 0


# ---- non-finite steps ----------------------------------------------------------------------------


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
    assert "were skipped" in str(result.status)
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
    leaves_close(result.state.optimizer_state, state)


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
    assert "7 times in a row after step 2" in result.status.message
    assert "moved params['x'] by 1" in result.status.message
    assert "Lower the learning rate" in result.status.message
    assert float(result.params["x"]) == 2.0  # the last at which the loss was finite
    np.testing.assert_array_equal(result.losses, [0.0, -1.0, -2.0, *[np.nan] * 7])
    assert result.num_skipped == 7
    again = fit(optax.sgd(1.0), result, loss=loss, num_steps=20, patience=7)
    assert float(again.params["x"]) == 2.0
    assert len(again.losses) == 10 + 8


def test_a_divergence_in_a_later_chunk_keeps_its_losses():
    def loss(params, key):
        return jnp.where(params["x"] > 1499.5, jnp.nan, -params["x"])

    result = fit(optax.sgd(1.0), {"x": 0.0}, loss=loss, num_steps=4000)
    assert result.status.name == "diverged"
    assert result.losses.shape == (1510,)
    assert float(result.params["x"]) == 1499.0


@pytest.mark.parametrize("num_steps", [3, 50])
def test_a_loss_that_is_never_finite_says_so(num_steps):
    def loss(params, key):
        return params["x"] * jnp.nan

    result = fit(params={"x": 1.0}, loss=loss, num_steps=num_steps)
    assert result.status.name == "diverged"
    assert "non-finite at the initial params" in result.status.message
    assert f"{min(num_steps, 10)} times in a row" in result.status.message
    assert float(result.params["x"]) == 1.0


# ---- status --------------------------------------------------------------------------------------


def test_status_converged():
    result = fit(num_steps=2000)
    assert result.status.name == "converged"
    assert "no more than its noise" in result.status.message


def test_status_out_of_budget_when_still_falling_and_when_too_short():
    falling = fit(optax.sgd(1e-4), num_steps=400)
    assert falling.status.name == "out of budget"
    assert "still falling: continue with fv.fit(loss, fit, optimizer, ...)" in str(falling.status)
    short = fit(num_steps=5)
    assert short.status.name == "out of budget"
    assert "5 finite losses are too few to judge" in short.status.message


@pytest.mark.parametrize("rate", [1.01, 1.05, 1.1])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_status_diverged_when_the_loss_rises_and_stays_finite(rate, noise):
    def loss(params, key, noise):
        return params["x"] ** 2 + noise * jax.random.normal(key)

    args = (np.float32(noise),)
    result = fit(optax.sgd(rate), {"x": 1.0}, loss=loss, num_steps=200, args=args)
    assert result.status.name == "diverged"
    assert "the loss rose from" in result.status.message
    assert "Lower the learning rate" in result.status.message


def test_status_diverged_when_the_loss_fell_and_rose_again():
    losses = np.concatenate([np.linspace(100.0, 1.0, 100), np.linspace(1.0, 60.0, 100)])
    status = judge(losses, fit(num_steps=5).state, 10)
    assert status.name == "diverged"
    assert "the loss rose from" in status.message


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_stationary_loss_is_converged_in_nearly_all_of_many_runs(correlation):
    state = fit(num_steps=5).state
    rng = np.random.default_rng(0)
    names = []
    for _ in range(200):
        noise = rng.normal(size=1000)
        for i in range(1, 1000):
            noise[i] += correlation * noise[i - 1]
        names.append(judge(5.0 + noise, state, 10).name)
    # A fall above two standard errors: 2.3 % for a normal, about 3 % with ten batches; with
    # correlation over a tenth of a batch somewhat more.
    assert names.count("converged") >= 184
    assert names.count("diverged") == 0


def test_one_lucky_loss_does_not_count_as_converged():
    def loss(params, key):  # falls throughout, with noise larger than a step's fall
        return params["x"] + 2.0 * jax.random.normal(key)

    result = fit(optax.sgd(0.05), {"x": 0.0}, loss=loss, num_steps=2000)
    assert result.status.name == "out of budget"


def test_the_report_is_readable():
    text = repr(fit(num_steps=50))
    assert text.startswith("Fit(50 steps, last loss ")
    assert len(text.splitlines()) == 1


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


def test_a_continuation_after_a_divergence_starts_the_optimizer_anew():
    def loss(params, key):
        return jnp.where(params["x"] > 1.0, jnp.nan, -params["x"])

    failed = fv.fit(loss, {"x": 0.0}, optax.adam(0.3), key=jax.random.key(0), num_steps=50)
    assert failed.status.name == "diverged"
    assert 0.8 < failed.params["x"] <= 1.0
    (adam, *_) = failed.state.optimizer_state
    assert int(adam.count) == 0
    assert float(adam.mu["x"]) == 0.0
    small = fv.fit(loss, failed, optax.adam(0.3), key=jax.random.key(0), num_steps=3, patience=1)
    assert small.params["x"] == failed.params["x"]


def test_skipped_steps_at_the_end_are_told():
    def loss(params, key):
        return jnp.where(params["x"] > 1.0, jnp.nan, -params["x"])

    ended = fv.fit(loss, {"x": 0.0}, optax.sgd(0.1), key=jax.random.key(0), num_steps=16)
    assert "non-finite step(s) were skipped, the last" in ended.status.message
