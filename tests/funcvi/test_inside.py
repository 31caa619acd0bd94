"""The log density of a posterior at values outside of a site's support."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv

KEY = jax.random.key(0)


def model():
    a = numpyro.sample("a", dist.Gamma(2.0, 1.0))
    numpyro.sample("b", dist.Uniform(0.0, a))
    numpyro.sample("w", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("c", dist.LKJCholesky(3))
    numpyro.sample("x", dist.Normal(jnp.log(a), a))


GUIDE = fv.full_rank(fv.target(model))
POSTERIOR = GUIDE(GUIDE.init(KEY))
VALUES, LOG_Q = POSTERIOR.sample_and_log_prob(KEY, (3,))
OUTSIDE = {
    "negative": ("a", -1.0),
    "below a bound": ("b", -1.0),
    "above another site": ("b", 1e4),
    "at the edge": ("a", 0.0),
    "no simplex": ("w", [0.2, 0.2, 0.2]),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_it_is_minus_infinity_outside_and_the_others_stay(name):
    site, value = OUTSIDE[name]
    bad = VALUES | {site: VALUES[site].at[1].set(jnp.asarray(value))}
    expected = np.array([LOG_Q[0], -np.inf, LOG_Q[2]])
    np.testing.assert_allclose(POSTERIOR.log_prob(bad), expected, rtol=1e-4)
    compiled = jax.jit(lambda params: GUIDE(params).log_prob(bad))
    np.testing.assert_allclose(compiled(POSTERIOR.params), expected, rtol=1e-4)
    slope = jax.grad(lambda params: GUIDE(params).log_prob(bad)[0])(POSTERIOR.params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))


def test_what_is_no_number_has_no_density():
    bad = VALUES | {"b": VALUES["b"].at[1].set(jnp.nan)}
    expected = np.array([LOG_Q[0], np.nan, LOG_Q[2]])
    np.testing.assert_allclose(POSTERIOR.log_prob(bad), expected, rtol=1e-4)


def test_a_long_simplex_of_float32_is_inside():
    target = fv.target(lambda: numpyro.sample("w", dist.Dirichlet(jnp.ones(3000))))
    guide = fv.mean_field(target, scale=1.0)
    posterior = guide(guide.init(KEY))
    values, log_q = posterior.sample_and_log_prob(KEY, (20,))
    np.testing.assert_allclose(posterior.log_prob(values), log_q, rtol=1e-5)


SUPPORTS = {
    "ordered": (constraints.ordered_vector, (200,)),
    "correlations": (constraints.corr_cholesky, (6, 6)),
    "matrices": (constraints.positive_definite, (5, 5)),
    "intervals": (constraints.interval(-1e6, 1e6 + 1), (9,)),
    "simplices": (constraints.simplex, (500,)),
    "balls": (constraints.l1_ball, (7,)),
}


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("name", SUPPORTS)
def test_own_draws_are_inside(name, scale):
    """Wide ones are lost by rounding, some of them wholly: that is NaN, and not minus infinity."""
    target = fv.target(lambda v: -0.0 * v["x"].sum(), supports={"x": SUPPORTS[name]})
    guide = fv.mean_field(target, scale=scale, loc={"x": jnp.zeros(target.shapes["x"])})
    posterior = guide(guide.init(KEY))
    log_q = posterior.log_prob(posterior.sample(KEY, (100,)))
    assert not np.isneginf(log_q).any()
    assert scale > 1 or np.isfinite(log_q).all()
