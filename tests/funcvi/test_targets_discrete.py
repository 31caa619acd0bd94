"""Discrete latents summed out: against sums over all their values, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import funcvi as fv

KEY = jax.random.key(0)
Y = jnp.array([-1.2, 0.4, 2.1])
TABLE = jnp.array([[0.8, 0.15, 0.05], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]])
PAIRS = jnp.array([[-1.2, 0.4], [2.1, 1.5], [0.2, -0.3]])


def mixture(y=Y):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    means = numpyro.sample("means", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)


def one_for_all():
    means = numpyro.sample("means", dist.Normal(0.0, 2.0).expand([3]).to_event(1))
    z = numpyro.sample("z", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
    numpyro.sample("y", dist.Normal(means[z], 1.0), obs=Y)  # three of one component, no plate


def chain():
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    z = 0
    for t, y in enumerate(Y):
        z = numpyro.sample(f"z{t}", dist.Categorical(TABLE[z]))
        numpyro.sample(f"y{t}", dist.Normal(z - 1.0, scale), obs=y)


def nested():
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("groups", 3, dim=-2):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        with numpyro.plate("members", 2, dim=-1):
            u = numpyro.sample("u", dist.Categorical(TABLE[z]))
            numpyro.sample("y", dist.Normal(u + 2.0 * z, scale), obs=PAIRS)


def table_by_row():
    table = numpyro.sample("table", dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))
    with numpyro.plate("rows", 3) as rows:
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(table[rows, z], 1.0), obs=Y)


def latent_given_discrete():
    z = numpyro.sample("z", dist.Bernoulli(0.25))
    theta = numpyro.sample("theta", dist.Normal(3.0 * z, 0.5))
    numpyro.sample("y", dist.Normal(theta, 1.0), obs=Y[0])


def vectors():
    a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("rows", 3):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
        means = jnp.stack([a, 2 * a, -a])[z]
        numpyro.sample("y", dist.MultivariateNormal(means, jnp.eye(2)), obs=PAIRS)


def latents_by_row():
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 3):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        w = numpyro.sample("w", dist.Normal(3.0 * z, 1.0))
        numpyro.sample("y", dist.Normal(w + a, 1.0), obs=Y)


def changepoint():
    rates = numpyro.sample("rates", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
    at = numpyro.sample("at", dist.DiscreteUniform(0, 4))
    times = jnp.arange(5)
    rate = jnp.where(times < at[..., None], rates[0], rates[1])
    numpyro.sample("counts", dist.Poisson(rate).to_event(1), obs=jnp.array([1, 0, 2, 5, 4]))


def with_factor():
    p = numpyro.sample("p", dist.Beta(2.0, 2.0))
    with numpyro.plate("rows", 3):
        z = numpyro.sample("z", dist.Binomial(2, p))
        numpyro.factor("reward", -0.5 * (z - Y) ** 2)


MODELS = {
    f.__name__: f
    for f in (
        mixture,
        one_for_all,
        chain,
        nested,
        table_by_row,
        latent_given_discrete,
        latents_by_row,
        vectors,
        changepoint,
        with_factor,
    )
}


def by_hand(model, values):
    """The log of the sum, over all values of all discrete sites, of numpyro's density."""
    trace = handlers.trace(handlers.seed(model, 0)).get_trace()
    discrete = {
        name: (jnp.shape(site["value"]), site["fn"].enumerate_support(expand=False).reshape(-1))
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"] and site["fn"].is_discrete
    }
    counts = [len(one) for shape, one in discrete.values() for _ in range(int(np.prod(shape)))]
    places = np.indices(counts).reshape(len(counts), -1).T  # a row for each choice

    def density(row):
        given, start = dict(values), 0
        for name, (shape, one) in discrete.items():
            size = int(np.prod(shape))
            given[name] = one[row[start : start + size]].reshape(shape)
            start += size
        return log_density(model, (), {}, given)[0]

    return jax.nn.logsumexp(jax.jit(jax.vmap(density))(jnp.asarray(places)))


