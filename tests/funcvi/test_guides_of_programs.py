"""Guides that are numpyro programs: their own ELBO, from numpyro, is the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer import Trace_ELBO, autoguide

import funcvi as fv

KEY = jax.random.key(0)
Y = jnp.array([1.2, 0.3, 2.1, 1.7])


def model(y):
    scale = numpyro.sample("scale", dist.Gamma(2.0, 2.0))
    with numpyro.plate("rows", 2):
        mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    numpyro.deterministic("sum", mean.sum())
    numpyro.sample("y", dist.Normal(mean.sum(), scale), obs=y)


def structured(y):
    shape = numpyro.param("shape", 3.0, constraint=constraints.positive)
    rate = numpyro.param("rate", 2.0, constraint=constraints.positive)
    scale = numpyro.sample("scale", dist.Gamma(shape, rate))
    loc = numpyro.param("loc", jnp.array([0.3, 0.6]))
    with numpyro.plate("rows", 2):
        numpyro.sample("mean", dist.Normal(loc * scale, 0.5 * scale))


AUTO = {
    "AutoNormal": autoguide.AutoNormal,
    "AutoDiagonalNormal": autoguide.AutoDiagonalNormal,
    "AutoMultivariateNormal": autoguide.AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": autoguide.AutoLowRankMultivariateNormal,
    "AutoIAFNormal": autoguide.AutoIAFNormal,
    "AutoBNAFNormal": autoguide.AutoBNAFNormal,
    "AutoDelta": autoguide.AutoDelta,
}


def program(name):
    return structured if name == "structured" else AUTO[name](model)


@pytest.mark.parametrize("name", ["structured", *AUTO])
def test_the_bound_is_numpyros(name):
    guide_of_numpyro = program(name)
    guide = fv.guide(fv.target(model, Y), guide_of_numpyro, spread=0.0)
    params = guide.init(KEY)
    ours = fv.negative_elbo(guide, num_samples=4000, estimator="pathwise")(params, KEY)
    trace = handlers.trace(handlers.seed(guide_of_numpyro, 0)).get_trace(Y)
    values = {}
    for site, x in params.items():
        support = trace[site]["kwargs"].get("constraint", constraints.real)
        values[site] = jax.tree.map(fv.bijection_for(support), x)
    theirs = [
        Trace_ELBO(num_particles=4000).loss(jax.random.key(i), values, model, guide_of_numpyro, Y)
        for i in range(4)
    ]
    spread = max(float(np.std(theirs)), 1e-5 * abs(float(np.mean(theirs))))
    assert abs(float(ours) - np.mean(theirs)) < 6 * spread


@pytest.mark.parametrize("name", ["structured", "AutoNormal", "AutoMultivariateNormal"])
def test_they_are_fitted_and_sampled_like_others(name):
    guide = fv.guide(fv.target(model, Y), program(name), spread=0.0)
    loss = fv.negative_elbo(guide, num_samples=8)
    fit = fv.fit(loss, guide.init(KEY), optax.adam(0.02), key=KEY, num_steps=3000)
    assert fit.losses[-500:].mean() < fit.losses[:50].mean() - 0.5
    drawn = fv.sample(guide(fit.params), jax.random.key(1), (4000,))
    assert {n: x.shape for n, x in drawn.items()} == {
        "scale": (4000,), "mean": (4000, 2), "sum": (4000,)
    }  # fmt: skip
    if name != "structured":  # which is a poor fit
        assert abs(float(drawn["sum"].mean()) - float(Y.mean())) < 0.2
        exact, _ = fv.infer(fv.target(model, Y), key=KEY)
        expected = exact.summary()["scale"].mean
        np.testing.assert_allclose(drawn["scale"].mean(), expected, rtol=0.2)


def test_densities_of_values_by_site():
    guide = fv.guide(fv.target(model, Y), structured, spread=0.0)
    posterior = guide(guide.init(KEY))
    values, log_q = posterior.sample_and_log_prob(KEY, (5,))
    expected = dist.Gamma(3.0, 2.0).log_prob(values["scale"]) + dist.Normal(
        jnp.array([0.3, 0.6]) * values["scale"][:, None], 0.5 * values["scale"][:, None]
    ).log_prob(values["mean"]).sum(-1)
    np.testing.assert_allclose(log_q, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(posterior.log_prob(values), expected, rtol=1e-4, atol=1e-4)


def test_under_jit_and_vmap():
    guide = fv.guide(fv.target(model, Y), structured)
    loss = fv.negative_elbo(guide, num_samples=8)
    many = jax.vmap(guide.init)(jax.random.split(KEY, 3))
    assert len(np.unique(np.asarray(many["shape"]))) == 3  # other keys start elsewhere
    values = jax.jit(jax.vmap(lambda p: loss(p, KEY)))(many)
    one = jax.tree.map(lambda x: x[2], many)
    np.testing.assert_allclose(values[2], loss(one, KEY), rtol=1e-5)


def test_gradients_are_right_or_refused():
    def folded(y):
        loc = numpyro.param("loc", 0.3)
        numpyro.sample("scale", dist.Gamma(2.0, 2.0))
        with numpyro.plate("rows", 2):
            mixing = dist.Categorical(logits=jnp.array([loc, 0.0]))
            parts = dist.Normal(jnp.array([-1.0, 1.0]), 1.0)
            numpyro.sample("mean", dist.MixtureSameFamily(mixing, parts))

    guide = fv.guide(fv.target(model, Y), folded, spread=0.0)

    def mean(params, key):
        z, _ = guide(params).sample_unconstrained(key, (200_000,))
        return z["mean"][:, 0].mean()

    slope = jax.grad(mean)(guide.init(KEY), KEY)["loc"]
    share = jax.nn.sigmoid(0.3)
    np.testing.assert_allclose(slope, -2 * share * (1 - share), rtol=0.05)  # numpyro's own is 0


def test_what_does_not_fit_is_refused():
    target = fv.target(model, Y)

    def short(y):
        numpyro.sample("scale", dist.Gamma(2.0, 2.0))

    def long(y):
        structured(y)
        numpyro.sample("extra", dist.Normal(0.0, 1.0))

    def learned(y):
        shape = numpyro.param("shape", 2.0, constraint=constraints.positive)
        scale = numpyro.sample("scale", dist.Gamma(shape, 2.0))
        with numpyro.plate("rows", 2):
            mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal(mean.sum(), scale), obs=y)

    with pytest.raises(ValueError, match="'shape' is in the model and in its numpyro guide"):
        fv.guide(fv.target(learned, Y), structured)
    with pytest.raises(ValueError, match=r"does not sample \['mean'\]"):
        fv.guide(target, short)
    with pytest.raises(ValueError, match="'extra', which is no latent site"):
        fv.guide(target, long)
    with pytest.raises(TypeError, match=r"this target is no model.s"):
        fv.guide(fv.target(lambda v: -(v["a"] ** 2), supports={"a": constraints.real}), structured)
    guide = fv.guide(target, autoguide.AutoDiagonalNormal(model), spread=0.0)
    posterior = guide(guide.init(KEY))
    with pytest.raises(TypeError, match="_auto_latent"):
        posterior.log_prob(posterior.sample(KEY))
    with pytest.raises(TypeError, match=r"fv.guide\(fv.target"):
        fv.negative_elbo(autoguide.AutoNormal(model))


def bounded(y):
    scale = numpyro.sample("scale", dist.Gamma(2.0, 2.0))
    share = numpyro.sample("share", dist.Uniform(0.0, scale))
    simplex = numpyro.sample("simplex", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("y", dist.Normal(share * simplex[0], scale), obs=y)


def guide_of_bounded(**sites):
    inside = {
        "scale": lambda values: dist.Gamma(numpyro.param("shape", 2.0), 2.0),
        "share": lambda values: dist.Uniform(0.0, values["scale"]),
        "simplex": lambda values: dist.Dirichlet(2.0 * jnp.ones(3)),
    } | sites

    def program(y):
        values = {}
        for name, q in inside.items():
            values[name] = numpyro.sample(name, q(values))

    return fv.guide(fv.target(bounded, Y), program, spread=0.0)


def test_supports_inside_the_models_are_taken():
    for sites in [
        {},
        {"scale": lambda values: dist.Uniform(0.5, 1.0)},
        {"scale": lambda values: dist.LogNormal(0.0, 1.0)},
        {"share": lambda values: dist.TransformedDistribution(
            dist.Beta(2.0, 2.0), dist.transforms.AffineTransform(0.0, 0.9 * values["scale"]))},
    ]:  # fmt: skip
        guide = guide_of_bounded(**sites)
        assert np.isfinite(fv.negative_elbo(guide)(guide.init(KEY), KEY))


@pytest.mark.parametrize(
    ("site", "q", "words"),
    [
        ("scale", dist.Normal(1.0, 1.0), "a Normal, of support real, where .* is positive"),
        ("scale", dist.Uniform(-1.0, 1.0), r"a Uniform, of support interval\(-1, 1\)"),
        ("scale", dist.Poisson(2.0), "a Poisson, which is discrete"),
        ("simplex", dist.LogNormal(jnp.zeros(3), 1.0).to_event(1), "a LogNormal, .* is simplex"),
    ],
)  # fmt: skip
def test_a_support_wider_than_the_models_is_refused(site, q, words):
    # It gave NaN, in silence.
    with pytest.raises(ValueError, match=f"the numpyro guide samples '{site}' from {words}"):
        guide_of_bounded(**{site: lambda values: q})


def test_draws_outside_of_a_support_that_moves_are_refused():
    wide = dist.TransformedDistribution(dist.Beta(2.0, 2.0), dist.transforms.AffineTransform(0, -3))
    for site, q in [("share", lambda values: dist.Gamma(9.0, 1.0)),
                    ("share", lambda values: dist.Uniform(0.0, 3.0 * values["scale"])),
                    ("scale", lambda values: wide)]:  # fmt: skip
        guide = guide_of_bounded(**{site: q})
        words = f"the numpyro guide samples '{site}' from values outside of the model's support"
        for loss in (fv.negative_elbo(guide), jax.jit(fv.negative_elbo(guide))):
            with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=words):
                jax.block_until_ready(loss(guide.init(KEY), KEY))
