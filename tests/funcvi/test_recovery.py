"""Flows and mixtures recover what no normal distribution can, to so many nats, both ways round.

KL(q || p) from draws of q, and KL(p || q) from exact draws of p, which sees missed modes and tails;
the targets are normalised. docs/posteriors.md has these figures.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

import funcvi as fv

KEY = jax.random.key(0)
NUM_DRAWS = 20_000


def banana(noise):
    return jnp.stack([noise[..., 0], noise[..., 0] ** 2 + 0.5 * noise[..., 1]], -1)


def log_banana(z):
    return dist.Normal(0.0, 1.0).log_prob(z[0]) + dist.Normal(z[0] ** 2, 0.5).log_prob(z[1])


def funnel(noise):
    """Neal 2003, doi:10.1214/aos/1056562461."""
    first = 3 * noise[..., :1]
    return jnp.concatenate([first, jnp.exp(first / 2) * noise[..., 1:]], -1)


def log_funnel(z):
    others = dist.Normal(0.0, jnp.exp(z[0] / 2)).log_prob(z[1:])
    return dist.Normal(0.0, 3.0).log_prob(z[0]) + others.sum()


TWO = dist.MixtureSameFamily(
    dist.Categorical(probs=jnp.array([0.3, 0.7])),
    dist.MultivariateNormal(
        jnp.array([[-2.0, -1.0], [2.0, 1.5]]),
        covariance_matrix=jnp.array([[[0.5, 0.3], [0.3, 0.4]], [[0.3, -0.2], [-0.2, 0.6]]]),
    ),
)


def target(log_density, size):
    return fv.target(lambda v: log_density(v["z"]), supports={"z": (constraints.real, (size,))})


def divergences(guide, start, log_density, exact, num_steps, rate, num_samples, estimator=None):
    """KL(q || p) and KL(p || q), and their standard errors."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, num_steps))
    )
    loss = fv.negative_elbo(guide, num_samples=num_samples, estimator=estimator)
    fit = fv.fit(loss, start, optimizer, key=KEY, num_steps=num_steps)

    @jax.jit
    def log_ratios(params):
        posterior = guide(params)
        values, log_q = posterior.sample_and_log_prob(jax.random.key(1), (NUM_DRAWS,))
        log_p = jax.vmap(log_density)
        return log_q - log_p(values["z"]), log_p(exact) - posterior.log_prob({"z": exact})

    ratios = np.asarray(log_ratios(fit.params), "float64")
    return ratios.mean(1), ratios.std(1) / np.sqrt(NUM_DRAWS)


FLOWS = {
    # What is bent, its size, the kind of flow, the nats allowed in both directions.
    "banana": (banana, log_banana, 2, "coupling", 0.01, 0.03),
    "funnel of two": (funnel, log_funnel, 2, "coupling", 0.005, 0.02),
    "funnel of five": (funnel, log_funnel, 5, "autoregressive", 0.02, 0.08),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_recovers_what_bends(name):
    of_noise, log_density, size, kind, most, most_forward = FLOWS[name]
    guide = fv.flow(target(log_density, size), kind=kind, scale=1.0)
    exact = of_noise(jax.random.normal(jax.random.key(2), (NUM_DRAWS, size)))
    start, estimator = guide.init(KEY), "sticking_the_landing"
    kl, error = divergences(guide, start, log_density, exact, 4000, 3e-3, 64, estimator)
    assert (kl > -4 * error).all()  # both densities are normalised
    assert kl[0] < most
    assert kl[1] < most_forward


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_recovers_two_modes_and_their_weights(seed):
    guide = fv.mixture(target(TWO.log_prob, 2), num_components=4)
    exact = fv.sample(TWO, jax.random.key(2), (NUM_DRAWS,))
    start = guide.init(jax.random.key(seed))
    kl, error = divergences(guide, start, TWO.log_prob, exact, 1500, 0.05, 8)
    assert (kl > -4 * error).all()
    assert (kl < 0.01).all()
