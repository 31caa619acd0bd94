"""A bound of one's own: what it must return and read."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv
from funcvi.objectives.of_guides import GuideLoss

KEY = jax.random.key(0)
GUIDE = fv.mean_field(
    fv.target(lambda v: dist.Normal(1.0, 2.0).log_prob(v["x"]), supports={"x": constraints.real})
)


def negative_elbo(draws):
    return jnp.mean(draws.log_q - draws.log_p)


def scored(draws):
    return jnp.mean(draws.log_q + draws.score - draws.log_p)


def each(draws):
    return draws.log_q - draws.log_p


def loss(of, *allowed):
    return GuideLoss(GUIDE, of, 4, None, allowed)


@pytest.mark.parametrize("transform", [lambda f: f, jax.grad, lambda f: jax.jit(jax.grad(f))])
def test_a_bound_that_leaves_the_score_out_is_refused(transform):
    params = GUIDE.init(KEY)
    with pytest.raises(ValueError, match=r"negative_elbo does not read draws\.score"):
        transform(loss(negative_elbo, "score_function"))(params, KEY)
    transform(loss(scored, "score_function"))(params, KEY)
    transform(loss(negative_elbo, "pathwise"))(params, KEY)


def test_a_bound_is_a_scalar():
    with pytest.raises(ValueError, match=r"each must return a scalar of the draws, got shape \(4"):
        loss(each, "pathwise")(GUIDE.init(KEY), KEY)


def test_estimators_are_named():
    with pytest.raises(ValueError, match="allowed must be one of enumeration, pathwise"):
        loss(scored, "pathwize")
    for allowed in ("pathwise", (), ["pathwise"]):
        with pytest.raises(TypeError, match="allowed must be a tuple of estimators"):
            GuideLoss(GUIDE, scored, 4, None, allowed)
