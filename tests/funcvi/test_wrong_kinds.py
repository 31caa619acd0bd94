"""What is no distribution, what covers too little, what cannot be drawn: each with what to do."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
import torch
from numpyro.distributions import constraints, transforms

import funcvi as fv
from funcvi.sampling import from_cdf

KEY = jax.random.key(0)
NORMAL = dist.Normal(0.0, 1.0)
TARGET = fv.target(
    lambda v: -(v["a"] ** 2) - v["b"], supports={"a": constraints.real, "b": constraints.positive}
)
GUIDE = fv.mean_field(TARGET)
FOREIGN = torch.distributions.Normal(0.0, 1.0)


@pytest.mark.parametrize(
    "use",
    [
        lambda q: fv.sample(q, KEY),
        lambda q: fv.sample({"a": q}, KEY),
        lambda q: fv.kl(q, NORMAL),
        lambda q: fv.kl(NORMAL, q),
        lambda q: fv.expectation(q, lambda x: x, key=KEY),
        lambda q: fv.unconstrain(q),
        lambda q: fv.family(q),
        lambda q: fv.guide(TARGET, {"a": q, "b": NORMAL}),
    ],
)
def test_a_distribution_of_torch(use):
    with pytest.raises(TypeError, match=r"got torch's Normal: write it with numpyro\.distrib"):
        use(FOREIGN)


def test_a_class_in_place_of_an_instance():
    with pytest.raises(TypeError, match=r"the class Normal: give an instance, Normal\(\.\.\.\)"):
        fv.sample(dist.Normal, KEY)
    for wrong in (dist.Normal, {"a": dist.Normal}):
        with pytest.raises(TypeError, match=r"or use fv\.family\(Normal\)"):
            fv.unconstrain(wrong)


GAMMA = dist.Gamma(2.0, 1.0)
PARTIAL = {
    "half line": GAMMA,
    "circle": dist.VonMises(0.0, 1.0),
    "interval": dist.Uniform(-1.0, 1.0),
    "half line moved": dist.TransformedDistribution(GAMMA, transforms.AffineTransform(0.0, 2.0)),
    "mixture": dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.5, 0.5])), dist.Gamma(jnp.array([1.0, 2.0]), 1.0)
    ),
    "truncated": dist.TruncatedNormal(0.0, 1.0, low=-1.0),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_guide_covers_all_of_unconstrained_space(name):
    with pytest.raises(ValueError, match=r"family\['a'\], a .*, covers only a part of uncon"):
        fv.guide(TARGET, {"a": PARTIAL[name], "b": NORMAL})
    with pytest.raises(ValueError, match="covers only a part"):
        fv.guide(TARGET, (0.0, lambda params: {"a": PARTIAL[name], "b": NORMAL}))


def test_a_transform_may_lead_to_all_of_it():
    log_gamma = dist.TransformedDistribution(GAMMA, transforms.ExpTransform().inv)
    halves = dist.MixtureGeneral(
        dist.Categorical(probs=jnp.array([0.5, 0.5])),
        [NORMAL, dist.HalfNormal(1.0)],
        support=constraints.real,
    )
    fv.guide(TARGET, {"a": log_gamma, "b": halves})


class NoCdf(dist.Distribution):
    arg_constraints, support = {}, constraints.unit_interval
    sampling_record = from_cdf("unit")


class NoSample(dist.Distribution):
    arg_constraints, support = {}, constraints.unit_interval


def test_what_cannot_be_drawn_from():
    with pytest.raises(ValueError, match="kind must be one of real, positive, unit; got 'half'"):
        from_cdf("half")
    with pytest.raises(TypeError, match="NoCdf is drawn by its cdf and has none"):
        fv.sample(NoCdf(), KEY)
    for d in (NoSample(), NoSample().expand([2]).to_event(1)):
        with pytest.raises(TypeError, match=r"NoSample cannot be drawn from: define sample"):
            fv.sample(d, KEY)


def test_posteriors_print_their_sites():
    posterior = GUIDE(GUIDE.init(KEY))
    sites = "  a: real, shape ()\n  b: positive, shape ()"
    assert repr(GUIDE) == f"Guide over\n{sites}"
    assert repr(posterior) == f"Posterior of\n{sites}\non unconstrained space: a Normal, b Normal"


def test_params_that_are_not_the_guides_err_at_once():
    with pytest.raises(ValueError, match=r"missing \['loc', 'scale_tril'\]"):
        fv.full_rank(TARGET)(GUIDE.init(KEY))
    with pytest.raises(TypeError, match=r"dict of constrained values by site, \['a', 'b'\]; got f"):
        GUIDE(GUIDE.init(KEY)).log_prob(1.0)


def test_a_transform_without_a_log_determinant():
    folded = dist.FoldedDistribution(NORMAL)
    d = dist.TransformedDistribution(folded, transforms.AffineTransform(0.0, 2.0))
    with pytest.raises(TypeError, match="its AbsTransform has no log determinant"):
        fv.expectation(d, lambda x: x, key=KEY)
