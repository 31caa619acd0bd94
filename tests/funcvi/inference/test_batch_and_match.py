"""Batch and match ends at the right normal distribution, whatever the scales."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv
from funcvi.inference.paths import best_of_climbs

KEY = jax.random.key(0)


def normal_target(loc: np.ndarray, scale_tril: np.ndarray) -> fv.Target:
    p = dist.MultivariateNormal(jnp.asarray(loc), scale_tril=jnp.asarray(scale_tril))
    return fv.target(lambda v: p.log_prob(v["x"]), supports={"x": (constraints.real, loc.shape)})


LAWS = {
    "round": (np.zeros(3), np.eye(3)),
    "far": (np.array([300.0, -200.0, 0.0]), np.eye(3)),
    "badly scaled": (np.array([40.0, 0.0, 0.0]), np.diag([10.0, 1.0, 0.01])),
    "correlated": (np.ones(2), np.array([[1.0, 0.0], [0.999, 0.05]])),
    "of one number": (np.array([2.0]), np.array([[0.3]])),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_normal_target_is_found(name: str) -> None:
    """Where the target is normal, its scores are, and every batch says the same."""
    loc, scale_tril = LAWS[name]
    posterior = fv.batch_and_match(normal_target(loc, scale_tril), key=KEY)
    q = posterior.unconstrained
    np.testing.assert_allclose(np.linalg.solve(scale_tril, q.mean - loc), 0 * loc, atol=0.02)
    white = np.linalg.solve(scale_tril, np.asarray(q.scale_tril))
    np.testing.assert_allclose(white @ white.T, np.eye(len(loc)), atol=0.02)
    assert fv.diagnose(posterior, key=KEY).reliable


def regression(x: jax.Array, y: jax.Array) -> None:
    weights = numpyro.sample("weights", dist.Normal(0.0, 100.0).expand((2,)).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1000.0))
    numpyro.sample("y", dist.Normal(x @ weights, scale), obs=y)


def test_a_regression_on_raw_scales() -> None:
    """Heights in inches and earnings: nothing is standardised."""
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(200), rng.normal(66, 4, 200)], 1)
    y = x @ [-30.0, 2.0] + rng.normal(0, 20, 200)
    target = fv.target(regression, jnp.asarray(x), jnp.asarray(y))
    posterior = fv.batch_and_match(target, key=KEY)
    draws = fv.sample(posterior, jax.random.key(1), (10_000,))
    precision = x.T @ x / np.mean(np.asarray(draws["scale"])) ** 2 + np.eye(2) / 100**2
    mean = np.linalg.solve(precision, x.T @ y / np.mean(np.asarray(draws["scale"])) ** 2)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    assert np.all(np.abs(draws["weights"].mean(0) - mean) < 0.1 * sd)
    np.testing.assert_allclose(draws["weights"].std(0), sd, rtol=0.1)


def test_the_start_is_on_the_way_to_a_mode_without_mass() -> None:
    """The density of a hierarchy is highest where its scale is zero."""

    def log_density(v: jax.Array) -> jax.Array:
        log_scale, x = v[0], v[1:]
        prior = dist.Normal(0.0, 1.0).log_prob(log_scale)
        return prior + dist.Normal(0.0, jnp.exp(log_scale)).log_prob(x).sum()

    starts = jax.random.uniform(KEY, (4, 21), minval=-2, maxval=2)
    normal, climbs = best_of_climbs(log_density, starts, KEY, 40)
    assert climbs.elbo.shape == (4,)
    assert -3 < float(normal.loc[0]) < 2  # the mode is at log scale -20


def test_bad_input() -> None:
    target = normal_target(*LAWS["round"])
    with pytest.raises(ValueError, match="num_samples must be even and positive, got 7"):
        fv.batch_and_match(target, key=KEY, num_samples=7)
    with pytest.raises(TypeError, match="expected a target, got function"):
        fv.batch_and_match(regression, key=KEY)
