"""Draws of angles and their derivatives, against scipy and quadratures."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

import funcvi as fv
from funcvi.sampling.circular import angles_of
from funcvi.sampling.gradients import pathwise_obstacle
from funcvi.sampling.von_mises import _angle, centred_von_mises, von_mises_pull

KEY = jax.random.key(8)
N = 100_000
CONCENTRATIONS = [1e-3, 0.3, 0.99, 1.7, 2.41, 5.0, 6.1, 12.0, 19.9, 20.1, 80.0, 1e3, 1e5]
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(120)

draws_of = jax.jit(centred_von_mises, static_argnums=2)
slopes = jax.jit(jax.vmap(jax.grad(_angle), (None, 0, 0)))


def integral(f, a, b):
    t = (a + b)[:, None] / 2 + (b - a)[:, None] / 2 * POINTS
    return (f(t) * WEIGHTS).sum(1) * (b - a) / 2


def reference(x, k):
    """(P(X > x), dx / dk) at x in (0, pi), each from the side where nothing cancels."""

    def density(t):  # over that at x
        return np.exp(2 * k * (np.sin(x / 2)[:, None] ** 2 - np.sin(t / 2) ** 2))

    def moved(t):
        return (1 - special.i1e(k) / special.i0e(k) - 2 * np.sin(t / 2) ** 2) * density(t)

    end = np.minimum(np.pi, x + 40 / np.sqrt(k))
    near = (k * np.sin(x / 2) ** 2 < 0.5) & (x < 1.5)
    slope = np.where(near, -integral(moved, 0 * x, x), integral(moved, x, end))
    scale = np.exp(-2 * k * np.sin(x / 2) ** 2) / (2 * np.pi * special.i0e(k))
    return integral(density, x, end) * scale, slope


def quantiles():
    v = np.append(np.linspace(0, 1, 2001)[1:-1], 10.0 ** -np.arange(3.5, 9.5, 0.5))
    return jnp.asarray(v, jnp.float32)


@pytest.mark.few(4)
@pytest.mark.parametrize("concentration", [*CONCENTRATIONS, 1e8])
def test_draws_follow_scipy(concentration):
    k = np.float32(concentration)
    x = np.asarray(draws_of(KEY, k, (N,)), float)
    above, _ = reference(np.abs(x) + 1e-300, float(k))
    u = np.where(x > 0, 1 - above, above)
    assert stats.kstest(u, stats.uniform.cdf).pvalue > 0.01
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 4 / np.sqrt(N)
    if 0.1 < concentration < 50:  # the reference itself; above, scipy takes a normal
        np.testing.assert_allclose(u[:200], stats.vonmises.cdf(x[:200], float(k)), atol=1e-9)


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
@pytest.mark.usefixtures("optimised")
def test_quantiles_and_their_derivatives(concentration):
    k, v = jnp.float32(concentration), quantiles()
    one = jnp.ones_like(v)
    x = np.asarray(jax.jit(_angle)(jnp.full_like(v, k), one, v), float)
    above, slope = reference(x, float(k))
    spread = np.exp(-2 * float(k) * np.sin(x / 2) ** 2) / (2 * np.pi * special.i0e(float(k)))
    # The error of x in standard deviations, allowed to grow as fewer draws are there.
    error = np.abs(above - v / 2) / spread * np.sqrt(1 + float(k))
    assert (error < 6e-6 / np.sqrt(v)).all()
    # At the antipode the derivative goes to zero, and the rounding of x near pi is all there is.
    size = np.maximum(np.abs(slope), 0.01 * np.abs(slope).max())
    off = np.abs(np.asarray(slopes(k, one, v)) - slope) / size
    assert np.median(off) < 1e-6
    assert np.quantile(off, 0.99) < 1e-5
    assert off.max() < 1e-4


def test_the_pull_where_no_draw_is():
    """Up to the antipode: the product of pull and sine goes to zero there, and stays finite."""
    k, x = jnp.float32([0.0, 0.5, 30.0, 1e8]), jnp.float32([3.14159, 3.14159, 3.14159, 3.14159])
    pull = von_mises_pull(k, x)
    assert np.isfinite(pull).all()
    np.testing.assert_allclose(pull[0], 1, rtol=1e-6)


@pytest.mark.parametrize("concentration", [0.0, 1e-30, 1e-8])
def test_no_concentration_is_uniform(concentration):
    x = np.asarray(draws_of(KEY, np.float32(concentration), (N,)), float)
    assert stats.kstest(x, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01
    slope = np.asarray(slopes(jnp.float32(concentration), jnp.ones(9), jnp.linspace(0.1, 0.9, 9)))
    np.testing.assert_allclose(slope, -np.sin(np.pi * (1 - np.linspace(0.1, 0.9, 9))), rtol=1e-4)


def test_bad_concentrations_stay_alone():
    k = jnp.float32([1.0, -1.0, jnp.nan, 1e30, jnp.inf, 2.0])
    x, dx = jax.jvp(lambda k: centred_von_mises(KEY, k, (6,)), (k,), (jnp.ones(6),))
    assert np.isfinite(x[jnp.array([0, 3, 4, 5])]).all()
    assert np.isfinite(dx[jnp.array([0, 3, 5])]).all()
    assert np.isnan(x[jnp.array([1, 2])]).all()


def test_draws_in_float64():
    with jax.enable_x64(True):
        x = fv.sample(dist.VonMises(jnp.float64(0.4), jnp.float64(3.0)), KEY, (20_000,))
        assert x.dtype == jnp.float64
        grad = jax.grad(lambda k: centred_von_mises(KEY, k, (50,)).sum())(jnp.float64(3.0))
        assert grad.dtype == jnp.float64
    assert stats.kstest(np.asarray(x), stats.vonmises(3.0, 0.4).cdf).pvalue > 0.01


def test_draws_are_wrapped_without_rounding():
    loc = jnp.float32([0.0, 3.0, -9.0, 1e3])
    x = np.asarray(fv.sample(dist.VonMises(loc, 1e8), KEY, (1000,)), float)
    assert ((x >= -np.pi) & (x < np.pi)).all()
    turned = np.angle(np.exp(1j * (x - np.asarray(loc, float))))
    # Rounding once, as near to zero as x is: the spread is 1e-4.
    assert stats.kstest(turned[:, 1] * 1e4, stats.norm.cdf).pvalue > 0.01
    wide = fv.sample(dist.VonMises(3.0, 0.5), KEY, (1000,))
    assert (wide < 0).mean() > 0.2  # across the cut
    one = jax.jacrev(lambda loc: fv.sample(dist.VonMises(loc, 0.5), KEY, (1000,)))(3.0)
    np.testing.assert_array_equal(one, 1.0)


def wavy(x):
    return jnp.sin(x + 0.5) + 0.4 * jnp.cos(2 * x)


@pytest.mark.parametrize("concentration", [0.4, 2.0, 15.0])
def test_gradients_of_expectations(concentration):
    def mean(p):
        x = np.linspace(-np.pi, np.pi, 4001)[:-1]
        w = np.exp(p[1] * (np.cos(x - p[0]) - 1))
        return ((np.sin(x + 0.5) + 0.4 * np.cos(2 * x)) * w).sum() / w.sum()

    p, h = np.array([0.7, concentration]), 1e-4
    expected = [(mean(p + h * e) - mean(p - h * e)) / (2 * h) for e in np.eye(2)]
    keys = jax.random.split(KEY, 40_000)
    each = jax.jit(
        jax.vmap(jax.grad(lambda p, k: wavy(fv.sample(dist.VonMises(*p), k))), (None, 0))
    )
    got = np.asarray(each(jnp.asarray(p, jnp.float32), keys), float)
    error = got.std(0) / np.sqrt(len(got))
    assert (np.abs(got.mean(0) - expected) < 4 * error).all(), (got.mean(0), expected, error)


@pytest.mark.slow
def test_transformations_agree():
    k = jnp.linspace(0.3, 8.0, 7)

    def total(k):
        return wavy(fv.sample(dist.VonMises(0.3, k), KEY)).sum()

    grad = jax.grad(total)(k)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(k), grad, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.grad(total))(k[None])[0], grad, rtol=1e-5)
    np.testing.assert_allclose(jax.jvp(total, (k,), (jnp.ones(7),))[1], grad.sum(), rtol=1e-4)


# ---- two angles ---------------------------------------------------------------------------------

BIVARIATE = [(2.7, 3.4, 0.8), (5.0, 5.0, 5.0), (20.0, 20.0, 60.0), (0.01, 0.02, 0.5)]


def bivariate(p):
    return dist.SineBivariateVonMises(*p[:4], correlation=p[4])


def torus(p, n=256):
    """Angles on a grid and their probabilities, from the density's formula."""
    x = np.linspace(-np.pi, np.pi, n + 1)[:-1] + 0.01
    phi, psi = x[:, None], x[None, :]
    log = p[2] * np.cos(phi - p[0]) + p[3] * np.cos(psi - p[1])
    log = log + p[4] * np.sin(phi - p[0]) * np.sin(psi - p[1])
    w = np.exp(log - log.max())
    return x, w / w.sum()


