"""Draws between bounds and their derivatives, against quadratures of the density."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import funcvi as fv
from funcvi.sampling.gradients import pathwise_obstacle

KEY = jax.random.key(2)
N = 20_000
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(20)

LOG_DENSITIES = {
    dist.Normal: lambda t: -t * t / 2,
    dist.Laplace: lambda t: -np.abs(t),
    dist.Logistic: lambda t: -np.abs(t) - 2 * np.log1p(np.exp(-np.abs(t))),
    dist.SoftLaplace: lambda t: -np.logaddexp(t, -t),
    dist.Cauchy: lambda t: -np.log1p(t * t),
}
# loc, scale, low, high
CASES = [
    (0.0, 1.0, 8.0, None),
    (0.0, 1.0, 5.0, 5.1),
    (0.0, 1.0, -20.0, -10.0),
    (0.3, 2.0, -1.0, 2.0),
    (0.3, 2.0, None, 1.0),
    (-1000.0, 1.0, 0.0, None),
    (1000.0, 2.0, None, 0.0),
    (0.0, 1.0, -0.001, 0.0005),
    (0.0, 1.0, -30.0, 20.0),
    (0.0, 1.0, None, -40.0),
]


def between(x, log_density, low, high):
    """The truncated cdf at x, from the density relative to its largest value; sorts x.

    The ends that are missing are those of the draws, which holds all but 1 / N of the mass.
    """
    x = np.sort(np.asarray(x, np.float64))
    edges = np.concatenate([x[:1] if low is None else [low], x, x[-1:] if high is None else [high]])
    a, b = edges[:-1], edges[1:]
    t = (a + b)[:, None] / 2 + (b - a)[:, None] / 2 * POINTS
    log = log_density(t)
    mass = (np.exp(log - log.max()) * WEIGHTS).sum(1) * (b - a) / 2
    total = np.cumsum(mass)
    return total[:-1] / total[-1]


def distance(u):
    """Kolmogorov's, which is below 1.63 in 99 of 100 samples of the right law."""
    return np.abs(u - (np.arange(len(u)) + 0.5) / len(u)).max() * np.sqrt(len(u))


def is_inside(x, low, high):
    above = low is None or (x >= np.float32(low)).all()
    return np.isfinite(x).all() and above and (high is None or (x <= np.float32(high)).all())


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("base", LOG_DENSITIES, ids=lambda b: b.__name__)
def test_draws_follow_the_density(base, case):
    loc, scale, low, high = case
    x = np.asarray(fv.sample(dist.TruncatedDistribution(base(loc, scale), low, high), KEY, (N,)))
    assert is_inside(x, low, high)
    u = between(x, lambda t: LOG_DENSITIES[base]((t - loc) / scale), low, high)
    assert distance(u) < 1.63


@pytest.mark.parametrize("width", [1e-6, 1e-3, 4e-3, 6e-3, 1e-2, 0.1])
@pytest.mark.parametrize("base", LOG_DENSITIES, ids=lambda b: b.__name__)
def test_narrow_intervals_in_float64(base, width):
    """On both sides of where the exponential takes over; zero is in the second one."""
    with jax.enable_x64(True):
        for low in (3.0, -width / 3, -200.0):
            high = jnp.float64(low) + width
            d = dist.TruncatedDistribution(base(jnp.float64(0.0), 1.0), low, high)
            x = np.asarray(fv.sample(d, KEY, (N,)))
            assert ((x >= low) & (x <= float(high))).all()
            u = between(x - low, lambda t, low=low: LOG_DENSITIES[base](t + low), 0.0, width)
            assert distance(u) < 1.63


def derivative(log_density, p, low, high, x):
    """dx / dp of a draw at a fixed quantile, by differences of the cdf in p: -(dF / dp) / f."""

    def cdf(p):
        a, b = low(p), high(p)

        def mass(end):
            # p[0] too, where a Laplace has its kink.
            cuts = np.union1d(np.linspace(a, end, 41), np.clip(p[0], a, end))
            t = (cuts[:-1] + cuts[1:])[:, None] / 2 + np.diff(cuts)[:, None] / 2 * POINTS
            log = log_density(t, p) - log_density(x, p)
            return (np.exp(log) * WEIGHTS * np.diff(cuts)[:, None] / 2).sum()

        return mass(x) / mass(b), 1 / mass(b)

    slopes = []
    for e in np.eye(len(p)):
        h = 1e-5 * e * np.maximum(np.abs(p), 1e-2)
        slopes.append(-(cdf(p + h)[0] - cdf(p - h)[0]) / (2 * h.sum()) / cdf(p)[1])
    return np.array(slopes)


