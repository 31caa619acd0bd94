"""What fv.fit compiles, and when: never a stale program, never one twice."""

import dataclasses
import functools
import os

import jax
import jax.experimental.ode
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import funcvi as fv
from funcvi import programs
from tests.funcvi.compiles import compilations
from tests.funcvi.fits import KEY, OPTIMIZERS, START, WITH_VALUE, fit, noisy


@pytest.mark.parametrize("name", [*OPTIMIZERS, *WITH_VALUE])
def test_the_same_shapes_compile_once(name):
    build = {**OPTIMIZERS, **WITH_VALUE}[name]
    optimizer = build()
    result = fit(optimizer, loss=noisy)
    elsewhere, other_key, again = jax.tree.map(jnp.negative, START), jax.random.key(9), build()
    with compilations() as later:
        fit(optimizer, loss=noisy, num_steps=17)
        fit(optimizer, elsewhere, loss=noisy, key=other_key)
        fit(optimizer, result, loss=noisy)
        fit(optimizer, loss=noisy, progress=True)
        fit(again, loss=lambda params, key: noisy(params, key))
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


def residual(x):
    return (x - GLOBAL) ** 2


def body(i, x):
    return residual(x)


def derivative(y, t):
    return 0.0 * y + GLOBAL


def combine(a, b):
    return a + b + GLOBAL * a * b - 2.0 * a * b  # associative; GLOBAL of two ones


@dataclasses.dataclass(frozen=True)
class Residual:
    """A loss that is a value, as those of guides are: equal to any other, whatever GLOBAL is."""

    def __call__(self, params, key):
        return residual(params["x"])


Residual.__module__ = "funcvi.objectives"  # a library's class, which calls the user's functions
PARTIAL = jax.tree_util.Partial(residual)
PARTIAL_LOSS = jax.tree_util.Partial(reads_a_global)
MODEL = Model()
ELBO = fv.negative_elbo(
    fv.mean_field(
        fv.target(lambda z: -1e3 * (z["x"] - GLOBAL) ** 2, supports={"x": dist.constraints.real})
    )
)

