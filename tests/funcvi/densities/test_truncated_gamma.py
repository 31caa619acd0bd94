"""Truncated Gamma densities in float32 against 60 digits, wherever the interval is."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro.distributions as dist
import pytest
from mpmath import mpf

import funcvi as fv
from funcvi.densities.log_prob import log_prob

EPS = 2.0**-23
pytestmark = pytest.mark.skipif(not hasattr(dist, "TruncatedGamma"), reason="numpyro 0.21 has none")
NAMES = ("x", "concentration", "rate", "low", "high")
#: concentration, rate, low, high.
INTERVALS = [
    (1.7, 1.3, 0.3, 3.6),
    (2, 1, 40, 41),
    (2, 1, 300, 301),
    (2, 1, 40, None),
    (50, 1, None, 10),
    (50, 1, 5, 6),
    (1e-2, 1, 0.5, None),
    (1e-2, 1, None, 1e-3),
    (1e-2, 1, 1e-3, 5),
    (0.5, 100, 1, 2),
    (1e4, 1, 1e4, 1.01e4),
    (1e4, 1, 1.2e4, None),
    (1e4, 1, None, 9e3),
    (3, 1, 2, 2.001),
]


def exact(x, a, rate, low, high):
    ends = (0 if low is None else low * rate, mpmath.inf if high is None else high * rate)
    mass = mpmath.gammainc(a, *ends)
    return a * mpmath.log(rate) + (a - 1) * mpmath.log(x) - rate * x - mpmath.log(mass)


@pytest.mark.slow
@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_values_and_two_derivatives_at_draws(interval):
    bounds = zip(NAMES[1:], interval, strict=True)
    given = {n: jnp.float32(v) for n, v in bounds if v is not None}

    def made(v):
        return dist.TruncatedGamma(
            v["concentration"], v["rate"], low=v.get("low"), high=v.get("high"), validate_args=False
        )

    def density(v):
        return log_prob(made(v), v["x"])

    def curvature(v, name):
        return jax.grad(jax.grad(lambda entry: density({**v, name: entry})))(v[name])

    for x in fv.sample(made(given), jax.random.key(1), (2,)):
        values = {**given, "x": x}
        value, first = jax.jit(jax.value_and_grad(density))(values)
        with mpmath.workdps(80):
            at = [mpf(float(values[n])) if n in values else None for n in NAMES]
            for i, name in enumerate(NAMES):
                if at[i] is None:
                    continue
                step = at[i] * mpf(10) ** -20
                low, here, high = (
                    exact(*at[:i], at[i] + s, *at[i + 1 :]) for s in (-step, mpf(0), step)
                )
                slope, bend = (high - low) / (2 * step), (high - 2 * here + low) / step**2
                if name == "x":
                    pull = abs(at[0] * slope)
                    error = abs(mpf(float(value)) - here)
                    assert error < 10 * EPS * (1 + abs(here) + pull)
                size = (1 + pull / 10 + mpmath.sqrt(at[1])) / abs(at[i])
                assert abs(mpf(float(first[name])) - slope) < 100 * EPS * (abs(slope) + size)
                error = abs(mpf(float(curvature(values, name))) - bend)
                assert error < 300 * EPS * (abs(bend) + size**2)


def test_densities_integrate_to_one_in_float32():
    for concentration, low, high in ((2, 40, 41), (50, 5, 6), (1e-2, 0.5, 3), (1e4, 9e3, 9.1e3)):
        d = dist.TruncatedGamma(jnp.float32(concentration), 1.0, low=low, high=high)
        x = jnp.linspace(low, high, 20001, dtype=jnp.float32)
        heights = np.exp(np.asarray(jax.jit(log_prob)(d, x), float))
        assert abs(np.trapezoid(heights, np.asarray(x, float)) - 1) < 2e-4
