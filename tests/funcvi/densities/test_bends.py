"""Second derivatives of log densities with a corner: right, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints, transforms
from scipy import stats

import funcvi as fv
from funcvi.densities.bends import bends, bends_along_draws

KEY = jax.random.key(2)
HALF = jnp.array([0.5, 0.5])
REFUSAL = r"bends, so this second derivative would be biased:\nuse first"


def pair(first, second):
    support = constraints.real
    return dist.MixtureGeneral(dist.Categorical(HALF), [first, second], support=support)


def same(x):
    return dist.MixtureSameFamily(dist.Categorical(HALF), dist.Laplace(jnp.stack([x, 1.0]), 1.0))


LAPLACE = dist.Laplace(0.0, 1.0)
NORMAL = dist.Normal(0.0, 1.0)
BENT = {
    "p": (dist.Normal, lambda x: LAPLACE),
    "p's location": (lambda x: NORMAL, dist.Laplace),
    "p, asymmetric": (dist.Normal, lambda x: dist.AsymmetricLaplace(0.0, 1.0, 1.5)),
    "p, a mixture": (dist.Normal, lambda x: pair(dist.Cauchy(), LAPLACE)),
    "p, moved": (
        dist.Normal,
        lambda x: dist.TransformedDistribution(LAPLACE, transforms.AffineTransform(x, 2.0)),
    ),
    "q, a mixture": (same, lambda x: NORMAL),
    "q, a mixture of two": (lambda x: pair(dist.Normal(x), LAPLACE), lambda x: NORMAL),
    "q, asymmetric": (lambda x: dist.AsymmetricLaplace(x, 1.0, 1.5), lambda x: NORMAL),
    "q, truncated": (
        lambda x: dist.TruncatedDistribution(dist.Laplace(x, 1.0), low=-0.5),
        lambda x: NORMAL,
    ),
    "q, folded": (
        lambda x: dist.FoldedDistribution(dist.Laplace(x, 1.0)), lambda x: dist.HalfNormal()
    ),
    "batches": (
        lambda x: dist.Normal(x + jnp.zeros(3)).to_event(1),
        lambda x: LAPLACE.expand((3,)).to_event(1),
    ),
}  # fmt: skip
SECOND = {
    "hessian": jax.hessian,
    "jvp of grad": lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (1.0,))[1],
    "grad of grad": lambda f: jax.grad(jax.grad(f)),
}


def divergence(q, p, estimator=None, n=100):
    return lambda x: fv.kl(q(x), p(x), key=KEY, num_samples=n, estimator=estimator)


@pytest.mark.few(7)
@pytest.mark.parametrize("kind", SECOND)
@pytest.mark.parametrize("name", BENT)
def test_a_corner_that_draws_cross_is_refused_beyond_the_first_derivative(name, kind):
    of = divergence(*BENT[name])
    assert jnp.isfinite(jax.grad(of)(0.3))
    with pytest.raises(ValueError, match=REFUSAL):
        SECOND[kind](of)(0.3)
    with pytest.raises(ValueError, match=REFUSAL):
        jax.jit(SECOND[kind](of))(0.3)


def test_fixed_draws_cross_no_corner():
    """KL(Normal(m, 1) || Laplace(0, 1)) = E|x| + constants: its curvature is 2 phi(m)."""
    second = jax.hessian(divergence(dist.Normal, lambda x: LAPLACE, "score_function", 100_000))
    assert float(second(0.3)) == pytest.approx(2 * stats.norm.pdf(0.3), abs=0.04)


@pytest.mark.parametrize("estimator", ["pathwise", "sticking_the_landing"])
def test_the_corner_of_a_laplace_law_moves_with_its_draws(estimator):
    of = divergence(lambda x: dist.Laplace(x, 1.0), lambda x: NORMAL, estimator)
    assert float(jax.hessian(of)(0.3)) == pytest.approx(1.0, abs=1e-5)


def test_it_does_not_move_with_a_score():
    of = divergence(lambda x: dist.Laplace(x, 1.0), lambda x: NORMAL, "score_function")
    with pytest.raises(ValueError, match=REFUSAL):
        jax.hessian(of)(0.3)


def test_the_expectation_of_a_smooth_function_has_its_curvature():
    """Of x**2 under halves at x and at 1: 1."""
    of = jax.hessian(lambda x: fv.expectation(same(x), jnp.square, key=KEY, num_samples=100))
    assert float(of(0.3)) == pytest.approx(1.0, abs=1e-5)


def test_which_laws_bend():
    smooth = [NORMAL, dist.SoftLaplace(0.0, 1.0), dist.Gamma(2.0), dist.Uniform(), dist.Cauchy()]
    assert not any(map(bends, smooth))
    assert bends(LAPLACE.expand((3,)).to_event(1).mask(np.array(True)))
    assert not bends_along_draws(LAPLACE.expand((3,)).to_event(1))
    assert bends_along_draws(dist.TruncatedDistribution(LAPLACE, low=0.3))
