"""Derivatives of any order, whatever is around: JAX's loops lose the rules of jax.custom_jvp."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

import funcvi as fv
from funcvi.tangents import moved

KEY = jax.random.key(5)
POINT = jnp.array([0.3, 0.2])


def sine(x: Any) -> Any:
    """By a rule, of a value that stands still."""

    def rule(primals: Any, tangents: Any) -> Any:
        return jnp.cos(primals[1]) * tangents[1]

    return moved(rule, lax.stop_gradient(jnp.sin(x)), x)


AROUND: dict[str, Callable[[Any], Any]] = {
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "vmap": lambda f: lambda v: jax.vmap(f)(jnp.stack([v + 1, v]))[1],
    "vmap of one": lambda f: lambda v: jax.vmap(lambda x: f(jnp.stack([v[0], x])))(v)[1],
    "map": lambda f: lambda v: lax.map(f, jnp.stack([v + 1, v]))[1],
    "map of vmap": lambda f: lambda v: lax.map(jax.vmap(f), jnp.stack([v + 1, v])[None])[0, 1],
    "vmap of map": lambda f: lambda v: jax.vmap(lambda w: lax.map(f, w))(v[None, None])[0, 0],
    "scan": lambda f: lambda v: lax.scan(lambda c, x: (c, f(v + x)), 0.0, jnp.zeros(2))[1][1],
    "cond": lambda f: lambda v: lax.cond(v[0] < 9, f, lambda v: v[0] * 0, v),
}


@pytest.mark.parametrize("around", AROUND)
def test_orders_of_a_rule(around: str) -> None:
    f = AROUND[around](lambda v: sine(v[0]) ** 2 * v[1])
    exact = lambda v: jnp.sin(v[0]) ** 2 * v[1]  # noqa: E731
    derivatives = (
        *(lambda f: f, jax.grad, jax.jacfwd, jax.hessian),
        *(lambda f: jax.jacrev(jax.jacrev(f)), lambda f: jax.jacrev(jax.jacfwd(f))),
        *(lambda f: jax.jacfwd(jax.jacfwd(f)), lambda f: jax.jacrev(jax.hessian(f))),
    )
    for derivative in derivatives:
        np.testing.assert_allclose(derivative(f)(POINT), derivative(exact)(POINT), atol=1e-5)


KL: dict[str, Callable[[Any], Any]] = {
    "Gamma": lambda a, b: (dist.Gamma(a, b), dist.LogNormal(0.0, 1.0)),
    "Beta": lambda a, b: (dist.Beta(a, b), dist.Kumaraswamy(2.0, 2.0)),
    "StudentT": lambda a, b: (dist.StudentT(a + 2, 0.0, b), dist.Normal(0.0, 3.0)),
    "TruncatedNormal": lambda a, b: (dist.TruncatedNormal(a, b, low=0.0), dist.Gamma(2.0, 1.0)),
    "VonMises": lambda a, b: (dist.VonMises(0.1, a), dist.VonMises(1.0, b)),
    "Dirichlet": lambda a, b: (
        dist.Dirichlet(jnp.stack([a, b, a])),
        dist.TransformedDistribution(
            dist.Normal(0.0, 1.0).expand([2]).to_event(1),
            dist.transforms.StickBreakingTransform(),
        ),
    ),
    "mixture": lambda a, b: (
        dist.MixtureSameFamily(
            dist.Categorical(logits=jnp.stack([a, b])), dist.Normal(jnp.stack([a, -b]), b)
        ),
        dist.StudentT(3.0),
    ),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", KL)
def test_hessians_of_divergences_in_a_loop(name: str) -> None:
    def kl(v: Any) -> Any:
        q, p = KL[name](*jnp.exp(v))
        return fv.kl(q, p, key=KEY, num_samples=5, estimator="pathwise")

    exact = jax.jit(jax.hessian(kl))(POINT)
    found = jax.jit(jax.hessian(AROUND["map"](kl)))(POINT)
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4)


def test_refusals_in_a_loop() -> None:
    def folded(v: Any) -> Any:
        d = dist.FoldedDistribution(dist.Normal(v[0], jnp.exp(v[1])))
        return jnp.tanh(fv.sample(d, KEY, (3,))).sum()

    def bent(v: Any) -> Any:
        q = dist.Normal(v[0], jnp.exp(v[1]))
        return fv.kl(q, dist.Laplace(0.0, 1.0), key=KEY, estimator="pathwise")

    def scaled(v: Any) -> Any:
        return fv.importance_weighted_elbo(
            dist.Normal(v[0], jnp.exp(v[1])),
            dist.StudentT(3.0).log_prob,
            key=KEY,
            num_samples=4,
            estimator="doubly_reparameterised",
        )

    for f in (folded, bent, scaled):
        looped = AROUND["map"](f)
        assert np.isfinite(jax.grad(looped)(POINT)).all()
        with pytest.raises(ValueError, match="second derivative"):
            jax.hessian(looped)(POINT)