@pytest.mark.slow
@pytest.mark.parametrize("k", BIVARIATE)
def test_bivariate_draws_follow_the_density(k):
    p = np.array([0.4, -0.9, *k])
    x = np.asarray(fv.sample(bivariate(jnp.asarray(p, jnp.float32)), KEY, (N,)), float)
    assert ((x >= -np.pi) & (x < np.pi)).all()
    grid, w = torus(p)
    for f in (
        lambda a, b: np.sin(a) * np.sin(b),
        lambda a, b: np.cos(a - 1) * np.sin(2 * b),
        lambda a, b: np.cos(2 * a),
        lambda a, b: np.exp(np.cos(a) + np.sin(b)),
        lambda a, b: np.cos(3 * b - a),
    ):
        values = f(x[:, 0], x[:, 1])
        mean = (f(grid[:, None], grid[None, :]) * w).sum()
        assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(N)


def mean_gradient(make, p, f, draws=20_000):
    def at(p, key):
        return f(fv.sample(make(p), key))

    keys = jax.random.split(KEY, draws)
    each = jax.jit(lambda p: jax.lax.map(lambda k: jax.grad(at)(p, k), keys, batch_size=2000))
    got = np.asarray(each(jnp.asarray(p, jnp.float32)), float)
    return got.mean(0), got.std(0) / np.sqrt(draws)


