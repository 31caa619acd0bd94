"""A program is found by what its function computes, and takes what the function closes over."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcvi import programs
from tests.funcvi.compiles import compilations

X = jnp.arange(3.0)


class Settings:
    factor = 2.0


SETTINGS = Settings()


def helper(x):
    return SETTINGS.factor * x


def carry_on(carry, _):
    return SETTINGS.factor * carry, None


@jax.jit
def jitted(x):
    return SETTINGS.factor * x


@functools.partial(jax.jit, inline=True)
def inlined(x):
    return SETTINGS.factor * x


def times(settings, x):
    return settings.factor * x


@jax.custom_jvp
def with_rule(x):
    return SETTINGS.factor * x


@with_rule.defjvp
def _(primals, tangents):
    return with_rule(*primals), SETTINGS.factor * tangents[0]


class Callable:
    def __call__(self, x, factor=SETTINGS):
        return factor.factor * x


READERS = {
    "attribute": helper,
    "vmap": lambda x: jax.vmap(helper)(x),
    "checkpoint": lambda x: jax.checkpoint(helper)(x),
    "scan": lambda x: jax.lax.scan(carry_on, x, None, length=1)[0],
    "map": lambda x: jax.lax.map(helper, x),
    "cond": lambda x: jax.lax.cond(x.sum() > 0, helper, helper, x),
    "loop": lambda x: jax.lax.fori_loop(0, 1, lambda i, x: helper(x), x),
    "jit": lambda x: jitted(x),
    "jitted": jitted,
    "inlined": lambda x: inlined(x),
    "partial": lambda x: jax.checkpoint(functools.partial(times, SETTINGS))(x),
    "jit in checkpoint": lambda x: jax.checkpoint(jitted)(x),
    "custom rule": with_rule,
    "callable object": Callable(),
    "gradient": jax.grad(lambda x: jnp.sum(jax.checkpoint(helper)(x) * jax.lax.stop_gradient(x))),
}


@pytest.mark.parametrize("name", READERS)
def test_what_a_function_reads_is_read_at_every_call(name, monkeypatch):
    first = programs.run(READERS[name], X)
    monkeypatch.setattr(SETTINGS, "factor", 5.0)
    second = programs.run(READERS[name], X)
    np.testing.assert_allclose(second, 2.5 * first, rtol=1e-6)


def closures():
    """Functions of one shape that close over the array in each place that JAX knows."""
    return {
        "plainly": lambda data: lambda x: x * data,
        "in jit": lambda data: lambda x: jax.jit(lambda y: jnp.sum(y * data) + 0 * x)(x),
        "in jit in jit": lambda data: (
            lambda x: jax.jit(lambda y: jax.jit(lambda z: z * data)(y))(x)
        ),
        "in scan": lambda data: (
            lambda x: jax.lax.scan(lambda c, _: (c * data, None), x, None, 2)[0]
        ),
        "in cond": lambda data: (
            lambda x: jax.lax.cond(x[1] > 0, lambda y: y * data, lambda y: y, x)
        ),
        "in checkpoint": lambda data: lambda x: jax.checkpoint(lambda y: y * data)(x),
        "in grad": lambda data: lambda x: jax.grad(lambda y: jnp.sum(y**2 * data))(x),
    }


@pytest.mark.parametrize("make", [jnp.asarray, np.asarray], ids=["jax", "numpy"])
@pytest.mark.parametrize("name", closures())
def test_new_data_compiles_nothing_and_is_used(name, make):
    build = closures()[name]
    programs.run(build(make([1.0, 2.0, 3.0], np.float32)), X)
    data = make([4.0, -5.0, 6.0], np.float32)
    expected = build(data)(X)
    with compilations() as later:
        result = programs.run(build(data), X)
    assert later.compiled == 0
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_an_array_that_was_mutated_is_read_anew():
    data = np.ones(3, np.float32)
    first = programs.run(lambda x: x + data, X)
    data[:] = 7.0
    np.testing.assert_array_equal(programs.run(lambda x: x + data, X) - first, 6.0)


@pytest.mark.parametrize(
    ("a", "b"), [(2.0, 3.0), (0.0, -0.0), (1, 1.0), (True, 1), (jnp.float32(1), 1.0)]
)
def test_literals_are_compared_by_all_that_they_are(a, b):
    one, other = (programs.trace(lambda x, c=c: (x, c), X).key for c in (a, b))
    assert one != other


def test_nan_is_nan():
    one, other = (programs.trace(lambda x: x * jnp.nan, X).key for _ in range(2))
    assert one == other


def test_a_callback_is_the_function_that_it_calls():
    def calling(function):
        return lambda x: jax.pure_callback(function, jax.ShapeDtypeStruct((3,), jnp.float32), x)

    np.testing.assert_array_equal(programs.run(calling(lambda x: x + np.float32(1)), X), X + 1)
    np.testing.assert_array_equal(programs.run(calling(lambda x: x + np.float32(2)), X), X + 2)


def test_programs_are_bounded_and_their_data_is_let_go():
    held = [jnp.arange(100.0)]
    gone = weakref.ref(held[0])
    programs.run(lambda x: x + jnp.sum(held[0]), X)
    held.clear()
    gc.collect()
    assert gone() is None
    for i in range(70):
        programs.program(("test", i), object)
    assert len(programs._programs) <= 64


def test_under_a_transformation_it_is_the_function():
    np.testing.assert_allclose(
        jax.vmap(lambda x: programs.run(jnp.sin, x))(X), jnp.sin(X), rtol=1e-6
    )
    np.testing.assert_allclose(
        jax.vmap(lambda a: programs.run(lambda x: a * x, X))(X), jnp.outer(X, X), rtol=1e-6
    )
    assert jax.grad(lambda x: programs.run(jnp.sin, x))(0.0) == 1.0


def test_what_the_user_compiled_stays_compiled():
    jitted(X)
    programs.run(READERS["jit"], X + 1)
    with compilations() as later:
        jitted(X)
    assert later.compiled == 0


def test_a_function_may_be_differentiated_after_it_was_traced():
    traced = programs.trace(lambda x: with_rule(x) ** 2, X)
    assert traced.rules
    np.testing.assert_allclose(
        jax.grad(lambda x: jnp.sum(traced.function(traced.constants, x)))(X), 8 * X, rtol=1e-6
    )
