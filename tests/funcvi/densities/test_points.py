"""What rounds to an edge of its support keeps its logarithms up to the densities.

Exact values are integrals over the log odds, or the log, of a draw in double precision.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms
from scipy import special, stats

import funcvi as fv

KEY = jax.random.key(5)
NUMBER = 40_000
Params = tuple[float, float]


def log_sigmoid(y: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -y)


class OfUnit:
    """Log densities of log odds y."""

    @staticmethod
    def beta(a: float, b: float) -> Callable[[Any], Any]:
        return lambda y: a * log_sigmoid(y) + b * log_sigmoid(-y) - special.betaln(a, b)

    @staticmethod
    def kumaraswamy(a: float, b: float) -> Callable[[Any], Any]:
        def log_p(y: Any) -> Any:
            log_x, log_rest = log_sigmoid(y), log_sigmoid(-y)
            far = -a * log_x < 1e-12
            inner = np.where(far, -1.0, a * log_x)
            log_one_less = np.where(far, np.log(a) + log_rest, np.log(-np.expm1(inner)))
            return np.log(a * b) + a * log_x + (b - 1) * log_one_less + log_rest

        return log_p

    @staticmethod
    def uniform(y: Any) -> Any:
        return log_sigmoid(y) + log_sigmoid(-y)

    @staticmethod
    def logistic_normal(y: Any) -> Any:
        return stats.norm(0.0, 9.0).logpdf(y)


class OfPositive:
    """Log densities of y = log x."""

    @staticmethod
    def gamma(a: float, rate: float) -> Callable[[Any], Any]:
        return lambda y: a * (y + np.log(rate)) - rate * np.exp(y) - special.gammaln(a)

    @staticmethod
    def inverse_gamma(a: float, rate: float) -> Callable[[Any], Any]:
        return lambda y: OfPositive.gamma(a, rate)(-y)

    @staticmethod
    def weibull(scale: float, k: float) -> Callable[[Any], Any]:
        return lambda y: np.log(k) + k * (y - np.log(scale)) - np.exp(k * (y - np.log(scale)))

    @staticmethod
    def log_normal(y: Any) -> Any:
        return stats.norm(1.0, 200.0).logpdf(y)


LOGISTIC_NORMAL = dist.TransformedDistribution(dist.Normal(0.0, 9.0), transforms.SigmoidTransform())

#: q of two params, p, their log densities in y, the params, and where q has its mass.
CASES: dict[str, tuple[Any, Any, Any, Any, Params, tuple[float, float]]] = {
    "Beta, Uniform": (
        dist.Beta, dist.Uniform(0.0, 1.0), OfUnit.beta, OfUnit.uniform, (2.0, 0.2), (-60, 400)
    ),
    "Beta, its mirror image": (
        dist.Beta, dist.Uniform(0.0, 1.0), OfUnit.beta, OfUnit.uniform, (0.2, 2.0), (-400, 60)
    ),
    "Beta, Kumaraswamy": (
        dist.Beta, dist.Kumaraswamy(1.5, 0.7), OfUnit.beta, OfUnit.kumaraswamy(1.5, 0.7),
        (1.5, 0.1), (-60, 600),
    ),
    "Kumaraswamy, Beta": (
        dist.Kumaraswamy, dist.Beta(1.5, 0.7), OfUnit.kumaraswamy, OfUnit.beta(1.5, 0.7),
        (2.0, 0.1), (-60, 600),
    ),
    "Beta, logistic normal": (
        dist.Beta, LOGISTIC_NORMAL, OfUnit.beta, OfUnit.logistic_normal, (2.0, 0.1), (-60, 600)
    ),
    "Gamma, Weibull": (
        dist.Gamma, dist.Weibull(1.0, 0.02), OfPositive.gamma, OfPositive.weibull(1.0, 0.02),
        (0.01, 2.0), (-6000, 60),
    ),
    "Weibull, Gamma": (
        dist.Weibull, dist.Gamma(0.02, 1e-25), OfPositive.weibull, OfPositive.gamma(0.02, 1e-25),
        (1e-9, 0.05), (-1000, 60),
    ),
    "Gamma, LogNormal": (
        dist.Gamma, dist.LogNormal(1.0, 200.0), OfPositive.gamma, OfPositive.log_normal,
        (0.01, 2.0), (-6000, 60),
    ),
    "InverseGamma, LogNormal": (
        dist.InverseGamma, dist.LogNormal(1.0, 200.0), OfPositive.inverse_gamma,
        OfPositive.log_normal, (0.01, 2.0), (-60, 6000),
    ),
}  # fmt: skip


def exact(name: str) -> tuple[float, np.ndarray]:
    """The divergence and its gradient, by differences."""
    _, _, log_q_of, log_p, params, (low, high) = CASES[name]
    y = np.linspace(low, high, 2_000_001)

    def at(params: Any) -> float:
        log_q = log_q_of(*params)(y)
        return float(np.trapezoid(np.exp(log_q) * (log_q - log_p(y)), y))

    slope = []
    for i in range(2):
        step = 1e-4 * params[i] * np.eye(2)[i]
        slope.append((at(np.add(params, step)) - at(np.subtract(params, step))) / step[i] / 2)
    return at(params), np.array(slope)


@pytest.mark.few(3)
@pytest.mark.parametrize("estimator", ["pathwise", "sticking_the_landing", "score_function"])
@pytest.mark.parametrize("name", CASES)
def test_divergence_sees_the_mass_at_an_edge(name: str, estimator: str) -> None:
    q, p, *_, params, _ = CASES[name]

    def each(params: Any, key: Any) -> Any:
        return fv.kl(q(*params), p, key=key, num_samples=NUMBER // 50, estimator=estimator)

    params = tuple(jnp.float32(x) for x in params)
    repeat = jax.jit(jax.vmap(jax.value_and_grad(each), (None, 0)))
    values, slopes = repeat(params, jax.random.split(KEY, 50))
    value, slope = exact(name)
    for found, true in zip([values, *slopes], [value, *slope], strict=True):
        error = np.std(found) / np.sqrt(50)
        assert abs(np.mean(found) - true) < 5 * error + 2e-4 * abs(true), (true, error)


def test_uniform_against_a_beta_of_much_mass_at_one() -> None:
    """The value of scipy's entropy, and the mirror image's."""
    for a, b in ((2.0, 0.2), (0.2, 2.0)):
        value = fv.kl(dist.Beta(a, b), dist.Uniform(0.0, 1.0), key=KEY, num_samples=100_000)
        np.testing.assert_allclose(value, -stats.beta(a, b).entropy(), rtol=0.02)


def test_mixture_sees_the_mass_at_an_edge() -> None:
    """Of two Betas, as a sum over the components; KL by quadrature over the log odds."""
    y = np.linspace(-600, 600, 1_000_001)
    both = OfUnit.beta(1.5, 0.1)(y), OfUnit.beta(0.1, 1.5)(y)
    log_q = np.logaddexp(np.log(0.3) + both[0], np.log(0.7) + both[1])
    true = np.trapezoid(np.exp(log_q) * (log_q - OfUnit.uniform(y)), y)
    weights = dist.Categorical(probs=jnp.array([0.3, 0.7]))
    q = dist.MixtureSameFamily(weights, dist.Beta(jnp.array([1.5, 0.1]), jnp.array([0.1, 1.5])))
    found = fv.kl(q, dist.Uniform(0.0, 1.0), key=KEY, num_samples=100_000)
    np.testing.assert_allclose(found, true, rtol=0.02)


@pytest.mark.slow
def test_pathwise_mixture_shows_that_it_lost_the_edge() -> None:
    """Its draws move by the density at a rounded value: no gradient, and not a wrong one."""
    weights = dist.Categorical(probs=jnp.array([0.3, 0.7]))

    def loss(b: Any) -> Any:
        q = dist.MixtureSameFamily(
            weights, dist.Kumaraswamy(jnp.array([1.5, 2.0]), jnp.stack([b, 2 * b]))
        )
        return fv.kl(q, dist.Beta(2.0, 2.0), key=KEY, num_samples=500, estimator="pathwise")

    assert jnp.isnan(jax.grad(loss)(jnp.float32(0.1)))
    assert jnp.isfinite(jax.grad(loss)(jnp.float32(4.0)))


@pytest.mark.parametrize("concentration", [1e-5, 1e-18, 1e-20, 1e-30])
def test_draws_of_tiny_concentrations_have_finite_gradients(concentration: float) -> None:
    def draws(a: Any) -> Any:
        beta = fv.sample(dist.Beta(a, a), KEY, (100,))
        return beta.sum() + fv.sample(dist.Dirichlet(jnp.stack([a, a, a])), KEY, (100,))[:, 0].sum()

    assert jnp.isfinite(jax.grad(draws)(jnp.float32(concentration)))


def model() -> None:
    numpyro.sample("beta", dist.Beta(2.0, 0.2))
    numpyro.sample("kumaraswamy", dist.Kumaraswamy(2.0, 0.2))
    numpyro.sample("gamma", dist.Gamma(0.01, 0.01))
    numpyro.sample("inverse", dist.InverseGamma(0.01, 1.0))
    numpyro.sample("dirichlet", dist.Dirichlet(jnp.ones(3) * 0.01))
    numpyro.sample("log_normal", dist.LogNormal(0.0, 100.0).expand([2]).to_event(1))


@pytest.mark.parametrize("size", [1.0, -30.0, 60.0, -78.0])
def test_models_see_the_mass_at_an_edge(size: float) -> None:
    """Each prior's density on unconstrained space is that of its formula in double precision."""
    z = {
        "beta": size,
        "kumaraswamy": size,
        "gamma": 3 * size if size < 0 else size / 20,
        "inverse": -3 * size if size < 0 else -size / 20,
        "dirichlet": np.array([size, -size / 2]),
        "log_normal": np.array([size, -2 * size if size < 0 else size]),
    }
    logits = np.array([
        size / np.sqrt(2) - size / 2 / np.sqrt(6),
        -size / np.sqrt(2) - size / 2 / np.sqrt(6),
        size / np.sqrt(6),
    ])  # fmt: skip
    log_x = special.log_softmax(logits)
    concentrations = np.full(3, 0.01)
    norm = special.gammaln(concentrations).sum() - special.gammaln(concentrations.sum())
    true = (
        OfUnit.beta(2.0, 0.2)(z["beta"])
        + OfUnit.kumaraswamy(2.0, 0.2)(np.array(z["kumaraswamy"]))
        + OfPositive.gamma(0.01, 0.01)(z["gamma"])
        + OfPositive.inverse_gamma(0.01, 1.0)(z["inverse"])
        + (0.01 * log_x).sum() - norm + np.log(3) / 2
        + stats.norm(0.0, 100.0).logpdf(z["log_normal"]).sum()
    )  # fmt: skip
    target = fv.target(model)
    value, slope = jax.value_and_grad(target.log_density)(jax.tree.map(jnp.float32, z))
    np.testing.assert_allclose(value, true, rtol=2e-6)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slope))
    np.testing.assert_allclose(
        slope["beta"], 2.0 * special.expit(-size) - 0.2 * special.expit(size), rtol=1e-5
    )


