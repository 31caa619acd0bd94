"""Densities that jump or turn inside, where numpyro's supports do not say so."""

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
from funcvi.sampling.gradients import edge_obstacle

KEY = jax.random.key(0)
HALVES = dist.Categorical(probs=jnp.ones(2) / 2)


def shifted(edges: Any) -> dist.Distribution:
    """Halves of exponentials that begin at two places: numpyro's support is the line."""
    shift = transforms.AffineTransform(jnp.stack([jnp.zeros_like(edges), edges]), 1.0)
    return dist.MixtureSameFamily(
        HALVES, dist.TransformedDistribution(dist.Exponential(1.0), shift)
    )


def log_shifted(x: np.ndarray, edge: float) -> np.ndarray:
    return np.log((np.exp(-x) + np.where(x > edge, np.exp(edge - x), 0)) / 2)


def test_a_jump_of_p_inside_q_leaves_the_score_function() -> None:
    """Along draws the gradient is 0.790."""

    def divergence(a: Any) -> Any:
        return fv.kl(dist.Gamma(a, 1.0), shifted(2.0), key=KEY, num_samples=100_000)

    x = np.linspace(1e-6, 60, 2_000_001)

    def exact(a: float) -> float:
        log_q = stats.gamma(a).logpdf(x)
        return float(np.trapezoid(np.exp(log_q) * (log_q - log_shifted(x, 2.0)), x))

    slope = jax.grad(divergence)(3.0)
    assert abs(slope - (exact(3.01) - exact(2.99)) / 0.02) < 0.03
    with pytest.raises(ValueError, match="jumps at the edge of a component"):
        fv.kl(dist.Gamma(3.0, 1.0), shifted(2.0), key=KEY, estimator="pathwise")


@pytest.mark.parametrize("side", ["q", "p"])
def test_a_learned_edge_inside_is_refused(side: str) -> None:
    """-0.096 for -0.338 in q, -0.595 for -0.020 in p."""

    def divergence(edge: Any) -> Any:
        pair = shifted(edge), dist.Gamma(3.0, 1.0)
        return fv.kl(*(pair if side == "q" else pair[::-1]), key=KEY, num_samples=10)

    for loss in (divergence, jax.jit(divergence)):
        assert jnp.isfinite(loss(2.0))
        with pytest.raises(ValueError, match="moves with its parameters"):
            jax.grad(loss)(2.0)


def test_components_that_share_an_edge_do_not_jump() -> None:
    both = dist.Exponential(jnp.array([1.0, 2.0]))
    shared = dist.TransformedDistribution(both, transforms.AffineTransform(1.0, 1.0))
    assert edge_obstacle(dist.MixtureSameFamily(HALVES, shared)) is None
    assert edge_obstacle(dist.MixtureSameFamily(HALVES, both)) is None
    assert edge_obstacle(shifted(2.0)) is not None


def test_folded_draws_turn_at_zero() -> None:
    """Along draws the gradient has no mean (-6.5 or 8.6), and the second of x is zero."""

    def folded(m: Any) -> dist.Distribution:
        return dist.FoldedDistribution(dist.Normal(m, 1.0))

    def divergence(m: Any) -> Any:
        return fv.kl(folded(m), dist.Gamma(2.0, 1.0), key=KEY, num_samples=50_000)

    def mean(m: Any) -> Any:
        return fv.expectation(folded(m), lambda x: x, key=KEY, num_samples=50_000)

    assert abs(jax.grad(divergence)(0.5) + 0.475) < 0.03
    assert abs(jax.hessian(mean)(0.5) - 2 * stats.norm.pdf(0.5)) < 0.05
    with pytest.raises(ValueError, match="turn back at zero"):
        fv.kl(folded(0.5), dist.Gamma(2.0, 1.0), key=KEY, estimator="pathwise")


