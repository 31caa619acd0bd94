"""Targets whose log density is random: models of minibatches, and what may be done with them."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

import funcvi as fv

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (200,))
Y = 2 * X + 0.5 * jax.random.normal(jax.random.key(1), (200,))


def regression(x, y, batch=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x), subsample_size=batch) as i:
        numpyro.sample("y", dist.Normal(slope * x[i], 0.5), obs=y[i])


def dropout():
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    kept = jax.random.bernoulli(numpyro.prng_key(), 0.5, (3,))
    numpyro.factor("f", -jnp.sum((a - jnp.where(kept, 2.0, 0.0)) ** 2))


def scanned(x, y):
    """A model that hands its key through a scan without reading it."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))

    def step(carry, row):
        numpyro.sample("y", dist.Normal(slope * row[0], 0.5), obs=row[1])
        return carry, None

    scan(step, 0, (x, y))


MINIBATCH, FULL = fv.target(regression, X, Y, batch=20), fv.target(regression, X, Y)


def test_which_targets_are_random():
    assert MINIBATCH.is_random
    assert fv.target(dropout).is_random
    assert not FULL.is_random
    assert not fv.target(regression, X, Y, batch=200).is_random
    assert not fv.target(scanned, X, Y).is_random
    density = fv.target(lambda v: -(v["a"] ** 2), supports={"a": constraints.real})
    assert not density.is_random
    assert jax.jit(lambda x: x + fv.target(regression, X + x, Y, batch=20).is_random)(0.0) == 1


GUIDE = fv.mean_field(MINIBATCH)
WRONG = {
    "laplace": lambda: fv.laplace(MINIBATCH),
    "diagnose": lambda: fv.diagnose(GUIDE(GUIDE.init(KEY)), key=KEY),
    "forward_kl": lambda: fv.forward_kl(GUIDE, num_samples=8),
    "negative_renyi_elbo": lambda: fv.negative_renyi_elbo(GUIDE, alpha=0.5, num_samples=8),
    "negative_importance_weighted_elbo": lambda: fv.negative_importance_weighted_elbo(
        GUIDE, num_samples=8
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_linear_in_the_log_density_is_refused(name):
    with pytest.raises(ValueError, match=rf"fv.{name} needs the log density itself.*negative_elbo"):
        WRONG[name]()


@pytest.mark.slow
def test_the_elbo_of_minibatches_fits_and_the_full_model_judges_it():
    losses = [
        fv.negative_elbo(GUIDE, num_samples=32),
        fv.negative_renyi_elbo(GUIDE, alpha=1, num_samples=32),
        fv.negative_importance_weighted_elbo(GUIDE, num_samples=1),
    ]
    params = GUIDE.init(KEY)
    full = fv.negative_elbo(fv.mean_field(FULL), num_samples=32)
    keys = jax.random.split(KEY, 2000)
    expected = jax.vmap(full, (None, 0))(params, keys)
    for loss in losses:
        values = jax.jit(jax.vmap(loss, (None, 0)))(params, keys)
        error = (values.var() + expected.var()) ** 0.5 / len(keys) ** 0.5
        assert abs(values.mean() - expected.mean()) < 4 * error
    fit = fv.fit(losses[0], params, optax.adam(0.01), key=KEY, num_steps=1500)
    posterior = fv.mean_field(FULL)(fit.params)
    exact = fv.laplace(FULL)
    exact = exact(exact.init(KEY)).marginals()["slope"]
    assert abs(posterior.marginals()["slope"].loc - exact.loc) < exact.scale
