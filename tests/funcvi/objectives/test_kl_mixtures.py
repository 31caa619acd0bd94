"""fv.kl of mixtures in every position, against quadrature and sums."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import torch.distributions as td
from scipy import stats

import funcvi as fv
from tests.funcvi.objectives.oracles import (
    KEY,
    assert_mean,
    differentiated,
    kl_by_quadrature,
    value_and_gradient,
)


def _two(weights, locs, scale=0.7):
    return dist.MixtureSameFamily(dist.Categorical(probs=weights), dist.Normal(locs, scale))


def _mixture_kl(weights, locs, p_loc, p_scale, scale=0.7):
    def log_q(x):
        parts = [
            np.log(w) + stats.norm.logpdf(x, m, scale) for w, m in zip(weights, locs, strict=True)
        ]
        return np.logaddexp.reduce(parts)

    return kl_by_quadrature(log_q, lambda x: stats.norm.logpdf(x, p_loc, p_scale), -25, 25)


WEIGHTS = np.array([0.2, 0.3, 0.5])
LOCS = np.arange(9.0).reshape(3, 3) / 3
P_LOCS = np.array([0.0, 1.0, 2.0])


@pytest.mark.parametrize("form", ["weights shared", "independent", "expanded", "masked"])
def test_batched_mixtures(form):
    # Three rows and three components: weights on the wrong axis would broadcast in silence.
    w, locs = jnp.asarray(WEIGHTS), jnp.asarray(LOCS)
    rows = [_mixture_kl(WEIGHTS, LOCS[i], P_LOCS[i], 2.0) for i in range(3)]
    p = dist.Normal(jnp.asarray(P_LOCS), 2.0)
    if form == "weights shared":
        q, exact = _two(w, locs), sum(rows)
    elif form == "independent":
        q, p, exact = _two(w, locs).to_event(1), p.to_event(1), sum(rows)
    elif form == "expanded":
        q = _two(w, locs[0]).expand([3])
        exact = sum(_mixture_kl(WEIGHTS, LOCS[0], m, 2.0) for m in P_LOCS)
    else:
        mask = jnp.array([True, False, True])
        q, exact = _two(w, locs).mask(mask), rows[0] + rows[2]
    keys = jax.random.split(KEY, 200)
    found = jax.jit(jax.vmap(lambda k: fv.kl(q, p, key=k, num_samples=20)))(keys)
    assert_mean(np.asarray(found, float), exact)


def test_a_mixture_of_vectors():
    weights, locs = np.array([0.4, 0.6]), np.array([[0.0, 1.0], [2.0, -1.0]])

    def q(t):
        return dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.stack([t[0], 1 - t[0]])),
            dist.MultivariateNormal(jnp.asarray(locs), jnp.eye(2)),
        )

    p = dist.MultivariateNormal(jnp.zeros(2), 4.0 * jnp.eye(2))
    values, gradients = value_and_gradient(q, lambda t: p, weights[:1], num_samples=50)

    # Rotated, the two means lie on one axis: along the other both are one normal, KL closed.
    gap = np.linalg.norm(locs[1] - locs[0])
    direction = (locs[1] - locs[0]) / gap
    along = locs @ direction
    across = locs[0] @ np.array([-direction[1], direction[0]])

    def exact(t):
        mixed = _mixture_kl([t[0], 1 - t[0]], along, 0.0, 2.0, scale=1.0)
        normal = td.kl_divergence(td.Normal(across, 1.0), td.Normal(0.0, 2.0)).item()
        return mixed + normal

    value, slope = differentiated(exact, weights[:1])
    assert_mean(values, value)
    assert_mean(gradients, slope)


def test_a_mixture_of_discrete_components_takes_the_score_function():
    k = np.arange(200)

    def exact(t):
        log_q = np.logaddexp(
            np.log(t[0]) + stats.poisson.logpmf(k, t[1]),
            np.log(1 - t[0]) + stats.poisson.logpmf(k, t[2]),
        )
        return np.sum(np.exp(log_q) * (log_q - stats.poisson.logpmf(k, 3.0)))

    theta = [0.3, 1.0, 5.0]
    values, gradients = value_and_gradient(
        lambda t: dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.stack([t[0], 1 - t[0]])), dist.Poisson(t[1:])
        ),
        lambda t: dist.Poisson(3.0),
        theta,
    )
    value, slope = differentiated(exact, theta)
    assert_mean(values, value)
    assert_mean(gradients, slope)
