"""Draws of mixtures: where their quantiles move, and what they average to."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import transforms as nt
from scipy import integrate, optimize, stats

import funcvi as fv
from funcvi.sampling.draw import unvalidated
from funcvi.sampling.mixture import at_fixed_quantile

KEY = jax.random.key(41)
QUANTILES = np.array([1e-4, 0.03, 0.2, 0.45, 0.7, 0.93, 1 - 1e-4])


def weights(t: Any) -> Any:
    return dist.Categorical(probs=jnp.stack([t, 1 - t]))


def same(make: Any) -> Any:
    def mixture(t: Any) -> Any:
        components = make(t)
        try:
            return dist.MixtureSameFamily(weights(t[0]), components)
        except AssertionError as refusal:
            if "Invalid component distribution: Independent" in str(refusal):
                pytest.skip("numpyro before 0.22 takes no Independent components")
            raise

    return mixture


class Cauchy:
    """scipy before 1.15 loses the digits of the lower tail."""

    def __init__(self, loc: float, scale: float) -> None:
        self.loc, self.scale = loc, scale
        wrapped = stats.cauchy(loc, scale)
        self.pdf, self.ppf, self.support = wrapped.pdf, wrapped.ppf, wrapped.support

    def cdf(self, x: Any) -> Any:
        return np.arctan2(self.scale, self.loc - x) / np.pi

    def sf(self, x: Any) -> Any:
        return np.arctan2(self.scale, x - self.loc) / np.pi


class Kumaraswamy:
    """Missing from scipy."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def cdf(self, x: Any) -> Any:
        return 1 - self.sf(x)

    def sf(self, x: Any) -> Any:
        return (1 - np.minimum(x, 1) ** self.a) ** self.b

    def pdf(self, x: Any) -> Any:
        return self.a * self.b * x ** (self.a - 1) * (1 - x**self.a) ** (self.b - 1)

    def ppf(self, u: Any) -> Any:
        return (1 - (1 - u) ** (1 / self.b)) ** (1 / self.a)


