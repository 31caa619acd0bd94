"""bfloat16 and float16: objectives are computed in float32 and rounded once."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms as nt
from scipy import integrate, stats

import funcvi as fv
from funcvi.sampling.dtypes import own_dtype
from tests.funcvi.catalogue import CATALOGUE
from tests.funcvi.sampling.test_dtypes import HALVES, NO_DRAWS, converted

KEY = jax.random.key(5)
SINGLE = [name for name in CATALOGUE if name.split("/")[0] not in NO_DRAWS]


def sigmoid_of_normal(scale):
    return dist.TransformedDistribution(dist.Normal(0 * scale, scale), nt.SigmoidTransform())


def negative_entropy(scale):
    """Of the sigmoid of a normal, which has a tenth of its mass within a rounding of one."""

    def integrand(z):
        slope = -np.logaddexp(0, z) - np.logaddexp(0, -z)
        return stats.norm.pdf(z, 0, scale) * (stats.norm.logpdf(z, 0, scale) - slope)

    return integrate.quad(integrand, -np.inf, np.inf)[0]


UNIFORM = dist.Uniform(0.0, 1.0)
DIVERGENCES = {
    "kl": lambda q, key: fv.kl(q, UNIFORM, key=key, num_samples=2000),
    "score function": lambda q, key: fv.kl(
        q, UNIFORM, key=key, num_samples=2000, estimator="score_function"
    ),
    "bound": lambda q, key: (
        -fv.importance_weighted_elbo(
            q.expand((2000,)), UNIFORM.log_prob, key=key, num_samples=1, estimator="pathwise"
        )
        / 2000
    ),
}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_mass_within_a_rounding_of_an_edge_counts(name, dtype):
    def value(scale, key):
        return DIVERGENCES[name](sigmoid_of_normal(scale), key).astype(jnp.float32)

    scale = jnp.asarray(6.0, dtype)
    values = jax.jit(jax.vmap(value, (None, 0)))(scale, jax.random.split(KEY, 20))
    assert float(values.mean()) == pytest.approx(negative_entropy(6.0), rel=0.02)
    slope = jax.grad(value)(scale, KEY)
    right = (negative_entropy(6.1) - negative_entropy(5.9)) / 0.2
    assert slope.dtype == dtype
    assert float(slope) == pytest.approx(right, abs=0.1)


@pytest.mark.parametrize("dtype", HALVES)
def test_squares_of_large_draws_do_not_overflow(dtype):
    q, p = (dist.Cauchy(jnp.asarray(loc, dtype), jnp.asarray(8.0, dtype)) for loc in (0.0, 4.0))
    value = fv.kl(q, p, key=KEY, num_samples=20_000)
    assert value.dtype == dtype
    assert float(value) == pytest.approx(np.log(1 + 16 / (4 * 64)), abs=0.02)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("q", "f"),
    [
        (lambda a: dist.Normal(a(0.3), a(2.0)), jnp.square),
        (lambda a: dist.Poisson(a(2.0)), jnp.square),
        (lambda a: dist.Bernoulli(probs=a(0.25)), lambda x: 1.5 * x),
        (
            lambda a: dist.MixtureSameFamily(
                dist.Categorical(logits=a([0.0, 0.0])), dist.Normal(a([-1.0, 1.0]), a([1.0, 1.0]))
            ),
            jnp.square,
        ),
    ],
    ids=["pathwise", "score function", "values", "mixture"],
)
def test_a_function_gets_draws_in_the_dtype_of_the_parameters(q, f, dtype):
    q = q(lambda x: jnp.asarray(x, dtype))
    kinds = []

    def function(x):
        kinds.append(x.dtype)
        return f(x).astype(dtype)

    value = fv.expectation(q, function, key=KEY, num_samples=10)
    assert value.dtype == dtype
    assert set(kinds) == {fv.sample(jax.lax.stop_gradient(q), KEY).dtype}


@pytest.mark.few(8)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", SINGLE)
def test_a_divergence_is_that_in_float32_rounded(name, dtype):
    """And where float32 is refused, half precision is, in the same words."""
    d = converted(CATALOGUE[name](), dtype)
    found = []
    for q in (d, converted(d, jnp.float32)):
        try:
            found.append(fv.kl(q, q, key=KEY, num_samples=4))
        except (ValueError, TypeError) as error:
            found.append(str(error))
    half, full = found
    if isinstance(full, str):
        assert half == full
    else:
        assert half.dtype == own_dtype(d)  # of a law without arrays, JAX's default
        np.testing.assert_array_equal(half, full.astype(half.dtype))
