"""Wrong arguments of fv.fit: each an error of at most three lines that says what to do."""

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest

import funcvi as fv
from tests.funcvi.compiles import compilations


def good(params, key):
    return jnp.sum(params["x"] ** 2)


torch = pytest.importorskip("torch")

GUIDE = fv.mean_field(
    fv.target(lambda z: -(z["x"] ** 2), supports={"x": numpyro.distributions.constraints.real})
)
ARGUMENTS = {"loss": good, "params": {"x": 1.0}, "optimizer": optax.adam(0.1), "num_steps": 5}

BAD = {
    # what the loss returns
    "vector": (
        {"loss": lambda p, k: p["x"] * jnp.ones(3)},
        ValueError,
        "loss must return a scalar, got shape (3,): end it with .mean() or .sum()",
    ),
    "one-element vector": (
        {"loss": lambda p, k: p["x"] * jnp.ones(1)},
        ValueError,
        "got shape (1,)",
    ),
    "int": (
        {"loss": lambda p, k: jnp.sum(p["x"] > 0)},
        TypeError,
        "loss must return a float, got int32: it has no gradient",
    ),
    "bool": ({"loss": lambda p, k: p["x"] > 0}, TypeError, "loss must return a float, got bool"),
    "complex": (
        {"loss": lambda p, k: p["x"] * 1j},
        TypeError,
        "loss must return a float, got complex64",
    ),
    "tuple": (
        {"loss": lambda p, k: (p["x"], {})},
        TypeError,
        "loss must return a scalar array, got tuple: return the loss alone",
    ),
    "None": (
        {"loss": lambda p, k: None},
        TypeError,
        "loss must return a scalar array, got NoneType: return the loss alone",
    ),
    "dict": ({"loss": lambda p, k: {"loss": p["x"]}}, TypeError, "got dict: return the loss alone"),
    # the loss itself
    "no key": (
        {"loss": lambda p: p["x"]},
        TypeError,
        "loss must take (params, key), it takes (p): the key is a new one at each step",
    ),
    "no place for args": (
        {"loss": good, "args": (1.0,)},
        TypeError,
        "loss must take (params, key, args[0]), it takes (params, key)",
    ),
    "args missing": (
        {"loss": lambda p, k, data: p["x"]},
        TypeError,
        "loss must take (params, key), it takes (p, k, data)",
    ),
    "not a function": (
        {"loss": jnp.zeros(())},
        TypeError,
        "loss must be a function loss(params, key), got ",
    ),
    "a guide as the loss": (
        {"loss": GUIDE},
        TypeError,
        "loss is a guide: wrap it, fv.negative_elbo(guide).",
    ),
    "a state that is missing": (
        {"loss": lambda p, k, *, state: (p["x"], state)},
        TypeError,
        "it takes a state: pass the first one as state=.",
    ),
    "key first": (
        {"loss": lambda key, params: params["x"]},
        TypeError,
        "loss must take (params, key), in this order, it takes ('key', 'params')",
    ),
    # the optimiser
    "a function": (
        {"optimizer": optax.adam},
        TypeError,
        "got the function optax.adam: call it, optax.adam(1e-2).",
    ),
    "a rate": (
        {"optimizer": 1e-2},
        TypeError,
        "optimizer must be an optax transformation such as optax.adam(1e-2), got float",
    ),
    "a name": ({"optimizer": "adam"}, TypeError, "got str"),
    "numpyro's": (
        {"optimizer": numpyro.optim.Adam(0.1)},
        TypeError,
        "optimizer is one of numpyro.optim, got Adam: give the optax transformation that it",
    ),
    # how it runs
    "another loop": (
        {"loop": "scan"},
        ValueError,
        'loop must be "compiled", "host" or None, got \'scan\'',
    ),
    "no callback": ({"callback": 3}, TypeError, "callback must be a function callback(steps, loss"),
    "callback of one argument": (
        {"callback": lambda steps: None},
        TypeError,
        "callback must be a function callback(steps, loss, params), got one that takes (steps)",
    ),
    "a word for progress": (
        {"progress": "yes"},
        TypeError,
        "progress must be True, False or None, got 'yes'",
    ),
    "no tolerance": (
        {"tolerance": 0.0},
        ValueError,
        "tolerance must be a positive number of nats, got 0.0",
    ),
    # steps and patience
    "zero steps": ({"num_steps": 0}, ValueError, "num_steps must be a positive integer, got 0"),
    "negative steps": (
        {"num_steps": -3},
        ValueError,
        "num_steps must be a positive integer, got -3",
    ),
    "float steps": (
        {"num_steps": 1e3},
        ValueError,
        "num_steps must be a positive integer, got 1000.0",
    ),
    "True steps": (
        {"num_steps": True},
        ValueError,
        "num_steps must be a positive integer, got True",
    ),
    "no patience": ({"patience": 0}, ValueError, "patience must be a positive integer, got 0"),
    # params
    "a guide as params": (
        {"params": GUIDE},
        TypeError,
        "got Guide: start from its init, guide.init(jax.random.key(0))",
    ),
    "empty dict": (
        {"params": {}},
        ValueError,
        "params is an empty pytree: there is nothing to fit",
    ),
    "None params": ({"params": None}, ValueError, "params is an empty pytree"),
    "integer": (
        {"params": {"x": 1}},
        TypeError,
        "params['x'] must be floating-point, got int64: unconstrained params are real; "
        "write 0.0 for 0",
    ),
    "integer array": (
        {"params": {"x": jnp.arange(3)}},
        TypeError,
        "params['x'] must be floating-point, got int32",
    ),
    "bare integer": ({"params": 1}, TypeError, "params must be floating-point, got int64"),
    "complex params": (
        {"params": {"x": 1j}},
        TypeError,
        "params['x'] must be floating-point, got complex128",
    ),
    "text": ({"params": {"x": "one"}}, TypeError, "params['x'] must be floating-point"),
    "tensor as param": (
        {"params": {"x": torch.zeros(3)}},
        TypeError,
        "params['x'] is a torch tensor",
    ),
    "a module": (
        {"params": equinox.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))},
        TypeError,
        "eqx.partition(module, eqx.is_inexact_array)",
    ),
    "a key as param": (
        {"params": {"x": 1.0, "k": jax.random.key(0)}},
        TypeError,
        "params['k'] must be floating-point, got key<fry>",
    ),
    "NaN": (
        {"params": {"x": np.array([0.0, np.nan])}},
        ValueError,
        "params['x'] is not finite: give finite initial values",
    ),
    "infinity": (
        {"params": {"a": [{"x": jnp.inf}]}},
        ValueError,
        "params['a'][0]['x'] is not finite",
    ),
    "bare NaN": ({"params": jnp.nan}, ValueError, "params is not finite"),
    # key
    "int key": (
        {"key": 0},
        TypeError,
        "key must be a single key such as jax.random.key(0), got int",
    ),
    "None key": (
        {"key": None},
        TypeError,
        "key must be a single key such as jax.random.key(0), got NoneType",
    ),
    "batch of keys": (
        {"key": jax.random.split(jax.random.key(0), 3)},
        TypeError,
        "key must be a single key such as jax.random.key(0), got key<fry>[3]",
    ),
    "batch of legacy keys": ({"key": np.zeros((4, 2), np.uint32)}, TypeError, "got uint32[4, 2]"),
    "float key": ({"key": jnp.zeros(2)}, TypeError, "got float32[2]"),
    # args
    "list of args": (
        {"args": [1.0]},
        TypeError,
        "args must be a tuple, got list: write args=(data,)",
    ),
    "tensor": (
        {"loss": lambda p, k, x: p["x"], "args": ({"x": torch.zeros(3)},)},
        TypeError,
        "args[0]['x'] is a torch tensor: convert it, jnp.asarray(tensor.detach().numpy())",
    ),
    "a function in args": (
        {"loss": lambda p, k, x: p["x"], "args": (jnp.sin,)},
        TypeError,
        "args[0] must be an array or a number, got ",
    ),
    "bare args": ({"args": jnp.zeros(3)}, TypeError, "args must be a tuple, got "),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_says_what_was_expected_what_came_and_what_to_do(case):
    changed, kind, message = case
    arguments = {**ARGUMENTS, "key": jax.random.key(0), **changed}
    loss, params, optimizer = (arguments.pop(n) for n in ("loss", "params", "optimizer"))
    with pytest.raises(kind) as raised:
        fv.fit(loss, params, optimizer, **arguments)
    text = str(raised.value)
    assert message in text
    assert len(text.splitlines()) <= 3


def test_the_key_has_no_default():
    with pytest.raises(TypeError, match="key"):
        fv.fit(good, {"x": 1.0}, optax.adam(0.1), num_steps=5)


def test_nothing_runs_before_the_arguments_are_checked():
    key = jax.random.key(0)  # JAX compiles a program for this, the first time in a process
    with compilations() as count, pytest.raises(ValueError, match="num_steps"):
        fv.fit(good, {"x": 1.0}, optax.adam(0.1), key=key, num_steps=0)
    assert count.compiled == 0


def test_continuing_with_another_optimizer_is_refused():
    key = jax.random.key(0)
    result = fv.fit(good, {"x": 1.0}, optax.adam(0.1), key=key, num_steps=5)
    with pytest.raises(ValueError, match="made with another optimizer") as refused:
        fv.fit(good, result, optax.sgd(0.1), key=key, num_steps=5)
    assert "start anew from fit.params" in str(refused.value)
    fv.fit(good, result.params, optax.sgd(0.1), key=key, num_steps=5)


def test_numpy_integers_are_integers():
    result = fv.fit(good, {"x": 1.0}, optax.adam(0.1), key=jax.random.key(0), num_steps=np.int64(5))
    assert len(result.losses) == 5
