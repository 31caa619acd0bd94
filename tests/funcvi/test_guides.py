"""Laws of every guide: one space for draws and densities, starts that differ, jit, grad, vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcvi as fv
from tests.funcvi.guide_catalogue import (
    BANANA,
    CORRELATED,
    COVARIANCE,
    EVERYTHING,
    FUNCTIONS,
    GUIDES,
    HAS_BATCHES,
    HAS_MARGINALS,
    KEY,
    MEAN,
    TWO_MODES,
    autoregressive_flow,
    coupling_flow,
    flowjax_flow,
    log_det,
)

LONG = (*FUNCTIONS, "a mixture", "a distribution for each site", "params and family")
every_guide = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in GUIDES]
)
KEYS = jax.random.split(KEY, 8)


# ---- draws and densities -------------------------------------------------------------------------


@functools.cache
def change_of_variables():
    """Values to their unconstrained vectors, and the log determinant there; for every guide."""

    def one(values):
        vector = EVERYTHING.ravel(EVERYTHING.unconstrain(values))
        return vector, log_det(EVERYTHING, vector)

    return jax.jit(jax.vmap(one))


@pytest.mark.few(2)
@every_guide
def test_log_prob_of_draws_is_the_change_of_variables(name):
    guide = GUIDES[name](EVERYTHING)
    params = guide.init(KEY)

    @jax.jit
    def routes(params):
        values, at_once = guide(params).sample_and_log_prob(KEY, (4,))
        return values, at_once, guide(params).log_prob(values)

    values, at_once, log_prob = routes(params)
    z, det = change_of_variables()({n: values[n] for n in EVERYTHING.shapes})
    q = guide(params).unconstrained
    if isinstance(q, dict):
        parts = EVERYTHING.unravel(z)
        for block, sites in guide.blocks.items():
            parts[block] = jnp.concatenate([parts[n].reshape(4, -1) for n in sites], axis=1)
        log_q = sum(d.log_prob(parts[n]) for n, d in q.items())
    else:
        log_q = q.log_prob(z)
    exact = np.asarray(log_q, float) - det
    # float32 densities of sixteen coordinates; an inverse loses what a bound has rounded away.
    np.testing.assert_allclose(at_once, exact, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(log_prob, exact, rtol=1e-4, atol=1e-3)


@every_guide
def test_a_guide_works_under_jit_grad_and_vmap_and_starts_differ(name):
    guide = GUIDES[name](TWO_MODES)

    def both(params):
        posterior = guide(params)
        values, log_q = posterior.sample_and_log_prob(KEY, (3,))
        return jnp.mean(values["b"] + log_q), (values["b"], log_q, posterior.log_prob(values))

    def start_and_slope(key):
        params = guide.init(key)
        return params, jax.value_and_grad(both, has_aux=True)(params)

    stack, ((_, (b, log_q, log_prob)), slopes) = jax.jit(jax.vmap(start_and_slope))(KEYS)
    np.testing.assert_allclose(log_prob, log_q, rtol=1e-3, atol=1e-3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))
    assert any((np.abs(x) > 0).any() for x in jax.tree.leaves(slopes))

    starts = np.concatenate([np.reshape(x, (8, -1)) for x in jax.tree.leaves(stack)], axis=1)
    assert np.isfinite(starts).all()
    gaps = np.abs(starts[:, None] - starts[None]).max(-1) + 10 * np.eye(8)
    # Laplace climbs, so it starts from one of two modes; the others are all apart.
    apart = gaps.max(0) if name == "laplace" else gaps.min(0)
    assert apart.min() > 0.01

    params = guide.init(KEYS[2])
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(stack), strict=True):
        np.testing.assert_allclose(x, y[2], rtol=1e-4, atol=1e-4)
    drawn = fv.sample(guide(params), KEY, (3,))
    np.testing.assert_allclose(drawn["b"], b[2], rtol=1e-3)

    posterior = guide(params)
    assert posterior.target is TWO_MODES
    moved = jax.tree.map(lambda x: x + 0.1, posterior)  # a pytree of its params
    again = guide(jax.tree.map(lambda x: x + 0.1, params))
    values = {"a": jnp.array(0.3), "b": jnp.array(0.7)}
    np.testing.assert_allclose(moved.log_prob(values), again.log_prob(values), rtol=1e-5)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", HAS_BATCHES)
def test_params_with_leading_axes_are_a_batch_of_posteriors(name):
    guide = GUIDES[name](CORRELATED)
    stack = jax.jit(jax.vmap(guide.init))(KEYS[:2])
    batch = jax.vmap(guide)(stack)
    values, log_q = batch.sample_and_log_prob(KEY, (3,))
    assert values["pair"].shape == (3, 2, 2)
    assert log_q.shape == (3, 2)
    for i in range(2):
        one = guide(jax.tree.map(lambda x, i=i: x[i], stack))
        alone = one.log_prob(jax.tree.map(lambda x, i=i: x[:, i], values))
        np.testing.assert_allclose(alone, log_q[:, i], rtol=1e-4, atol=1e-4)


def test_log_prob_ignores_other_names_and_refuses_shapes_that_do_not_fit():
    guide = fv.mean_field(CORRELATED)
    posterior = guide(guide.init(KEY))
    values = {"pair": jnp.zeros((4, 2)), "one": jnp.zeros(4)}
    assert posterior.log_prob({**values, "other": 1.0}).shape == (4,)
    with pytest.raises(ValueError, match=r"values are missing for \['one'\]"):
        posterior.log_prob({"pair": jnp.zeros(2)})
    with pytest.raises(ValueError, match=r"same leading axes, got 'pair' \(4,\), 'one' \(4, 1\)"):
        posterior.log_prob({**values, "one": jnp.zeros((4, 1))})
    with pytest.raises(ValueError, match=r"'pair' must have shape \(2,\) behind any leading axes"):
        posterior.log_prob({**values, "pair": jnp.zeros((4, 3))})


@pytest.mark.parametrize("name", HAS_MARGINALS)
def test_marginals_are_those_of_the_draws(name):
    guide = GUIDES[name](CORRELATED)
    posterior = guide(jax.tree.map(lambda x: x + 0.2, guide.init(KEY)))
    z, _ = posterior.sample_unconstrained(KEY, (40_000,))
    for site, q in posterior.marginals().items():
        assert q.batch_shape == CORRELATED.shapes[site]
        error = np.asarray(q.scale) / 200
        assert (np.abs(z[site].mean(0) - q.mean) < 5 * error).all()
        assert (np.abs(z[site].std(0) - q.scale) < 5 * error).all()


def test_guides_without_normal_marginals_say_so():
    guide = GUIDES["a mixture"](CORRELATED)
    with pytest.raises(TypeError, match="marginals of this guide are not normal"):
        guide(guide.init(KEY)).marginals()


# ---- what they reach -----------------------------------------------------------------------------


def fitted(guide, steps, rate=0.02, **options):
    loss = fv.negative_elbo(guide, **options)
    schedule = optax.cosine_decay_schedule(rate, steps)
    fit = fv.fit(loss, guide.init(KEY), optax.adam(schedule), key=KEY, num_steps=steps)
    return guide(fit.params)


@pytest.mark.parametrize("name", ["full_rank", "low_rank", "laplace"])
def test_a_correlated_normal_is_reached(name):
    guide = fv.low_rank(CORRELATED, rank=1) if name == "low_rank" else GUIDES[name](CORRELATED)
    if name == "laplace":
        q = guide(guide.init(KEY)).unconstrained
    else:
        q = fitted(guide, 2000, 0.05, estimator="sticking_the_landing").unconstrained
    np.testing.assert_allclose(q.mean, MEAN, atol=5e-3)
    np.testing.assert_allclose(q.covariance_matrix, COVARIANCE, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("flow", [coupling_flow, autoregressive_flow, flowjax_flow])
def test_flows_bend_where_a_normal_cannot(flow):
    # The evidence is one, so minus the ELBO is the divergence; a normal's is 0.6 nats.
    straight = fv.diagnose(fitted(fv.full_rank(BANANA), 1500), key=KEY)
    assert straight.elbo < -0.4
    bent = fv.diagnose(fitted(fv.guide(BANANA, flow(2)), 1500), key=KEY)
    assert bent.elbo > -0.2
    assert bent.elbo > straight.elbo + 0.3


def test_restarts_find_both_modes():
    guide = fv.mean_field(TWO_MODES)
    loss = fv.negative_elbo(guide, num_samples=8)
    optimizer = optax.adam(0.05)

    def fit(key):
        def step(carry, key):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, key), state)
            return (optax.apply_updates(params, updates), state), None

        params = guide.init(key)
        (params, _), _ = jax.lax.scan(
            step, (params, optimizer.init(params)), jax.random.split(key, 400)
        )
        return guide(params).marginals()["a"].loc

    modes = np.asarray(jax.jit(jax.vmap(fit))(KEYS))
    assert (np.abs(np.abs(modes) - 2) < 0.2).all()
    assert {-1.0, 1.0} == set(np.sign(modes))


@pytest.mark.slow
def test_a_mixture_covers_both_modes():
    guide = GUIDES["a mixture"](TWO_MODES)
    posterior = fitted(guide, 1000, num_samples=32)
    a = posterior.sample(KEY, (2000,))["a"]
    assert 0.1 < float((a > 0).mean()) < 0.9
    assert fv.diagnose(posterior, key=KEY).elbo > np.log(2) - 0.1  # the evidence is 2
