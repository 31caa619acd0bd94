"""Censored densities against scipy's tails, far out, with gradients that numpyro's lose."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms
from scipy import stats

import funcvi as fv
from funcvi._numpyro import named
from funcvi.densities.censored import log_tails
from funcvi.densities.log_prob import log_prob

pytestmark = pytest.mark.skipif(
    not named("RightCensoredDistribution"), reason="this numpyro has no censored distributions"
)

# By name: the distribution of a number that moves it, scipy's, and places far into both tails.
CASES: dict[str, tuple[Any, Any, list[float]]] = {
    "Normal": (lambda s: dist.Normal(0.5, s), lambda s: stats.norm(0.5, s), [-30, -1, 2, 40]),
    "LogNormal": (
        lambda s: dist.LogNormal(0.5, s),
        lambda s: stats.lognorm(s, scale=np.exp(0.5)),
        [1e-9, 0.5, 3, 1e12],
    ),
    "HalfNormal": (dist.HalfNormal, lambda s: stats.halfnorm(scale=s), [1e-6, 1, 30]),
    "Logistic": (
        lambda s: dist.Logistic(0.5, s),
        lambda s: stats.logistic(0.5, s),
        [-90, -1, 2, 90],
    ),
    "Laplace": (lambda s: dist.Laplace(0.5, s), lambda s: stats.laplace(0.5, s), [-90, 0, 2, 90]),
    "Cauchy": (lambda s: dist.Cauchy(0.5, s), lambda s: stats.cauchy(0.5, s), [-1e9, 0, 2, 1e9]),
    "HalfCauchy": (dist.HalfCauchy, lambda s: stats.halfcauchy(scale=s), [1e-6, 2, 1e9]),
    "StudentT": (
        lambda s: dist.StudentT(3.0, 0.5, s),
        lambda s: stats.t(3, 0.5, s),
        [-1e4, 0, 2, 1e4],
    ),
    "Gumbel": (
        lambda s: dist.Gumbel(0.5, s),
        lambda s: stats.gumbel_r(0.5, s),
        [-4, 0, 2, 90],
    ),
    "Exponential": (dist.Exponential, lambda s: stats.expon(scale=1 / s), [1e-7, 1, 60]),
    "Weibull": (
        lambda s: dist.Weibull(s, 1.5),
        lambda s: stats.weibull_min(1.5, scale=s),
        [1e-5, 1, 40],
    ),
    "Gompertz": (
        lambda s: dist.Gompertz(s, 0.7),
        lambda s: stats.gompertz(s, scale=1 / 0.7),
        [1e-5, 1, 7],
    ),
    "Pareto": (lambda s: dist.Pareto(0.8, s), lambda s: stats.pareto(s, scale=0.8), [0.9, 2, 1e9]),
    "Gamma": (
        lambda s: dist.Gamma(2.3, s),
        lambda s: stats.gamma(2.3, scale=1 / s),
        [1e-5, 1, 60],
    ),
    "Chi2": (lambda s: dist.Chi2(3 * s), lambda s: stats.chi2(3 * s), [1e-4, 2, 150]),
    "InverseGamma": (
        lambda s: dist.InverseGamma(2.3, s),
        lambda s: stats.invgamma(2.3, scale=s),
        [0.02, 1, 1e5],
    ),
    "Uniform": (lambda s: dist.Uniform(0.0, s), lambda s: stats.uniform(0, s), [1e-7, 0.9]),
    "mirrored": (
        lambda s: dist.TransformedDistribution(
            dist.Exponential(s), transforms.AffineTransform(1.0, -2.0)
        ),
        lambda s: None,
        [],
    ),
}
SCIPYS = [name for name, (_, _, places) in CASES.items() if places]


def differences(function: Any, at: float) -> float:
    h = 1e-4
    far, near = (function(at + k * h) - function(at - k * h) for k in (2, 1))
    return (8 * near - far) / (12 * h)


@pytest.mark.parametrize("name", SCIPYS)
@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_both_tails_and_their_gradients_are_scipys(name: str, x64: bool) -> None:
    ours, theirs, places = CASES[name]
    at, rtol, rounding = (1.2, 1e-7, 1e-14) if x64 else (1.2, 1e-5, 2e-7)
    with jax.enable_x64(x64):
        for place in places:
            for side, other in enumerate(("logcdf", "logsf")):

                def ours_of(s: Any, place: float = place, side: int = side) -> Any:
                    return log_tails(ours(s), jnp.asarray(place, jnp.result_type(float)))[side]

                def exact(s: float, place: float = place, other: str = other) -> float:
                    return float(getattr(theirs(s), other)(np.float64(place)))

                expected, found = exact(at), jax.jit(ours_of)(at)
                where = f"{other} at {place}"
                np.testing.assert_allclose(found, expected, rtol=rtol, atol=rounding, err_msg=where)
                if (name, abs(place)) in {("Chi2", 150), ("Cauchy", 1e9)}:
                    continue  # scipy's own digits end, in its older versions
                slope = differences(exact, at)
                np.testing.assert_allclose(
                    jax.grad(ours_of)(at), slope, rtol=2e-4, atol=2e-6, err_msg=where
                )


def test_a_mirrored_law_has_its_tails_exchanged() -> None:
    below, above = log_tails(CASES["mirrored"][0](3.0), jnp.array([-79.0, 0.9]))
    np.testing.assert_allclose(below, [-120.0, -0.15], rtol=1e-6)
    np.testing.assert_allclose(above[1], np.log1p(-np.exp(-0.15)), rtol=1e-6)


def test_what_a_cdf_does_not_have_is_minus_infinity() -> None:
    class Own(dist.Normal):
        def cdf(self, value: Any) -> Any:
            return super().cdf(value)

    below, above = log_tails(Own(0.0, 1.0), jnp.array([1.0, 20.0]))
    np.testing.assert_allclose(above[0], stats.norm.logsf(1.0), rtol=1e-6)
    assert above[1] == -jnp.inf
    np.testing.assert_allclose(below, stats.norm.logcdf([1.0, 20.0]), rtol=1e-6, atol=1e-7)


def right(d: Any, censored: Any) -> Any:
    return dist.RightCensoredDistribution(d, jnp.asarray(censored))


def test_numpyros_where_it_has_digits() -> None:
    d, x = dist.Weibull(2.0, 1.5), jnp.array([0.3, 1.0, 4.0])
    for kind in ("LeftCensoredDistribution", "RightCensoredDistribution"):
        made = getattr(dist, kind)(d, jnp.array([True, False, True]))
        np.testing.assert_allclose(log_prob(made, x), made.log_prob(x), rtol=1e-5)
    flags = jnp.array([[0, 0], [1, 0], [0, 1], [1, 1], [0, 0]], bool)
    pairs = jnp.array([[0.3, 1.0], [0.3, 1.0], [0.3, 1.0], [0.3, 1.0], [0.7, 0.7]])
    made = dist.IntervalCensoredDistribution(d, flags[:, 0], flags[:, 1])
    found = log_prob(made, pairs)
    np.testing.assert_allclose(found[:4], made.log_prob(pairs)[:4], rtol=1e-5)
    np.testing.assert_allclose(found[4], d.log_prob(0.7), rtol=1e-5)  # numpyro 0.21 says zero


def test_intervals_far_out() -> None:
    d = dist.Normal(0.0, 1.0)
    pairs = jnp.array([[20.0, 20.5], [-20.5, -20.0], [-1.0, 1.0], [20.0, 21.0]])
    flags = jnp.array([False, False, False, True])
    made = dist.IntervalCensoredDistribution(d, jnp.zeros(4, bool), flags)
    tail = stats.norm.logsf
    far = tail(20) + np.log1p(-np.exp(tail(20.5) - tail(20)))
    middle = np.log1p(-2 * stats.norm.sf(1))
    np.testing.assert_allclose(log_prob(made, pairs), [far, far, middle, tail(20)], rtol=1e-5)

    def total(scale: Any) -> Any:
        d = dist.Normal(0.0, scale)
        return log_prob(
            dist.IntervalCensoredDistribution(d, jnp.zeros(4, bool), flags), pairs
        ).sum()

    assert np.isfinite(jax.grad(total)(1.0))


def test_a_model_learns_from_times_far_beyond_its_rate() -> None:
    """Gamma(1, 1) prior, four deaths, two alive at 50: the posterior is a Gamma, and no clip is."""
    times, died = jnp.array([1.0, 2.0, 0.5, 1.5, 50.0, 50.0]), jnp.arange(6) < 4

    def model() -> None:
        rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
        with numpyro.plate("rows", 6):
            numpyro.sample("times", right(dist.Exponential(rate), ~died), obs=times)

    target = fv.target(model)

    def exact(log_rate: Any) -> Any:
        rate = jnp.exp(log_rate)
        return 4 * log_rate - rate * times.sum() - rate + log_rate

    z = jnp.array([-2.0, 0.0, 1.5])
    found = jax.vmap(lambda z: target.log_density({"rate": z}))(z)
    rate = jax.vmap(lambda z: target.constrain({"rate": z})["rate"])(z)
    # The bijection is ours: compare as a density of log(rate).
    jacobian = jax.vmap(jax.grad(lambda z: jnp.log(target.constrain({"rate": z})["rate"])))(z)
    np.testing.assert_allclose(found - jnp.log(jacobian), exact(jnp.log(rate)), rtol=1e-5)
    slope = jax.grad(lambda z: target.log_density({"rate": z}))(jnp.float32(1.5))
    assert slope < -100
