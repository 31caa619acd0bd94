"""Elements of a batch are those of the batch: by their densities."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms as nt

from funcvi.families.rows import elements

KEY = jax.random.key(0)
LOC, VECTOR = jax.random.normal(KEY, (6,)), jax.random.normal(KEY, (6, 3))
SCALE = jnp.exp(LOC / 2)
TRIL = jnp.eye(3) + 0.1 * jnp.tril(jax.random.normal(KEY, (6, 3, 3)))
COVARIANCE = TRIL @ jnp.swapaxes(TRIL, -1, -2)
WEIGHTS = dist.Categorical(logits=VECTOR)
UNIT = dist.Normal(0.0, 1.0).expand((6,))

BATCHES = {
    "normal": dist.Normal(LOC, SCALE),
    "one scale for all": dist.Normal(LOC, 2.0),
    "expanded": dist.Normal(0.0, 1.0).expand((6,)),
    "expanded from one": dist.Normal(LOC[:1], 1.0).expand((6,)),
    "held parameters": dist.StudentT(5.0, LOC, SCALE),
    "vectors": dist.MultivariateNormal(VECTOR, scale_tril=TRIL),
    "covariances": dist.MultivariateNormal(VECTOR, covariance_matrix=COVARIANCE),
    "one factor for all": dist.MultivariateNormal(VECTOR, scale_tril=TRIL[0]),
    "low rank": dist.LowRankMultivariateNormal(VECTOR, VECTOR[..., None], jnp.ones((6, 3))),
    "mixture": dist.MixtureSameFamily(WEIGHTS, dist.Normal(VECTOR, 1.0)),
    "any mixture": dist.MixtureGeneral(
        dist.Categorical(logits=VECTOR[:, :2]), [dist.Normal(LOC, 1.0), dist.StudentT(3.0, LOC)]
    ),
    "affine": dist.TransformedDistribution(UNIT, [nt.AffineTransform(LOC, SCALE)]),
    "two transforms": dist.TransformedDistribution(
        dist.Normal(LOC, 1.0), [nt.ExpTransform(), nt.PowerTransform(SCALE)]
    ),
    "events": dist.Normal(VECTOR, 1.0).to_event(1),
    "masked": dist.Normal(LOC, 1.0).mask(jnp.arange(6) > 2),
    "truncated": dist.TruncatedNormal(LOC, SCALE, low=-9.0, high=LOC + 9.0),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", BATCHES)
def test_densities_of_elements_are_those_of_the_batch(name):
    d = BATCHES[name]
    rows = jnp.array([[4, 0], [1, 1], [5, 2]])
    some = elements(d, lambda x: jax.vmap(lambda row: x[row])(rows))
    assert type(some) is type(d) or isinstance(d, dist.ExpandedDistribution)
    assert (some.batch_shape, some.event_shape) == ((3, 2), d.event_shape)
    x = 0.1 + jax.random.uniform(KEY, (6, *d.event_shape))
    np.testing.assert_allclose(some.log_prob(x[rows]), d.log_prob(x)[rows], rtol=1e-5)


def test_what_has_no_elements_is_refused():
    class Shift(nt.ParameterFreeTransform):
        domain = codomain = dist.constraints.real

        def __init__(self, by):
            self.by = by

        def __call__(self, x):
            return x + self.by

        def tree_flatten(self):
            return (self.by,), (("by",), {})

    d = dist.TransformedDistribution(UNIT, [Shift(LOC)])
    with pytest.raises(TypeError, match="the parameters of Shift are not known by name"):
        elements(d, lambda x: x[:2])
