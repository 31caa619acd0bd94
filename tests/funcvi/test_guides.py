"""Mean-field guides: where they start, what they draw, when they give up."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv

KEY = jax.random.key(13)


def model():
    scale = numpyro.sample("scale", dist.Gamma(2.0, 1.0))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    numpyro.deterministic("scaled", scale * weights)


TARGET = fv.target(model)


def test_params_are_locs_and_scales_of_the_unconstrained_shapes():
    guide = fv.mean_field(TARGET, scale=0.2)
    params = guide.init(KEY)
    assert {n: jax.tree.map(jnp.shape, p) for n, p in params.items()} == {
        "scale": {"loc": (), "scale": ()},
        "weights": {"loc": (2,), "scale": (2,)},
    }
    np.testing.assert_allclose(guide(params).unconstrained["scale"].scale, 0.2, rtol=1e-5)
    assert jax.tree.map(float, guide.init(KEY)["scale"]) == jax.tree.map(float, params["scale"])
    assert guide.init(jax.random.key(1))["scale"]["loc"] != params["scale"]["loc"]


def test_the_start_widens_until_the_density_is_finite():
    def density(x):
        return jnp.where(x["a"] > 1.0, -(x["a"] ** 2), -jnp.inf)

    guide = fv.mean_field(fv.target(density, supports={"a": constraints.real}))
    assert float(guide.init(KEY)["a"]["loc"]) > 1.0


def test_a_density_that_is_nowhere_finite_says_what_to_check():
    guide = fv.mean_field(fv.target(lambda x: x["a"] * jnp.nan, supports={"a": constraints.real}))
    with pytest.raises(ValueError, match=r"non-finite at 100 starts .* check the data for NaN"):
        guide.init(KEY)


def test_draws_hold_deterministic_sites():
    guide = fv.mean_field(TARGET)
    posterior = guide(guide.init(KEY))
    drawn = fv.sample(posterior, KEY, (5, 2))
    assert {n: x.shape for n, x in drawn.items()} == {
        "scale": (5, 2), "weights": (5, 2, 3), "scaled": (5, 2, 3),
    }  # fmt: skip
    np.testing.assert_allclose(
        drawn["scaled"], drawn["scale"][..., None] * drawn["weights"], rtol=1e-6
    )


def test_a_guide_works_under_jit_grad_and_vmap():
    guide = fv.mean_field(TARGET)
    keys = jax.random.split(KEY, 3)
    params = jax.tree.map(lambda *x: jnp.stack(x), *(guide.init(k) for k in keys))

    def mean(params):
        return fv.sample(guide(params), KEY, (4,))["scale"].mean()

    slopes = jax.jit(jax.vmap(jax.grad(mean)))(params)
    assert slopes["scale"]["loc"].shape == (3,)
    assert (slopes["scale"]["loc"] > 0).all()


def test_what_is_no_target_and_a_scale_that_is_none():
    with pytest.raises(TypeError, match="expected a target, got function: wrap the model"):
        fv.mean_field(model)
    with pytest.raises(ValueError, match="scale"):
        fv.mean_field(TARGET, scale=-1.0)
