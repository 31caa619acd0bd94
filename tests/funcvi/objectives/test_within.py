"""A divergence that is infinite is infinite, or refused, wherever q reaches beyond p."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints, transforms
from scipy import stats

import funcvi as fv
from funcvi.densities.log_prob import log_prob, log_prob_within
from funcvi.sampling.draw import unvalidated
from tests.funcvi.catalogue import CATALOGUE, NESTINGS, SINGLE

KEY = jax.random.key(0)
SHIFT = transforms.AffineTransform(1.0, 2.0)
HALVES = dist.MixtureGeneral(
    dist.Categorical(probs=jnp.array([0.5, 0.5])),
    [dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 3.0)],
    support=constraints.real,
)
BEYOND = {
    "shifted": (dist.Normal(2.0), dist.TransformedDistribution(dist.Exponential(1.0), SHIFT)),
    "mirrored": (
        dist.Normal(),
        dist.TransformedDistribution(dist.HalfNormal(1.0), transforms.AffineTransform(0.0, -1.0)),
    ),
    "in turn": (
        dist.Gamma(2.0, 1.0),
        dist.TransformedDistribution(dist.Exponential(1.0), [SHIFT, transforms.ExpTransform()]),
    ),
    "vector": (
        dist.Normal(jnp.zeros(2), 1.0).to_event(1),
        dist.TransformedDistribution(dist.Exponential(jnp.ones(2)), SHIFT).to_event(1),
    ),
    "expanded": (
        dist.Normal(jnp.zeros(3)),
        dist.TransformedDistribution(dist.Exponential(1.0), SHIFT).expand([3]),
    ),
    "between": (dist.Normal(), HALVES),
    "point": (dist.Delta(2.0), dist.Uniform(0.0, 1.0)),
    "points": (
        dist.Delta(jnp.array([0.5, 2.0]), event_dim=1),
        dist.Uniform(jnp.zeros(2), 1.0).to_event(1),
    ),
    "point of a count": (dist.Delta(-1.0), dist.Poisson(2.0)),
    "point of the shifted": (
        dist.Delta(0.5),
        dist.TransformedDistribution(dist.Exponential(1.0), SHIFT),
    ),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", BEYOND)
def test_an_infinite_divergence_is_infinite(name, compiled):
    q, p = BEYOND[name]

    def kl(q):
        return fv.kl(q, p, key=KEY)

    assert (jax.jit(kl) if compiled else kl)(q) == np.inf


def test_a_fit_of_one_does_not_train():
    """It went down for ever: -1.2, -3, -21."""
    params, q = fv.unconstrain(dist.Normal(2.0, 1.0))
    p = dist.TransformedDistribution(dist.Exponential(1.0), SHIFT)
    import optax

    def loss(params, key):
        return fv.kl(q(params), p, key=key)

    fit = fv.fit(loss, params, optax.adam(0.1), key=KEY, num_steps=50)
    assert fit.status == fv.Status.diverged
    assert fit.params == params


def test_a_point_inside_has_the_density_that_it_had():
    p = dist.Uniform(0.0, 4.0)
    assert float(fv.kl(dist.Delta(2.0), p)) == pytest.approx(np.log(4))
    edge = fv.kl(dist.Delta(0.0), dist.HalfNormal(1.0))
    assert float(edge) == pytest.approx(-np.log(2 / np.pi) / 2)


HALF = jnp.ones(2) / 2
TOTALS = {
    "fewer": (dist.Multinomial(3, HALF), dist.Multinomial(4, HALF)),
    "more": (dist.Multinomial(4, HALF), dist.Multinomial(3, HALF)),
    "by logits": (dist.Multinomial(3, HALF), dist.Multinomial(4, logits=HALF)),
    "arrays": (
        dist.Multinomial(jnp.array([3, 5]), HALF),
        dist.Multinomial(jnp.array([4, 5]), HALF),
    ),
    "an event of them": (
        dist.Multinomial(jnp.array([3, 5]), HALF).to_event(1),
        dist.Multinomial(jnp.array([4, 5]), HALF).to_event(1),
    ),
    "Dirichlet's": (dist.DirichletMultinomial(HALF, 3), dist.Multinomial(4, HALF)),
    "to Dirichlet's": (dist.Multinomial(3, HALF), dist.DirichletMultinomial(HALF, 4)),
    "both Dirichlet's": (dist.DirichletMultinomial(HALF, 3), dist.DirichletMultinomial(HALF, 4)),
}


@pytest.mark.parametrize("name", TOTALS)
def test_no_counts_of_one_total_have_another(name):
    q, p = TOTALS[name]
    assert fv.kl(q, p, key=KEY, num_samples=10) == np.inf


def test_traced_totals_are_compared_by_the_program():
    q = dist.Multinomial(3, HALF)

    @jax.jit
    def kl(total):
        p = dist.Multinomial(total, jnp.array([0.3, 0.7]), total_count_max=6)
        return fv.kl(q, p, key=KEY, num_samples=1000)

    assert kl(4) == kl(2) == np.inf
    exact = 3 * np.sum(0.5 * np.log(0.5 / np.array([0.3, 0.7])))
    assert float(kl(3)) == pytest.approx(exact, abs=0.1)


def test_counts_of_one_total_against_counts_of_any():
    q, rates = dist.Multinomial(3, HALF), jnp.ones(2)
    assert np.isfinite(fv.kl(q, dist.Poisson(rates).to_event(1), key=KEY))
    for p, reached in ((q, dist.Poisson(rates)), (q, dist.Binomial(3, HALF))):
        with pytest.raises(ValueError, match="is infinite"):
            fv.kl(reached.to_event(1), p, key=KEY)
    with pytest.raises(ValueError, match="is infinite"):
        fv.kl(q, dist.Binomial(2, HALF).to_event(1), key=KEY)


def test_large_totals_are_counted_in_the_precision_of_their_floats():
    p = dist.Multinomial(30_000_001, HALF)
    for x in (jnp.array([14_999_999, 15_000_002]), jnp.array([1.5e7, 1.5e7 + 1])):
        assert np.isfinite(log_prob_within(p)(x))
    assert log_prob_within(p)(jnp.array([15_000_001, 15_000_001])) == -np.inf


UNDRAWABLE = {
    "GaussianCopulaBeta/matrix",
    "GaussianCopulaBeta/cholesky",
    "ImproperUniform",
    "IntervalCensoredDistribution",  # its values are pairs, and its draws are not
}


@pytest.mark.catalogue_law
@pytest.mark.parametrize("name", [n for n in {**SINGLE, **NESTINGS} if n not in UNDRAWABLE])
def test_draws_are_inside(name):
    """Of every distribution: nothing of its own is cut off."""
    d = unvalidated(CATALOGUE[name]())
    x = fv.sample(d, KEY, (50,))
    np.testing.assert_array_equal(log_prob_within(d)(x), log_prob(d, x))
    assert log_prob_within(d)(x).shape == (50, *d.batch_shape)


def test_an_affine_image_is_no_law_on_the_line() -> None:
    """numpyro says that its support is real: it was refused against a law on its own interval."""
    q = dist.TransformedDistribution(dist.Beta(2.0, 3.0), transforms.AffineTransform(-1.0, 2.0))
    key = jax.random.key(8)
    value = fv.kl(q, dist.Uniform(-1.0, 1.0), key=key, num_samples=20_000)
    assert abs(value + stats.beta(2, 3).entropy()) < 0.02
    assert jnp.isposinf(fv.kl(q, dist.Uniform(0.0, 1.0), key=key))
