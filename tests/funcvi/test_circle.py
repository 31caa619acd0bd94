"""KL where q goes round: pathwise on the circle, the score function where p is cut at pi."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import funcvi as fv
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
