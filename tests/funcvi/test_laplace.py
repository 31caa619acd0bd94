"""Laplace against modes and curvatures that are known, and what it says where there are none."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import optimize
from sklearn.linear_model import LogisticRegression

import funcvi as fv
from tests.funcvi.guide_catalogue import KEY, TWO_MODES


def posterior(target, key=KEY, **options):
    guide = fv.laplace(target, **options)
    found = guide(guide.init(key))
    jax.effects_barrier()
    return found


def test_a_gamma_on_the_log_scale():
    # log density of u = log x: a u - b exp(u), so the mode is log(a / b) and the precision a.
    target = fv.target(
        lambda x: dist.Gamma(jnp.array([2.0, 50.0]), 3.0).log_prob(x["x"]).sum(),
        supports={"x": (constraints.positive, (2,))},
    )
    q = posterior(target).marginals()["x"]
    np.testing.assert_allclose(q.loc, np.log(np.array([2.0, 50.0]) / 3), atol=1e-3)
    np.testing.assert_allclose(q.scale, np.array([2.0, 50.0]) ** -0.5, rtol=1e-3)


def test_logistic_regression_has_scikit_learns_mode_and_the_fisher_information():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 3.0]])
    y = (rng.uniform(size=200) < 1 / (1 + np.exp(-x @ [1.0, -1.0, 0.5]))).astype(int)

    def model(x, y):
        weights = numpyro.sample("weights", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)

    q = posterior(fv.target(model, x, y)).unconstrained
    exact = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8).fit(x, y).coef_[0]
    np.testing.assert_allclose(q.mean, exact, atol=1e-3)
    p = 1 / (1 + np.exp(-x @ exact))
    information = np.eye(3) + (x * (p * (1 - p))[:, None]).T @ x
    np.testing.assert_allclose(
        q.covariance_matrix, np.linalg.inv(information), rtol=2e-3, atol=1e-5
    )


def test_a_valley_that_bends_is_climbed_to_its_end():
    def rosenbrock(x, y):
        return (1 - x) ** 2 + 30 * (y - x**2) ** 2

    target = fv.target(
        lambda v: -rosenbrock(v["x"], v["y"]),
        supports={"x": constraints.real, "y": constraints.real},
    )
    exact = optimize.minimize(lambda v: rosenbrock(*v), [-1.0, 1.0], tol=1e-10).x
    for key in jax.random.split(KEY, 3):
        q = posterior(target, key).unconstrained
        np.testing.assert_allclose(q.mean, exact, atol=2e-3)


def test_scales_that_are_far_apart():
    scales = np.array([1e-3, 1.0, 100.0])
    target = fv.target(
        lambda x: dist.Normal(1.0, scales).log_prob(x["x"]).sum(),
        supports={"x": (constraints.real, (3,))},
    )
    with jax.enable_x64(True):
        q = posterior(target).marginals()["x"]
        assert q.loc.dtype == jnp.float64
        np.testing.assert_allclose(q.scale, scales, rtol=1e-6)


def test_restarts_under_vmap_find_both_modes_and_jit_gives_the_same():
    guide = fv.laplace(TWO_MODES)
    keys = jax.random.split(KEY, 8)
    q = jax.vmap(guide)(jax.jit(jax.vmap(guide.init))(keys)).marginals()
    assert set(np.round(q["a"].loc, 2).tolist()) == {-2.0, 2.0}
    np.testing.assert_allclose(q["a"].scale, 0.3, rtol=1e-3)
    np.testing.assert_allclose(q["b"].loc, np.log(3.0), atol=2e-3)
    np.testing.assert_allclose(q["b"].scale, 3**-0.5, rtol=1e-3)


def test_directions_that_do_not_curve_downwards_are_counted():
    flat = fv.target(lambda x: -((x["x"].sum() - 1) ** 2), supports={"x": (constraints.real, (3,))})
    with pytest.warns(UserWarning, match="not positive definite: in 2 of 3 directions"):
        q = posterior(flat).unconstrained
    along = np.ones(3) / 3**0.5
    spread = np.asarray(q.covariance_matrix, float)
    assert along @ spread @ along == pytest.approx(1 / 6, rel=1e-3)
    across = np.array([1.0, -1.0, 0.0]) / 2**0.5
    assert across @ spread @ across == pytest.approx(4.0, rel=1e-3)


def test_too_few_steps_say_how_much_is_left():
    target = fv.target(lambda x: -jnp.cosh(x["x"] - 8.0), supports={"x": constraints.real})
    with pytest.warns(UserWarning, match=r"no mode within 2 steps: about .* nats are left"):
        posterior(target, num_steps=2)


def test_a_place_to_climb_from():
    for start, mode in ((-1.0, -2.0), (1.0, 2.0)):
        q = posterior(TWO_MODES, loc={"a": start, "b": 0.0}).marginals()["a"]
        assert float(q.loc) == pytest.approx(mode, abs=1e-3)
