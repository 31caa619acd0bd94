"""The forms of a convolution are one function: XLA's own convolution is the oracle."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interop.aten.convolution_forms import convolve

# name: shapes of input and kernel, stride, pads, spread, dilation, groups
CASES = {
    "one group": ((2, 3, 7, 6), (5, 3, 3, 2), (2, 1), ((1, 2), (0, 1)), (1, 1), (1, 2), 1),
    "a point": ((2, 3, 7), (5, 3, 1), (2,), ((0, 0),), (1,), (1,), 1),
    "a padded point": ((2, 3, 7), (5, 3, 1), (2,), ((1, 2),), (1,), (1,), 1),
    "depthwise": ((2, 3, 7, 6), (3, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 3),
    "depthwise, strided": ((2, 3, 7, 6), (6, 1, 3, 2), (2, 3), ((1, 0), (2, 1)), (1, 1), (2, 1), 3),
    "depthwise, transposed": (
        *((1, 2, 4, 3), (4, 1, 3, 2), (1, 1), ((2, 1), (-1, 2)), (2, 3), (1, 1), 2),
    ),
    "depthwise, of many taps": ((1, 2, 99), (2, 1, 90), (1,), ((3, 3),), (1,), (1,), 2),
    "two groups": ((2, 4, 7), (6, 2, 3), (1,), ((1, 1),), (1,), (1,), 2),
    "twelve groups": ((2, 24, 5), (12, 2, 2), (1,), ((1, 1),), (1,), (1,), 12),
    "eleven groups": ((2, 22, 5), (33, 2, 2), (2,), ((1, 0),), (1,), (1,), 11),
    "no output": ((2, 4, 2), (4, 1, 3), (1,), ((0, 0),), (1,), (1,), 4),
}


def xla(x, weight, stride, pads, spread, dilation, groups):
    return jax.lax.conv_general_dilated(
        x, weight, stride, pads, spread, dilation, feature_group_count=groups
    )


def arrays(shapes, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


def laws(function, x, weight):
    """Value, gradient, tangent, Hessian times a vector, and batches of input, kernel and both."""

    def loss(pair):
        return jnp.sum(jnp.sin(function(*pair)))

    pair = (x, weight)
    stacked = (jnp.stack([x, 2 * x]), jnp.stack([weight, weight - 1]))
    slope = jax.grad(loss)
    return [
        function(*pair),
        slope(pair),
        jax.jvp(loss, (pair,), (pair,))[1],
        jax.jvp(slope, (pair,), (pair,))[1],
        jax.grad(lambda p: sum(jnp.sum(g**2) for g in slope(p)))(pair),
        jax.vmap(slope)(stacked),
        jax.vmap(jax.grad(lambda w: loss((x, w))))(stacked[1]),
        jax.vmap(jax.grad(lambda x: loss((x, weight))))(stacked[0]),
    ]


@pytest.mark.few(3)
@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_are_those_of_xla(name):
    x_shape, shape, *how = CASES[name]
    with jax.enable_x64(True):
        x, weight = arrays([x_shape, shape])
        found = laws(lambda x, w: convolve(x, w, *how), x, weight)
        expected = laws(lambda x, w: xla(x, w, *how), x, weight)
    for have, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert have.dtype == want.dtype
        np.testing.assert_allclose(have, want, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_window(data):
    axes = data.draw(st.integers(1, 2))
    numbers = st.tuples(*[st.integers(1, 3)] * axes)
    groups, inner, outer = (data.draw(st.integers(1, n)) for n in (9, 2, 2))
    kernel, stride, spread, dilation = (data.draw(numbers) for _ in range(4))
    pads = data.draw(st.tuples(*[st.tuples(st.integers(-1, 3), st.integers(-1, 3))] * axes))
    sizes = data.draw(st.tuples(*[st.integers(4, 7)] * axes))
    x, weight = arrays([(2, groups * inner, *sizes), (groups * outer, inner, *kernel)], jnp.float32)
    how = (stride, pads, spread, dilation, groups)
    np.testing.assert_allclose(
        convolve(x, weight, *how), xla(x, weight, *how), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_half_precision_accumulates_wide_and_stays_half(groups):
    x, weight = arrays([(1, 8, 40), (8, 8 // groups, 30)], jnp.bfloat16)
    y = convolve(x, weight, (1,), ((0, 0),), (1,), (1,), groups)
    exact = xla(*(a.astype(jnp.float32) for a in (x, weight)), (1,), ((0, 0),), (1,), (1,), groups)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=1e-2, atol=2e-1)


def test_the_gradient_of_a_depthwise_kernel_keeps_one_shifted_input_at_a_time():
    x, weight = arrays([(8, 32, 40, 40), (32, 1, 7, 7)], jnp.float32)

    def loss(weight):
        return jnp.sum(jnp.square(convolve(x, weight, (1, 1), ((3, 3),) * 2, (1, 1), (1, 1), 32)))

    compiled = jax.jit(jax.grad(loss)).lower(weight).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 6 * x.nbytes


def test_gradients_in_a_loop_are_in_the_form_that_xla_runs_fast():
    x, weight = arrays([(4, 8, 12, 12), (16, 8, 3, 3)], jnp.float32)

    def loss(pair):
        x, weight = pair
        return jnp.sum(jnp.square(convolve(x, weight, (2, 2), ((1, 1),) * 2, (1, 1), (1, 1), 1)))

    def steps(pair):
        def step(pair, _):
            return jax.tree.map(lambda p, g: p - 0.1 * g, pair, jax.grad(loss)(pair)), None

        return jax.lax.scan(step, pair, None, length=3)

    text = jax.jit(steps).lower((x, weight)).compile().as_text()
    forms = set(re.findall(r"dim_labels=(\S+?),", text))
    assert forms == {"b01f_01io->b01f"}
