"""Where targets start, and vectors in place of sites: pure, the same under jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv
from tests.funcvi.compiles import compilations
from tests.funcvi.guide_catalogue import EVERYTHING, KEY, log_det


def test_vectors_and_sites_are_the_same_values_with_any_leading_axes():
    assert EVERYTHING.size == sum(int(np.prod(s)) for s in EVERYTHING.shapes.values()) == 16
    vector = jax.random.normal(KEY, (5, 4, EVERYTHING.size))
    z = EVERYTHING.unravel(vector)
    assert {n: x.shape for n, x in z.items()} == {
        n: (5, 4, *shape) for n, shape in EVERYTHING.shapes.items()
    }
    np.testing.assert_array_equal(EVERYTHING.ravel(z), vector)
    with pytest.raises(ValueError, match=r"expects vectors of shape \(\*leading, 16\), got \(3,\)"):
        EVERYTHING.unravel(jnp.zeros(3))


@pytest.mark.slow
def test_the_log_determinant_is_that_of_the_whole_map():
    for scale in (0.1, 1.0, 2.0):
        vector = scale * jax.random.normal(KEY, (EVERYTHING.size,))
        exact = log_det(EVERYTHING, vector)
        found = EVERYTHING.log_det(EVERYTHING.unravel(vector))
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


def test_starts_are_spread_over_minus_two_to_two():
    target = fv.target(lambda x: -(x["a"] ** 2), supports={"a": constraints.real})
    a = np.asarray(jax.jit(jax.vmap(target.start))(jax.random.split(KEY, 500))["a"])
    assert (np.abs(a) <= 2).all()
    # Uniform: standard deviation 2 / sqrt(3), known to its own standard error.
    assert abs(a.std() - 2 / 3**0.5) < 5 * 0.45 * 2 / 3**0.5 / 500**0.5
    assert target.start(KEY, (3, 2))["a"].shape == (3, 2)
    assert len(np.unique(target.start(KEY, (3, 2))["a"])) == 6


@pytest.mark.parametrize(("low", "high"), [(1.5, jnp.inf), (-0.05, 0.05)])
def test_starts_search_far_and_near_until_they_are_finite(low, high):
    def density(x):
        return jnp.where((x["a"] > low) & (x["a"] < high), -(x["a"] ** 2), -jnp.inf)

    target = fv.target(density, supports={"a": constraints.real})
    a = jax.jit(jax.vmap(target.start))(jax.random.split(KEY, 50))["a"]
    assert ((a > low) & (a < high)).all()
    np.testing.assert_allclose(target.start(KEY)["a"], jax.jit(target.start)(KEY)["a"], rtol=1e-6)


def test_a_start_has_a_finite_gradient_too():
    def density(x):
        return jnp.sqrt(jnp.maximum(x["a"], 0.0))  # flat with a NaN slope below zero

    target = fv.target(density, supports={"a": constraints.real})
    slopes = jax.vmap(jax.grad(target.log_density))(target.start(KEY, (20,)))
    assert np.isfinite(slopes["a"]).all()


def regression(x, y):
    weights = numpyro.sample("weights", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(x @ weights, scale), obs=y)


def test_fifty_data_sets_of_one_shape_compile_once():
    rng = np.random.default_rng(0)

    def start(make):
        x = rng.normal(size=(20, 3)).astype(np.float32)
        y = (x.sum(1) + rng.normal(size=20)).astype(np.float32)
        guide = make(fv.target(regression, x, y))
        guide(guide.init(KEY))

    start(fv.full_rank)
    start(fv.laplace)
    with compilations() as count:
        for _ in range(50):
            start(fv.full_rank)
        for _ in range(3):
            start(fv.laplace)
    assert count.compiled == 0