# name: (mixture of theta, its two components in scipy, theta); theta[0] is the first weight
UNIVARIATE: dict[str, tuple[Any, Any, list[float]]] = {
    "Normal": (
        same(lambda t: dist.Normal(t[1:3], t[3:5])),
        lambda t: (stats.norm(t[1], t[3]), stats.norm(t[2], t[4])),
        [0.3, 0.4, -1.2, 1.1, 0.7],
    ),
    "Laplace": (
        same(lambda t: dist.Laplace(t[1:3], t[3:5])),
        lambda t: (stats.laplace(t[1], t[3]), stats.laplace(t[2], t[4])),
        [0.3, 0.4, -1.2, 1.1, 0.7],
    ),
    "Cauchy": (
        same(lambda t: dist.Cauchy(t[1:3], t[3:5])),
        lambda t: (Cauchy(t[1], t[3]), Cauchy(t[2], t[4])),
        [0.3, 0.4, -1.2, 1.1, 0.7],
    ),
    "Logistic": (
        same(lambda t: dist.Logistic(t[1:3], t[3:5])),
        lambda t: (stats.logistic(t[1], t[3]), stats.logistic(t[2], t[4])),
        [0.6, 0.4, -1.2, 1.1, 0.7],
    ),
    "Gumbel": (
        same(lambda t: dist.Gumbel(t[1:3], t[3:5])),
        lambda t: (stats.gumbel_r(t[1], t[3]), stats.gumbel_r(t[2], t[4])),
        [0.6, 0.4, -1.2, 1.1, 0.7],
    ),
    "SoftLaplace": (
        same(lambda t: dist.SoftLaplace(t[1:3], t[3:5])),
        lambda t: (stats.hypsecant(t[1], t[3]), stats.hypsecant(t[2], t[4])),
        [0.6, 0.4, -1.2, 1.1, 0.7],
    ),
    "Exponential": (
        same(lambda t: dist.Exponential(t[1:3])),
        lambda t: (stats.expon(scale=1 / t[1]), stats.expon(scale=1 / t[2])),
        [0.3, 0.4, 2.2],
    ),
    "HalfNormal": (
        same(lambda t: dist.HalfNormal(t[1:3])),
        lambda t: (stats.halfnorm(scale=t[1]), stats.halfnorm(scale=t[2])),
        [0.3, 0.4, 2.2],
    ),
    "HalfCauchy": (
        same(lambda t: dist.HalfCauchy(t[1:3])),
        lambda t: (stats.halfcauchy(scale=t[1]), stats.halfcauchy(scale=t[2])),
        [0.3, 0.4, 2.2],
    ),
    "Weibull": (
        same(lambda t: dist.Weibull(t[1:3], t[3:5])),
        lambda t: (stats.weibull_min(t[3], scale=t[1]), stats.weibull_min(t[4], scale=t[2])),
        [0.3, 0.4, 2.2, 1.7, 0.8],
    ),
    "Gompertz": (
        same(lambda t: dist.Gompertz(t[1:3], t[3:5])),
        lambda t: (stats.gompertz(t[1], scale=1 / t[3]), stats.gompertz(t[2], scale=1 / t[4])),
        [0.3, 0.4, 2.2, 1.7, 0.8],
    ),
    "Kumaraswamy": (
        same(lambda t: dist.Kumaraswamy(t[1:3], t[3:5])),
        lambda t: (Kumaraswamy(t[1], t[3]), Kumaraswamy(t[2], t[4])),
        [0.3, 0.6, 2.2, 1.7, 0.8],
    ),
    "Gamma": (
        same(lambda t: dist.Gamma(t[1:3], t[3:5])),
        lambda t: (stats.gamma(t[1], scale=1 / t[3]), stats.gamma(t[2], scale=1 / t[4])),
        [0.3, 0.6, 3.2, 1.7, 0.8],
    ),
    "Chi2": (
        same(lambda t: dist.Chi2(t[1:3])),
        lambda t: (stats.chi2(t[1]), stats.chi2(t[2])),
        [0.3, 1.6, 5.2],
    ),
    "InverseGamma": (
        same(lambda t: dist.InverseGamma(t[1:3], t[3:5])),
        lambda t: (stats.invgamma(t[1], scale=t[3]), stats.invgamma(t[2], scale=t[4])),
        [0.3, 1.6, 3.2, 1.7, 0.8],
    ),
    "LogNormal": (
        same(lambda t: dist.LogNormal(t[1:3], t[3:5])),
        lambda t: (
            stats.lognorm(t[3], scale=np.exp(t[1])),
            stats.lognorm(t[4], scale=np.exp(t[2])),
        ),
        [0.3, 0.4, -1.2, 1.1, 0.7],
    ),
    "falling affine of Gumbel": (
        same(
            lambda t: dist.TransformedDistribution(
                dist.Gumbel(t[1:3], 1.0), nt.AffineTransform(t[3], t[4])
            )
        ),
        lambda t: (
            stats.gumbel_l(t[3] + t[4] * t[1], -t[4]),
            stats.gumbel_l(t[3] + t[4] * t[2], -t[4]),
        ),
        [0.3, 0.4, -1.2, 0.5, -0.7],
    ),
    "Normal and Laplace": (
        lambda t: dist.MixtureGeneral(
            weights(t[0]), [dist.Normal(t[1], t[2]), dist.Laplace(t[3], t[4])]
        ),
        lambda t: (stats.norm(t[1], t[2]), stats.laplace(t[3], t[4])),
        [0.3, 0.4, 0.9, -1.2, 0.7],
    ),
    "Gamma and LogNormal": (
        lambda t: dist.MixtureGeneral(
            weights(t[0]), [dist.Gamma(t[1], t[2]), dist.LogNormal(t[3], t[4])]
        ),
        lambda t: (stats.gamma(t[1], scale=1 / t[2]), stats.lognorm(t[4], scale=np.exp(t[3]))),
        [0.3, 2.4, 0.9, -0.2, 0.7],
    ),
    "Normal and HalfNormal": (
        lambda t: dist.MixtureGeneral(
            weights(t[0]),
            [dist.Normal(t[1], t[2]), dist.HalfNormal(t[3])],
            support=dist.constraints.real,
        ),
        lambda t: (stats.norm(t[1], t[2]), stats.halfnorm(scale=t[3])),
        [0.3, 0.4, 0.9, 1.2],
    ),
    "logits, unnormalised": (
        lambda t: dist.MixtureSameFamily(
            dist.Categorical(logits=2.0 + jnp.log(jnp.stack([t[0], 1 - t[0]]))),
            dist.Normal(t[1:3], 1.0),
        ),
        lambda t: (stats.norm(t[1], 1.0), stats.norm(t[2], 1.0)),
        [0.3, 0.4, -1.2],
    ),
}


