"""The importance-weighted bound against a model whose evidence is known, and torch's gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import torch

import funcvi as fv

KEY = jax.random.key(5)
X = jnp.array([-1.0, 0.3, 2.0])
EVIDENCE = dist.Normal(0.0, jnp.sqrt(2.0)).log_prob(X).sum()  # of z ~ N(0, 1), x ~ N(z, 1)


def encode(params):
    """A posterior off the exact one, N(x / 2, 1 / 2)."""
    return dist.Normal(params["slope"] * X, jnp.exp(params["log_scale"]))


def loss(params, key, num_samples, estimator="doubly_reparameterised"):
    def log_joint(z):
        return dist.Normal(params["prior"], 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(X)

    return -fv.importance_weighted_elbo(
        encode(params), log_joint, key=key, num_samples=num_samples, estimator=estimator
    )


PARAMS = {"slope": jnp.array(0.2), "log_scale": jnp.array(-0.2), "prior": jnp.array(0.0)}


def gradients(num_samples, estimator, evaluations=4000):
    each = jax.vmap(jax.grad(loss), (None, 0, None, None))
    keys = jax.random.split(KEY, evaluations)
    found = jax.jit(each, static_argnums=(2, 3))(PARAMS, keys, num_samples, estimator)
    return {name: np.asarray(x, np.float64) for name, x in found.items()}


def test_the_bound_tightens_towards_the_evidence():
    keys = jax.random.split(KEY, 2000)
    values = [
        float(jax.jit(jax.vmap(lambda k, n=n: loss(PARAMS, k, n)))(keys).mean())
        for n in (1, 4, 16, 256)
    ]
    assert values == sorted(values, reverse=True)
    q = encode(PARAMS)
    elbo = fv.kl(q, dist.Normal(0.0, 1.0)) - jnp.sum(
        dist.Normal(X, 1.0).log_prob(q.loc) - q.scale**2 / 2
    )
    assert abs(values[0] - float(elbo)) < 0.15  # one draw: the negative ELBO, 5 standard errors
    assert abs(values[-1] + float(EVIDENCE)) < 0.01


def test_the_exact_posterior_gives_the_evidence_at_any_number_of_draws():
    exact = {**PARAMS, "slope": jnp.array(0.5), "log_scale": jnp.log(jnp.sqrt(0.5))}
    value, slope = jax.value_and_grad(loss)(exact, KEY, 3)
    np.testing.assert_allclose(value, -EVIDENCE, rtol=1e-6)
    np.testing.assert_allclose([slope["slope"], slope["log_scale"]], 0.0, atol=1e-6)


@pytest.mark.parametrize("num_samples", [1, 3, 20])
def test_both_estimators_have_the_same_mean(num_samples):
    doubly, plain = (
        gradients(num_samples, "doubly_reparameterised"),
        gradients(num_samples, "pathwise"),
    )
    for name in PARAMS:
        gap = doubly[name].mean() - plain[name].mean()
        error = np.sqrt((doubly[name].var() + plain[name].var()) / len(plain[name]))
        assert abs(gap) < 5 * error + 1e-6, name


def test_many_draws_do_not_drown_the_gradient():
    doubly, plain = gradients(64, "doubly_reparameterised"), gradients(64, "pathwise")
    for name in ("slope", "log_scale"):
        assert doubly[name].var() < plain[name].var() / 4, name


def test_the_pathwise_gradient_is_torchs_for_the_same_noise():
    draws = fv.sample(encode(PARAMS), KEY, (6,))
    noise = torch.tensor(np.asarray((draws - encode(PARAMS).loc) / encode(PARAMS).scale))
    slope, log_scale = (
        torch.tensor(float(PARAMS[n]), requires_grad=True) for n in ("slope", "log_scale")
    )
    x = torch.tensor(np.asarray(X))
    q = torch.distributions.Normal(slope * x, log_scale.exp())
    z = q.loc + q.scale * noise
    log_p = torch.distributions.Normal(0, 1).log_prob(z) + torch.distributions.Normal(
        z, 1
    ).log_prob(x)
    value = -(torch.logsumexp(log_p - q.log_prob(z), 0) - np.log(6)).sum()
    value.backward()
    ours, slopes = jax.value_and_grad(loss)(PARAMS, KEY, 6, "pathwise")
    np.testing.assert_allclose(ours, value.item(), rtol=1e-5)
    np.testing.assert_allclose(slopes["slope"], slope.grad.item(), rtol=1e-4)
    np.testing.assert_allclose(slopes["log_scale"], log_scale.grad.item(), rtol=1e-4)


@pytest.mark.slow
def test_joints_events_and_float64():
    with jax.enable_x64(True):
        q = {
            "a": dist.Gamma(jnp.full(4, 2.0), 1.0),
            "b": dist.Normal(jnp.zeros((4, 3)), 1.0).to_event(1),
        }

        def log_joint(z):
            return dist.Gamma(2.0, 1.0).log_prob(z["a"]) + dist.Normal(0.0, 1.0).log_prob(
                z["b"]
            ).sum(-1)

        value = fv.importance_weighted_elbo(q, log_joint, key=KEY, num_samples=5)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("q", "options", "message"),
    [
        (dist.Bernoulli(0.3), {"estimator": "pathwise"}, "zero or biased.*score_function"),
        ({"a": dist.Bernoulli(0.3)}, {"estimator": "pathwise"}, r"q\['a'\] = BernoulliProbs"),
        ({"a": dist.Normal(), "b": dist.Normal(jnp.zeros(3))}, {}, "must have one batch shape"),
        ({}, {}, "q is an empty joint"),
        (dist.Normal(0.0, 1.0), {"num_samples": 0}, "positive integer"),
        (dist.Normal(0.0, 1.0), {"estimator": "other"}, "doubly_reparameterised"),
        (dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(1), {}, "sum over the other axes"),
    ],
)
def test_refusals(q, options, message):
    with pytest.raises(ValueError, match="(?s)" + message):
        fv.importance_weighted_elbo(
            q, lambda z: jax.tree.leaves(z)[0] * 1.0, key=KEY, **{"num_samples": 3, **options}
        )
