"""Truncated densities in float32 against 60 digits, wherever the interval is."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from mpmath import mpf

import funcvi as fv
from funcvi.densities.log_prob import log_prob

EPS = 2.0**-23
KEY = jax.random.key(0)
NAMES = ("loc", "scale", "low", "high", "x")

#: The standard density and its distribution function below zero, where nothing cancels.
LAWS = {
    "Normal": (mpmath.npdf, lambda t: mpmath.erfc(-t / mpmath.sqrt(2)) / 2),
    "Cauchy": (lambda t: 1 / (mpmath.pi * (1 + t * t)), lambda t: mpmath.atan2(1, -t) / mpmath.pi),
    "Laplace": (
        lambda t: mpmath.exp(-abs(t)) / 2,
        lambda t: mpmath.exp(t) / 2 if t < 0 else 1 - mpmath.exp(-t) / 2,
    ),
    "Logistic": (
        lambda t: 1 / (2 * mpmath.cosh(t / 2)) ** 2,
        lambda t: 1 / (1 + mpmath.exp(-t)),
    ),
    "SoftLaplace": (
        lambda t: 1 / (mpmath.pi * mpmath.cosh(t)),
        lambda t: 2 * mpmath.atan(mpmath.exp(t)) / mpmath.pi,
    ),
}
#: loc, scale, low, high.
INTERVALS = [
    (0.3, 1.3, -0.6, 1.6),
    (0, 1, 5, 6),
    (0, 1, 6, 7),
    (0, 1, 30, None),
    (0, 1, 1e3, None),
    (0, 1, None, -1e3),
    (0, 1, -1e3, -999.9),
    (0, 1, 0, None),
    (0, 1, -1, 2),
    (0, 1000, -1, 1),
    (0, 1, -50, 60),
    (3, 0.1, -1e6, 3.2),
    (1, 2, None, 5),
    (0, 1, -60, -50),
    (0, 1e-3, 1, 2),
    (1e4, 1, 1e4 + 3, 1e4 + 4),
]


def exact(law, loc, scale, low, high, x):
    density, below = LAWS[law]
    a, b = ((v - loc) / scale if v is not None else None for v in (low, high))
    if a is not None and a > 0:
        a, b = (-b if b is not None else None), -a
    mass = (below(b) if b is not None else 1) - (below(a) if a is not None else 0)
    return mpmath.log(density((x - loc) / scale) / scale / mass)


def ours(law, values):
    d = getattr(dist, law)(values["loc"], values["scale"], validate_args=False)
    d = dist.TruncatedDistribution(
        d, low=values.get("low"), high=values.get("high"), validate_args=False
    )
    return d, lambda x: log_prob(d, x)


def slopes(law, values, name):
    step = mpf(10) ** -30

    def moved(by):
        given = {n: values.get(n) for n in NAMES}
        given[name] = given[name] + by
        return exact(law, *given.values())

    low, here, high = moved(-step), moved(0), moved(step)
    return here, (high - low) / (2 * step), (high - 2 * here + low) / step**2


@pytest.mark.few(2)
@pytest.mark.parametrize("interval", INTERVALS, ids=str)
@pytest.mark.parametrize("law", LAWS)
def test_values_and_two_derivatives_at_draws(law, interval):
    given = {n: jnp.float32(v) for n, v in zip(NAMES, interval, strict=False) if v is not None}
    draws = fv.sample(ours(law, given)[0], jax.random.key(1), (2,))

    def density(values):
        return ours(law, values)[1](values["x"])

    def curvature(values, name):
        return jax.grad(jax.grad(lambda v: density({**values, name: v})))(values[name])

    scale = float(given["scale"])
    for x in draws:
        values = {**given, "x": x}
        value, first = jax.jit(jax.value_and_grad(density))(values)
        with mpmath.workdps(120):
            true = {n: mpf(float(v)) for n, v in values.items()}
            for name in values:
                here, slope, bend = (float(v) for v in slopes(law, true, name))
                assert abs(float(first[name]) - slope) <= 100 * EPS * (abs(slope) + 0.1 / scale)
                if law != "Laplace" or given.get("low") != given["loc"]:  # not at the kink
                    error = abs(float(curvature(values, name)) - bend)
                    assert error <= 300 * EPS * (abs(bend) + 0.1 / scale**2)
                if name == "x":  # given exactly, so this is all that x's own rounding may do
                    assert abs(float(value) - here) <= 10 * EPS * (1 + abs(here) + abs(x * slope))


@pytest.mark.few(2)
@pytest.mark.parametrize("law", LAWS)
def test_densities_integrate_to_one_in_float32(law):
    for low, high in ((-1, 2), (5, 6), (6, 7), (30, 31), (100, 101), (-101, -100)):
        values = {"loc": 0.0, "scale": 1.0, "low": jnp.float32(low), "high": jnp.float32(high)}
        x = jnp.linspace(low, high, 20001, dtype=jnp.float32)
        heights = np.exp(np.asarray(ours(law, values)[1](x), float))
        assert abs(np.trapezoid(heights, np.asarray(x, float)) - 1) < 5e-5


def test_the_divergence_of_far_truncations_and_its_gradient():
    def kl(loc):
        q = dist.TruncatedNormal(loc, 1.0, low=6.0, high=7.0)
        return fv.kl(
            q, dist.TruncatedNormal(1.0, 1.0, low=6.0, high=7.0), key=KEY, num_samples=4000
        )

    def right(loc):
        """log p - log q is linear in x, so the mean of q is all it needs."""

        def log_mass(m):
            return mpmath.log((mpmath.erfc((6 - m) / root) - mpmath.erfc((7 - m) / root)) / 2)

        root = mpmath.sqrt(2)
        mean = loc + mpmath.diff(log_mass, loc)
        return (loc - 1) * mean - (loc**2 - 1) / 2 - log_mass(loc) + log_mass(mpf(1))

    with mpmath.workdps(50):
        value, slope = float(right(mpf(0))), float(mpmath.diff(right, mpf(0)))
    found, gradient = jax.jit(jax.value_and_grad(kl))(0.0)
    # The standard deviation of log p - log q is that of q, 0.15, its gradient's is less.
    assert abs(found - value) < 4 * 0.15 / 4000**0.5
    assert abs(gradient - slope) < 4 * 0.15 / 4000**0.5
    assert abs(found - value) < value


def test_a_model_has_the_same_density():
    def model(data=None):
        loc = numpyro.sample("loc", dist.TruncatedNormal(0.0, 1.0, low=7.0, high=8.0))
        with numpyro.plate("rows", 2):
            numpyro.sample("x", dist.TruncatedNormal(loc, 0.1, low=10.0), obs=data)

    data = jnp.array([10.01, 10.02])
    target = fv.target(model, data)
    z = target.unconstrain({"loc": jnp.array(7.5)})
    with mpmath.workdps(60):
        likelihood = sum(exact("Normal", 7.5, mpf("0.1"), 10, None, mpf(float(v))) for v in data)
        right = float(exact("Normal", 0, 1, 7, 8, mpf("7.5")) + likelihood)
    assert abs(float(target.log_density(z) - target.log_det(z)) - right) < 2e-3  # of size 300