TURNING = {
    "folded": lambda d: dist.FoldedDistribution(d),
    "in a mixture": lambda d: dist.MixtureSameFamily(
        dist.Categorical(jnp.array([0.3, 0.7])), dist.FoldedDistribution(d.expand((2,)))
    ),
    "of a mixture": lambda d: dist.FoldedDistribution(
        dist.MixtureSameFamily(dist.Categorical(jnp.array([0.3, 0.7])), d.expand((2,)))
    ),
    "independent": lambda d: dist.FoldedDistribution(d.expand((2,))).to_event(1),
}


@pytest.mark.parametrize("name", TURNING)
def test_second_derivatives_along_folded_draws_are_refused(name: str) -> None:
    """Found by the fuzzer: -1.08 for -0.95 of tanh, whose first derivative jumps at zero."""

    def mean(m: Any, number: int = 50_000) -> Any:
        q = TURNING[name](dist.Normal(m, 1.0))
        estimator = "enumeration" if "mixture" in name else "pathwise"
        function = (lambda x: jnp.tanh(x).sum(-1)) if name == "independent" else jnp.tanh
        how = {"key": KEY, "num_samples": number, "estimator": estimator}
        return fv.expectation(q, function, **how).sum()

    at, step = 0.5, 0.2
    expected = (mean(at + step) - mean(at - step)) / (2 * step)
    assert abs(jax.jit(jax.grad(mean))(at) - expected) < 0.02
    for second in (jax.hessian, lambda f: jax.jacfwd(jax.grad(f)), lambda f: jax.grad(jax.grad(f))):
        with pytest.raises(ValueError, match=r"turn back at zero"):
            jax.jit(second(lambda m: mean(m, 10)))(at)
    draw = lambda m: fv.sample(TURNING[name](dist.Normal(m, 1.0)), KEY, (3,)).sum()  # noqa: E731
    if "mixture" not in name:
        assert jnp.isfinite(jax.grad(draw)(at))
    with pytest.raises((ValueError, TypeError), match=r"turn back at zero|no right pathwise"):
        jax.hessian(draw)(at)


def halves(m: Any) -> dist.Distribution:
    return dist.MixtureGeneral(
        dist.Categorical(jnp.array([0.5, 0.5])),
        [dist.Normal(m, 1.0), dist.HalfNormal(jnp.exp(m))],
        support=dist.constraints.real,
    )


ENDING: dict[str, Any] = {
    "halves": halves,
    "scaled": lambda m: dist.TransformedDistribution(
        halves(m), dist.transforms.AffineTransform(1.0, 2.0)
    ),
    "batch": lambda m: halves(m).expand((2,)).to_event(1),
}


@pytest.mark.parametrize("name", ENDING)
def test_second_derivatives_along_draws_whose_speed_jumps_are_refused(name: str) -> None:
    """Found by the fuzzer: 0.381 for 0.525 of a mean, whose first derivative was right."""

    def mean(m: Any, estimator: str | None, number: int = 100_000) -> Any:
        def function(x: Any) -> Any:
            return (x + jnp.sin(x)).sum(-1) if name == "batch" else x + jnp.sin(x)

        how = {"key": KEY, "num_samples": number, "estimator": estimator}
        return fv.expectation(ENDING[name](m), function, **how).sum()

    at, step = 0.3, 0.2
    for estimator in ("pathwise", "score_function"):
        values = [mean(at + d, estimator) for d in (step, -step)]
        slope = jax.jit(jax.grad(lambda m, e=estimator: mean(m, e)))(at)
        assert abs(slope - (values[0] - values[1]) / (2 * step)) < 0.08
    for second in (jax.hessian, lambda f: jax.grad(jax.grad(f))):
        with pytest.raises(ValueError, match="change their speed where a component ends"):
            jax.jit(second(lambda m: mean(m, "pathwise", 10)))(at)
    if name in ("halves", "scaled"):
        exact = jax.jit(jax.hessian(lambda m: mean(m, "enumeration")))(at)
        score = jax.jit(jax.hessian(lambda m: mean(m, "score_function")))(at)
        assert abs(exact - score) < 0.15
        assert jnp.allclose(exact, jax.jit(jax.hessian(lambda m: mean(m, None)))(at))


