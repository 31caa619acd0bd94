"""The negative ELBO and mean-field guides on problems whose posterior is known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints
from scipy import stats

import funcvi as fv
from funcvi.guides import Guide

KEY = jax.random.key(12)
DATA = jnp.array([1.2, 0.7, 2.5, 1.9])
N = len(DATA)


def conjugate(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


TARGET = fv.target(conjugate, DATA)
PRECISION = 1 / 4 + N
EXACT = dist.Normal(float(DATA.sum()) / PRECISION, PRECISION**-0.5)
EVIDENCE = stats.multivariate_normal.logpdf(
    np.asarray(DATA), np.zeros(N), np.eye(N) + 4 * np.ones((N, N))
)


def test_the_loss_is_minus_the_log_evidence_when_the_guide_is_exact():
    guide = fv.mean_field(TARGET)
    params = guide.family.inverse({"mean": EXACT})
    loss = fv.negative_elbo(guide, estimator="sticking_the_landing")
    for seed in range(3):  # at every draw, so without variance
        value, gradient = jax.value_and_grad(loss)(params, jax.random.key(seed))
        assert float(value) == pytest.approx(-EVIDENCE, rel=1e-5)
        assert all(abs(float(g)) < 1e-5 for g in jax.tree.leaves(gradient))


def test_mean_field_reaches_a_conjugate_posterior():
    guide = fv.mean_field(TARGET)
    loss = fv.negative_elbo(guide, estimator="sticking_the_landing")
    found = fv.fit(loss, guide.init(KEY), optax.adam(0.05), key=KEY, num_steps=1000)
    q = guide(found.params).unconstrained["mean"]
    assert float(q.loc) == pytest.approx(EXACT.loc, abs=1e-3)
    assert float(q.scale) == pytest.approx(EXACT.scale, abs=1e-3)


def exact_divergence(q):
    return -EVIDENCE + float(fv.kl(q, EXACT))


@pytest.mark.parametrize("estimator", [None, "pathwise", "sticking_the_landing", "score_function"])
def test_every_estimator_is_unbiased(estimator):
    guide = fv.mean_field(TARGET)
    params = guide.family.inverse({"mean": dist.Normal(0.5, 0.8)})
    loss = fv.negative_elbo(guide, estimator=estimator)
    keys = jax.random.split(KEY, 400)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, keys)
    error = values.std() / 20
    assert abs(float(values.mean()) - exact_divergence(dist.Normal(0.5, 0.8))) < 5 * float(error)
    exact = jax.grad(lambda p: fv.kl(guide(p).unconstrained["mean"], EXACT))(params)
    for found, true in zip(jax.tree.leaves(slopes), jax.tree.leaves(exact), strict=True):
        assert abs(float(found.mean() - true)) < 5 * float(found.std()) / 20 + 1e-4


def guide_of(distribution, target):
    start, family = fv.unconstrain(distribution)
    return Guide(target, lambda key: start, family)


MIXTURE = dist.MixtureSameFamily(
    dist.Categorical(probs=jnp.array([0.3, 0.7])), dist.Normal(jnp.array([0.0, 2.0]), 0.7)
)


# The derivative of its cdf is not known, so its draws cannot move with the weights.
SCORED = dist.MixtureSameFamily(
    dist.Categorical(probs=jnp.array([0.3, 0.7])), dist.StudentT(9.0, jnp.array([0.0, 2.0]), 0.7)
)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "q",
    [MIXTURE, SCORED, dist.VonMises(1.0, 2.0)],
    ids=["mixture", "mixture of undifferentiable cdfs", "an angle on the line"],
)
def test_a_single_site_without_pathwise_gradients_gets_a_right_estimator(q):
    guide = guide_of({"mean": q}, TARGET)
    report = fv.check_gradients(
        fv.negative_elbo(guide, num_samples=32),
        guide.init(KEY),
        key=KEY,
        reference=fv.negative_elbo(guide, num_samples=32, estimator="score_function"),
        num_samples=200,
        threshold=5.0,
    )
    assert report.ok, str(report)
    assert not any(row.is_zero for row in report.rows)


@pytest.mark.slow
def test_a_scored_site_beside_a_pathwise_one():
    target = fv.target(
        lambda x: -((x["a"] - x["b"]) ** 2) - x["a"] ** 2,
        supports={"a": constraints.real, "b": constraints.real},
    )
    for mixture in (MIXTURE, SCORED):
        guide = guide_of({"a": mixture, "b": dist.Normal(0.5, 1.0)}, target)
        loss = fv.negative_elbo(guide, num_samples=32)
        report = fv.check_gradients(loss, guide.init(KEY), key=KEY, num_samples=300, threshold=5.0)
        assert report.ok, str(report)
    with pytest.raises(
        ValueError, match=r"guide\['a'\] = MixtureSameFamily needs num_samples >= 2"
    ):
        fv.negative_elbo(guide, num_samples=1)(guide.init(KEY), KEY)
    with pytest.raises(ValueError, match="enumeration needs a single distribution, guide has 2"):
        fv.negative_elbo(guide, estimator="enumeration")(guide.init(KEY), KEY)
    with pytest.raises(ValueError, match=r"zero or biased gradient for guide\['a'\]"):
        fv.negative_elbo(guide, estimator="pathwise")(guide.init(KEY), KEY)


def test_sticking_the_landing_refuses_a_support_that_moves():
    family = fv.family({"mean": fv.family(dist.Uniform)})
    guide = Guide(TARGET, lambda key: family.inverse({"mean": dist.Uniform(0.0, 1.0)}), family)
    loss = fv.negative_elbo(guide, estimator="sticking_the_landing")
    with pytest.raises(ValueError, match="the support of Uniform moves with its parameters"):
        jax.grad(loss)(guide.init(KEY), KEY)


def test_refusals():
    guide = fv.mean_field(TARGET)
    with pytest.raises(TypeError, match="expected a guide, got Target: make a guide for it"):
        fv.negative_elbo(TARGET)
    with pytest.raises(ValueError, match=r"must be one of enumeration, .* got 'closed_form'"):
        fv.negative_elbo(guide, estimator="closed_form")
    for bad in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=f"num_samples must be a positive integer, got {bad}"):
            fv.negative_elbo(guide, num_samples=bad)