def cdf(components: Any, t: Any, x: Any) -> Any:
    first, second = components(t)
    return t[0] * first.cdf(x) + (1 - t[0]) * second.cdf(x)


def sf(components: Any, t: Any, x: Any) -> Any:
    first, second = components(t)
    return t[0] * first.sf(x) + (1 - t[0]) * second.sf(x)


def quantiles(components: Any, t: Any) -> Any:
    ends = [[c.ppf(q) for c in components(t)] for q in QUANTILES]
    return np.array(
        [
            optimize.brentq(lambda x, q=q: cdf(components, t, x) - q, *sorted(e), xtol=1e-14)
            for q, e in zip(QUANTILES, ends, strict=True)
        ]
    )


def slopes(make: Any, t: Any, x: Any) -> Any:
    """dx / dtheta of shape (*x.shape, parameters), in reverse and in forward mode alike."""

    @jax.jit
    def both(t: Any) -> Any:
        def moved(t: Any) -> Any:
            return at_fixed_quantile(make(t), x)

        return jax.jacfwd(moved)(t), jax.jacrev(moved)(t)

    forward, reverse = both(t)
    np.testing.assert_allclose(forward, reverse, rtol=1e-5, atol=1e-6 * np.abs(forward).max())
    return np.asarray(reverse)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", UNIVARIATE)
def test_a_quantile_moves_as_the_distribution_function_says(name: str) -> None:
    make, components, theta = UNIVARIATE[name]
    t = np.array(theta)
    x = quantiles(components, t)
    with jax.enable_x64(True):
        d = make(jnp.asarray(t))
        found = slopes(make, jnp.asarray(t), jnp.asarray(x))
        density = np.exp(np.asarray(unvalidated(d).log_prob(jnp.asarray(x))))
    first, second = components(t)
    # numpyro's density, by which the rule divides, against scipy's.
    np.testing.assert_allclose(density, t[0] * first.pdf(x) + (1 - t[0]) * second.pdf(x), rtol=1e-6)
    for i, e in enumerate(np.eye(len(t)) * 1e-5):
        lower = (cdf(components, t + e, x) - cdf(components, t - e, x)) / 2e-5
        upper = (sf(components, t + e, x) - sf(components, t - e, x)) / 2e-5
        moved = np.where(x < np.median(x), -lower, upper) / density
        # Differences: 1e-9 of the terms; the polynomials of a Gamma: 2e-6.
        np.testing.assert_allclose(found[:, i], moved, rtol=1e-5, atol=2e-6 * np.abs(moved).max())


@pytest.mark.few(4)
@pytest.mark.parametrize("name", UNIVARIATE)
def test_float32_agrees_with_float64(name: str) -> None:
    make, components, theta = UNIVARIATE[name]
    x = quantiles(components, np.array(theta))
    narrow = slopes(make, jnp.asarray(theta, jnp.float32), jnp.asarray(x, jnp.float32))
    with jax.enable_x64(True):
        wide = slopes(make, jnp.asarray(theta), jnp.asarray(x))
    assert narrow.dtype == np.float32
    # Against the largest slope at each point: one slope may be a difference of larger ones.
    np.testing.assert_allclose(narrow, wide, rtol=1e-3, atol=2e-5 * np.abs(wide).max())


@pytest.mark.parametrize("name", UNIVARIATE)
def test_draws_follow_the_mixture(name: str) -> None:
    make, components, theta = UNIVARIATE[name]
    t = np.array(theta)
    draws = np.asarray(fv.sample(make(jnp.asarray(t)), KEY, (4000,)), np.float64)
    assert stats.kstest(draws, lambda x: cdf(components, t, x)).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Normal", "Gamma", "LogNormal", "Normal and Laplace"])
