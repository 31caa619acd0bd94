"""Gamma draws and their derivative, against scipy and mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

import funcvi as fv
from funcvi.sampling import gamma_elasticity, log_standard_gamma, standard_gamma

KEY = jax.random.key(3)
N = 100_000
CONCENTRATIONS = np.geomspace(1e-3, 1e5, 20)

draws_in_log = jax.jit(log_standard_gamma, static_argnums=2)
draws_of = jax.jit(standard_gamma, static_argnums=2)
elasticity = jax.jit(gamma_elasticity)


def probability(log_x, concentration):
    """scipy's distribution function, with its first term where x would underflow."""
    log_x, a = np.asarray(log_x, float), np.float64(concentration)
    first_term = np.exp(np.minimum(a * log_x - special.gammaln(a + 1), 0))
    return np.where(log_x < -600, first_term, special.gammainc(a, np.exp(log_x)))


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_draws_follow_scipy(concentration):
    a = np.float32(concentration)
    u = probability(draws_in_log(KEY, a, (N,)), a)
    assert stats.kstest(u, stats.uniform.cdf).pvalue > 0.01
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 4 / np.sqrt(N)


@pytest.mark.parametrize("concentration", [0.3, 1.0, 2.5, 40.0, 1e4])
def test_moments(concentration):
    x = np.asarray(draws_of(KEY, np.float32(concentration), (N,)), float)
    law = stats.gamma(np.float64(np.float32(concentration)))
    for power in (1, 2, 3):
        error = np.sqrt((law.moment(2 * power) - law.moment(power) ** 2) / N)
        assert abs((x**power).mean() - law.moment(power)) < 4 * error


@pytest.mark.parametrize("concentration", [1e-3, 0.4, 1.5, 30.0, 1e6])
def test_draws_in_float64(concentration):
    with jax.enable_x64(True):
        log_x = log_standard_gamma(KEY, jnp.float64(concentration), (20_000,))
        x = standard_gamma(KEY, jnp.float64(concentration), (20_000,))
        assert log_x.dtype == x.dtype == jnp.float64
        np.testing.assert_allclose(x, np.maximum(np.exp(log_x), 2.2250738585072014e-308), rtol=1e-9)
    assert stats.kstest(probability(log_x, concentration), stats.uniform.cdf).pvalue > 0.01


def test_quantiles_are_scipys():
    """The transport itself, and not only the law that it gives."""
    from funcvi.sampling.gamma import _log_parts

    z, a = (g.ravel() for g in np.meshgrid(np.linspace(-6.3, 6.3, 101), np.geomspace(1, 1e5, 61)))
    with jax.enable_x64(True):
        boosted, log_ratio = _log_parts(jnp.asarray(a), jnp.asarray(z), jnp.zeros(len(z)))
    np.testing.assert_array_equal(boosted, a)
    low, high = special.gammaincinv(a, special.ndtr(z)), special.gammainccinv(a, special.ndtr(-z))
    expected = np.log(np.where(z < 0, low, high) / a)
    log_ratio = np.asarray(log_ratio)
    assert (np.abs(log_ratio - expected) * np.sqrt(a)).max() < 6e-7  # in standard deviations


# ---- the derivative -----------------------------------------------------------------------------


def exact_elasticity(a, x):
    """-a (dF/da) / (x p(x)), by mpmath."""
    with mpmath.workdps(40):
        a, x = mpmath.mpf(float(a)), mpmath.mpf(float(x))
        slope = mpmath.diff(
            lambda c: mpmath.gammainc(c, 0, x, regularized=True), a, h=mpmath.mpf(10) ** -14
        )
        log_density = (a - 1) * mpmath.log(x) - x - mpmath.loggamma(a)
        return float(-a * slope / (x * mpmath.exp(log_density)))


