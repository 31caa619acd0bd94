"""Splines: their inverse, their slope by automatic differentiation, and the identity outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcvi.rational_quadratic import inverse, spline, value_and_log_slope

KEY = jax.random.key(3)
BOUND = 3.0


def of(bins, dtype, spread=3.0, count=500):
    raw = spread * jax.random.normal(KEY, (count, 3 * bins - 1), dtype)
    return raw, 2 * jax.random.normal(jax.random.key(4), (count,), dtype)


@pytest.mark.parametrize("bins", [1, 2, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_inverse_and_the_slope(bins, dtype):
    with jax.enable_x64(dtype == "float64"):
        raw, x = of(bins, dtype)
        s = spline(raw, BOUND)
        y, log_slope = value_and_log_slope(s, x)
        assert y.dtype == log_slope.dtype == x.dtype
        # An error of y is divided by the slope.
        steep = np.exp(-np.asarray(log_slope)) + 1
        error = np.abs(np.asarray(inverse(s, y) - x))
        assert (error < 50 * np.finfo(dtype).eps * steep).all()
        slope = jax.vmap(jax.grad(lambda r, x: value_and_log_slope(spline(r, BOUND), x)[0], 1))
        np.testing.assert_allclose(np.log(slope(raw, x)), log_slope, rtol=1e-3, atol=1e-4)
        compiled = jax.jit(lambda r, x: value_and_log_slope(spline(r, BOUND), x))(raw, x)
        np.testing.assert_allclose(compiled[0], y, rtol=1e-5, atol=1e-5)


def test_knots_are_met_and_values_increase():
    raw, _ = of(4, "float32", count=20)
    s = spline(raw, BOUND)
    y, _ = jax.vmap(value_and_log_slope, (None, 1), 1)(s, s.x)
    np.testing.assert_allclose(y, s.y, atol=1e-5)
    x = jnp.linspace(-BOUND, BOUND, 400)[:, None] * jnp.ones(20)
    y, _ = jax.vmap(value_and_log_slope, (None, 0))(s, x)
    assert (np.diff(y, axis=0) > 0).all()


def test_zeros_are_the_identity_and_so_is_what_lies_outside():
    x = jnp.linspace(-9.0, 9.0, 200)
    y, log_slope = value_and_log_slope(spline(jnp.zeros((200, 14)), BOUND), x)
    np.testing.assert_allclose(y, x, atol=1e-6)
    np.testing.assert_allclose(log_slope, 0, atol=1e-5)
    raw, _ = of(5, "float32", count=200)
    outside = np.abs(x) >= BOUND
    y, log_slope = value_and_log_slope(spline(raw, BOUND), x)
    assert (y[outside] == x[outside]).all()
    assert (log_slope[outside] == 0).all()
    assert (np.abs(y[~outside] - x[~outside]) > 1e-3).any()
    assert (inverse(spline(raw, BOUND), x)[outside] == x[outside]).all()


@pytest.mark.parametrize("function", [value_and_log_slope, lambda s, x: (inverse(s, x),)])
def test_gradients_are_finite_everywhere(function):
    raw, _ = of(8, "float32", spread=30.0)
    ends = jnp.array([0.0, BOUND, -BOUND, 1e30, -1e30, jnp.finfo("float32").tiny])
    for x in (ends, spline(raw, BOUND).y[0], spline(raw, BOUND).x[1]):

        def total(raw, x):
            return sum(jnp.sum(part) for part in function(spline(raw, BOUND), x))

        slopes = jax.vmap(jax.grad(total, (0, 1)), (0, None))(raw[:, None, :], x)
        assert all(np.isfinite(part).all() for part in slopes)
