"""Guides whose parameters a network makes of the data: of all rows, and of some at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro import handlers

import funcvi as fv

KEY = jax.random.key(0)
NOISE, LOADINGS = 0.5, jnp.array([1.0, -0.5, 2.0])
ROWS = 240
HIDDEN = jax.random.normal(jax.random.key(1), (ROWS,))
Y = HIDDEN[:, None] * LOADINGS + NOISE * jax.random.normal(jax.random.key(2), (ROWS, 3))
PRECISION = 1 + jnp.sum(LOADINGS**2) / NOISE**2


def model(y):
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z[:, None] * LOADINGS, NOISE).to_event(1), obs=y)


START = {"kernel": jnp.zeros(3), "log_scale": jnp.zeros(())}


def encoder(weights, y):
    return dist.Normal(y @ weights["kernel"], jnp.exp(weights["log_scale"]))


def amortised(y):
    return fv.guide(fv.target(model, y), (START, lambda w: {"z": encoder(w, y)}), spread=0.0)


def loss_of_some(params, key):
    row_key, key = jax.random.split(key)
    rows = jax.random.choice(row_key, ROWS, (40,), replace=False)
    return ROWS / 40 * fv.negative_elbo(amortised(Y[rows]), num_samples=4)(params, key)


def log_evidence(y):
    covariance = jnp.outer(LOADINGS, LOADINGS) + NOISE**2 * jnp.eye(3)
    return dist.MultivariateNormal(jnp.zeros(3), covariance).log_prob(y).sum()


def test_the_exact_posterior_is_reached_from_all_rows_and_from_some():
    whole = amortised(Y)
    for loss in (fv.negative_elbo(whole, num_samples=4), loss_of_some):
        optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 800))
        fit = fv.fit(loss, whole.init(KEY), optimizer, key=KEY, num_steps=800)
        np.testing.assert_allclose(fit.params["kernel"], LOADINGS / NOISE**2 / PRECISION, atol=0.02)
        np.testing.assert_allclose(jnp.exp(-2 * fit.params["log_scale"]), PRECISION, rtol=0.05)
        elbo = fv.diagnose(whole(fit.params), key=KEY).elbo
        assert abs(elbo - log_evidence(Y)) < 1.5  # nats, of 240 rows
    # The same network at rows that it has not seen.
    new = amortised(Y[:5] + 0.1)
    assert fv.sample(new(fit.params), KEY, (7,))["z"].shape == (7, 5)


def test_some_rows_give_the_loss_of_all_in_the_mean_beside_latents_that_rows_share():
    def shared(y, scale=1.0):
        middle = numpyro.sample("middle", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(y)), handlers.scale(scale=scale):
            z = numpyro.sample("z", dist.LogNormal(middle, 1.0))
            numpyro.sample("y", dist.Normal(z[:, None] * LOADINGS, NOISE).to_event(1), obs=y)

    def guide(y, scale=1.0):
        middle = numpyro.param("middle at", 0.3)
        kernel = numpyro.param("kernel", jnp.array([0.1, 0.0, 0.2]))
        numpyro.sample("middle", dist.Normal(middle, 0.5))
        with numpyro.plate("rows", len(y)), handlers.scale(scale=scale):
            numpyro.sample("z", dist.LogNormal(y @ kernel, 0.2))

    def losses(y, scale=1.0):
        of = fv.guide(fv.target(shared, y, scale=scale), guide, spread=0.0)
        keys = jax.random.split(KEY, 16)
        loss = fv.negative_elbo(of, num_samples=200)
        return np.asarray(jax.jit(jax.vmap(loss, (None, 0)))(of.init(KEY), keys))

    parts, whole = np.stack([losses(part, 4.0) for part in jnp.split(Y, 4)]), losses(Y)
    error = np.sqrt((parts.var(1, ddof=1).mean() / 4 + whole.var(ddof=1)) / 16)
    assert abs(parts.mean() - whole.mean()) < 4 * error
    assert np.ptp(parts.mean(1)) > 20 * error  # each alone is far off


def test_works_under_jit_grad_and_vmap():
    batches = Y.reshape(6, 40, 3)
    params = amortised(Y).init(KEY)
    loss = jax.value_and_grad(lambda p, y: fv.negative_elbo(amortised(y))(p, KEY))
    values, slopes = jax.jit(jax.vmap(loss, (None, 0)))(params, batches)
    value, slope = loss(params, batches[2])
    np.testing.assert_allclose(values[2], value, rtol=1e-5)
    np.testing.assert_allclose(slopes["kernel"][2], slope["kernel"], rtol=1e-4, atol=1e-2)
