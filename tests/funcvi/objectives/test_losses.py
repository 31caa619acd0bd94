"""Laws of every loss that is made from a guide, on a target whose posterior is known."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.infer.autoguide import AutoNormal
from scipy import stats

import funcvi as fv
from tests.funcvi.objective_catalogue import LOSSES

KEY = jax.random.key(31)
DRAWS, KEYS = 256, 400

POSTERIOR, EVIDENCE = dist.Normal(0.4, 0.9), -1.7
TARGET = fv.target(
    lambda x: POSTERIOR.log_prob(x["a"]) + EVIDENCE, supports={"a": constraints.real}
)
GUIDE = fv.mean_field(TARGET)
# Wider than the posterior: importance weights and all the Rényi divergences are finite.
PARAMS = GUIDE.family.inverse({"a": dist.Normal(0.7, 1.1)})
EXACT = GUIDE.family.inverse({"a": POSTERIOR})
FORCED = [(name, e) for name, entry in LOSSES.items() for e in (None, *entry.estimators)]


def made(name, num_samples=DRAWS, estimator=None, guide=GUIDE):
    options = {} if estimator is None else {"estimator": estimator}
    return LOSSES[name].make(guide, num_samples, **options)


@pytest.mark.parametrize("name", LOSSES)
def test_written_again_it_is_the_same(name):
    assert made(name) == made(name)
    assert hash(made(name)) == hash(made(name))
    assert made(name) != made(name, DRAWS + 1)
    assert made(name) != made(name, guide=fv.mean_field(TARGET))


@pytest.mark.parametrize("name", LOSSES)
def test_an_exact_guide_gives_the_limit_at_every_draw(name):
    limit = LOSSES[name].limit(POSTERIOR, POSTERIOR, EVIDENCE)
    for seed in range(3):
        value = made(name, 4)(EXACT, jax.random.key(seed))
        np.testing.assert_allclose(value, limit, atol=2e-6)


@pytest.mark.parametrize(("name", "estimator"), FORCED, ids=[f"{n}-{e}" for n, e in FORCED])
def test_value_and_gradient_are_those_of_the_limit(name, estimator):
    entry, loss = LOSSES[name], made(name, estimator=estimator)
    each = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))
    columns = each(PARAMS, jax.random.split(KEY, KEYS))

    def limit(params):
        return entry.limit(GUIDE(params).unconstrained["a"], POSTERIOR, EVIDENCE)

    exact = jax.value_and_grad(limit)(PARAMS)
    bias = 0.0 if entry.unbiased else 4.0 / DRAWS  # measured: at most 1.5 / DRAWS
    for draws, expected in zip(jax.tree.leaves(columns), jax.tree.leaves(exact), strict=True):
        draws = np.asarray(draws, np.float64)
        error = 5 * draws.std() / np.sqrt(KEYS) + 1e-5 + bias
        assert abs(draws.mean() - expected) < error, (draws.mean(), expected, error)


def close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


@pytest.mark.few(4)
@pytest.mark.parametrize(("name", "estimator"), FORCED, ids=[f"{n}-{e}" for n, e in FORCED])
def test_eager_equals_jit_and_vmap_equals_a_loop(name, estimator):
    both = jax.value_and_grad(made(name, 4, estimator))
    keys = jax.random.split(KEY, 3)
    eager = [both(PARAMS, k) for k in keys]
    close(jax.jit(both)(PARAMS, keys[0]), eager[0])
    stacked = jax.tree.map(lambda *x: jnp.stack(x), PARAMS, EXACT, PARAMS)
    mapped = jax.jit(jax.vmap(both))(stacked, keys)
    eager[1] = both(EXACT, keys[1])
    close(mapped, jax.tree.map(lambda *x: jnp.stack(x), *eager))


def mean_value(loss, keys=2000):
    return np.asarray(jax.jit(jax.vmap(loss, (None, 0)))(PARAMS, jax.random.split(KEY, keys)))


def test_renyis_bound_falls_as_alpha_grows_and_joins_its_neighbours():
    """At the same draws, so without a tolerance for noise: a power mean falls with its power."""
    alphas = [-3.0, -0.5, 0.0, 0.3, 0.999, 1 - 1e-6, 1.0, 1 + 1e-6, 1.001, 2.0, 5.0]
    key = jax.random.key(3)
    values = np.array(
        [fv.negative_renyi_elbo(GUIDE, alpha=a, num_samples=32)(PARAMS, key) for a in alphas]
    )
    assert np.all(np.diff(values) > -1e-6), values
    iw = fv.negative_importance_weighted_elbo(GUIDE, num_samples=32)(PARAMS, key)
    elbo = fv.negative_elbo(GUIDE, num_samples=32)(PARAMS, key)
    np.testing.assert_allclose(values[alphas.index(0.0)], iw, rtol=1e-6)
    for near_one in (1 - 1e-6, 1.0, 1 + 1e-6):
        loss = fv.negative_renyi_elbo(GUIDE, alpha=near_one, num_samples=32)
        close(
            jax.value_and_grad(loss)(PARAMS, key),
            jax.value_and_grad(fv.negative_elbo(GUIDE, num_samples=32))(PARAMS, key),
        )
    assert values[alphas.index(1.0)] == pytest.approx(float(elbo), rel=1e-6)


def test_the_importance_weighted_bound_rises_with_its_draws():
    values = [
        mean_value(fv.negative_importance_weighted_elbo(GUIDE, num_samples=n))
        for n in (1, 3, 9, 81)
    ]
    for fewer, more in pairwise(values):  # gaps of at least four standard errors
        assert fewer.mean() - more.mean() > 0
    assert abs(values[-1].mean() + EVIDENCE) < 0.01


def test_forward_kl_equals_quadrature_where_the_posterior_is_skewed():
    target = fv.target(
        lambda x: 2.5 + dist.Gamma(3.0, 1.5).log_prob(x["a"]),
        supports={"a": (constraints.positive, ())},
    )
    guide = fv.mean_field(target)
    params = guide.family.inverse({"a": dist.Normal(0.4, 1.0)})

    def log_p(z):  # the Gamma's on unconstrained space, normalised
        x = target.constrain({"a": jnp.asarray(z)})["a"]
        return float(stats.gamma.logpdf(x, 3.0, scale=1 / 1.5) + target.log_det({"a": z}))

    grid = np.linspace(-12.0, 12.0, 2001)
    log_density = jax.vmap(lambda z: target.log_density({"a": z}))(jnp.asarray(grid)) - 2.5
    p = np.exp(np.asarray(log_density, np.float64))
    step = grid[1] - grid[0]
    assert p.sum() * step == pytest.approx(1.0, abs=1e-4)
    assert np.log(p[900]) == pytest.approx(log_p(grid[900]), abs=1e-4)

    def exact(params):
        q = guide(params).unconstrained["a"]
        return jnp.sum(p * step * (jnp.asarray(log_density) - q.log_prob(jnp.asarray(grid))))

    loss = fv.forward_kl(guide, num_samples=2000)
    keys = jax.random.split(KEY, 200)
    columns = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, keys)
    expected = jax.value_and_grad(exact)(params)
    for draws, e in zip(jax.tree.leaves(columns), jax.tree.leaves(expected), strict=True):
        error = 5 * np.std(draws) / np.sqrt(200) + 5 / 2000
        assert abs(np.mean(draws) - e) < error, (np.mean(draws), e)


# The derivative of its cdf is not known, so its draws cannot move with the weights.
SCORED = dist.MixtureSameFamily(
    dist.Categorical(probs=jnp.array([0.3, 0.7])), dist.StudentT(9.0, jnp.array([0.0, 1.0]), 0.9)
)


@pytest.mark.parametrize(
    "name",
    [
        "negative_importance_weighted_elbo",  # the ELBO's own are in test_elbo
        *(pytest.param(n, marks=pytest.mark.slow) for n in LOSSES if "renyi" in n),
    ],
)
def test_sites_by_different_estimators_leave_every_gradient_unbiased(name):
    """One site by the score function, one pathwise, correlated in the target."""
    target = fv.target(
        lambda x: -((x["a"] - x["b"]) ** 2) - x["a"] ** 2,
        supports={"a": constraints.real, "b": constraints.real},
    )
    start, family = fv.unconstrain({"a": SCORED, "b": dist.Normal(0.5, 0.8)})
    guide = fv.Guide(target, lambda key: start, family)
    report = fv.check_gradients(
        made(name, 6, guide=guide), start, key=KEY, num_samples=400, threshold=5.0
    )
    assert report.ok, str(report)
    assert not any(row.is_zero for row in report.rows)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_no_guide_is_refused(name):
    with pytest.raises(TypeError, match=r"it is numpyro.s: fv.guide\(fv.target"):
        made(name, guide=AutoNormal(lambda: None))
    with pytest.raises(TypeError, match="expected a guide, got Target: make a guide for it"):
        made(name, guide=TARGET)
    for bad in (0, 2.0, True):
        with pytest.raises(ValueError, match=f"num_samples must be a positive integer, got {bad}"):
            made(name, bad)


def test_a_guide_whose_distributions_have_a_batch_shape_is_refused():
    target = fv.target(
        lambda x: dist.Normal(0.0, 1.0).log_prob(x["a"]).sum(),
        supports={"a": (constraints.real, (3,))},
    )
    start, family = fv.unconstrain({"a": dist.Normal(jnp.zeros(3), 1.0)})
    guide = fv.Guide(target, lambda key: start, family)
    with pytest.raises(ValueError, match=r"Normal has batch shape \(3,\).* to_event\(1\)"):
        fv.negative_elbo(guide)(start, KEY)


def test_refusals_of_one_loss():
    with pytest.raises(ValueError, match="alpha must be a finite number, got inf"):
        fv.negative_renyi_elbo(GUIDE, alpha=float("inf"), num_samples=3)
    with pytest.raises(ValueError, match="needs num_samples >= 2"):
        fv.forward_kl(GUIDE, num_samples=1)(PARAMS, KEY)
    family = fv.family({"a": fv.family(dist.Uniform)})
    guide = fv.Guide(TARGET, lambda key: None, family)
    params = family.inverse({"a": dist.Uniform(-1.0, 1.0)})
    with pytest.raises(ValueError, match="the support of Uniform moves with its parameters"):
        jax.grad(fv.forward_kl(guide, num_samples=4))(params, KEY)
