"""What guides and posteriors say to what they cannot use, and what to do instead."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.infer.autoguide import AutoNormal

import funcvi as fv
from funcvi.guides import check_guide
from tests.funcvi.guide_catalogue import CORRELATED, KEY, Coupling, normal_vector

GUIDE = fv.mean_field(CORRELATED)
MAKERS = {
    "mean_field": fv.mean_field,
    "full_rank": fv.full_rank,
    "low_rank": lambda target, **options: fv.low_rank(target, rank=1, **options),
    "laplace": fv.laplace,
    "mixture": lambda target: fv.mixture(target, num_components=2),
    "flow": fv.flow,
    "blocks": lambda target: fv.blocks(target, [["pair"], ["one"]]),
    "guide": lambda target, **options: fv.guide(target, normal_vector(3), **options),
}


def model():
    numpyro.sample("a", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_no_target(make):
    for wrong, message in {
        model: "expected a target, got function: wrap the model in fv.target",
        GUIDE: "expected a target, got Guide: it has one already: pass guide.target",
        AutoNormal(model): r"got AutoNormal: it is a guide, of fv.guide\(fv.target",
    }.items():
        with pytest.raises(TypeError, match=message):
            make(wrong)


def test_what_is_no_guide():
    for wrong, message in [
        (CORRELATED, "got Target: make a guide for it, such as fv.mean_field"),
        (GUIDE(GUIDE.init(KEY)), "got Posterior: .* pass posterior.guide"),
        (AutoNormal(model), r"got AutoNormal: it is numpyro.s: fv.guide\(fv.target"),
        (3.0, r"expected a guide, got float: make one with fv.mean_field\(target\)"),
    ]:
        for function in (check_guide, fv.negative_elbo):
            with pytest.raises(TypeError, match=message):
                function(wrong)


def test_a_fit_in_place_of_its_params():
    loss = fv.negative_elbo(GUIDE)
    fit = fv.fit(loss, GUIDE.init(KEY), optax.adam(0.1), key=KEY, num_steps=2)
    with pytest.raises(TypeError, match=r"takes params, got a fit: pass fit.params"):
        GUIDE(fit)


def test_a_shape_that_is_none():
    posterior = GUIDE(GUIDE.init(KEY))
    for draw in (
        posterior.sample,
        posterior.sample_and_log_prob,
        lambda *a: fv.sample(posterior, *a),
    ):
        with pytest.raises(TypeError, match=r"must be a tuple of integers, got 3: write \(3,\)"):
            draw(KEY, 3)


@pytest.mark.parametrize("make", [MAKERS[n] for n in ("mean_field", "full_rank", "low_rank")])
def test_scales_and_places_that_do_not_fit(make):
    with pytest.raises(ValueError, match="every scale must be positive"):
        make(CORRELATED, scale=-1.0)
    with pytest.raises(ValueError, match=r"must name the sites \['pair', 'one'\], got \['one'\]"):
        make(CORRELATED, scale={"one": 1.0})
    with pytest.raises(ValueError, match=r"scale\['pair'\] must be a number or of shape \(2,\)"):
        make(CORRELATED, scale={"one": 1.0, "pair": np.ones(3)})
    with pytest.raises(ValueError, match=r"loc names \['two'\], which are no sites"):
        make(CORRELATED, loc={"two": 0.0})
    with pytest.raises(ValueError, match=r"values are missing for \['one'\]"):
        make(CORRELATED, loc={"pair": np.zeros(2)})


@pytest.mark.parametrize("make", [MAKERS[n] for n in ("mean_field", "full_rank", "low_rank")])
def test_scales_and_places_that_fit(make):
    loc = {"pair": np.array([1.0, 2.0]), "one": 3.0}
    guide = make(CORRELATED, loc=loc, scale={"pair": np.array([0.5, 2.0]), "one": 0.1})
    marginals = guide(guide.init(KEY)).marginals()
    np.testing.assert_allclose(marginals["pair"].loc, loc["pair"], rtol=1e-6)
    np.testing.assert_allclose(marginals["one"].loc, loc["one"], rtol=1e-6)
    np.testing.assert_allclose(marginals["pair"].scale, [0.5, 2.0], rtol=0.05)


@pytest.mark.parametrize("rank", [0, -1, 1.0, True])
def test_a_rank_that_is_none(rank):
    with pytest.raises(ValueError, match=f"rank must be a positive integer, got {rank}"):
        fv.low_rank(CORRELATED, rank=rank)


def flow_of(transform):
    return dist.TransformedDistribution(normal_vector(3), [transform])


UNLEARNED = {"in": jnp.zeros((1, 2)), "bias": jnp.zeros(2), "out": jnp.zeros((2, 4))}


@pytest.mark.parametrize(
    ("family", "kind", "message"),
    [
        (
            normal_vector(2),
            ValueError,
            r"event shape \(3,\), the target's size, .* got event shape \(2,\)",
        ),
        (dist.Normal(jnp.zeros(3), 1.0), ValueError, r"batch shape \(3,\): add .to_event\(1\)"),
        (dist.Normal(jnp.zeros((4, 3)), 1.0).to_event(1), ValueError, r"and batch shape \(4,\)"),
        ({"one": dist.Normal()}, ValueError, r"name the sites \['pair', 'one'\], got \['one'\]"),
        (
            {"one": dist.Normal(), "pair": dist.Normal()},
            ValueError,
            r"family\['pair'\] must have event shape \(2,\), the site's unconstrained shape",
        ),
        ({"one": 1.0, "pair": normal_vector(2)}, TypeError, r"family\['one'\] must be a numpyro"),
        (dist.Multinomial(3, jnp.ones(3) / 3), ValueError, "must be continuous, got Multinomial"),
        (lambda p: normal_vector(3), TypeError, "taken for a numpyro guide"),
        (
            flow_of(InverseAutoregressiveTransform(lambda x: (x, x))),
            ValueError,
            r"of InverseAutoregressiveTransform would not be learned: pass \(params, function\)",
        ),
        (flow_of(Coupling(UNLEARNED, False)), ValueError, "of Coupling would not be learned"),
        (flow_of(Coupling(UNLEARNED, False).inv), ValueError, "of Coupling would not be learned"),
    ],
)
def test_families_that_do_not_fit(family, kind, message):
    with pytest.raises(kind, match=message):
        fv.guide(CORRELATED, family)


def test_a_conditional_flowjax_distribution():
    flows = pytest.importorskip("flowjax.flows", reason="flowjax is not installed")
    normal = pytest.importorskip("flowjax.distributions").Normal
    flow = flows.coupling_flow(KEY, base_dist=normal(jnp.zeros(3)), cond_dim=2, flow_layers=1)
    with pytest.raises(ValueError, match=r"must not be conditional, .* cond_shape \(2,\)"):
        fv.guide(CORRELATED, flow)


def test_params_of_a_flowjax_distribution_are_what_it_trains():
    wrappers = pytest.importorskip("paramax", reason="flowjax is not installed")
    normal = pytest.importorskip("flowjax.distributions").Normal
    flow = normal(jnp.ones(3), 2.0 * jnp.ones(3))
    guide = fv.guide(CORRELATED, flow, spread=0.0)
    params = guide.init(KEY)
    assert len(params) == 2
    q = guide(params).unconstrained
    exact = dist.Normal(jnp.ones(3), 2.0).to_event(1).log_prob(jnp.zeros(3))
    np.testing.assert_allclose(q.log_prob(jnp.zeros(3)), exact, rtol=1e-5)
    still = fv.guide(CORRELATED, wrappers.non_trainable(flow), spread=0.0)
    assert still.init(KEY) == {}
    np.testing.assert_allclose(still({}).unconstrained.log_prob(jnp.zeros(3)), exact, rtol=1e-5)


def test_nowhere_finite_is_an_error_under_jit_too():
    nowhere = fv.target(lambda x: x["a"] * jnp.nan, supports={"a": constraints.real})
    message = r"non-finite at 100 starts .* check the data for NaN"
    with pytest.raises(ValueError, match=message):
        fv.full_rank(nowhere).init(KEY)
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(jax.jit(fv.full_rank(nowhere).init)(KEY))
