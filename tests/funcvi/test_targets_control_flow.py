"""Latents in scans and branches have the values that they are given, in their bodies too."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import log_density
from scipy import stats

import funcvi as fv

Y = jnp.array([1.0, 2.0, 0.5, 0.3])


def chain(y: Any) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))

    def step(z: Any, y: Any) -> Any:
        z = numpyro.sample("z", dist.Normal(z, scale))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        numpyro.factor("penalty", -jnp.abs(z))
        return z, numpyro.deterministic("square", z**2)

    scan(step, 0.0, y)


def constrained(y: Any) -> None:
    def step(z: Any, y: Any) -> Any:
        z = numpyro.sample("z", dist.LogNormal(jnp.log(z), 0.3))
        w = numpyro.sample("w", dist.TruncatedNormal(z, 1.0, low=z))
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)
        return z, w

    scan(step, 1.0, y)


def plates(y: Any) -> None:
    def step(z: Any, y: Any) -> Any:
        with numpyro.plate("n", 3):
            z = numpyro.sample("z", dist.Normal(z, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    scan(step, jnp.zeros(3), y)


def events(y: Any) -> None:
    def step(z: Any, y: Any) -> Any:
        z = numpyro.sample("z", dist.MultivariateNormal(z, jnp.eye(2)))
        p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
        numpyro.sample("y", dist.Normal(z.sum() + p[0], 1.0), obs=y)
        return z, None

    scan(step, jnp.zeros(2), y)


def branch(y: Any) -> None:
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))

    def latent(loc: Any, scale: float) -> Any:
        return lambda _: numpyro.sample("z", dist.Normal(loc, scale))

    z = cond(m > 0, latent(m, 1.0), latent(-m, 2.0), None)
    numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def branch_in_scan(y: Any) -> None:
    def step(z: Any, y: Any) -> Any:
        def latent(loc: Any, scale: float) -> Any:
            return lambda _: numpyro.sample("z", dist.Normal(loc, scale))

        z = cond(z > 0, latent(z, 1.0), latent(-z, 2.0), None)
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    scan(step, 0.1, y)


def reparameterised(y: Any) -> None:
    def step(z: Any, y: Any) -> Any:
        with handlers.reparam(config={"z": LocScaleReparam(0)}):
            z = numpyro.sample("z", dist.Normal(z, 2.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    scan(step, 0.0, y)


def scaled(y: Any) -> None:
    with handlers.scale(scale=3.0):
        chain(y)


def flat(y: Any) -> None:
    def step(z: Any, y: Any) -> Any:
        z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.positive, (), ()))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    scan(step, 1.0, y)


MODELS = {
    "chain": (chain, Y),
    "constrained": (constrained, Y),
    "plates": (plates, jnp.ones((4, 3))),
    "events": (events, Y),
    "branch": (branch, Y),
    "branch in scan": (branch_in_scan, Y),
    "reparameterised": (reparameterised, Y),
    "scaled": (scaled, Y),
    "flat": (flat, Y),
}


@pytest.mark.parametrize("name", MODELS)
def test_densities_are_those_of_numpyro(name: str) -> None:
    model, y = MODELS[name]
    target = fv.target(model, y)
    z = target.start(jax.random.key(3))
    values = {n: x for n, x in target.constrain(z).items() if n in target.shapes}
    seeded = handlers.seed(model, jax.random.key(0))
    exact, _ = log_density(seeded, (y,), {}, values)
    total = target.log_density(z)
    np.testing.assert_allclose(total - target.log_det(z), exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(target.log_density)(z), total, rtol=1e-5)
    for site, back in target.unconstrain(values).items():
        np.testing.assert_allclose(back, z[site], rtol=1e-4, atol=1e-5)
    assert not target.is_random


def test_the_gradient_of_a_chain_is_that_of_its_loop() -> None:
    """The case that was drawn from the prior."""

    def loop(z: Any) -> Any:
        before, total = 0.0, dist.HalfNormal(1.0).log_prob(1.0)
        for i, y in enumerate(Y):
            total += dist.Normal(before, 1.0).log_prob(z[i]) + dist.Normal(z[i], 1.0).log_prob(y)
            total -= jnp.abs(z[i])
            before = z[i]
        return total

    target = fv.target(chain, Y)
    scale = target.unconstrain({"scale": jnp.ones(()), "z": jnp.zeros(4)})["scale"]
    z = jnp.array([0.3, -0.2, 0.5, 1.0])
    ours = jax.grad(lambda z: target.log_density({"scale": scale, "z": z}))(z)
    np.testing.assert_allclose(ours, jax.grad(loop)(z), rtol=1e-5)
    square = target.constrain({"scale": scale, "z": z})["square"]
    np.testing.assert_allclose(square, z**2, rtol=1e-6)


def backwards(y: Any) -> None:
    def step(z: Any, y: Any) -> Any:
        z = numpyro.sample("z", dist.LogNormal(jnp.log(z), 0.5))
        w = cond(
            z > 1.0,
            lambda _: numpyro.sample("w", dist.Normal(z, 1.0)),
            lambda _: numpyro.sample("w", dist.Normal(-z, 2.0)),
            None,
        )
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)
        return z, None

    scan(step, 1.0, y, reverse=True)


def test_a_scan_that_runs_backwards_reports_in_the_order_of_its_data() -> None:
    """numpyro's own substitution gives the body the steps in the other order."""
    target = fv.target(backwards, Y)
    z, w = np.array([0.8, 1.2, 0.5, 1.5]), np.array([0.1, -0.4, 0.3, 0.9])
    exact, before = 0.0, 1.0
    for i in reversed(range(4)):
        exact += stats.lognorm.logpdf(z[i], 0.5, scale=before)
        exact += stats.norm.logpdf(w[i], *((z[i], 1.0) if z[i] > 1 else (-z[i], 2.0)))
        exact += stats.norm.logpdf(Y[i], w[i])
        before = z[i]
    sites = target.unconstrain({"z": jnp.asarray(z), "w": jnp.asarray(w)})
    total = target.log_density(sites) - target.log_det(sites)
    np.testing.assert_allclose(total, exact, rtol=1e-5)
    np.testing.assert_allclose(target.constrain(sites)["z"], z, rtol=1e-5)