def gradients(make, p, draws=7):
    """Draws, and their jacobian in p."""
    p = jnp.asarray(p, jnp.float32)
    return make(p, draws), jax.jit(jax.jacrev(lambda p: make(p, draws)))(p)


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "case",
    [(0.3, 1.2, 2.0, 9.0), (0.3, 1.2, -9.0, -2.0), (0.3, 1.2, -1.0, 2.0), (0.3, 2.0, 5.0, 5.4)],
)
@pytest.mark.parametrize("base", LOG_DENSITIES, ids=lambda b: b.__name__)
def test_derivatives_in_every_parameter(base, case):
    def make(p, draws):
        d = dist.TruncatedDistribution(base(p[0], p[1]), p[2], p[3])
        return fv.sample(d, KEY, (draws,))

    def log_density(t, p):
        return LOG_DENSITIES[base]((t - p[0]) / p[1])

    for x, got in zip(*gradients(make, case), strict=True):
        args = log_density, np.array(case), lambda p: p[2], lambda p: p[3], float(x)
        np.testing.assert_allclose(got, derivative(*args), atol=2e-5, rtol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("base", LOG_DENSITIES, ids=lambda b: b.__name__)
def test_far_tails_have_finite_derivatives(base):
    for loc, scale, low, high in CASES:
        p = [loc, scale, *(b for b in (low, high) if b is not None)]

        def make(p, draws, low=low, high=high):
            bounds = iter(p[2:])
            ends = [None if b is None else next(bounds) for b in (low, high)]
            return fv.sample(dist.TruncatedDistribution(base(p[0], p[1]), *ends), KEY, (draws,))

        _, slopes = gradients(make, p, 2000)
        assert np.isfinite(slopes).all()
    # A half line far in a normal's tail is exponential: x = low + scale**2 e / (low - loc).
    if base is dist.Normal:
        x, slopes = gradients(lambda p, n: fv.sample(
            dist.LeftTruncatedDistribution(dist.Normal(p[0], p[1]), p[2]), KEY, (n,)
        ), [-1000.0, 1.0, 0.0], 2000)  # fmt: skip
        np.testing.assert_allclose(slopes[:, 1].mean(), 2 * np.mean(x), rtol=0.05)
        np.testing.assert_allclose(slopes[:, 2], 1, atol=1e-4)


def test_bad_parameters_stay_alone():
    scale = jnp.array([1.0, -1.0, jnp.nan, 1.0, 1.0])
    low = jnp.array([0.5, 0.5, 0.5, 3.0, jnp.nan])

    def make(scale):
        base = dist.Normal(0.0, scale, validate_args=False)
        return dist.TwoSidedTruncatedDistribution(base, low, 2.0, validate_args=False)

    d = make(scale)
    np.testing.assert_array_equal(np.isnan(fv.sample(d, KEY)), [False, True, True, True, True])
    slope = jax.grad(lambda s: fv.sample(make(s), KEY)[0])(scale)
    assert np.isfinite(slope[0])


@pytest.mark.slow
def test_transformations_and_shapes():
    def total(loc):
        d = dist.TruncatedNormal(loc, 1.3, low=jnp.array([[0.1], [0.4]]), high=3.0)
        x = fv.sample(d, KEY, (4,))
        assert x.shape == (4, 2, 3)
        return jnp.sin(x).sum()

    loc = jnp.array([0.3, -0.2, 1.0])
    grad = jax.grad(total)(loc)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(loc), grad, rtol=1e-4)
    np.testing.assert_allclose(jax.vmap(jax.grad(total))(loc[None])[0], grad, rtol=1e-4)


def test_a_truncated_student_is_refused():
    d = dist.LeftTruncatedDistribution(dist.StudentT(3.0), 0.5)
    assert pathwise_obstacle(d) == "LeftTruncatedDistribution of StudentT has no derivative"


# ---- powers -------------------------------------------------------------------------------------

POWERS = [
    (-1.6, 0.6, 3.2),
    (0.7, 0.6, 3.2),
    (-1.0, 0.6, 3.2),
    (-1.01, 0.6, 3.2),
    (-60.0, 0.01, 9.0),
]


@pytest.mark.parametrize("power", [*POWERS, (80.0, 0.01, 9.0), (1.5, 0.0, 2.0)], ids=str)
def test_powers_between_bounds(power):
    alpha, low, high = power
    x = np.asarray(fv.sample(dist.DoublyTruncatedPowerLaw(*power), KEY, (N,)), float)
    assert is_inside(x, low, high)
    slope = alpha + 1
    if low == 0:
        u = (np.sort(x) / high) ** slope
    elif slope == 0:
        u = np.log(np.sort(x) / low) / np.log(high / low)
    else:
        near, far = (low, high) if slope < 0 else (high, low)
        u = np.expm1(slope * np.log(np.sort(x) / near)) / np.expm1(slope * np.log(far / near))
        u = u if slope < 0 else 1 - u
    assert distance(u) < 1.63


