"""Point parameters (numpyro.param): learned beside the latents."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer.util import log_density

import funcvi as fv

KEY = jax.random.key(0)
Y = jnp.array([3.1, -0.4, 5.2, 2.2, 1.9, -2.0, 6.3, 0.8])


def empirical_bayes(y=None, size=8):
    mu = numpyro.param("mu", 0.5)
    tau = numpyro.param("tau", 1.0, constraint=constraints.positive)
    numpyro.param("unread", jnp.ones(3))
    with numpyro.plate("rows", size):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def fitted(guide, steps=3000):
    loss = fv.negative_elbo(guide, num_samples=16)
    schedule = optax.cosine_decay_schedule(0.05, steps)
    return fv.fit(loss, guide.init(KEY), optax.adam(schedule), key=KEY, num_steps=steps)


@pytest.mark.parametrize("make", [fv.mean_field, fv.full_rank])
def test_they_reach_the_maximum_of_the_evidence(make):
    guide = make(fv.target(empirical_bayes, Y))
    assert list(guide.target.points) == ["mu", "tau"]
    posterior = guide(fitted(guide).params)
    mean, spread = float(Y.mean()), float(np.sqrt(np.var(Y) - 1.0))
    np.testing.assert_allclose(posterior.points["mu"], mean, atol=0.03)
    np.testing.assert_allclose(posterior.points["tau"], spread, atol=0.03)
    precision = 1.0 + spread**-2
    theta = posterior.sample(jax.random.key(2), (20_000,))["theta"]
    np.testing.assert_allclose(theta.mean(0), (Y + mean / spread**2) / precision, atol=0.05)
    np.testing.assert_allclose(theta.std(0), precision**-0.5, rtol=0.05)


def test_the_density_is_numpyros_at_any_values():
    target = fv.target(empirical_bayes, Y)
    for mu, tau in ((0.5, 1.0), (-2.0, 0.3)):
        at = target.at({"mu": jnp.array(mu), "tau": jnp.log(tau)})
        theta = jnp.linspace(-1.0, 1.0, 8)
        model = handlers.substitute(empirical_bayes, data={"mu": mu, "tau": tau})
        expected, _ = log_density(model, (Y,), {}, {"theta": theta})
        np.testing.assert_allclose(at.log_density({"theta": theta}), expected, rtol=1e-5)
        assert not at.points


def test_under_jit_vmap_and_grad():
    guide = fv.mean_field(fv.target(empirical_bayes, Y))
    loss = fv.negative_elbo(guide, num_samples=8)
    many = jax.vmap(guide.init)(jax.random.split(KEY, 3))
    values = jax.jit(jax.vmap(lambda p: loss(p, KEY)))(many)
    one = jax.tree.map(lambda x: x[1], many)
    np.testing.assert_allclose(values[1], loss(one, KEY), rtol=1e-5)
    slopes = jax.grad(loss)(one, KEY)
    assert all(jnp.any(g != 0) for g in jax.tree.leaves(slopes))
    assert set(jax.jit(guide)(one).sample(KEY)) == {"theta"}


def test_what_is_fitted_goes_on_to_inference_and_predictions():
    guide = fv.full_rank(fv.target(empirical_bayes, Y))
    posterior = guide(fitted(guide, 500).params)
    found, report = fv.infer(posterior.target, key=KEY)
    assert report.verdict == "reliable"
    assert np.isfinite(found.summary()["theta[0]"].mean)
    drawn = posterior.predict(empirical_bayes, size=8, key=KEY, num_samples=10)
    assert drawn["y"].shape == (10, 8)
    assert fv.diagnose(posterior, key=KEY).reliable


def test_draws_of_a_target_at_points_predict_at_these():
    def shifted(y=None):
        shift = numpyro.param("shift", 0.0)
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(a + shift, 0.1), obs=y)

    target = fv.target(shifted, 5.0).at({"shift": jnp.array(5.0)})
    posteriors = [
        fv.batch_and_match(target, key=KEY),
        fv.EmpiricalPosterior(target, jnp.zeros((10, 1))),
    ]
    for posterior in posteriors:  # without the points they would be around zero
        assert abs(posterior.predict(shifted, key=KEY)["y"].mean() - 5.0) < 0.1


def test_a_network_with_points_for_weights():
    nn = pytest.importorskip("flax.linen")
    from numpyro.contrib.module import flax_module

    x = jnp.linspace(-1.0, 1.0, 40)[:, None]

    def model(x, y=None):
        net = flax_module("net", nn.Dense(1), input_shape=(1,))
        noise = numpyro.sample("noise", dist.Gamma(2.0, 10.0))
        numpyro.sample("y", dist.Normal(net(x)[:, 0], noise), obs=y)

    y = 2.0 * x[:, 0] + 0.5 + 0.1 * jnp.sin(50.0 * x[:, 0])
    guide = fv.mean_field(fv.target(model, x, y))
    (weights,) = guide(fitted(guide, 2000).params).points.values()
    np.testing.assert_allclose(weights["kernel"], [[2.0]], atol=0.1)
    np.testing.assert_allclose(weights["bias"], [0.5], atol=0.1)


def test_a_network_whose_weights_have_priors_has_no_points():
    nn = pytest.importorskip("flax.linen")
    from numpyro.contrib.module import random_flax_module

    def model(x, y):
        prior = dist.Normal(0.0, 1.0)
        net = random_flax_module("net", nn.Dense(1), prior, input_shape=(1,))
        numpyro.sample("y", dist.Normal(net(x)[:, 0], 0.1), obs=y)

    target = fv.target(model, jnp.ones((5, 1)), jnp.ones(5))
    assert not target.points
    assert {name.split("/")[1] for name in target.shapes} == {"bias", "kernel"}


def test_what_cannot_learn_them_says_so():
    target = fv.target(empirical_bayes, Y)
    guide = fv.mean_field(target)
    with pytest.raises(ValueError, match=r"fv.infer learns no point parameters.*'mu'"):
        fv.infer(target, key=KEY)
    with pytest.raises(ValueError, match=r"fv.laplace learns no point parameters"):
        fv.laplace(target)
    with pytest.raises(ValueError, match=r"fv.forward_kl learns no point parameters"):
        fv.forward_kl(guide, num_samples=8)

    def below():
        numpyro.param("a", -1.0, constraint=constraints.positive)

    def outside():
        below()
        numpyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"'a' starts at -1.0, .* constraint, positive"):
        fv.target(outside)
    with pytest.raises(ValueError, match="latents"):
        guide(guide.init(KEY)["latents"])
    with pytest.raises(ValueError, match="no param site"):
        target.at({"nu": 1.0})
    with pytest.raises(ValueError, match="'mu' has the shapes"):
        target.at({"mu": jnp.zeros(3)})
    with pytest.raises(TypeError, match="save draws"):
        fv.save_posterior("unused", guide(guide.init(KEY)))
