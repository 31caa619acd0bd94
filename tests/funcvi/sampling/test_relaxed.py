"""Relaxed and straight-through one-hot samples."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import torch

import funcvi as fv

KEY = jax.random.key(0)
PROBS = jnp.array([0.2, 0.3, 0.5])
FINITE = {
    "categorical": (dist.Categorical(probs=PROBS), PROBS),
    "logits": (dist.Categorical(logits=jnp.log(PROBS) + 3), PROBS),
    "bernoulli": (dist.Bernoulli(probs=0.3), [0.7, 0.3]),
    "bernoulli logits": (dist.Bernoulli(logits=0.0), [0.5, 0.5]),
    "binomial": (dist.Binomial(2, 0.5), [0.25, 0.5, 0.25]),
    "uniform": (dist.DiscreteUniform(2, 5), [0.25] * 4),
    "batch": (dist.Bernoulli(probs=jnp.array([0.3, 0.9])), [[0.7, 0.3], [0.1, 0.9]]),
    "event": (dist.Bernoulli(probs=0.3).expand((2,)).to_event(1), [[0.7, 0.3]] * 2),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", FINITE)
def test_straight_through_follows_the_distribution(name):
    d, probs = FINITE[name]
    x = fv.straight_through_one_hot(d, KEY, (20_000,), temperature=0.5)
    assert x.shape == (20_000, *np.shape(probs))
    assert set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_array_equal(x.sum(-1), 1)
    np.testing.assert_allclose(x.mean(0), probs, atol=4 * 0.5 / np.sqrt(20_000))


@pytest.mark.parametrize("name", FINITE)
def test_relaxed_is_on_the_simplex_and_its_largest_follows_the_distribution(name):
    d, probs = FINITE[name]
    x = fv.relaxed_one_hot(d, KEY, (20_000,), temperature=0.5)
    np.testing.assert_allclose(x.sum(-1), 1, rtol=1e-5)
    assert ((x > 0.01) & (x < 0.99)).any()
    largest = jax.nn.one_hot(jnp.argmax(x, -1), x.shape[-1]).mean(0)
    np.testing.assert_allclose(largest, probs, atol=4 * 0.5 / np.sqrt(20_000))


def test_density_is_torchs():
    """Mean log density of our draws under torch's concrete distribution, against torch's draws."""
    law = torch.distributions.RelaxedOneHotCategorical(
        torch.tensor(0.7), probs=torch.tensor(np.asarray(PROBS))
    )
    mine = torch.tensor(
        np.asarray(fv.relaxed_one_hot(FINITE["categorical"][0], KEY, (20_000,), temperature=0.7))
    )
    torch.manual_seed(0)
    a, b = (law.log_prob(x.clamp(1e-20)).double() for x in (mine, law.sample((20_000,))))
    error = float(((a.var() + b.var()) / 20_000).sqrt())
    assert abs(float(a.mean() - b.mean())) < 4 * error


def test_relaxed_gradient_is_the_derivative():
    """Of the expectation over the relaxed law, by common noise and central differences."""

    def f(logits):
        x = fv.relaxed_one_hot(dist.Categorical(logits=logits), KEY, (2000,), temperature=0.8)
        return jnp.mean(jnp.sin(x @ jnp.array([1.0, -2.0, 3.0])))

    with jax.enable_x64(True):
        logits = jnp.log(PROBS).astype(jnp.float64)
        slope, h = jax.jit(jax.grad(f))(logits), 1e-5
        for i in range(3):
            step = h * jnp.eye(3)[i]
            difference = float(f(logits + step) - f(logits - step)) / (2 * h)
            assert float(slope[i]) == pytest.approx(difference, abs=1e-7)


def test_straight_through_gradient_is_the_relaxed_one():
    weights = jnp.array([1.0, -2.0, 3.0])

    def mean(sampler, logits):
        return (
            sampler(dist.Categorical(logits=logits), KEY, (50,), temperature=0.8) @ weights
        ).mean()

    logits = jnp.log(PROBS)
    np.testing.assert_allclose(
        jax.grad(lambda x: mean(fv.straight_through_one_hot, x))(logits),
        jax.grad(lambda x: mean(fv.relaxed_one_hot, x))(logits),
        rtol=1e-6,
    )


def test_low_temperature_is_the_one_hot():
    d = FINITE["categorical"][0]
    cold = fv.relaxed_one_hot(d, KEY, (100,), temperature=1e-4)
    hard = fv.straight_through_one_hot(d, KEY, (100,), temperature=1.0)
    assert (np.abs(cold - hard).max(-1) < 1e-3).mean() > 0.97


def test_a_value_of_probability_zero_is_never_drawn_and_has_no_nan():
    def f(logits):
        x = fv.straight_through_one_hot(
            dist.Categorical(logits=logits, validate_args=False),
            KEY,
            (500,),
            temperature=1.0,
        )
        return x[:, 0].mean(), x

    (slope, x) = jax.grad(f, has_aux=True)(jnp.array([0.0, -jnp.inf, 1.0]))
    assert np.isfinite(slope).all()
    assert x[:, 1].max() == 0


def test_nan_stays_in_its_row():
    logits = jnp.array([[0.0, 1.0], [jnp.nan, 0.0]])
    d = dist.Categorical(logits=logits, validate_args=False)
    for sampler in (fv.relaxed_one_hot, fv.straight_through_one_hot):
        x = sampler(d, KEY, temperature=1.0)
        np.testing.assert_array_equal(np.isnan(x).any(-1), [False, True])


def test_vmap_and_traced_temperature():
    d = FINITE["categorical"][0]
    draw = jax.jit(lambda key, t: fv.relaxed_one_hot(d, key, (4,), temperature=t))
    assert jax.vmap(draw)(jax.random.split(KEY, 3), jnp.array([0.5, 1.0, 2.0])).shape == (3, 4, 3)
    each = fv.relaxed_one_hot(FINITE["batch"][0], KEY, temperature=jnp.array([1e-4, 10.0]))
    assert each[0].max() > 0.99
    assert each[1].max() < 0.9


@pytest.mark.parametrize("d", [dist.Poisson(2.0), dist.Normal(), dist.Geometric(0.5)])
def test_without_a_finite_support(d):
    with pytest.raises(TypeError, match="finite support, got"):
        fv.relaxed_one_hot(d, KEY, temperature=1.0)


def test_vector_events_and_traced_counts():
    with pytest.raises(TypeError, match=r"finite support|scalar events"):
        fv.relaxed_one_hot(dist.Multinomial(3, PROBS), KEY, temperature=1.0)
    with pytest.raises(TypeError, match="make its count a Python integer"):
        jax.jit(lambda n: fv.relaxed_one_hot(dist.Binomial(n, 0.5), KEY, temperature=1.0))(3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.array([1.0, np.nan])])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        fv.relaxed_one_hot(FINITE["batch"][0], KEY, temperature=temperature)
