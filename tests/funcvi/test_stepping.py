"""A loss that convolves is stepped from the host on CPU, to the same end as in a compiled loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcvi as fv
from funcvi import loops
from tests.funcvi.compiles import compilations

KEY = jax.random.key(4)
IMAGE = jnp.linspace(-1.0, 1.0, 2 * 3 * 6 * 6).reshape(2, 3, 6, 6)
OPTIMIZER = optax.adam(1e-2)


def start():
    return {"kernel": jnp.full((4, 3, 3, 3), 0.1)}


def loss(params, key):
    noise = 0.1 * jax.random.normal(key, params["kernel"].shape)
    out = jax.jit(lambda k: jax.lax.conv(IMAGE, k, (1, 1), "SAME"))(params["kernel"] + noise)
    return jnp.mean((out - 1.0) ** 2)


def test_convolutions_are_found_at_any_depth():
    def without(params, key):
        return jnp.sum(params["kernel"] ** 2)

    for function, expected in ((loss, True), (without, False)):
        traced = jax.make_jaxpr(function)(start(), KEY)
        assert loops.contains(traced.jaxpr, [jax.lax.conv_general_dilated_p]) is expected


def test_the_end_is_that_of_the_loop():
    fit = fv.fit(loss, start(), OPTIMIZER, key=KEY, num_steps=30)
    looped = fv.fit(loss, start(), OPTIMIZER, key=KEY, num_steps=30, loop="compiled")
    assert (fit.loop, looped.loop) == (
        "host" if jax.default_backend() == "cpu" else "compiled",
        "compiled",
    )
    np.testing.assert_allclose(fit.losses, looped.losses, rtol=1e-5)
    np.testing.assert_allclose(fit.params["kernel"], looped.params["kernel"], rtol=1e-4)


def test_nothing_is_compiled_twice():
    def scaled(params, key):
        return 2 * loss(params, key)

    fit = fv.fit(scaled, start(), OPTIMIZER, key=KEY, num_steps=5)
    with compilations() as again:
        fv.fit(scaled, start(), OPTIMIZER, key=KEY, num_steps=9)
        fv.fit(scaled, fit, OPTIMIZER, key=KEY, num_steps=4)
    assert again.compiled == 0


def test_continuing_is_going_on():
    whole = fv.fit(loss, start(), OPTIMIZER, key=KEY, num_steps=12)
    half = fv.fit(loss, start(), OPTIMIZER, key=KEY, num_steps=5)
    rest = fv.fit(loss, half, OPTIMIZER, key=KEY, num_steps=7)
    np.testing.assert_array_equal(rest.losses, whole.losses)


def test_a_divergence_ends_it():
    def bad(params, key):
        return loss(params, key) + jnp.where(params["kernel"][0, 0, 0, 0] < 0.08, jnp.nan, 0.0)

    fit = fv.fit(bad, start(), OPTIMIZER, key=KEY, num_steps=100, patience=4)
    assert fit.status.name == "diverged"
    assert fit.num_skipped == 4
    assert np.isfinite(fit.losses[:-4]).all()
    assert np.isnan(fit.losses[-4:]).all()
    assert len(fit.losses) < 20
