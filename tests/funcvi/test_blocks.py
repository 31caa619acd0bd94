"""Blocks of sites, mixtures, and the way back from a posterior to the params of a guide."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

import funcvi as fv
from tests.funcvi.guide_catalogue import BANANA, CORRELATED, COVARIANCE, KEY, MEAN, TWO_MODES

PRECISION = np.linalg.inv(COVARIANCE)


def fitted(guide, steps=1500):
    loss = fv.negative_elbo(guide, num_samples=16, estimator="sticking_the_landing")
    schedule = optax.cosine_decay_schedule(0.05, steps)
    fit = fv.fit(loss, guide.init(KEY), optax.adam(schedule), key=KEY, num_steps=steps)
    return guide(fit.params)


# ---- blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "structure", [[["pair"], "one"], {("one",): fv.full_rank, "pair": fv.full_rank}]
)
def test_each_block_is_the_best_normal_given_that_they_are_independent(structure):
    # Of a normal target it has the precision's own block: Bishop 2006, section 10.1.2.
    q = fitted(fv.blocks(CORRELATED, structure)).unconstrained
    assert set(q) == {"pair", "one"}
    np.testing.assert_allclose(q["pair"].mean, MEAN[:2], atol=1e-2)
    best = np.linalg.inv(PRECISION[:2, :2])
    np.testing.assert_allclose(q["pair"].covariance_matrix, best, rtol=0.03, atol=1e-3)
    np.testing.assert_allclose(q["one"].variance, [1 / PRECISION[2, 2]], rtol=0.03)


def test_one_block_of_all_sites_is_full_rank_in_any_order():
    guide = fv.blocks(CORRELATED, [["one", "pair"]])
    posterior = fitted(guide)
    q = posterior.unconstrained["one, pair"]
    order = [2, 0, 1]
    np.testing.assert_allclose(q.covariance_matrix, COVARIANCE[np.ix_(order, order)], atol=1e-2)
    draws = fv.sample(posterior, KEY, (20_000,))
    vector = np.concatenate([draws["pair"], draws["one"][:, None]], 1)
    np.testing.assert_allclose(np.cov(vector.T), COVARIANCE, atol=0.05)
    marginals = posterior.marginals()
    assert list(marginals) == ["pair", "one"]
    np.testing.assert_allclose(marginals["pair"].loc, MEAN[:2], atol=1e-2)
    np.testing.assert_allclose(marginals["one"].scale ** 2, COVARIANCE[2, 2], atol=1e-2)


def test_the_density_is_the_product_of_the_blocks():
    guide = fv.blocks(TWO_MODES, {"a": fv.mean_field, "b": fv.full_rank})
    posterior = guide(guide.init(KEY))
    values, log_q = posterior.sample_and_log_prob(KEY, (6,))
    q = posterior.unconstrained
    z = fv.bijection_for(constraints.positive).inv(values["b"])
    exact = q["a"].log_prob(values["a"]) + q["b"].log_prob(z[:, None]) - jnp.log(values["b"])
    slope = jax.vmap(jax.grad(fv.bijection_for(constraints.positive)))(z)
    exact = exact + jnp.log(values["b"]) - jnp.log(slope)
    np.testing.assert_allclose(log_q, exact, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(posterior.log_prob(values), exact, rtol=1e-4, atol=1e-4)


def test_blocks_in_blocks_and_of_any_guide():
    def inner(block):
        return fv.blocks(block, {"one": fv.mean_field, "pair": lambda b: fv.low_rank(b, rank=1)})

    guide = fv.blocks(CORRELATED, {("one", "pair"): inner})
    assert set(guide(guide.init(KEY)).unconstrained) == {"one", "pair"}
    template = dist.StudentT(5.0, jnp.zeros(2), 1.0).to_event(1)
    guide = fv.blocks(
        CORRELATED, {"pair": lambda block: fv.guide(block, template), "one": fv.mean_field}
    )
    params = guide.init(KEY)
    assert np.isfinite(fv.negative_elbo(guide)(params, KEY))
    again = guide.inverse(guide(params))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), params, again)


def test_point_parameters_beside_blocks():
    def model():
        spread = numpyro.param("spread", 2.0, constraint=constraints.positive)
        numpyro.sample("a", dist.Normal(0.0, spread))
        numpyro.sample("b", dist.Normal(0.0, 1.0))

    guide = fv.blocks(fv.target(model), [["a"], ["b"]])
    params = guide.init(KEY)
    assert set(params) == {"latents", "points"}
    assert set(params["latents"]) == {"a", "b"}
    assert np.isfinite(fv.negative_elbo(guide)(params, KEY))
    again = guide.inverse(guide(params))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), params, again)


def test_the_kl_of_weights_in_blocks_counts_what_they_know_of_each_other():
    weights = {"w": jnp.zeros(2), "b": jnp.zeros(())}
    net = fv.bayesian(
        lambda w, x: x @ w["w"] + w["b"],
        weights,
        dist.Normal(0.0, 1.0),
        guide=lambda target: fv.blocks(target, [list(target.shapes)]),
    )
    latents = jax.tree.map(lambda x: x + 0.7, net.params)
    q = next(iter(net.posterior(latents).unconstrained.values()))
    exact = dist.kl_divergence(q, dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))
    np.testing.assert_allclose(net.kl(latents), exact, rtol=1e-5)


@pytest.mark.parametrize(
    ("structure", "kind", "message"),
    [
        ([["pair"]], ValueError, r"\['one'\] are in no block: add \[\['one'\]\]"),
        ([["pair", "one"], "one"], ValueError, r"\['one'\] are named more than once"),
        ([["pair", "two"]], ValueError, r"name \['two'\], which are no sites: \['pair', 'one'\]"),
        ("pair", TypeError, "structure must be a list of blocks, .* got str"),
        (3, TypeError, "structure must be a list of blocks, .* got int"),
        ({("pair", "one"): fv.laplace}, ValueError, "pair, one has no log density of its own"),
        ({("pair", "one"): lambda block: 3}, TypeError, "must give one for the target .* got int"),
        (
            {("pair", "one"): lambda block: fv.mean_field(CORRELATED)},
            TypeError,
            "must give one for the target that it gets",
        ),
    ],
)
def test_what_is_no_structure(structure, kind, message):
    with pytest.raises(kind, match=message):
        fv.blocks(CORRELATED, structure)


def test_params_of_other_blocks():
    guide = fv.blocks(CORRELATED, [["pair"], ["one"]])
    with pytest.raises(
        ValueError, match=r"params must have those of each block, \['pair', 'one'\]"
    ):
        fv.sample(guide({"pair": guide.init(KEY)["pair"]}), KEY)


# ---- mixtures ------------------------------------------------------------------------------------


def test_components_start_apart_also_where_the_target_has_one_start():
    # Two at one place have the same gradient, and would stay together for ever.
    for options in ({}, {"loc": {"a": jnp.zeros(3), "b": jnp.zeros(3)}}):
        guide = fv.mixture(TWO_MODES, num_components=3, **options)
        places = guide.init(KEY)["component_distribution"]["loc"]
        gaps = np.abs(places[:, None] - places[None]).max(-1) + np.eye(3)
        assert gaps.min() > 0.05
    guide = fv.blocks(BANANA, {("a", "b"): lambda block: fv.mixture(block, num_components=2)})
    places = guide.init(KEY)["a, b"]["component_distribution"]["loc"]
    assert np.abs(places[0] - places[1]).max() > 0.05


def test_what_is_no_mixture():
    for options, message in [
        ({"num_components": 0}, "num_components must be a positive integer, got 0"),
        ({"num_components": 2, "covariance": "low"}, "covariance must be one of full, diagonal"),
        (
            {"num_components": 2, "loc": {"a": 0.0, "b": 0.0}},
            r"unconstrained shapes, with \(2,\) in front; got \(\) in front",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            fv.mixture(TWO_MODES, **options)


# ---- back to params ------------------------------------------------------------------------------

INVERSES = {
    "mean_field": fv.mean_field,
    "full_rank": fv.full_rank,
    "low_rank": lambda target: fv.low_rank(target, rank=1),
    "laplace": fv.laplace,
    "mixture": lambda target: fv.mixture(target, num_components=2),
    "blocks": lambda target: fv.blocks(target, [["pair"], ["one"]]),
    "a template": lambda target: fv.guide(
        target, dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3))
    ),
}


@pytest.mark.parametrize("name", INVERSES)
def test_the_inverse_gives_the_params_of_a_posterior(name):
    guide = INVERSES[name](CORRELATED)
    params = jax.tree.map(lambda x: x + 0.1, guide.init(KEY))
    for given in (guide(params), guide(params).unconstrained):
        again = jax.jit(guide.inverse)(given)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), params, again)


def test_the_inverse_takes_the_posterior_of_another_guide():
    laplace = fv.laplace(CORRELATED)
    found = laplace(laplace.init(KEY))
    q = fv.full_rank(CORRELATED)(fv.full_rank(CORRELATED).inverse(found)).unconstrained
    np.testing.assert_allclose(
        q.covariance_matrix, found.unconstrained.covariance_matrix, rtol=1e-4
    )


def test_what_has_no_inverse_says_so():
    guide = fv.guide(
        CORRELATED, ({"x": 0.0}, lambda p: dist.Normal(jnp.full(3, p["x"]), 1.0).to_event(1))
    )
    with pytest.raises(TypeError, match="this guide has no inverse"):
        guide.inverse(guide(guide.init(KEY)))
    with pytest.raises(TypeError):
        fv.full_rank(CORRELATED).inverse(
            fv.mean_field(CORRELATED)(fv.mean_field(CORRELATED).init(KEY))
        )
    guide = fv.blocks(CORRELATED, [["pair"], ["one"]])
    q = guide(guide.init(KEY)).unconstrained
    with pytest.raises(TypeError, match="of 'one' there is none"):
        guide.inverse({"pair": q["pair"]})