@pytest.mark.parametrize("name", MODELS)
def test_the_density_is_the_sum_over_all_values(name):
    model = MODELS[name]
    target = fv.target(model)
    assert target.summed
    z = target.start(KEY)
    values = {n: x for n, x in target.constrain(z).items() if n in target.shapes}
    expected = by_hand(model, values) + target.log_det(z)
    np.testing.assert_allclose(target.log_density(z), expected, rtol=2e-5)
    np.testing.assert_allclose(jax.jit(target.log_density)(z), expected, rtol=2e-5)
    slope = jax.grad(lambda z: target.log_density(z))(z)
    expected = jax.grad(
        lambda z: (
            by_hand(model, {n: x for n, x in target.constrain(z).items() if n in target.shapes})
            + target.log_det(z)
        )
    )(z)
    for site, value in slope.items():
        np.testing.assert_allclose(value, expected[site], rtol=1e-3, atol=1e-4)


def test_a_mixture_is_that_of_its_components():
    target = fv.target(mixture)

    def marginal(y=Y):
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
        means = numpyro.sample("means", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        with numpyro.plate("rows", len(y)):
            parts = dist.Normal(means, 1.0)
            numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(weights), parts), obs=y)

    other = fv.target(marginal)
    z = jax.vmap(target.start)(jax.random.split(KEY, 5))
    np.testing.assert_allclose(
        jax.vmap(target.log_density)(z), jax.vmap(other.log_density)(z), rtol=1e-5
    )


def test_impossible_values_give_no_gradient():
    """Where a later state is impossible whatever it is, an earlier one is too: it gave NaN."""
    seen = jnp.array([1, 0, 1])

    def model():
        survival = numpyro.sample("survival", dist.Beta(2.0, 2.0))
        detection = numpyro.sample("detection", dist.Beta(2.0, 2.0))
        z = 1
        for t, s in enumerate(seen):
            z = numpyro.sample(f"z{t}", dist.Bernoulli(survival * z))
            numpyro.sample(f"y{t}", dist.Bernoulli(detection * z), obs=s)

    target = fv.target(model)

    def alive(z):
        """Who is seen last has lived throughout."""
        values = target.constrain(z)
        survival, detection = values["survival"], values["detection"]
        prior = sum(dist.Beta(2.0, 2.0).log_prob(values[n]) for n in values)
        years = 3 * jnp.log(survival) + 2 * jnp.log(detection) + jnp.log1p(-detection)
        return prior + target.log_det(z) + years

    z = target.start(KEY)
    for derivative in (jax.grad, jax.hessian):
        got = jax.tree.leaves(jax.jit(derivative(target.log_density))(z))
        expected = jax.tree.leaves(derivative(alive)(z))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_scale_by_entry_of_what_no_discrete_site_is_in():
    def model():
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("w", dist.Normal(a * z, 1.0), obs=0.3)
        with numpyro.plate("rows", 3), handlers.scale(scale=jnp.array([1.0, 2.0, 0.5])):
            numpyro.sample("y", dist.Normal(a, 1.0), obs=Y)

    values = {"a": jnp.array(0.7)}
    found = fv.target(model).log_density(values)
    np.testing.assert_allclose(found, by_hand(model, values), rtol=1e-5)


def test_minibatches_of_discrete_latents_are_unbiased():
    y = jnp.linspace(-2.0, 2.0, 12)

    def rows_of(y, size=None):
        means = numpyro.sample("means", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        with numpyro.plate("rows", len(y), subsample_size=size) as rows:
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y[rows])

    some, all_of = fv.target(rows_of, y, size=4), fv.target(rows_of, y)
    assert some.is_random
    z = {"means": jnp.array([-1.0, 0.5])}
    keys = jax.random.split(KEY, 4000)
    values = jax.vmap(lambda k: some.log_density(z, k))(keys)
    error = values.std() / len(keys) ** 0.5
    assert abs(values.mean() - all_of.log_density(z)) < 4 * error


def test_inference_and_predictions():
    y = jnp.concatenate([jnp.linspace(-3.2, -2.8, 20), jnp.linspace(1.7, 2.3, 30)])

    def ordered(y=None, size=50):
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
        means = numpyro.sample(
            "means",
            dist.ImproperUniform(dist.constraints.ordered_vector, (), (2,)),
        )
        numpyro.factor("prior", dist.Normal(0.0, 5.0).log_prob(means).sum())
        with numpyro.plate("rows", size):
            z = numpyro.sample("z", dist.Categorical(weights))
            numpyro.deterministic("mean", means[z])
            numpyro.sample("y", dist.Normal(means[z], 0.5), obs=y)
        numpyro.deterministic("gap", means[1] - means[0])

    posterior, report = fv.infer(fv.target(ordered, y), key=KEY)
    assert report.verdict == "reliable"
    summary = posterior.summary()
    np.testing.assert_allclose(summary["means[0]"].mean, -3.0, atol=0.1)
    np.testing.assert_allclose(summary["weights[1]"].mean, 31 / 52, atol=0.02)
    np.testing.assert_allclose(summary["gap"].mean, 5.0, atol=0.15)
    assert "mean[0]" not in summary  # it is of one value of z
    drawn = posterior.predict(ordered, size=3, key=KEY)["y"]
    assert drawn.shape == (1000, 3)
    with pytest.raises(ValueError, match="summed out over all"):
        posterior.to_arviz(groups=["log_likelihood"])


