"""Expectations against closed forms: exact sums, draws, and gradients of both."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import funcvi as fv

KEY = jax.random.key(9)
LAYERS = jnp.array([0.7, -1.2, 1.6])


def test_a_distribution_over_depth_trains_its_layers_and_itself():
    """Under every depth's loss the exact sum, against sums written out."""
    target = 0.5

    def losses(layers, x):
        outputs = [x]
        for layer in layers:
            outputs.append(jnp.tanh(layer * outputs[-1]))
        return (jnp.stack(outputs) - target) ** 2

    def loss(params):
        q = dist.Categorical(logits=params["logits"])
        each = losses(params["layers"], 2.0)
        return fv.expectation(q, lambda depth: each[depth]) + fv.kl(
            q, dist.Categorical(jnp.ones(4) / 4)
        )

    params = {"logits": jnp.array([0.1, 0.5, -0.3, 0.0]), "layers": LAYERS}
    found, slopes = jax.jit(jax.value_and_grad(loss))(params)

    def by_hand(params):
        p = jax.nn.softmax(params["logits"])
        return jnp.sum(p * losses(params["layers"], 2.0)) + jnp.sum(p * jnp.log(4 * p))

    value, expected = jax.value_and_grad(by_hand)(params)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    for name in params:
        np.testing.assert_allclose(slopes[name], expected[name], atol=1e-6)
    # Gradient descent finds the best depth's share: q is proportional to exp(-loss).
    start = {"logits": jnp.zeros(4), "layers": LAYERS}
    step = jax.jit(lambda p: {**p, "logits": p["logits"] - 0.5 * jax.grad(loss)(p)["logits"]})
    for _ in range(300):
        start = step(start)
    best = jax.nn.softmax(-losses(LAYERS, 2.0))
    np.testing.assert_allclose(jax.nn.softmax(start["logits"]), best, atol=1e-4)


CASES = {
    # q of theta, f, the exact expectation
    "normal": (lambda t: dist.Normal(t, 1.0), lambda x: x**2, lambda t: t**2 + 1),
    "gamma": (lambda t: dist.Gamma(t, 2.0), lambda x: x, lambda t: t / 2),
    "bernoulli": (lambda t: dist.Bernoulli(t), lambda x: 3.0 * x + 1, lambda t: 3 * t + 1),
    "poisson": (lambda t: dist.Poisson(t), lambda x: x**2 * 1.0, lambda t: t**2 + t),
    "scored": (lambda t: dist.Normal(t, 1.0), lambda x: x**2, lambda t: t**2 + 1),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_unbiased(name):
    q, f, exact = CASES[name]
    theta = 0.6
    estimator = "score_function" if name == "scored" else None

    def one(theta, key):
        return fv.expectation(q(theta), f, key=key, num_samples=40, estimator=estimator)

    keys = jax.random.split(KEY, 2000)
    found = jax.jit(jax.vmap(jax.value_and_grad(one), (None, 0)))(theta, keys)
    for draws, expected in zip(found, jax.value_and_grad(exact)(theta), strict=True):
        error = 5 * np.std(draws) / np.sqrt(len(keys)) + 1e-5
        assert abs(np.mean(np.asarray(draws, np.float64)) - expected) < error


def test_batches_events_and_float64():
    with jax.enable_x64(True):
        q = dist.Dirichlet(jnp.ones((5, 3)))
        found = fv.expectation(q, lambda x: x[..., 0], key=KEY, num_samples=4000)
        assert found.shape == (5,)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, 1 / 3, atol=0.03)
        q = dist.Categorical(logits=jnp.array([[0.0, -1e4], [0.0, 0.0]]))
        found = fv.expectation(q, lambda x: jnp.array([2.0, jnp.inf])[x])
        assert list(found) == [2.0, jnp.inf]  # what cannot happen does not count


@pytest.mark.parametrize(
    ("q", "options", "message"),
    [
        (dist.Normal(0.0, 1.0), {}, "pass key="),
        (dist.Bernoulli(0.3), {"estimator": "pathwise", "key": KEY}, "zero or biased"),
        (dist.Normal(0.0, 1.0), {"estimator": "enumeration"}, "no small finite support"),
        (dist.Poisson(2.0), {"key": KEY, "num_samples": 1}, "num_samples >= 2"),
        (dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(1), {"key": KEY}, "sum over the other axes"),
        (dist.Normal(0.0, 1.0), {"estimator": "other"}, "enumeration"),
    ],
)
def test_refusals(q, options, message):
    with pytest.raises(ValueError, match=message):
        fv.expectation(q, lambda x: x * 1.0, **options)