def concentrations_and_values(count, low=1e-3, high=1e5):
    rng = np.random.default_rng(0)
    a = np.float32(np.exp(rng.uniform(np.log(low), np.log(high), count)))
    u = rng.uniform(size=count)
    x = np.where(
        u < 0.5,
        special.gammaincinv(a.astype(float), u),
        special.gammainccinv(a.astype(float), 1 - u),
    )
    kept = x > 1e-37
    return a[kept], np.float32(x[kept])


def test_derivative_against_mpmath():
    a, x = concentrations_and_values(400)
    # The tails, too: quantiles of 1e-9.
    tails = np.float32([0.5, 3.0, 20.0, 1e3])
    a = np.concatenate([a, tails, tails])
    x = np.concatenate(
        [x, special.gammaincinv(tails, 1e-9), special.gammainccinv(tails, 1e-9)]
    ).astype(np.float32)
    expected = np.array([exact_elasticity(*pair) for pair in zip(a, x, strict=True)])
    error = np.abs(np.asarray(elasticity(a, jnp.log(x)), float) / expected - 1)
    assert np.median(error) < 1e-6
    assert np.quantile(error, 0.99) < 2e-6
    assert error.max() < 4e-6


def quantile_differences(a, x):
    """d log x / d log a along quantiles of scipy's, to about 1e-10."""
    a, x, h = a.astype(float), x.astype(float), 0.01
    low = special.gammainc(a, x) < 0.5
    p, q = special.gammainc(a, x), special.gammaincc(a, x)

    def log_quantile(b):
        below = special.gammaincinv(b, np.where(low, p, 0.5))
        above = special.gammainccinv(b, np.where(low, 0.5, q))
        return np.log(np.where(low, below, above))

    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    return sum(
        c * (log_quantile(a * np.exp(k * h)) - log_quantile(a * np.exp(-k * h))) / h
        for k, c in weights.items()
    )


def test_derivative_over_all_concentrations_and_quantiles():
    a, x = concentrations_and_values(100_000)
    expected = quantile_differences(a, x) * x.astype(float) / a
    slope = jax.jit(lambda a, x: x * gamma_elasticity(a, jnp.log(x)) / a)
    error = np.abs(np.asarray(slope(a, x), float) / expected - 1)
    assert np.median(error) <= 1e-6
    assert np.quantile(error, 0.99) <= 1e-4
    assert error.max() <= 6e-4
    # What it is: two or three roundings.
    assert error.max() < 2e-6


def test_gradient_is_the_derivative_at_the_draw():
    a = jnp.asarray(concentrations_and_values(500)[0])
    x, slope = jax.jit(
        lambda a: jax.jvp(lambda a: standard_gamma(KEY, a, a.shape), (a,), (jnp.ones_like(a),))
    )(a)
    kept = np.asarray(x) > 1e-36
    expected = x * elasticity(a, jnp.log(x)) / a
    np.testing.assert_allclose(slope[kept], expected[kept], rtol=1e-5)
    log_x, log_slope = jax.jvp(lambda a: log_standard_gamma(KEY, a, a.shape), (a,), (a,))
    np.testing.assert_allclose(log_slope, elasticity(a, log_x), rtol=1e-5)


def test_second_derivative():
    """E[x] = a has no curvature, and E[x**2] = a**2 + a has curvature 2."""
    with jax.enable_x64(True):
        a = jnp.float64(3.0)
        square = lambda a: standard_gamma(KEY, a, (20_000,)) ** 2  # noqa: E731
        each = np.asarray(jax.jacfwd(jax.jacfwd(square))(a))
    error = np.std(each) / np.sqrt(each.size)
    assert abs(each.mean() - 2) < 4 * error