def test_a_fit_of_a_chain_finds_the_smoothed_mean() -> None:
    def walk(y: Any) -> None:
        def step(z: Any, y: Any) -> Any:
            z = numpyro.sample("z", dist.Normal(z, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
            return z, None

        scan(step, 0.0, y)

    target = fv.target(walk, Y)
    precision = 3 * np.eye(4) - np.eye(4, k=1) - np.eye(4, k=-1)
    precision[-1, -1] = 2
    hessian = jax.hessian(lambda z: target.log_density({"z": z}))(jnp.zeros(4))
    np.testing.assert_allclose(-hessian, precision, atol=1e-5)
    guide = fv.laplace(target)
    posterior = guide(guide.init(jax.random.key(0)))
    draws = fv.sample(posterior, jax.random.key(1), (20_000,))["z"]
    np.testing.assert_allclose(draws.mean(0), np.linalg.solve(precision, Y), atol=0.03)


def nested(y: Any) -> None:
    def outer(z: Any, y: Any) -> Any:
        def inner(w: Any, _: Any) -> Any:
            w = numpyro.sample("w", dist.Normal(w, 1.0))
            return w, None

        w, _ = scan(inner, z, None, length=2)
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)
        return w, None

    scan(outer, 0.0, y)


def test_a_scan_within_a_scan_is_refused_by_the_site() -> None:
    target = fv.target(nested, Y)
    with pytest.raises(ValueError, match="latent site 'w' is in a scan within a scan"):
        target.log_density({"w": jnp.zeros((4, 2))})


def test_data_for_some_steps_is_refused() -> None:
    def model(y: Any) -> None:
        numpyro.sample("a", dist.Normal(0.0, 1.0))
        with handlers.condition(data={"z": jnp.array([0.1, 0.2])}):
            scan(lambda z, y: (numpyro.sample("z", dist.Normal(z, 1.0)), None), 0.0, y)

    with pytest.raises(ValueError, match="site 'z' is conditioned on 2 of its scan's 4 steps"):
        fv.target(model, Y)