def unplated():
    means = numpyro.sample("means", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    z = numpyro.sample("z", dist.Categorical(jnp.ones(2) / 2).expand([3]))
    numpyro.sample("y", dist.Normal(means[z], 1.0), obs=Y)


def wrong_axis():
    table = numpyro.sample("table", dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2))
    with numpyro.plate("rows", 2):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(table[:, z][..., 0], 1.0), obs=Y[:2])


def counts():
    numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("k", dist.Poisson(2.0))


def branches():
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    z = numpyro.sample("z", dist.Bernoulli(0.4))
    numpyro.sample("y", dist.Normal(a if z > 0 else -a, 1.0), obs=Y[0])


def scaled_apart():
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    z = numpyro.sample("z", dist.Bernoulli(0.4))
    with handlers.scale(scale=3.0):
        numpyro.sample("y", dist.Normal(a * z, 1.0), obs=Y[0])


def moving_support():
    z = numpyro.sample("z", dist.Bernoulli(0.3))
    scale = numpyro.sample("scale", dist.Uniform(0.0, 1.0 + z))
    numpyro.sample("y", dist.Normal(0.0, scale), obs=Y[0])


def with_sample_shape():
    p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    z = numpyro.sample("z", dist.Bernoulli(p), sample_shape=(3,))
    numpyro.sample("y", dist.Normal(2.0 * z, 1.0), obs=Y)


def moving_values():
    p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    n = numpyro.sample("n", dist.DiscreteUniform(0, 4))
    k = numpyro.sample("k", dist.DiscreteUniform(0, n))
    numpyro.sample("y", dist.Normal(k * p, 1.0), obs=Y[0])


def group_test():
    p = numpyro.sample("p", dist.Beta(1.0, 9.0))
    with numpyro.plate("rows", 6):
        z = numpyro.sample("z", dist.Bernoulli(p))
    numpyro.sample("y", dist.Bernoulli(jnp.where(jnp.any(z == 1), 0.95, 0.05)), obs=0)


def reduced():
    p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    z = numpyro.sample("z", dist.Categorical(jnp.ones(50) / 50))
    numpyro.sample("y", dist.Normal(jnp.where(jnp.all(z == 7), 5.0, p), 1.0), obs=5.0)


def scaled_by_row():
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 3), handlers.scale(scale=jnp.array([1.0, 2.0, 3.0])):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(a * z, 1.0), obs=Y)


def crossing():
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    left, right = numpyro.plate("left", 2, dim=-2), numpyro.plate("right", 3, dim=-1)
    with left:
        z = numpyro.sample("z", dist.Bernoulli(0.4))
    with right:
        u = numpyro.sample("u", dist.Bernoulli(0.4))
    with left, right:
        numpyro.sample("y", dist.Normal(a * z * u, 1.0), obs=PAIRS.T)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (unplated, "'z' .*axis -1 is no plate"),
        (wrong_axis, "along a wrong axis"),
        (counts, "'k' is discrete .Poisson. without a few single values"),
        (branches, r"does not take all values of the discrete sites \['z'\]"),
        (scaled_apart, "have different scales"),
        (crossing, "cross each other"),
        (with_sample_shape, "'z' is discrete .* with a sample_shape"),
        (moving_values, "the values of latent site 'k' depend on other latents"),
        (group_test, "'y' depends on the discrete site 'z', and not value by value"),
        (reduced, "'y' depends on the discrete site 'z', and not value by value"),
        (scaled_by_row, "under a scale by entry"),
        (moving_support, "the support of latent site 'scale' depends on one of the discrete"),
    ],
)
def test_what_cannot_be_summed_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        fv.target(model).start(KEY)
