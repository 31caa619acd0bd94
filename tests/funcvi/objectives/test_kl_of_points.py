"""A point outside the support of p is infinitely far from it: off the integers, off the curve."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import funcvi as fv
from funcvi.sampling.draw import unvalidated

HALF = jnp.ones(2) / 2
ASYMMETRIC = jnp.array([[1.0, 0.5], [0.0, 1.0]])
SHIFT = dist.transforms.AffineTransform(1.0, 2.0)
OUTSIDE = {
    "Poisson": (2.5, dist.Poisson(1.0)),
    "BernoulliProbs": (2.0, dist.Bernoulli(0.3)),
    "BernoulliLogits": (0.5, dist.Bernoulli(logits=0.3)),
    "Binomial": (1.5, dist.Binomial(3, 0.5)),
    "Geometric": (0.5, dist.Geometric(0.3)),
    "NegativeBinomial2": (0.5, dist.NegativeBinomial2(1.0, 2.0)),
    "GammaPoisson": (0.5, dist.GammaPoisson(1.0, 2.0)),
    "ZeroInflatedPoisson": (0.5, dist.ZeroInflatedPoisson(0.2, 1.0)),
    "BetaBinomial": (0.5, dist.BetaBinomial(1.0, 2.0, 5)),
    "DiscreteUniform": (1.5, dist.DiscreteUniform(0, 3)),
    "CategoricalProbs": (1.5, dist.Categorical(jnp.ones(3) / 3)),
    "CategoricalLogits": (3.0, dist.Categorical(logits=jnp.zeros(3))),
    "mixture": (
        0.5,
        dist.MixtureSameFamily(dist.Categorical(HALF), dist.Poisson(jnp.array([1.0, 2.0]))),
    ),
    "event": ([1.0, 0.5], dist.Poisson(jnp.ones(2)).to_event(1)),
    "scaled": (2.0, dist.TransformedDistribution(dist.Poisson(1.0), SHIFT)),
    "Dirichlet": ([0.3, 0.3, 0.3], dist.Dirichlet(jnp.ones(3))),
    "ZeroSumNormal": ([1.0, 1.0], dist.ZeroSumNormal(1.0, (2,))),
    "ProjectedNormal": ([1.0, 1.0], dist.ProjectedNormal(jnp.ones(2))),
    "Multinomial": ([1.0, 1.0], dist.Multinomial(3, HALF)),
    "Multinomial, halves": ([1.5, 1.5], dist.Multinomial(3, HALF)),
    "DirichletMultinomial": ([1.0, 1.0], dist.DirichletMultinomial(HALF, 3)),
    "LKJCholesky": (2 * jnp.eye(2), dist.LKJCholesky(2, 1.5)),
    "LKJ": (ASYMMETRIC, dist.LKJ(2, 1.5)),
    "Wishart": (ASYMMETRIC, dist.Wishart(3.0, jnp.eye(2))),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_point_outside_is_infinitely_far(name):
    value, p = OUTSIDE[name]
    v = jnp.asarray(value)
    assert fv.kl(dist.Delta(v, event_dim=v.ndim), p) == np.inf


@pytest.mark.parametrize("name", ["Poisson", "Dirichlet", "CategoricalProbs"])
def test_a_traced_point_is_compared_by_the_program(name):
    value, p = OUTSIDE[name]
    kl = jax.jit(lambda v: fv.kl(dist.Delta(v, event_dim=v.ndim), p))
    assert kl(jnp.asarray(value)) == np.inf
    assert np.isfinite(kl(jnp.asarray([0.3, 0.3, 0.4] if name == "Dirichlet" else 2.0)))


MATRIX = jnp.array([[1.0, 0.3], [0.3, 1.0]])
INSIDE = {
    "Poisson": (2.0, dist.Poisson(1.0)),
    "Bernoulli": (1, dist.Bernoulli(0.3)),
    "of a truth": (True, dist.Bernoulli(0.3)),
    "Categorical": (2, dist.Categorical(jnp.ones(3) / 3)),
    "scaled": (
        7.4,
        dist.TransformedDistribution(dist.Poisson(1.0), dist.transforms.AffineTransform(0.2, 0.9)),
    ),
    "Multinomial": ([1, 2], dist.Multinomial(3, HALF)),
    "Dirichlet": ([0.1, 0.2, 0.7], dist.Dirichlet(jnp.ones(3))),
    "Dirichlet, half": (jnp.array([0.1, 0.2, 0.7], jnp.bfloat16), dist.Dirichlet(jnp.ones(3))),
    "LKJCholesky": (jnp.linalg.cholesky(MATRIX), dist.LKJCholesky(2, 1.5)),
    "LKJ": (MATRIX, dist.LKJ(2, 1.5)),
    "Wishart": (MATRIX, dist.Wishart(3.0, jnp.eye(2))),
    "masked": (0.5, dist.Poisson(1.0).mask(False)),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_point_inside_has_its_density(name):
    value, p = INSIDE[name]
    v = jnp.asarray(value)
    expected = -unvalidated(p).log_prob(v.astype(jnp.float32) if v.dtype == jnp.bfloat16 else v)
    np.testing.assert_allclose(
        fv.kl(dist.Delta(v, event_dim=v.ndim), p),
        expected,
        rtol=1e-2 if v.dtype == jnp.bfloat16 else 1e-5,
    )


def test_fewer_categories_lie_inside_more():
    def uniform(n, of="probs"):
        values = jnp.ones(n) / n if of == "probs" else jnp.zeros(n)
        return dist.Categorical(**{of: values})

    for of in ("probs", "logits"):
        assert float(fv.kl(uniform(3), uniform(4, of))) == pytest.approx(np.log(4 / 3), rel=1e-5)
    rows = dist.Categorical(jnp.ones((2, 3)) / 3)
    assert float(fv.kl(rows, uniform(4))) == pytest.approx(2 * np.log(4 / 3), rel=1e-5)
    gradient = jax.grad(lambda x: fv.kl(dist.Categorical(logits=x), uniform(4)))(jnp.zeros(3))
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    with pytest.raises(ValueError, match="is infinite"):
        fv.kl(uniform(4), uniform(3))