def joint_wave(x):
    return jnp.sin(x[0] + 0.3) * jnp.cos(x[1] - 0.4) + 0.5 * jnp.sin(2 * x[1] - x[0])


@pytest.mark.slow
@pytest.mark.parametrize("k", BIVARIATE)
def test_bivariate_gradients(k):
    def mean(p):
        grid, w = torus(p)
        f = np.sin(grid[:, None] + 0.3) * np.cos(grid[None] - 0.4)
        return ((f + 0.5 * np.sin(2 * grid[None] - grid[:, None])) * w).sum()

    p, h = np.array([0.4, -0.9, *k]), 1e-3
    expected = [(mean(p + h * e) - mean(p - h * e)) / (2 * h) for e in np.eye(5)]
    got, error = mean_gradient(bivariate, p, joint_wave)
    assert (np.abs(got - expected) < 4.5 * error + 1e-5).all(), (got, expected, error)


@pytest.mark.slow
def test_bivariate_of_two_independent_angles():
    d = dist.SineBivariateVonMises(0.0, 0.0, jnp.array([0.5, 1e4]), 2.0, correlation=0.0)
    x = np.asarray(fv.sample(d, KEY, (N,)), float)
    assert x.shape == (N, 2, 2)
    assert stats.kstest(x[:, 0, 0], stats.vonmises(0.5).cdf).pvalue > 0.01
    assert stats.kstest(x[:, 1, 0] * 100, stats.norm.cdf).pvalue > 0.001
    assert stats.kstest(x[:, 1, 1], stats.vonmises(2.0).cdf).pvalue > 0.01


# ---- skewed angles ------------------------------------------------------------------------------


def skewed(p):
    return dist.SineSkewed(dist.VonMises(p[:2], p[2:4]).to_event(1), p[4:6])


def skewed_torus(p, n=256):
    x = np.linspace(-np.pi, np.pi, n + 1)[:-1] + 0.01
    a, b = x[:, None] - p[0], x[None, :] - p[1]
    w = np.exp(p[2] * (np.cos(a) - 1) + p[3] * (np.cos(b) - 1))
    w = w * (1 + p[4] * np.sin(a) + p[5] * np.sin(b))
    return x, w / w.sum()


@pytest.mark.slow
@pytest.mark.parametrize("skew", [(0.3, -0.4), (0.5, 0.5), (-0.9, 0.0)])
def test_skewed_draws_and_gradients(skew):
    def mean(p):
        grid, w = skewed_torus(p)
        f = np.sin(grid[:, None] + 0.3) * np.cos(grid[None] - 0.4)
        return ((f + 0.5 * np.sin(2 * grid[None] - grid[:, None])) * w).sum()

    p, h = np.array([0.4, -0.9, 1.7, 3.4, *skew]), 1e-4
    x = fv.sample(skewed(jnp.asarray(p, jnp.float32)), KEY, (N,))
    assert ((x >= -np.pi) & (x < np.pi)).all()
    values = np.asarray(jax.vmap(joint_wave)(x), float)
    assert abs(values.mean() - mean(p)) < 4 * values.std() / np.sqrt(N)
    expected = [(mean(p + h * e) - mean(p - h * e)) / (2 * h) for e in np.eye(6)]
    got, error = mean_gradient(skewed, p, joint_wave)
    assert (np.abs(got - expected) < 4.5 * error + 1e-5).all(), (got, expected, error)


@pytest.mark.slow
def test_skewed_of_another_base_draws_and_refuses_a_gradient():
    d = dist.SineSkewed(bivariate((0.4, -0.9, 2.7, 3.4, 0.8)), jnp.array([0.3, -0.4]))
    assert angles_of(d.base_dist) is None
    assert "mirrors" in pathwise_obstacle(d)
    x = np.asarray(fv.sample(d, KEY, (N,)), float)
    grid, w = torus((0.4, -0.9, 2.7, 3.4, 0.8))
    lean = 0.3 * np.sin(grid - 0.4)[:, None] - 0.4 * np.sin(grid + 0.9)[None]
    for f in (lambda a, b: np.sin(a) + 0 * b, lambda a, b: np.sin(b) * np.cos(a)):
        values = f(x[:, 0], x[:, 1])
        mean = (f(grid[:, None], grid[None]) * w * (1 + lean)).sum()
        assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(N)