def test_halves_of_a_folded_density_end_apart() -> None:
    """At one, where the half behind the fold ends: along draws the gradient is -0.131."""
    p = dist.FoldedDistribution(dist.Uniform(-1.0, 2.0))

    def q(a: Any) -> dist.Distribution:
        return dist.TransformedDistribution(dist.Beta(a, 2.0), transforms.AffineTransform(0.0, 2.0))

    def divergence(a: Any) -> Any:
        return fv.kl(q(a), p, key=KEY, num_samples=100_000)

    def exact(a: float) -> float:
        beta, below = stats.beta(a, 2.0), stats.beta(a, 2.0).cdf(0.5)
        return float(-beta.entropy() + below * np.log(1 / 3 / (2 / 3)) - np.log(2 / 3))

    value, slope = jax.value_and_grad(divergence)(3.0)
    assert abs(value - exact(3.0)) < 0.01
    assert abs(slope - (exact(3.01) - exact(2.99)) / 0.02) < 0.02
    with pytest.raises(ValueError, match="jumps where one of its halves ends"):
        fv.kl(q(3.0), p, key=KEY, estimator="pathwise")


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_end_behind_the_fold_that_is_learned_is_refused(sign: float) -> None:
    """-1.000 for 0.029."""

    def divergence(edge: Any) -> Any:
        shift = transforms.AffineTransform(edge, sign)
        p = dist.FoldedDistribution(dist.TransformedDistribution(dist.Exponential(1.0), shift))
        return fv.kl(dist.HalfNormal(1.0), p, key=KEY, num_samples=10)

    for loss in (divergence, jax.jit(divergence)):
        assert jnp.isfinite(loss(-sign))
        with pytest.raises(ValueError, match="moves with its parameters"):
            jax.grad(loss)(-sign)


@pytest.mark.parametrize(
    ("base", "jumps"),
    [
        (dist.Normal(), False),
        (dist.LogNormal(), False),
        (dist.Exponential(1.0), False),
        (dist.Uniform(-1.0, 1.0), False),
        (dist.Uniform(1.0, 2.0), False),
        (dist.TransformedDistribution(dist.Normal(), transforms.AffineTransform(1.0, 2.0)), False),
        (dist.TruncatedNormal(0.0, 1.0, low=-1.0), True),
        (
            dist.TransformedDistribution(dist.Beta(2, 2), transforms.AffineTransform(-1.0, 3.0)),
            True,
        ),
    ],
)
def test_which_folded_densities_jump(base: Any, jumps: bool) -> None:
    assert (edge_obstacle(dist.FoldedDistribution(base)) is not None) is jumps