@pytest.mark.parametrize("power", POWERS, ids=str)
def test_derivatives_of_powers(power):
    def make(p, draws):
        return fv.sample(dist.DoublyTruncatedPowerLaw(*p), KEY, (draws,))

    for x, got in zip(*gradients(make, power), strict=True):
        args = lambda t, p: p[0] * np.log(t), np.array(power), lambda p: p[1], lambda p: p[2]
        expected = derivative(*args, float(x))
        if power[0] == -60.0:  # the reference has too few points so far from the bound
            assert np.isfinite(got).all()
        else:
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_powers_above_a_bound():
    p = jnp.array([-2.6, 0.6])

    def make(p):
        return fv.sample(dist.LowerTruncatedPowerLaw(p[0], p[1]), KEY, (N,))

    x = make(p)
    assert stats.kstest(x / 0.6, stats.pareto(1.6).cdf).pvalue > 0.01
    slopes = jax.jacfwd(make)(p)
    np.testing.assert_allclose(slopes[:, 1], x / 0.6, rtol=1e-5)
    np.testing.assert_allclose(slopes[:, 0], x * np.log(x / 0.6) / 1.6, rtol=1e-3, atol=1e-6)


# ---- gammas -------------------------------------------------------------------------------------

needs_gammas = pytest.mark.skipif(not hasattr(dist, "TruncatedGamma"), reason="new in numpyro 0.22")
GAMMAS = [
    (2.0, 1.0, 0.3, None),
    (1.7, 1.3, None, 3.7),
    (2.0, 1.0, 30.0, 40.0),
    (2.0, 1.0, 100.0, None),
    (2.0, 1.0, 500.0, 501.0),
    (0.1, 1.0, None, 0.5),
    (0.5, 1.0, 1e-3, None),
    (1e4, 1.0, 11000.0, None),
    (1e4, 1.0, None, 9000.0),
    (1e4, 1.0, 9100.0, 9200.0),
    (50.0, 1.0, 49.99, 50.01),
    (5.0, 1.0, 1e-3, 2e-3),
    (100.0, 1.0, 250.0, None),
    (1.0, 1.0, 0.0, None),
]


@pytest.mark.few(4)
@needs_gammas
@pytest.mark.parametrize("gamma", GAMMAS, ids=str)
def test_gammas_follow_the_density(gamma):
    a, rate, low, high = gamma
    d = dist.TruncatedGamma(a, rate, low=low, high=high)
    x = np.asarray(fv.sample(d, KEY, (5000,)), float)
    assert is_inside(x, low, high)

    def log_density(y):
        return a * y - rate * np.exp(y)

    ends = [None if not b else np.log(b) for b in (low, high)]
    assert distance(between(np.log(x), log_density, *ends)) < 1.63


@pytest.mark.slow
@needs_gammas
@pytest.mark.parametrize(
    "gamma",
    [
        (1.7, 1.3, 0.3, 3.6),
        (0.4, 1.0, 0.1, 2.0),
        (30.0, 2.0, 20.0, 25.0),
        (2.0, 1.0, 120.0, 125.0),
        (1e3, 1.0, 600.0, 700.0),
        (1e3, 1.0, 1300.0, 1400.0),
        (3.0, 1.0, 0.0001, 0.001),
    ],
)
def test_derivatives_of_gammas(gamma):
    def make(p, draws):
        d = dist.TruncatedGamma(p[0], p[1], low=p[2], high=p[3])
        return fv.sample(d, KEY, (draws,))

    def log_density(t, p):
        return (p[0] - 1) * np.log(t) - p[1] * t

    for x, got in zip(*gradients(make, gamma), strict=True):
        args = log_density, np.array(gamma), lambda p: p[2], lambda p: p[3], float(x)
        # What rounding log x does to the densities' ratio; x / rate is multiplied by one minus it.
        ratio = 1e-5 + 4 * 6e-8 * abs(np.log(x)) * abs(gamma[0] - gamma[1] * x)
        room = np.array([3e-5, ratio * x / gamma[1], ratio, ratio])
        assert (
            np.abs(got - (expected := derivative(*args))) < room + 1e-3 * np.abs(expected)
        ).all()


@needs_gammas
def test_bad_gammas_stay_alone():
    a, low = jnp.array([2.0, -1.0, jnp.nan, 2.0]), jnp.array([0.5, 0.5, 0.5, 3.0])
    base = dist.Gamma(a, 1.0, validate_args=False)
    d = dist.TwoSidedTruncatedGamma(base, low, 2.0, validate_args=False)
    np.testing.assert_array_equal(np.isnan(fv.sample(d, KEY)), [False, True, True, True])
