"""Latents of every support that has a bijection, and supports that move."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints, transforms

from tests.funcvi.models.entries import entry


def _one(law):
    """A model of one latent, which a look at its first entry ties to data."""

    def model(y):
        x = numpyro.sample("x", law())
        first = jnp.ravel(x)[0]
        numpyro.deterministic("first", first)
        numpyro.sample("y", dist.Normal(first, 1.0), obs=y)

    return model


def _flat(constraint, *event, batch=()):
    return lambda: dist.ImproperUniform(constraint, batch, event)


LAWS = {
    "ordered": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 1.0).expand([3]).to_event(1), transforms.OrderedTransform()
    ),
    "ordered, flat": _flat(constraints.ordered_vector, 3),
    "simplex": lambda: dist.Dirichlet(jnp.array([2.0, 3.0, 0.5])),
    "simplices": lambda: dist.Dirichlet(jnp.ones((2, 3))).to_event(1),
    "simplex, flat": _flat(constraints.simplex, 3),
    "correlation factor": lambda: dist.LKJCholesky(3, 2.0),
    "correlation": lambda: dist.LKJ(3, 2.0),
    "covariance": lambda: dist.Wishart(4.0, jnp.eye(2) + 0.5),
    "covariance factor": lambda: dist.WishartCholesky(4.0, jnp.eye(2) + 0.5),
    "inverse covariance": lambda: dist.InverseWishart(4.0, jnp.eye(2) + 0.5),
    "lower triangle, flat": _flat(constraints.lower_cholesky, 2, 2),
    "softplus triangle, flat": _flat(constraints.softplus_lower_cholesky, 2, 2),
    "scaled unit triangle, flat": _flat(constraints.scaled_unit_lower_cholesky, 2, 2),
    "covariance, flat": _flat(constraints.positive_definite, 2, 2),
    "zero sum": lambda: dist.ZeroSumNormal(1.0, (2, 3)),
    "angle": lambda: dist.VonMises(0.3, 2.0),
    "many angles": lambda: dist.VonMises(jnp.array([0.3, -3.0]), 2.0),
    "two angles": lambda: dist.SineBivariateVonMises(0.1, 0.3, 2.0, 3.0, correlation=0.5),
    "skew angles": lambda: dist.SineSkewed(
        dist.VonMises(0.3, 2.0).expand([1]).to_event(1), jnp.array([0.4])
    ),
    "unit interval": lambda: dist.Beta(2.0, 3.0),
    "interval": lambda: dist.Uniform(-2.0, jnp.array([1.0, 3.0])),
    "log uniform": lambda: dist.LogUniform(0.5, 4.0),
    "above": lambda: dist.Pareto(2.0, 3.0),
    "below": lambda: dist.TruncatedNormal(0.0, 1.0, high=-0.5),
    "between": lambda: dist.TruncatedCauchy(0.0, 1.0, low=-1.0, high=3.0),
    "power law": lambda: dist.DoublyTruncatedPowerLaw(1.5, 0.5, 3.0),
    "softplus positive, flat": _flat(constraints.softplus_positive),
    "nonnegative, flat": _flat(constraints.nonnegative, batch=(2,)),
    "real, flat": _flat(constraints.real, batch=(2,)),
    "real matrix": lambda: dist.MatrixNormal(jnp.zeros((2, 3)), jnp.eye(2), jnp.eye(3)),
    "folded": lambda: dist.FoldedDistribution(dist.StudentT(3.0, 0.2, 1.0)),
    "kumaraswamy": lambda: dist.Kumaraswamy(2.0, 3.0),
    "relaxed": lambda: dist.RelaxedBernoulli(temperature=0.7, probs=0.3),
    "levy": lambda: dist.Levy(0.5, 1.0),
    "t vector": lambda: dist.MultivariateStudentT(4.0, jnp.zeros(2), jnp.eye(2)),
    "affine of gamma": lambda: dist.TransformedDistribution(
        dist.Gamma(2.0, 1.0), transforms.AffineTransform(1.0, -2.0)
    ),
    "log of gamma": lambda: dist.TransformedDistribution(
        dist.Gamma(0.5, 2.0), transforms.ExpTransform().inv
    ),
    "sigmoid of normal": lambda: dist.TransformedDistribution(
        dist.Normal(0.3, 1.0), transforms.SigmoidTransform()
    ),
    "sticks of normal": lambda: dist.TransformedDistribution(
        dist.Normal(jnp.zeros(2), 1.0).to_event(1), transforms.StickBreakingTransform()
    ),
    "power of gamma": lambda: dist.TransformedDistribution(
        dist.Gamma(2.0, 1.0), transforms.PowerTransform(0.5)
    ),
    "normal mixture": lambda: dist.MixtureSameFamily(
        dist.Categorical(jnp.array([0.3, 0.7])), dist.Normal(jnp.array([-1.0, 2.0]), 1.0)
    ),
    "mixture of kinds": lambda: dist.MixtureGeneral(
        dist.Categorical(jnp.array([0.3, 0.7])),
        [dist.HalfNormal(1.0), dist.Gamma(3.0, 1.0)],
        support=constraints.positive,
    ),
    "inverse gamma": lambda: dist.InverseGamma(3.0, 2.0),
    "gumbel": lambda: dist.Gumbel(0.0, jnp.array([1.0, 2.0])),
    "half cauchy, expanded": lambda: dist.HalfCauchy(1.0).expand([2]).to_event(1),
    "low rank": lambda: dist.LowRankMultivariateNormal(
        jnp.zeros(3), jnp.ones((3, 1)), jnp.array([0.5, 1.0, 2.0])
    ),
}


def bound_by_another(y):
    high = numpyro.sample("high", dist.Gamma(3.0, 1.0))
    low = numpyro.sample("low", dist.Uniform(-1.0, high))
    inside = numpyro.sample("inside", dist.TruncatedNormal(0.0, 1.0, low=low - 1.0, high=high))
    numpyro.sample("y", dist.Normal(inside, 1.0), obs=y)


def bounds_by_row(y):
    with numpyro.plate("rows", 3):
        high = numpyro.sample("high", dist.Exponential(1.0))
        x = numpyro.sample("x", dist.Uniform(0.0, high))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def power_law_of_a_latent_start(y):
    start = numpyro.sample("start", dist.LogNormal(0.0, 1.0))
    size = numpyro.sample("size", dist.Pareto(start, 2.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(size, 1.0).to_event(1), obs=y)


def scale_by_a_simplex(y):
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(2)))
    x = numpyro.sample("x", dist.Uniform(-share, share).to_event(1))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)


def improper_in_a_plate(y):
    with numpyro.plate("rows", 2):
        x = numpyro.sample("x", dist.ImproperUniform(constraints.positive, (), (2,)))
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)


ENTRIES = [
    *(entry(_one(law), 0.7, name=name) for name, law in LAWS.items()),
    entry(bound_by_another, 0.2),
    entry(bounds_by_row, np.array([0.1, 0.5, 0.9])),
    entry(power_law_of_a_latent_start, np.array([1.5, 2.5])),
    entry(scale_by_a_simplex, np.array([0.1, -0.1])),
    entry(improper_in_a_plate, np.ones((2, 2))),
]