#: Whatever wraps a function that reads GLOBAL, so that JAX is handed a function of its own.
WRAPPED = {
    "fori_loop": lambda p, k: jax.lax.fori_loop(0, 1, body, p["x"]),
    "while_loop": lambda p, k: fv.while_loop(
        lambda c: c[1] < 1, lambda c: (residual(c[0]), c[1] + 1), (p["x"], 0), max_steps=1
    )[0],
    "scan of a Partial": lambda p, k: jax.lax.scan(
        jax.tree_util.Partial(lambda x, _: (residual(x), None)), p["x"], None, length=1
    )[0],
    "map": lambda p, k: jax.lax.map(residual, p["x"][None])[0],
    "jit of a Partial": lambda p, k: jax.jit(PARTIAL)(p["x"]),
    "checkpoint of a Partial": lambda p, k: jax.checkpoint(PARTIAL)(p["x"]),
    "Partial as an argument": lambda p, k: jax.jit(jax.named_call(lambda f, x: f(x)))(
        PARTIAL, p["x"]
    ),
    "Partial": PARTIAL_LOSS,
    "jit of a Partial as the loss": jax.jit(PARTIAL_LOSS),
    "jit of a value": jax.jit(Residual()),
    "odeint": lambda p, k: (
        (p["x"] - jax.experimental.ode.odeint(derivative, 0.0 * p["x"], jnp.arange(2.0))[-1]) ** 2
    ),
    "associative_scan": lambda p, k: (
        (p["x"] - jax.lax.associative_scan(combine, jnp.ones(2))[-1]) ** 2
    ),
    "reduce": lambda p, k: (p["x"] - jax.lax.reduce(jnp.ones(2), 0.0, combine, (0,))) ** 2,
    "vectorize": lambda p, k: jnp.vectorize(residual)(p["x"]),
    "numpyro's handlers": lambda p, k: jax.jit(numpyro.handlers.seed(residual, 0))(p["x"]),
    "elbo in jit": lambda p, k: jax.jit(ELBO)({"x": {"loc": p["x"], "scale": -9.0}}, k),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_rebound_global_is_seen_inside_what_wraps_its_reader(name, monkeypatch):
    def fitted():
        return float(fit(params={"x": 0.0}, loss=WRAPPED[name], num_steps=300).params["x"])

    for center in (1.0, 1.0, -2.0, 1.5):  # the second is fitted on a guess
        monkeypatch.setitem(globals(), "GLOBAL", center)
        assert fitted() == pytest.approx(center, abs=0.05)


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
        return float(guide(result.params).unconstrained["a"].loc)

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


def test_a_rule_that_closes_over_an_array_is_seen_by_a_line_search():
    def of(slope):
        @jax.custom_jvp
        def square(x):
            return jnp.sum((x - 1.0) ** 2)

        square.defjvps(lambda t, y, x: jnp.sum(slope * (x - 1.0) * t * jnp.array([1.0, 30.0])))
        return lambda params, key: square(params["x"])

    def fitted(slope):
        loss, start = of(jnp.array([slope])), {"x": jnp.array([3.0, -4.0])}
        return fit(optax.lbfgs(), start, loss=loss, num_steps=2).params["x"]

    fitted(1.0)
    again = fitted(0.02)
    programs._programs.clear()
    np.testing.assert_array_equal(again, fitted(0.02))


@pytest.mark.parametrize("kind", ["custom_jvp", "custom_vjp"])
@pytest.mark.parametrize("within", ["jit", "checkpoint", "vmap"])
def test_a_rule_that_reads_what_changes_is_seen(kind, within):
    slope = [1.0]
    if kind == "custom_jvp":
        distance = jax.custom_jvp(lambda x: (x - 1.0) ** 2)
        distance.defjvps(lambda t, y, x: slope[0] * (x - 1.0) * t)
    else:
        distance = jax.custom_vjp(lambda x: (x - 1.0) ** 2)
        distance.defvjp(lambda x: ((x - 1.0) ** 2, x), lambda x, g: (g * slope[0] * (x - 1.0),))
    called = getattr(jax, within)(distance)

    def loss(params, key):
        return jnp.sum(called(params["x"]))

    def step(of):
        slope[0] = of
        start = {"x": jnp.full(2, 3.0)}
        return 3.0 - fit(optax.sgd(0.1), start, loss=loss, num_steps=1).params["x"][0]

    assert [float(step(s)) for s in (1.0, 2.0, 1.0)] == pytest.approx([0.2, 0.4, 0.2], rel=1e-5)


def test_the_rules_of_libraries_are_not_traced_again(monkeypatch):
    def fitted(data):  # softplus has a rule
        return fit(params={"x": 0.0}, loss=lambda params, key: jax.nn.softplus(params["x"] - data))

    fitted(1.0)
    traced = []
    trace = programs.trace
    monkeypatch.setattr(programs, "trace", lambda *a: traced.append(a) or trace(*a))
    before = fitted(np.float32(1.0)).losses
    fitted(jnp.array(5.0))
    assert (fitted(jnp.array(1.0)).losses == before).all()
    assert len(traced) == 4  # three losses, and one gradient where the data become an array


def test_a_method_of_another_object_is_the_same_program():
    fit(params={"x": 0.0}, loss=Model().loss)
    with compilations() as later:
        fit(params={"x": 0.0}, loss=Model().loss)
    assert later.compiled == 0


def test_a_guess_that_is_wrong_is_thrown_away():
    model = Model()
    model.center = 1.0

    def loss(params, key):  # one object, whose surroundings change
        return (params["x"] - model.center) ** 2

    def fitted():
        return float(fit(params={"x": 0.0}, loss=loss, num_steps=300).params["x"])

    for center in (1.0, 1.0, -2.0, -2.0, 1.0):
        model.center = center
        assert fitted() == pytest.approx(center, abs=1e-2)


def regression(data):
    inputs, outputs = data

    def loss(params, key):
        noise = 0.1 * jax.random.normal(key, params["w"].shape)
        return jnp.mean((inputs @ (params["w"] + noise) - outputs) ** 2)

    return loss


def data_set(seed):
    inputs = jax.random.normal(jax.random.key(seed), (50, 4))
    return inputs, inputs @ jnp.arange(4.0) + seed


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize("fits", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_new_data_and_fresh_losses_compile_nothing_and_leave_nothing_behind(fits):
    start = {"w": jnp.zeros(4)}
    for seed in range(5):
        fit(optax.adam(0.1), start, loss=regression(data_set(seed)), num_steps=20)
    before = resident()
    with compilations() as later:
        for seed in range(5, fits):
            result = fit(optax.adam(0.1), start, loss=regression(data_set(seed)), num_steps=20)
            assert np.isfinite(result.losses).all()
    assert later.compiled == 0
    assert abs(resident() - before) < 20.0


def test_new_data_behind_a_target_compiles_nothing():
    def model(x, y):
        slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal(slope * x, 0.3), obs=y)

    def fitted(slope):
        x = np.linspace(-1.0, 1.0, 50, dtype=np.float32)
        guide = fv.mean_field(fv.target(model, x, slope * x))
        loss = fv.negative_elbo(guide, num_samples=4)
        result = fit(optax.adam(0.1), guide.init(KEY), loss=loss, num_steps=300)
        return float(guide(result.params).unconstrained["slope"].loc)

    assert fitted(1.0) == pytest.approx(1.0, abs=0.1)
    fitted(2.0)
    with compilations() as later:
        assert fitted(-3.0) == pytest.approx(-3.0, abs=0.1)
    assert later.compiled == 0