FOLDED: dict[str, tuple[Any, Any]] = {
    "affine": (
        lambda t: dist.TransformedDistribution(
            dist.Normal(), transforms.AffineTransform(t, 0.7)
        ),
        lambda x, t: np.logaddexp(stats.norm(t, 0.7).logpdf(x), stats.norm(t, 0.7).logpdf(-x)),
    ),
    "half a line": (
        lambda t: dist.LogNormal(t, 0.7), lambda x, t: stats.lognorm(0.7, 0, np.exp(t)).logpdf(x)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_what_is_folded_may_have_transforms(name: str) -> None:
    """It was refused; behind the fold there was NaN."""
    build, log_q_at = FOLDED[name]
    x = np.linspace(1e-6, 40, 400_001)

    def exact(t: float) -> float:
        log_q = log_q_at(x, t)
        return float(np.trapezoid(np.exp(log_q) * (log_q - stats.gamma(2.0).logpdf(x)), x))

    def divergence(t: Any) -> Any:
        q = dist.FoldedDistribution(build(t))
        return fv.kl(q, dist.Gamma(2.0, 1.0), key=KEY, num_samples=100_000)

    value, slope = jax.value_and_grad(divergence)(0.5)
    assert abs(value - exact(0.5)) < 0.01
    assert abs(slope - (exact(0.51) - exact(0.49)) / 0.02) < 0.02


def test_a_component_outside_its_support_has_a_gradient() -> None:
    """The scale of the half that lives on positive values: NaN."""

    def mixture(scale: Any) -> dist.Distribution:
        parts = [dist.Normal(), dist.LogNormal(0.0, scale)]
        return dist.MixtureGeneral(HALVES, parts, support=dist.constraints.real)

    x = np.linspace(-12, 12, 400_000)
    q = stats.norm(0.0, 1.3).pdf(x)

    def exact(s: float) -> float:
        half = np.where(x > 0, stats.lognorm(s).pdf(np.abs(x)), 0)
        return float(-np.trapezoid(q * np.log((stats.norm.pdf(x) + half) / 2), x))

    def loss(s: Any) -> Any:
        return fv.kl(dist.Normal(0.0, 1.3), mixture(s), key=KEY, num_samples=100_000)

    slope = jax.grad(loss)(1.3)
    assert abs(slope - (exact(1.31) - exact(1.29)) / 0.02) < 0.01


def bounded() -> None:
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Uniform(-5.0, x + 3.0), obs=0.5)


def at(loc: Any) -> Any:
    return {"x": {"loc": loc, "scale": jnp.float32(-0.4)}}


@pytest.mark.slow
def test_a_model_whose_data_end_at_a_site() -> None:
    """The weights jump there: of Renyi's bound the gradient along draws is -0.98 for -1.27."""
    guide = fv.mean_field(fv.target(bounded))
    loss = fv.negative_renyi_elbo(guide, alpha=0.5, num_samples=1000)
    keys = jax.random.split(KEY, 100)
    mean = jax.jit(lambda loc: jnp.mean(jax.vmap(lambda key: loss(at(loc), key))(keys)))
    slopes = jax.vmap(jax.grad(lambda loc, key: loss(at(loc), key)), (None, 0))(-1.7, keys)
    differences = (mean(-1.6) - mean(-1.8)) / 0.2
    assert abs(jnp.mean(slopes) - differences) < 5 * jnp.std(slopes) / 10 + 0.02
    forced = fv.negative_importance_weighted_elbo(guide, num_samples=5, estimator="pathwise")
    with pytest.raises(ValueError, match="jumps where its data's support ends"):
        forced(at(-1.7), KEY)
    assert not fv.target(lambda: numpyro.sample("x", dist.Normal())).jumps


def test_draws_outside_the_target_count_for_nothing() -> None:
    """KL from it to the guide is finite: it was zero times infinity."""
    loss = fv.forward_kl(fv.mean_field(fv.target(bounded)), num_samples=500)
    value, slope = jax.value_and_grad(lambda loc: loss(at(loc), KEY))(-1.7)
    assert jnp.isfinite(value)
    assert slope < 0


def test_a_corner_in_a_model_has_first_derivatives_alone() -> None:
    def model() -> None:
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Laplace(x, 1.0), obs=0.5)

    loss = fv.negative_elbo(fv.mean_field(fv.target(model)))
    assert jnp.isfinite(jax.grad(lambda loc: loss(at(loc), KEY))(0.0))
    with pytest.raises(ValueError, match="Laplace bends"):
        jax.hessian(lambda loc: loss(at(loc), KEY))(0.0)


@pytest.mark.parametrize("concentration", [1e-30, 1e-37])
def test_gamma_draws_that_underflow_stand_still(concentration: float) -> None:
    slope = jax.grad(lambda a: fv.sample(dist.Gamma(a, 1.0), KEY, (100,)).sum())(concentration)
    assert slope == 0
