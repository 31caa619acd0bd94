"""fv.fit of fv.kl reaches targets that are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import funcvi as fv

KEY = jax.random.key(11)

TARGETS = {
    "Normal": (dist.Normal(0.0, 1.0), dist.Normal(5.0, 5.0)),
    "Gamma": (dist.Gamma(1.0, 1.0), dist.Gamma(5.0, 5.0)),
    "Beta": (dist.Beta(1.0, 1.0), dist.Beta(2.0, 5.0)),
    "Dirichlet": (dist.Dirichlet(jnp.ones(3)), dist.Dirichlet(jnp.array([1.0, 2.0, 4.0]))),
    "MultivariateNormal": (
        dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)),
        dist.MultivariateNormal(jnp.array([1.0, -2.0]), jnp.array([[2.0, 0.6], [0.6, 0.5]])),
    ),
    "joint": (
        {"a": dist.Normal(jnp.zeros(2), 1.0), "b": (dist.Beta(1.0, 1.0),)},
        {"a": dist.Normal(jnp.array([1.0, -1.0]), 0.5), "b": (dist.Beta(3.0, 2.0),)},
    ),
}


def assert_same_params(found, exact, atol):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(exact), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.few(4)
@pytest.mark.parametrize("name", TARGETS)
def test_a_closed_form_reaches_the_target(name):
    start, target = TARGETS[name]
    params, q = fv.unconstrain(start)
    # Deterministic, so what is left is float32's resolution of the loss: about sqrt(1e-7 / H),
    # at the least curvature H of these targets (0.02) 2e-3.
    schedule = optax.cosine_decay_schedule(0.05, 3000)
    found = fv.fit(lambda p, key: fv.kl(q(p), target), params, optax.adam(schedule), key=KEY,
                   num_steps=3000)  # fmt: skip
    assert found.status == "converged"
    assert_same_params(found.params, q.inverse(target), 5e-3)


@pytest.mark.parametrize("target", [dist.LogNormal(1.0, 0.5), dist.Laplace(2.0, 0.5)])
def test_draws_reach_the_target_without_noise_when_sticking_the_landing(target):
    params, q = fv.unconstrain(type(target)(0.0, 1.0))

    def loss(p, key):
        return fv.kl(q(p), target, key=key, num_samples=20, estimator="sticking_the_landing")

    schedule = optax.cosine_decay_schedule(0.05, 1500)
    found = fv.fit(loss, params, optax.adam(schedule), key=KEY, num_steps=1500)
    # The gradient's variance vanishes at the optimum, so no Monte Carlo error remains.
    assert_same_params(found.params, q.inverse(target), 2e-3)


def test_pathwise_draws_reach_the_target_within_their_noise():
    target = dist.LogNormal(1.0, 0.5)
    params, q = fv.unconstrain(dist.LogNormal(0.0, 1.0))
    num_samples, rate = 50, 0.01

    def loss(p, key):
        return fv.kl(q(p), target, key=key, num_samples=num_samples, estimator="pathwise")

    found = fv.fit(loss, params, optax.sgd(rate), key=KEY, num_steps=3000)
    # SGD at rate r about an optimum of curvature H and gradient variance V: variance r V / (2 H).
    # At q = p on (loc, log scale): H = (1 / 0.25, 2), V = (1 / 0.25, 2) / num_samples.
    spread = np.sqrt(rate / (2 * num_samples))
    assert_same_params(found.params, q.inverse(target), 5 * spread)


def test_the_weights_of_a_mixture_find_the_right_component_for_ten_seeds():
    target = dist.Normal(3.0, 1.0)
    start = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.Normal(jnp.array([0.0, 3.0]), 1.0)
    )
    params, q = fv.unconstrain(start, component_distribution=fv.fixed())

    def loss(p, key):
        return fv.kl(q(p), target, key=key, num_samples=10)

    for seed in range(10):
        found = fv.fit(loss, params, optax.adam(0.1), key=jax.random.key(seed), num_steps=800)
        weights = np.asarray(q(found.params).mixing_distribution.probs)
        np.testing.assert_allclose(weights, [0.0, 1.0], atol=0.01)
        component = q(found.params).component_distribution
        np.testing.assert_array_equal(component.loc, [0.0, 3.0])


@pytest.mark.parametrize(
    ("start", "target", "estimator"),
    [
        (dist.Normal(0.0, 1.0), dist.Normal(5.0, 5.0), "pathwise"),
        (dist.Normal(0.0, 1.0), dist.Normal(5.0, 5.0), "sticking_the_landing"),
        (dist.Gamma(1.0, 1.0), dist.Gamma(5.0, 5.0), "pathwise"),
        (dist.Gamma(1.0, 1.0), dist.Gamma(5.0, 5.0), None),
    ],
)
def test_the_setting_people_start_from_ends_with_finite_params_and_a_reason(
    start, target, estimator
):
    params, q = fv.unconstrain(start)

    def loss(p, key):  # summed over draws, as in the loop that they write
        kl = fv.kl(q(p), target, key=key, num_samples=1000, estimator=estimator)
        return 1000 * kl

    found = fv.fit(loss, params, optax.sgd(0.01), key=KEY, num_steps=60)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(found.params))
    reached = all(
        np.allclose(a, b, atol=0.2)
        for a, b in zip(
            jax.tree.leaves(found.params), jax.tree.leaves(q.inverse(target)), strict=True
        )
    )
    if not reached:
        assert found.status == "diverged", found.reason
        assert "Lower the learning rate" in found.reason
    # What it was given back can be evaluated, and continued from with a rate that is right.
    assert jnp.isfinite(loss(found.params, KEY))


def test_the_same_with_a_rate_that_suits_the_sum():
    params, q = fv.unconstrain(dist.Normal(0.0, 1.0))
    target = dist.Normal(5.0, 5.0)

    def loss(p, key):
        return 1000 * fv.kl(
            q(p), target, key=key, num_samples=1000, estimator="sticking_the_landing"
        )

    found = fv.fit(loss, params, optax.sgd(5e-4), key=KEY, num_steps=1500)
    assert float(q(found.params).loc) == pytest.approx(5.0, abs=1e-2)
    assert float(q(found.params).scale) == pytest.approx(5.0, abs=1e-2)