# ---- what bad input does, and where it ends -----------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_every_concentration_in_one_batch_ends(dtype):
    with jax.enable_x64(True):
        c = jnp.geomspace(1e-6, 1e8, 29, dtype=dtype)
        x, slope = jax.value_and_grad(lambda c: standard_gamma(KEY, c, (500, 29)).mean(0).sum())(c)
        logs = jax.grad(lambda c: log_standard_gamma(KEY, c, (500, 29)).mean(0).sum())(c)
    assert np.isfinite(x)
    assert np.isfinite(slope).all()
    assert np.isfinite(logs).all()
    # E[dx/dc] = 1 and E[dlogx/dc] = trigamma(c).
    np.testing.assert_allclose(slope[16:], 1.0, atol=0.3)
    np.testing.assert_allclose(logs, special.polygamma(1, np.asarray(c, float)), rtol=0.3)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_a_bad_concentration_is_nan_in_its_element_alone(bad):
    c = jnp.array([2.0, bad, 3.0])
    good = jnp.array([2.0, 2.5, 3.0])
    for draw in (standard_gamma, log_standard_gamma):
        x = draw(KEY, c, (3,))
        slope = jax.grad(lambda c, draw=draw: draw(KEY, c, (3,)).sum())(c)
        np.testing.assert_array_equal(np.isnan(x), [False, True, False])
        np.testing.assert_array_equal(np.isnan(slope), [False, True, False])
        np.testing.assert_array_equal(x[::2], draw(KEY, good, (3,))[::2])


def test_a_shape_that_does_not_broadcast():
    with pytest.raises(ValueError, match=r"shape \(2,\) does not broadcast .* shape \(3,\)"):
        standard_gamma(KEY, jnp.ones(2), (3,))


@pytest.mark.parametrize("concentration", [1.01e6, 1e12, 1e30])
def test_gradient_of_large_concentrations(concentration):
    # E[x] is the concentration itself, and the spread of dx/dc is of order 1 / sqrt(concentration).
    gradient = jax.grad(lambda c: standard_gamma(KEY, c, (1000,)).mean())(
        jnp.float32(concentration)
    )
    assert gradient == pytest.approx(1.0, abs=1e-3)


def test_underflow_stays_inside_the_support():
    x = draws_of(KEY, jnp.float32(1e-3), (1000,))
    assert (x > 0).all()
    assert np.isfinite(dist.Gamma(1e-3, 1.0).log_prob(x)).all()
    log_x = draws_in_log(KEY, jnp.float32(1e-3), (1000,))
    assert log_x.min() < -1000


def test_half_precision_stays_half():
    x = standard_gamma(KEY, jnp.float16(2.0), (100,))
    assert x.dtype == jnp.float16
    assert standard_gamma(KEY, jnp.bfloat16(2.0), (100,)).dtype == jnp.bfloat16


# ---- the distributions --------------------------------------------------------------------------


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "d",
    [
        dist.Gamma(jnp.array([2.0, 3.0]), 4.0),
        dist.Chi2(jnp.array([2.0, 3.0])),
        dist.Gamma(2, 3).expand((2, 4)).to_event(1),
        dist.Gamma(jnp.ones((3, 1)), 2.0).expand((3, 4)),
        dist.Gamma(2.0, 3.0).mask(False),
    ],
    ids=["batch", "chi2", "expanded event", "interstitial", "masked"],
)
def test_shapes_and_means(d):
    draws = fv.sample(d, KEY, (4000,))
    assert draws.shape == d.shape((4000,))
    assert draws.dtype == jnp.float32
    error = np.sqrt(d.variance / 4000)
    np.testing.assert_array_less(np.abs(draws.mean(0) - d.mean), 5 * error)


def test_draws_are_as_wide_as_the_distribution():
    with jax.enable_x64(True):
        narrow = dist.Normal(jnp.float32(0.0), jnp.float32(1.0))
        assert fv.sample(narrow, KEY).dtype == jnp.float32
        assert fv.kl(narrow, dist.Laplace(0.0, 1.0), key=KEY).dtype == jnp.float32
        assert fv.sample(dist.Normal(0.0, 1.0), KEY).dtype == jnp.float64