Affine = transforms.AffineTransform
MOVED: dict[str, tuple[Any, Any, Any]] = {
    "scaled": (Affine(0.1, 0.7), Affine(0.1, 0.7), False),
    "mirrored": (Affine(3.0, -7.0), Affine(3.0, -7.0), False),
    "mirrored by one side": (Affine(3.0, -7.0), Affine(-4.0, 7.0), True),
    "in two steps": (
        transforms.ComposeTransform([Affine(0.0, 2.0), Affine(1.0, 1.0)]), Affine(1.0, 2.0), False
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVED)
def test_moved_edges_are_seen_too(name: str) -> None:
    """KL is that of the laws between zero and one, whatever moves both."""
    of_q, of_p, mirrored = MOVED[name]
    q = dist.TransformedDistribution(dist.Beta(2.0, 0.2), of_q)
    p = dist.TransformedDistribution(dist.Kumaraswamy(1.5, 0.7), of_p)
    y = np.linspace(-60, 400, 1_000_001)
    log_q, log_p = OfUnit.beta(2.0, 0.2)(y), OfUnit.kumaraswamy(1.5, 0.7)(-y if mirrored else y)
    true = np.trapezoid(np.exp(log_q) * (log_q - log_p), y)
    found = fv.kl(q, p, key=KEY, num_samples=100_000)
    np.testing.assert_allclose(found, true, rtol=0.03)


def bounded_model() -> None:
    moved, positive = dist.TransformedDistribution, dist.constraints.positive
    numpyro.sample("below", moved(dist.Gamma(0.1, 1.0), Affine(3.0, -2.0, positive)))
    numpyro.sample("above", moved(dist.Weibull(1.0, 0.1), Affine(-50.0, 1.0, positive)))
    numpyro.sample("soft", moved(dist.Normal(-50.0, 20.0), transforms.SoftplusTransform()))


@pytest.mark.parametrize("size", [1.0, -40.0, -80.0])
def test_models_with_moved_edges(size: float) -> None:
    """The values are 3 - exp(size), -50 + exp(size) and softplus(size): on their edges."""
    true = (
        OfPositive.gamma(0.1, 1.0)(size - np.log(2))
        + OfPositive.weibull(1.0, 0.1)(size)
        + stats.norm(-50.0, 20.0).logpdf(size)
    )
    z = {name: jnp.float32(size) for name in ("below", "above", "soft")}
    value, slope = jax.value_and_grad(fv.target(bounded_model).log_density)(z)
    np.testing.assert_allclose(value, true, rtol=1e-5)
    if size < 0:
        np.testing.assert_allclose(slope["below"], 0.1, rtol=1e-5)
        np.testing.assert_allclose(slope["above"], 0.1 * (1 - np.exp(0.1 * size)), rtol=1e-5)


def test_a_value_outside_has_no_density_in_a_model() -> None:
    """numpyro's is finite there: a shifted Exponential grows for ever on the wrong side."""

    def shifted(data: Any) -> None:
        exponential = dist.TransformedDistribution(dist.Exponential(1.0), Affine(2.0, 1.0))
        numpyro.sample("x", exponential)
        numpyro.sample("y", dist.Exponential(1.0).mask(jnp.array([True, False])), obs=data)

    good, bad = jnp.array([1.0, -1.0]), jnp.array([-1.0, 1.0])
    assert jnp.isneginf(fv.target(shifted, good).log_density({"x": jnp.float32(1.0)}))
    assert jnp.isneginf(fv.target(shifted, bad).log_density({"x": jnp.float32(3.0)}))
    inside = fv.target(shifted, good).log_density({"x": jnp.float32(3.0)})
    np.testing.assert_allclose(inside, -2.0, rtol=1e-6)


@pytest.mark.parametrize(
    "d",
    [
        dist.Gamma(1e-5, 1e10),
        dist.Weibull(1.0, 0.01),
        dist.InverseGamma(1e-3, 1e5),
        dist.LogNormal(0.0, 100.0),
        dist.Pareto(1.0, 0.01),
    ],
    ids=lambda d: type(d).__name__,
)
def test_draws_beyond_float32_stay_inside_the_support(d: Any) -> None:
    x = fv.sample(d, KEY, (10_000,))
    assert jnp.all(d.support(x))
    assert jnp.all(jnp.isfinite(x))
