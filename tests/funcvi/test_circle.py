"""KL where q goes round: pathwise on the circle, the score function where p is cut at pi."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import funcvi as fv
from funcvi.objectives.draws import draws
from funcvi.sampling.gradients import jump_obstacle

KEY = jax.random.key(0)
PARAMS = (jnp.float32(2.4), jnp.float32(1.3))  # a tenth of the mass is beyond pi


def exact(p, loc, concentration):
    """KL by the trapezoid rule, which is exact enough even where p is cut."""
    with jax.enable_x64(True):
        x = jnp.linspace(-jnp.pi, jnp.pi, 40_001)
        q = dist.VonMises(jnp.float64(loc), jnp.float64(concentration), validate_args=False)
        log_q = q.log_prob(x)
        return float(jnp.trapezoid(jnp.exp(log_q) * (log_q - p.log_prob(x)), x))


@pytest.mark.parametrize("p", [dist.VonMises(0.3, 2.0), dist.Normal(0.5, 1.2)])
def test_gradient_equals_quadrature(p):
    def value(params, key):
        return fv.kl(dist.VonMises(*params), p, key=key, num_samples=50)

    keys = jax.random.split(KEY, 2000)
    slopes = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(PARAMS, keys)
    start, h = np.array(PARAMS, float), 1e-4
    for i, slope in enumerate(slopes):
        slope = np.asarray(slope, float)
        step = h * np.eye(2)[i]
        difference = (exact(p, *(start + step)) - exact(p, *(start - step))) / (2 * h)
        assert abs(slope.mean() - difference) < 4 * slope.std() / np.sqrt(len(slope)) + 1e-5


@pytest.mark.parametrize("estimator", ["pathwise", "sticking_the_landing"])
def test_a_path_is_refused_where_p_is_cut(estimator):
    with pytest.raises(ValueError, match=r"VonMises jumps at pi.*\n.*score_function"):
        fv.kl(dist.VonMises(0.0, 1.0), dist.Normal(), key=KEY, num_samples=2, estimator=estimator)
    turned = dist.TransformedDistribution(
        dist.VonMises(0.0, 1.0), dist.transforms.AffineTransform(1.0, 0.5)
    )
    with pytest.raises(ValueError, match="jumps at pi"):
        fv.kl(turned, dist.Normal(), key=KEY, num_samples=2, estimator=estimator)
    assert "jumps at pi" in (jump_obstacle(turned.expand([2]).to_event(1)) or "")


def test_a_path_is_taken_on_the_circle():
    q, p = dist.VonMises(0.0, 1.0), dist.VonMises(1.0, 1.0)
    unasked = fv.kl(q, p, key=KEY, num_samples=5)
    assert unasked == fv.kl(q, p, key=KEY, num_samples=5, estimator="pathwise")


WEIGHTS = dist.Categorical(probs=jnp.array([0.3, 0.7]))
STRETCH = dist.transforms.AffineTransform(0.0, 2.0)


def angles(loc):
    return dist.VonMises(jnp.array([0.0, 1.0]) + loc, 1.0)


# What goes round inside: each gives x, or 2 x, of the same mixture of angles.
MIXTURES = {
    "mixture": (1, lambda t: dist.MixtureSameFamily(WEIGHTS, angles(t))),
    "general": (
        1,
        lambda t: dist.MixtureGeneral(WEIGHTS, [dist.VonMises(t, 1.0), dist.VonMises(1 + t, 1.0)]),
    ),
    "transformed": (
        2,
        lambda t: dist.TransformedDistribution(dist.MixtureSameFamily(WEIGHTS, angles(t)), STRETCH),
    ),
    "of transformed": (
        2,
        lambda t: dist.MixtureSameFamily(WEIGHTS, dist.TransformedDistribution(angles(t), STRETCH)),
    ),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_of_angles_is_not_summed_along_its_components_paths(name):
    factor, make = MIXTURES[name]
    x = jnp.linspace(-jnp.pi, jnp.pi, 20_001)

    def mean(t):
        return factor * jnp.trapezoid(jnp.exp(MIXTURES["mixture"][1](t).log_prob(x)) * x, x)

    def estimate(t, key):
        return fv.expectation(make(t), lambda x: x, key=key, num_samples=2000)

    slopes = jax.jit(jax.vmap(jax.grad(estimate), (None, 0)))(2.0, jax.random.split(KEY, 200))
    expected = jax.grad(mean)(2.0)
    assert abs(slopes.mean() - expected) < 4 * slopes.std() / 200**0.5
    with pytest.raises(ValueError, match="jumps at pi"):
        fv.kl(make(2.0), dist.Normal(), key=KEY, num_samples=2, estimator="enumeration")


def test_a_mixture_of_angles_is_summed_on_the_circle():
    q, p = MIXTURES["mixture"][1](2.0), dist.VonMises(1.0, 1.0)
    unasked = fv.kl(q, p, key=KEY, num_samples=5)
    assert unasked == fv.kl(q, p, key=KEY, num_samples=5, estimator="enumeration")


def halves(loc):
    """A density that jumps at zero, inside its support."""
    return dist.MixtureGeneral(
        WEIGHTS, [dist.Normal(loc, 1.0), dist.HalfNormal(1.0)], support=dist.constraints.real
    )


@pytest.mark.filterwarnings("ignore:Out-of-support")  # of the half, where it counts for nothing
@pytest.mark.parametrize(
    ("make", "p"),
    [(halves, dist.Normal(0.0, 2.0)), (lambda t: dist.Normal(t, 1.0), halves(0.0))],
    ids=["q", "p"],
)
def test_a_density_that_jumps_inside_its_support(make, p):
    x = jnp.linspace(-9.0, 9.0, 200_001)

    def exact_kl(t):
        log_q = make(t).log_prob(x)
        return float(jnp.trapezoid(jnp.exp(log_q) * (log_q - p.log_prob(x)), x))

    def value(t, key):
        return fv.kl(make(t), p, key=key, num_samples=2000)

    slopes = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(0.3, jax.random.split(KEY, 200))
    expected = (exact_kl(0.35) - exact_kl(0.25)) / 0.1
    assert abs(slopes.mean() - expected) < 4 * slopes.std() / 200**0.5 + 2e-3
    with pytest.raises(ValueError, match="MixtureGeneral jumps at the edge of a component"):
        fv.kl(make(0.3), p, key=KEY, num_samples=2, estimator="pathwise")


def test_a_bound_may_always_add_the_score():
    d = draws(
        dist.Normal(),
        lambda z: -(z**2),
        key=KEY,
        num_samples=3,
        estimator=None,
        allowed=("pathwise", "score_function"),
    )
    assert (d.score == jnp.zeros(3)).all()