def test_the_gradient_of_an_expectation(name: str) -> None:
    """By draws, against quadrature: for every parameter, the weight among them."""
    make, components, theta = UNIVARIATE[name]
    t = np.array(theta)

    def exact(t: Any) -> float:
        first, second = components(t)

        def integrand(x: float) -> float:
            return np.sin(x) * (t[0] * first.pdf(x) + (1 - t[0]) * second.pdf(x))

        low = first.support()[0]
        ends = [(low, 0), (0, np.inf)] if low < 0 else [(0, 1), (1, np.inf)]
        return sum(integrate.quad(integrand, *e, limit=800, epsabs=1e-10)[0] for e in ends)

    with jax.enable_x64(True):

        def value(t: Any, key: Any) -> Any:
            return jnp.mean(jnp.sin(fv.sample(make(t), key, (200,))))

        keys = jax.random.split(KEY, 200)
        found = np.asarray(jax.jit(jax.vmap(jax.grad(value), (None, 0)))(jnp.asarray(t), keys))
    assert found.dtype == np.float64
    mean, error = found.mean(0), found.std(0) / np.sqrt(len(found))
    for i, e in enumerate(np.eye(len(t)) * 1e-3):
        slope = (exact(t + e) - exact(t - e)) / 2e-3
        assert abs(mean[i] - slope) < 5 * error[i] + 1e-5, (i, mean[i], slope, error[i])


# ---- objectives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["pathwise", "sticking_the_landing"])
def test_the_weights_find_the_right_component(estimator: str) -> None:
    mixture = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.Normal(jnp.array([0.0, 3.0]), 1.0)
    )
    params, q = fv.unconstrain(mixture, component_distribution=fv.fixed())
    target = dist.Normal(3.0, 1.0)

    def loss(params: Any, key: Any) -> Any:
        return fv.kl(q(params), target, key=key, num_samples=100, estimator=estimator)

    fit = fv.fit(loss, params, optax.adam(0.05), key=KEY, num_steps=1000)
    assert q(fit.params).mixing_distribution.probs[1] > 0.99


def test_sums_over_components_unless_asked() -> None:
    d = UNIVARIATE["Normal"][0](jnp.asarray(UNIVARIATE["Normal"][2]))
    p = dist.Normal(0.0, 2.0)
    unasked, summed, drawn = (
        float(fv.kl(d, p, key=KEY, num_samples=8, estimator=e))
        for e in (None, "enumeration", "pathwise")
    )
    assert unasked == summed != drawn


def test_a_mixture_in_a_mixture() -> None:
    def make(t: Any) -> Any:
        inner = dist.MixtureSameFamily(weights(t[1]), dist.Normal(t[2:4], 0.5))
        return dist.MixtureGeneral(weights(t[0]), [inner, dist.Normal(t[4], 1.0)])

    def flat(t: Any) -> Any:
        probs = jnp.stack([t[0] * t[1], t[0] * (1 - t[1]), 1 - t[0]])
        scale = jnp.array([0.5, 0.5, 1.0])
        return dist.MixtureSameFamily(dist.Categorical(probs=probs), dist.Normal(t[2:5], scale))

    t, x = jnp.array([0.4, 0.7, -1.0, 1.2, 0.3]), jnp.linspace(-3, 3, 13)
    np.testing.assert_allclose(slopes(make, t, x), slopes(flat, t, x), rtol=1e-4, atol=1e-5)


# ---- shapes and transformations -----------------------------------------------------------------


@pytest.mark.few(4)
@pytest.mark.parametrize("name", UNIVARIATE)
def test_second_derivatives(name: str) -> None:
    """Of the quantile at 0.7, found by bisection, along each parameter and pair of them."""
    make, components, theta = UNIVARIATE[name]
    t = np.array(theta)
    at = quantiles(components, t)[4]
    u = cdf(components, t, at)

    def moved(t: Any) -> Any:
        return at_fixed_quantile(make(t), jnp.asarray(at))

    with jax.enable_x64(True):
        found = jax.jit(jax.jacfwd(jax.grad(moved)))(jnp.asarray(t))
        reverse = jax.jit(jax.jacrev(jax.grad(moved)))(jnp.asarray(t))
        np.testing.assert_allclose(reverse, found, rtol=1e-9, atol=1e-12)

    def x(t: Any) -> float:
        ends = (at / 4, at * 4) if at > 0.1 else (at - 0.1, at + 0.1)
        return optimize.brentq(lambda x: cdf(components, t, x) - u, *ends, xtol=1e-15)

    h, basis = 1e-3, np.eye(len(t))
    expected = [
        [
            (x(t + h * (e + f)) - x(t + h * (e - f)) - x(t - h * (e - f)) + x(t - h * (e + f)))
            / (4 * h * h)
            for e in basis
        ]
        for f in basis
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
