"""Regressions, by the distribution of what is seen, and by the prior of the weights."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from numpyro.distributions import constraints

from tests.funcvi.models.entries import Entry, entry

RNG = np.random.default_rng(1)
X = RNG.normal(size=(6, 3))
Y = X @ np.array([1.0, -0.5, 0.0]) + RNG.normal(0.0, 0.3, 6)
YES = np.array([1, 0, 1, 1, 0, 1])
COUNTS = np.array([0, 3, 1, 0, 0, 5])
SHARES = np.array([0.2, 0.7, 0.45, 0.9, 0.1, 0.6])
GRADES = np.array([0, 2, 1, 3, 1, 2])
ANGLES = RNG.vonmises(0.5, 2.0, 6)


def divorces(age, marriages, divorces):
    a = numpyro.sample("a", dist.Normal(0.0, 0.2))
    b_age, b_marriages = (
        numpyro.sample(n, dist.Normal(0.0, 0.5)) for n in ("b age", "b marriages")
    )
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    mu = numpyro.deterministic("mu", a + b_age * age + b_marriages * marriages)
    numpyro.sample("divorces", dist.Normal(mu, sigma), obs=divorces)


def logistic(x, yes):
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(x.shape[1]), jnp.ones(x.shape[1])))
    numpyro.sample("yes", dist.Bernoulli(logits=x @ weights), obs=yes)


def horseshoe(x, y):
    local = numpyro.sample("local", dist.HalfCauchy(jnp.ones(x.shape[1])))
    shared = numpyro.sample("shared", dist.HalfCauchy(1.0))
    unit = numpyro.sample("unit", dist.Normal(jnp.zeros(x.shape[1]), 1.0))
    weights = numpyro.deterministic("weights", shared * local * unit)
    precision = numpyro.sample("precision", dist.Gamma(3.0, 1.0))
    numpyro.sample("y", dist.Normal(x @ weights, 1 / jnp.sqrt(precision)), obs=y)


def horseshoe_logistic(x, yes):
    """Its slab bounds what is not shrunk."""
    size = x.shape[1]
    shared = numpyro.sample("shared", dist.HalfCauchy(0.1))
    slab = numpyro.sample("slab", dist.InverseGamma(2.0, 8.0))
    with numpyro.plate("features", size):
        local = numpyro.sample("local", dist.FoldedDistribution(dist.StudentT(3.0)))
        shrunk = jnp.sqrt(slab) * local / jnp.sqrt(slab + (shared * local) ** 2)
        weights = numpyro.sample("weights", dist.Normal(0.0, shared * shrunk))
    numpyro.sample("yes", dist.Bernoulli(logits=x @ weights), obs=yes)


def pairs_kernel(x, y):
    """Sparse pairwise interactions, integrated to a Gaussian process."""
    strength = numpyro.sample("strength", dist.HalfNormal(1.0).expand([x.shape[1]]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    pairs = numpyro.sample("pairs", dist.InverseGamma(3.0, 1.0))
    kx = x * strength
    inner = kx @ kx.T
    kernel = 0.5 * pairs * (1 + inner) ** 2 + (1 - pairs) ** 2 * inner + 1.5
    kernel += (noise**2 + 0.1) * jnp.eye(len(y))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(y)), covariance_matrix=kernel), obs=y)


def shares_of_variance(x, y):
    """R2D2: a prior of how much is explained, and by whom."""
    explained = numpyro.sample("explained", dist.BetaProportion(0.5, 4.0))
    by = numpyro.sample("by", dist.Dirichlet(jnp.ones(x.shape[1])))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    scale = noise * jnp.sqrt(by * explained / (1 - explained))
    weights = numpyro.sample("weights", dist.Normal(0.0, scale).to_event(1))
    numpyro.sample("y", dist.Normal(x @ weights, noise), obs=y)


def robust(x, y):
    weights = numpyro.sample("weights", dist.Laplace(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    df = numpyro.sample("df", dist.Gamma(2.0, 0.1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.StudentT(df, x @ weights, scale), obs=y)


def quantile(x, y):
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.AsymmetricLaplaceQuantile(x @ weights, scale, 0.8), obs=y)


def poisson(x, counts):
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    numpyro.sample("counts", dist.Poisson(jnp.exp(x @ weights)), obs=counts)


def negative_binomial(x, counts):
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    size = numpyro.sample("size", dist.Exponential(0.5))
    numpyro.sample("counts", dist.NegativeBinomial2(jnp.exp(x @ weights), size), obs=counts)


def zero_inflated_poisson(x, counts):
    gate = numpyro.sample("gate", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    d = dist.ZeroInflatedDistribution(dist.Poisson(jnp.exp(x @ weights)), gate_logits=x @ gate)
    numpyro.sample("counts", d, obs=counts)


def zero_inflated_negative_binomial(counts):
    gate = numpyro.sample("gate", dist.Beta(1.0, 2.0))
    mean, size = (numpyro.sample(n, dist.Gamma(2.0, 1.0)) for n in ("mean", "size"))
    numpyro.sample("counts", dist.ZeroInflatedNegativeBinomial2(mean, size, gate=gate), obs=counts)


def beta_binomial(trials, counts):
    a, b = (numpyro.sample(n, dist.Exponential(0.3)) for n in ("a", "b"))
    numpyro.sample("counts", dist.BetaBinomial(a, b, trials), obs=counts)


def beta_binomial_density(values):
    a, b = values["a"], values["b"]
    total = dist.Exponential(0.3).log_prob(a) + dist.Exponential(0.3).log_prob(b)
    log_choose = gammaln(7.0) - gammaln(COUNTS + 1.0) - gammaln(7.0 - COUNTS)
    ratio = gammaln(a + COUNTS) + gammaln(b + 6.0 - COUNTS) - gammaln(a + b + 6.0)
    return total + jnp.sum(log_choose + ratio - gammaln(a) - gammaln(b) + gammaln(a + b))


def shares(x, y):
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    size = numpyro.sample("size", dist.Gamma(2.0, 0.2))
    mean = 1 / (1 + jnp.exp(-x @ weights))
    numpyro.sample("y", dist.BetaProportion(mean, size), obs=y)


def grades_flat(grades):
    """Cutpoints with a flat prior, by a factor of their own."""
    cuts = numpyro.sample("cuts", dist.ImproperUniform(constraints.ordered_vector, (), (3,)))
    numpyro.factor("prior", dist.Normal(0.0, 1.0).log_prob(cuts).sum())
    skill = numpyro.sample("skill", dist.Normal(0.0, 1.0))
    numpyro.sample("grades", dist.OrderedLogistic(skill, cuts), obs=grades)


def grades_transformed(x, grades):
    prior = dist.TransformedDistribution(
        dist.Normal(0.0, 1.0).expand([3]).to_event(1), dist.transforms.OrderedTransform()
    )
    cuts = numpyro.sample("cuts", prior)
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    with numpyro.plate("pupils", len(grades)):
        numpyro.sample("grades", dist.OrderedLogistic(x @ weights, cuts), obs=grades)


def grades_induced(grades):
    """Cutpoints from a simplex of the chances of each grade."""
    with numpyro.handlers.reparam(config={"cuts": numpyro.infer.reparam.TransformReparam()}):
        prior = dist.TransformedDistribution(
            dist.Dirichlet(jnp.ones(4)), dist.transforms.SimplexToOrderedTransform(0.3)
        )
        cuts = numpyro.sample("cuts", prior)
    skill = numpyro.sample("skill", dist.Normal(0.0, 1.0))
    numpyro.sample("grades", dist.OrderedLogistic(skill, cuts), obs=grades)


def softmax(x, grades):
    weights = numpyro.sample("weights", dist.Normal(0.0, 1.0).expand([x.shape[1], 4]).to_event(2))
    numpyro.sample("grades", dist.Categorical(logits=x @ weights), obs=grades)


def multinomial(votes):
    concentration = numpyro.sample("concentration", dist.Gamma(2.0, 1.0).expand([3]).to_event(1))
    with numpyro.plate("towns", len(votes)):
        chances = numpyro.sample("chances", dist.Dirichlet(concentration))
        numpyro.sample("votes", dist.Multinomial(20, chances), obs=votes)


def dirichlet_multinomial(votes):
    concentration = numpyro.sample(
        "concentration", dist.LogNormal(0.0, 1.0).expand([3]).to_event(1)
    )
    numpyro.sample("votes", dist.DirichletMultinomial(concentration, 20), obs=votes)


def angles(x, y):
    middle = numpyro.sample("middle", dist.VonMises(0.0, 1.0))
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    concentration = numpyro.sample("concentration", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.VonMises(middle + 2 * jnp.arctan(x @ weights), concentration), obs=y)


def errors_in_both(x, y):
    mean, spread = (
        numpyro.sample("mean", dist.Normal(0.0, 1.0)),
        numpyro.sample("spread", dist.HalfNormal(1.0)),
    )
    with numpyro.plate("rows", len(y)):
        true = numpyro.sample("true", dist.Normal(mean, spread))
        numpyro.sample("x", dist.Normal(true, 0.3), obs=x)
        numpyro.sample("y", dist.Normal(2.0 * true, 0.2), obs=y)


def seemingly_unrelated(x, y):
    """Two outcomes, whose errors correlate."""
    weights = numpyro.sample(
        "weights", dist.MatrixNormal(jnp.zeros((3, 2)), jnp.eye(3), jnp.eye(2))
    )
    correlation = numpyro.sample("correlation", dist.LKJ(2, 1.5))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([2]).to_event(1))
    covariance = correlation * scale[:, None] * scale
    numpyro.sample("y", dist.MultivariateNormal(x @ weights, covariance), obs=y)


VOTES = np.array([[5, 10, 5], [2, 3, 15], [9, 9, 2]])

ENTRIES = [
    entry(divorces, X[:, 0], X[:, 1], Y),
    entry(logistic, X, YES),
    entry(horseshoe, X, Y),
    entry(horseshoe_logistic, X, YES),
    entry(pairs_kernel, X, Y),
    entry(shares_of_variance, X, Y),
    entry(robust, X, Y),
    entry(quantile, X, Y),
    entry(poisson, X, COUNTS),
    entry(negative_binomial, X, COUNTS),
    entry(zero_inflated_poisson, X, COUNTS),
    entry(zero_inflated_negative_binomial, COUNTS),
    Entry(
        "beta binomial",
        beta_binomial,
        (np.full(6, 6), COUNTS),
        log_density=beta_binomial_density,
        note="jax's betaln is off by 1e-6, in float64 too",
    ),
    entry(shares, X, SHARES),
    entry(grades_flat, GRADES),
    entry(grades_transformed, X, GRADES),
    entry(grades_induced, GRADES),
    entry(softmax, X, GRADES),
    entry(multinomial, VOTES),
    entry(dirichlet_multinomial, VOTES),
    entry(angles, X, ANGLES),
    entry(errors_in_both, X[:, 0], Y),
    entry(seemingly_unrelated, X, RNG.normal(size=(6, 2))),
]
