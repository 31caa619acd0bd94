"""fv.sample: shapes, gradients where they are right, refusals where they are not."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv

KEY = jax.random.key(2)
N, G = dist.Normal(0.0, 1.0), dist.Gamma(2.0, 1.0)


class Pair(NamedTuple):
    first: dist.Distribution
    second: dist.Distribution


@pytest.mark.few(4)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize(
    "d",
    [
        dist.Normal(jnp.zeros(4), 1.0),
        dist.Dirichlet(jnp.ones((2, 3))),
        dist.Categorical(probs=jnp.ones(3) / 3),
        dist.Normal(0.0, 1.0).expand([2, 3]).to_event(1),
        dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.ones(2) / 2), dist.Normal(jnp.arange(2.0), 1.0)
        ),
        dist.TruncatedPolyaGamma(batch_shape=(4,)),
    ],
    ids=lambda d: type(d).__name__,
)
def test_shapes(d, shape):
    assert fv.sample(d, KEY, shape).shape == shape + d.batch_shape + d.event_shape
    assert fv.sample(d, KEY, list(shape)).shape == shape + d.batch_shape + d.event_shape


def test_without_a_sampler_of_ours_draws_are_the_distributions_own():
    d = dist.Levy(0.0, 1.0)
    np.testing.assert_array_equal(fv.sample(d, KEY, (7,)), d.sample(KEY, (7,)))


def test_polya_gamma_batches_have_the_mean_of_the_distribution():
    # PG(1, 0) has mean 1/4 and variance 1/24; truncation at 2.5 changes neither beyond 1e-4.
    draws = np.asarray(fv.sample(dist.TruncatedPolyaGamma(batch_shape=(3,)), KEY, (4000,)))
    np.testing.assert_allclose(draws.mean(0), 0.25, atol=5 * np.sqrt(1 / 24 / 4000) + 1e-3)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 5 / np.sqrt(4000)


def test_joints_keep_their_container():
    drawn = fv.sample({"a": N, "b": (G, [N])}, KEY, (3,))
    assert drawn["a"].shape == drawn["b"][0].shape == drawn["b"][1][0].shape == (3,)
    assert isinstance(drawn["b"], tuple)
    assert isinstance(drawn["b"][1], list)
    pair = fv.sample(Pair(N, G), KEY)
    assert isinstance(pair, Pair)
    assert pair.first.shape == ()


def test_members_of_a_joint_are_independent():
    drawn = fv.sample((N, N), KEY, (4000,))
    assert abs(np.corrcoef(drawn)[0, 1]) < 5 / np.sqrt(4000)


def test_a_posterior_gives_constrained_values():
    target = fv.target(lambda x: G.log_prob(x["a"]), supports={"a": constraints.positive})
    guide = fv.mean_field(target)
    posterior = guide(guide.init(KEY))
    drawn = fv.sample(posterior, KEY, (4, 3))
    assert drawn["a"].shape == (4, 3)
    assert (drawn["a"] > 0).all()
    z = fv.sample(posterior.unconstrained, KEY, (4, 3))
    np.testing.assert_allclose(drawn["a"], jnp.exp(z["a"]), rtol=1e-6)


def test_pathwise_gradients_flow():
    def mean(loc, scale):
        return fv.sample(dist.Normal(loc, scale), KEY, (100,)).mean()

    slopes = jax.jit(jax.grad(mean, (0, 1)))(1.0, 2.0)
    noise = np.asarray(fv.sample(N, KEY, (100,))).mean()
    np.testing.assert_allclose(slopes, (1.0, noise), rtol=1e-5, atol=1e-6)


def mixture(w):
    weights = dist.Categorical(probs=jnp.stack([w, 1 - w]))
    return dist.MixtureSameFamily(weights, dist.StudentT(jnp.array([9.0, 8.0]), 0.3))


REFUSED = {
    "mixture": (mixture, "no derivative of its cdf is known, so its weights get no gradient"),
    "mixture of families": (
        lambda w: dist.MixtureGeneral(
            dist.Categorical(probs=jnp.stack([w, 1 - w])),
            [dist.Normal(0.0, 1.0), dist.StudentT(9.0)],
        ),
        "MixtureGeneral of StudentT",
    ),
    "Bernoulli": (lambda w: dist.Bernoulli(probs=w), "BernoulliProbs is discrete"),
    "Poisson": (lambda w: dist.Poisson(w).expand([3]).to_event(1), "Poisson is discrete"),
    "nested": (lambda w: {"a": (mixture(w),)}, "MixtureSameFamily of StudentT"),
}


def total(make):
    def f(w):
        drawn = fv.sample(make(w), KEY, (5,))
        return sum(jnp.sum(x.astype(float)) for x in jax.tree.leaves(drawn))

    return f


def in_scan(f):
    return lambda w: jax.lax.scan(lambda c, _: (c + f(w), None), 0.0, None, length=2)[0]


TRANSFORMS = {
    "grad": jax.grad,
    "jit of grad": lambda f: jax.jit(jax.grad(f)),
    "grad of jit": lambda f: jax.grad(jax.jit(f)),
    "vmap of grad": lambda f: lambda w: jax.vmap(jax.grad(f))(w[None]),
    "grad of vmap": lambda f: jax.grad(lambda w: jax.vmap(f)(w[None]).sum()),
    "grad of scan": lambda f: jax.grad(in_scan(f)),
    "jvp": lambda f: lambda w: jax.jvp(f, (w,), (jnp.ones(()),)),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_gradients_that_would_be_wrong(name):
    make, message = REFUSED[name]
    with pytest.raises(TypeError, match="no right pathwise gradient") as refused:
        jax.grad(total(make))(jnp.asarray(0.3))
    assert message in str(refused.value)
    assert "Put it in fv.kl or fv.negative_elbo" in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("name", ["mixture", "Bernoulli"])
def test_refuses_under_every_transformation(name, transform):
    with pytest.raises(TypeError, match="no right pathwise gradient"):
        transform(total(REFUSED[name][0]))(jnp.asarray(0.3))


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("name", ["mixture", "Bernoulli"])
def test_a_stopped_gradient_is_allowed(name, transform):
    make = REFUSED[name][0]

    def f(w):
        return total(lambda w: jax.lax.stop_gradient(make(w)))(w) + w**2

    slope = jax.tree.leaves(transform(f)(jnp.asarray(0.3)))[-1]
    # d(w^2) is 0.6, twice that in a scan of length two.
    assert float(np.ravel(slope)[0]) == pytest.approx(0.6) or float(slope) == pytest.approx(1.2)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", REFUSED)
def test_values_are_right_without_gradients(name):
    make = REFUSED[name][0]
    value = jax.jit(total(make))(0.3)
    vmapped = jax.vmap(total(make))(jnp.full(2, 0.3))
    assert jnp.isfinite(value)
    np.testing.assert_allclose(vmapped, value, rtol=1e-5)


def test_other_parameters_may_be_differentiated_beside_a_mixture():
    def f(x):
        return jnp.mean((fv.sample(mixture(jnp.asarray(0.3)), KEY, (50,)) - x) ** 2)

    draws = np.asarray(fv.sample(mixture(jnp.asarray(0.3)), KEY, (50,)))
    assert float(jax.jit(jax.grad(f))(1.0)) == pytest.approx(2 * (1 - draws.mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (dist.Normal, "got the class Normal: give an instance"),
        (3.0, "got float: call the family on its params first"),
    ],
)
def test_refuses_what_is_no_distribution(what, message):
    with pytest.raises(
        TypeError, match="expected a numpyro distribution, a joint or a posterior"
    ) as refused:
        fv.sample(what, KEY)
    assert message in str(refused.value)


@pytest.mark.skipif(not hasattr(dist, "HurdleProbs"), reason="numpyro 0.21 has no hurdles")
def test_a_hurdle_gives_zero_as_often_as_its_gate_is_shut() -> None:
    """numpyro's Gamma draws underflow to zero, which made it 38 % for 25 %."""
    x = fv.sample(dist.HurdleProbs(dist.Gamma(0.02, 1.0), 0.25), KEY, (20_000,))
    assert abs(jnp.mean(x == 0) - 0.25) < 0.015


def test_a_copula_whose_marginal_has_no_icdf_says_so():
    """numpyro's error was empty."""
    marginal = dist.Normal(0.0, 1.0).expand((2,))
    copula = dist.GaussianCopula(marginal, correlation_matrix=jnp.eye(2))
    with pytest.raises(NotImplementedError, match="no draws of this GaussianCopula"):
        fv.sample(copula, jax.random.key(0))


@pytest.mark.parametrize("of", ["probs", "logits"])
def test_counts_have_the_total_that_is_given_whatever_its_maximum(of):
    """Of one total numpyro's sampler draws ``total_count_max``."""
    chances = jnp.array([0.25, 0.75])
    values = chances if of == "probs" else jnp.log(chances)

    def counts(total):
        d = dist.Multinomial(total, **{of: values}, total_count_max=6)
        return fv.sample(d, jax.random.key(0), (4000,))

    for total in (jnp.array(3), 0, 6):
        for x in (counts(total), jax.jit(counts)(total)):
            assert x.shape == (4000, 2)
            np.testing.assert_array_equal(x.sum(-1), total)
            np.testing.assert_allclose(x.mean(0), total * chances, atol=0.08)
