"""Models that are no targets, each refused by the site, with what to do."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.distributions import constraints, transforms
from numpyro.infer.reparam import CircularReparam

from tests.funcvi.models.entries import Refusal

Y = np.array([-1.2, 0.4, 2.1, 0.3])
ROWS = np.array([[0.8, 0.2], [0.3, 0.7]])


def rows(z):
    return jnp.asarray(ROWS)[z]


def chain(step, start=0):
    """A model that scans a step over the data."""

    def model(y):
        m = numpyro.sample("m", dist.Normal())
        scan(lambda carry, y: (step(m, carry, y), None), start, y)

    return model


def of_second_order(m, carry, y):
    z, before = carry
    new = numpyro.sample("z", dist.Categorical(rows((z + before) % 2)))
    numpyro.sample("y", dist.Normal(m * new, 1.0), obs=y)
    return new, z


def that_counts(m, count, y):
    count = count + numpyro.sample("z", dist.Bernoulli(0.3))
    numpyro.sample("y", dist.Normal(m * count, 1.0), obs=y)
    return count


def reduced(m, z, y):
    with numpyro.plate("rows", 3):
        z = numpyro.sample("z", dist.Categorical(rows(z)))
    numpyro.sample("y", dist.Normal(m * jnp.any(z == 1), 1.0), obs=y)
    return z


def reduced_beside_the_last(m, before, y):
    z = numpyro.sample("z", dist.Categorical(jnp.ones(20) / 20))
    numpyro.sample("y", dist.Normal(m * before + jnp.all(z == 7), 1.0), obs=y)
    return z


def with_moving_support(m, z, y):
    z = numpyro.sample("z", dist.Categorical(rows(z)))
    x = numpyro.sample("x", dist.Uniform(0.0, 1.0 + z))
    numpyro.sample("y", dist.Normal(m + x, 1.0), obs=y)
    return z


def unplated(m, z, y):
    z = numpyro.sample("z", dist.Categorical(rows(z)))
    numpyro.sample("y", dist.Normal(m * z, 1.0).to_event(1), obs=jnp.full(3, y))
    return z


def with_a_branch(m, z, y):
    z = numpyro.sample("z", dist.Categorical(rows(z)))
    x = cond(z == 1, lambda _: m, lambda _: -m, None)
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
    return z


def scaled_apart(m, z, y):
    z = numpyro.sample("z", dist.Categorical(rows(z)))
    with handlers.scale(scale=2.0):
        numpyro.sample("y", dist.Normal(m * z, 1.0), obs=y)
    return z


def in_two_plates(m, carry, y):
    u, z = carry
    u = numpyro.sample("u", dist.Categorical(rows(u)))
    with numpyro.plate("rows", 2):
        z = numpyro.sample("z", dist.Categorical(rows((z + u) % 2)))
        numpyro.sample("y", dist.Normal(m * z, 1.0), obs=jnp.full(2, y))
    return u, z


def counted(m, n, y):
    n = numpyro.sample("n", dist.Poisson(1.0 + n))
    numpyro.sample("y", dist.Normal(m * n, 1.0), obs=y)
    return n


def read_outside(y):
    m = numpyro.sample("m", dist.Normal())

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(rows(z)))
        numpyro.sample("y", dist.Normal(m * z, 1.0), obs=y)
        return z, None

    z, _ = scan(step, 0, y)
    numpyro.sample("last", dist.Normal(m * z, 1.0), obs=1.0)


def masked_outside(y):
    with handlers.mask(mask=False):
        chain(lambda m, z, y: numpyro.sample("z", dist.Categorical(rows(z))))(y)


def scan_in_scan(y):
    def outer(level, y):
        def inner(level, _):
            return numpyro.sample("level", dist.Normal(level, 1.0)), None

        level, _ = scan(inner, level, None, length=2)
        numpyro.sample("y", dist.Normal(level, 1.0), obs=y)
        return level, None

    scan(outer, 0.0, y)


def dependent_rows(y):
    with numpyro.plate("rows", 4, subsample_size=2) as some:
        x = numpyro.sample("x", dist.Normal())
        numpyro.sample("y", dist.Normal(x - x.mean(), 1.0), obs=y[some])


def circular(y):
    with handlers.reparam(config={"a": CircularReparam()}):
        a = numpyro.sample("a", dist.VonMises(0.0, 1.0))
    numpyro.sample("y", dist.Normal(jnp.cos(a), 1.0), obs=y)


def on_a_sphere(y):
    x = numpyro.sample("x", dist.ProjectedNormal(jnp.ones(3)))
    numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=y)


def flat_on_a_sphere(y):
    x = numpyro.sample("x", dist.ImproperUniform(constraints.sphere, (), (3,)))
    numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=y)


def count_of_trials(y):
    numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("n", dist.Poisson(3.0))


def atoms(y):
    prior = dist.MixtureGeneral(
        dist.Categorical(jnp.ones(2) / 2),
        [dist.Normal(), dist.Delta(0.0)],
        support=constraints.real,
    )
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def masked_under_a_transform(y):
    base = dist.Normal(jnp.zeros(4), 1.0).mask(y > 0)
    numpyro.sample("x", dist.TransformedDistribution(base, transforms.ExpTransform()))


def data_alone(y):
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


_SECOND = "hands on more than their values"

REFUSALS = [
    Refusal("second order", chain(of_second_order, (0, 0)), _SECOND, (Y,)),
    Refusal("running count", chain(that_counts), _SECOND, (Y,)),
    Refusal("reduced", chain(reduced, np.zeros(3, int)), "'y' depends on .* one by one", (Y,)),
    Refusal("reduced beside the last", chain(reduced_beside_the_last), "'y' has another log", (Y,)),
    Refusal("moving support", chain(with_moving_support), "support of latent site 'x'", (Y,)),
    Refusal("unplated", chain(unplated, np.zeros(3, int)), "'z' .*axis -1 is no plate", (Y,)),
    Refusal("branch", chain(with_a_branch), "does not take all values of .*'z'", (Y,)),
    Refusal("scaled apart", chain(scaled_apart), "have different scales", (Y,)),
    Refusal("two plates", chain(in_two_plates, (0, np.zeros(2, int))), "in different plates", (Y,)),
    Refusal("counts", chain(counted), "'n' is discrete .Poisson. without a few", (Y,)),
    Refusal("read outside", read_outside, "site 'last' depends on the discrete site 'z'", (Y,)),
    Refusal("masked outside", masked_outside, "'z' has another log density", (Y,)),
    Refusal("scan in scan", scan_in_scan, "'level' is in a scan within a scan", (Y,)),
    Refusal(
        "minibatch", dependent_rows, "'x' is inside the subsampling plate.*'y' has another", (Y,)
    ),
    Refusal("circular", circular, "'a_unwrapped' is of numpyro's CircularReparam", (Y,)),
    Refusal("sphere", on_a_sphere, "'x' has the support sphere, onto which", (Y,)),
    Refusal("flat on a sphere", flat_on_a_sphere, "'x' has the support sphere, onto which", (Y,)),
    Refusal("poisson", count_of_trials, "'n' is discrete .Poisson. without a few", (Y,)),
    Refusal("atoms", atoms, "'x' is a MixtureGeneral, which gives single values", (Y,)),
    Refusal("mask inside", masked_under_a_transform, "'x' has a mask inside", (Y,)),
    Refusal("data alone", data_alone, "no latent sites", (Y,)),
]
