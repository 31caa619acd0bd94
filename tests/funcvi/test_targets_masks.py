"""Masked latents: what a mask leaves free has a density of its own, or the model is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.infer.reparam import CircularReparam
from scipy import stats

import funcvi as fv

SEEN = jnp.array([True, False, True, False])


def missing(y: Any) -> None:
    m = numpyro.sample("m", dist.Normal(0.0, 3.0))
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.LogNormal(m, 0.5), obs=y, obs_mask=SEEN)


def test_missing_data_are_latents_and_those_seen_count_once() -> None:
    y = jnp.array([1.0, jnp.nan, 2.0, jnp.nan])
    target = fv.target(missing, jnp.where(SEEN, y, 1.0))
    z = {"m": jnp.array(0.3), "y_unobserved": jnp.array([0.1, -0.2, 0.4, 0.7])}
    exact = stats.norm.logpdf(0.3, 0, 3) + stats.lognorm.logpdf([1, 2], 0.5, scale=np.e**0.3).sum()
    free, latent = np.array([0.1, 0.4]), np.array([-0.2, 0.7])
    exact += stats.lognorm.logpdf(np.exp(latent), 0.5, scale=np.e**0.3).sum() + latent.sum()
    exact += stats.norm.logpdf(free).sum()
    np.testing.assert_allclose(target.log_density(z), exact, rtol=1e-5)
    values = target.constrain(z)
    np.testing.assert_allclose(values["y"], [1.0, np.exp(-0.2), 2.0, np.exp(0.7)], rtol=1e-5)
    np.testing.assert_allclose(values["y_unobserved"], np.exp(z["y_unobserved"]), rtol=1e-5)
    back = target.unconstrain({n: values[n] for n in z})
    np.testing.assert_allclose(back["y_unobserved"], z["y_unobserved"], rtol=1e-4, atol=1e-6)


def padded(y: Any, mask: Any) -> None:
    def step(z: Any, x: Any) -> Any:
        y, mask = x
        with handlers.mask(mask=mask):
            z = numpyro.sample("z", dist.Normal(z, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        return z, None

    scan(step, 0.0, (y, mask))


def test_a_padded_chain_has_the_evidence_of_the_short_one() -> None:
    y, mask = jnp.array([1.0, 2.0, 0.5, 9.0]), jnp.array([True, True, True, False])
    target, short = fv.target(padded, y, mask), fv.target(padded, y[:3], mask[:3])
    z = jnp.array([0.3, 0.2, -0.5, 1.7])
    exact = short.log_density({"z": z[:3]}) + stats.norm.logpdf(1.7)
    np.testing.assert_allclose(target.log_density({"z": z}), exact, rtol=1e-5)
    traced = jax.jit(lambda mask: fv.target(padded, y, mask).log_density({"z": z}))(mask)
    np.testing.assert_allclose(traced, exact, rtol=1e-5)


def bounded() -> None:
    """A support that moves, under the mask too."""
    width = numpyro.sample("width", dist.HalfNormal(1.0))
    mask = jnp.array([True, False])
    x = numpyro.sample("x", dist.Uniform(0.0, width * jnp.ones(2)).mask(mask).to_event(1))
    numpyro.sample("y", dist.Normal(jnp.where(mask, x, 0.0).sum(), 1.0), obs=1.0)


def test_bounds_that_move_do_not_count_under_a_mask() -> None:
    target = fv.target(bounded)
    z = {"width": jnp.array(0.2), "x": jnp.array([0.4, -0.7])}
    width, share = np.exp(0.2), 1 / (1 + np.exp(-0.4))
    exact = stats.halfnorm.logpdf(width) + 0.2 + stats.norm.logpdf(1.0, width * share)
    exact += -np.log(width) + np.log(width * share * (1 - share)) + stats.norm.logpdf(-0.7)
    np.testing.assert_allclose(target.log_density(z), exact, rtol=1e-5)


def test_a_guide_over_masked_entries_ends_normal_there() -> None:
    """They had no density: their scale grew for ever."""
    target = fv.target(bounded)
    guide = fv.mean_field(target)
    loss = fv.negative_elbo(guide)
    start = guide.init(jax.random.key(0))
    fit = fv.fit(loss, start, optax.adam(0.03), key=jax.random.key(1), num_steps=1000)
    posterior = guide(fit.params)
    z = posterior.unconstrained
    draws = fv.sample(z, jax.random.key(2), (4000,))["x"][:, 1]
    assert abs(float(draws.std()) - 1) < 0.15


def influence() -> None:
    x = numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).mask(jnp.array([True, False])))
    numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=1.0)


def inside() -> None:
    base = dist.Normal(jnp.zeros(2), 1.0).mask(jnp.array([True, False]))
    numpyro.sample("x", dist.TransformedDistribution(base, dist.transforms.ExpTransform()))


def circular() -> None:
    with handlers.reparam(config={"a": CircularReparam()}):
        a = numpyro.sample("a", dist.VonMises(0.0, 1.0))
    numpyro.sample("y", dist.Normal(jnp.cos(a), 1.0), obs=0.3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (influence, "the mask of latent site 'x' leaves entries without a prior"),
        (inside, "latent site 'x' has a mask inside its TransformedDistribution"),
        (circular, "latent site 'a_unwrapped' is of numpyro's CircularReparam"),
    ],
)
def test_what_has_no_density_is_refused(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fv.target(model)


def test_influence_is_refused_under_jit() -> None:
    def density(mask: Any) -> Any:
        def model() -> None:
            x = numpyro.sample("x", dist.Normal(jnp.zeros(2), 1.0).mask(mask))
            numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=1.0)

        return fv.target(model).log_density({"x": jnp.ones(2)})

    exact = 2 * stats.norm.logpdf(1) + stats.norm.logpdf(1, 2)
    np.testing.assert_allclose(jax.jit(density)(jnp.array([True, True])), exact, rtol=1e-5)
    raised = (ValueError, jax.errors.JaxRuntimeError)
    with pytest.raises(raised, match="leaves entries without a prior"):
        jax.jit(density)(jnp.array([True, False])).block_until_ready()


def test_flat_priors_have_the_density_of_the_data_alone() -> None:
    def model(y: Any) -> None:
        scale = numpyro.sample("scale", dist.ImproperUniform(constraints.positive, (), ()))
        flat = dist.ImproperUniform(constraints.ordered_vector, (), (3,)).expand((2,))
        ordered = numpyro.sample("ordered", flat)
        numpyro.sample("y", dist.Normal(ordered.sum(), scale), obs=y)

    y = jnp.arange(3.0)
    target = fv.target(model, y)
    z = target.start(jax.random.key(0))
    values = target.constrain(z)
    assert np.all(np.diff(values["ordered"]) > 0)
    exact = stats.norm.logpdf(y, values["ordered"].sum(), values["scale"]).sum()
    np.testing.assert_allclose(target.log_density(z) - target.log_det(z), exact, rtol=1e-5)


def test_a_vague_prior_whose_draws_overflow_is_no_obstacle() -> None:
    """The model was run with draws of its priors, and numpyro refused what came of them."""

    def model(y: Any) -> None:
        variance = numpyro.sample("variance", dist.InverseGamma(0.001, 0.001))
        x = numpyro.sample("x", dist.Normal(0.0, jnp.sqrt(variance)).expand((3,)).to_event(1))
        numpyro.sample("y", dist.Binomial(10, logits=x).to_event(1), obs=y)

    target = fv.target(model, jnp.array([3, 4, 5]))
    assert np.isfinite(target.log_density({"variance": jnp.zeros(()), "x": jnp.ones(3)}))
