"""Models with latents inside of subsampling plates; without ``some``, plates have all rows."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan

__all__ = ["MODELS", "Y"]

Y = jnp.array([1.2, 0.7, 2.5, -0.9])
TABLE = jax.random.normal(jax.random.key(0), (4, 3))


def hierarchy(some=None):
    """Globals beside local latents of positive support, whose law they are parameters of."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    rate = numpyro.sample("rate", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("rows", 4, subsample_size=some) as rows:
        z = numpyro.sample("z", dist.Gamma(2.0, rate))
        numpyro.deterministic("shifted", z + mean)
        numpyro.sample("y", dist.Normal(mean + z, 0.7), obs=Y[rows])
    numpyro.factor("penalty", -(mean**2))


def only_local(some=None):
    """No globals, and a support that differs from row to row."""
    top = 2.0 + jnp.arange(4.0)
    with numpyro.plate("rows", 4, subsample_size=some):
        z = numpyro.sample("z", dist.Uniform(0.0, numpyro.subsample(top, 0)))
        numpyro.sample("y", dist.Normal(z, 0.7), obs=numpyro.subsample(Y, 0))


def vectors(some=None):
    """Events: a vector, a simplex, an ordered vector and a matrix in each row."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("rows", 4, subsample_size=some) as rows:
        v = numpyro.sample("v", dist.MultivariateNormal(jnp.zeros(2), scale * jnp.eye(2)))
        p = numpyro.sample("p", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
        order = dist.constraints.ordered_vector
        cut = numpyro.sample("cut", dist.ImproperUniform(order, (), event_shape=(2,)))
        factor = numpyro.sample("factor", dist.LKJCholesky(3, 2.0))
        numpyro.factor("near", -jnp.sum(cut**2, -1))
        mean = jnp.sum(v, -1) + p[..., 0] + cut[..., 0] + factor[..., 2, 0]
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=Y[rows])


def nested(some=None):
    """Two plates, both subsampled, one inside the other, and one more between that is not."""
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    with numpyro.plate("rows", 4, subsample_size=some, dim=-3) as rows:
        level = numpyro.sample("level", dist.Normal(0.0, spread))
        with numpyro.plate("times", 3, subsample_size=some, dim=-1) as times:
            z = numpyro.sample("z", dist.Normal(level, 0.5))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=TABLE[rows][:, None, times])
        with numpyro.plate("all", 2, dim=-2):
            numpyro.sample("w", dist.Normal(level, 1.0))


def crossed(some=None):
    """Rows and columns with latents of their own, which meet in the table."""
    by_row = numpyro.plate("rows", 4, subsample_size=some, dim=-2)
    by_column = numpyro.plate("columns", 3, subsample_size=some, dim=-1)
    with by_row as rows:
        u = numpyro.sample("u", dist.Normal(0.0, 1.0))
    with by_column as columns:
        v = numpyro.sample("v", dist.Exponential(1.0))
    with by_row, by_column:
        numpyro.sample("y", dist.Normal(u * v, 1.0), obs=TABLE[rows][:, columns])


def scaled(some=None):
    """Densities that count twice, all of them or each row's by its own number."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", 4, subsample_size=some) as rows:
        with handlers.scale(scale=2.0):
            z = numpyro.sample("z", dist.Normal(mean, 1.0))
        with handlers.scale(scale=jnp.array([1.0, 2.0, 0.5, 3.0])[rows]):
            numpyro.sample("y", dist.Normal(z, 1.0), obs=Y[rows])


def missing(some=None):
    """Data that are missing in two rows, and latents that are masked in one."""
    known = jnp.array([True, False, True, False])
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", 4, subsample_size=some) as rows:
        numpyro.sample("y", dist.LogNormal(mean, 1.0), obs=jnp.abs(Y)[rows], obs_mask=known[rows])
        held = jnp.array([True, True, False, True])[rows]
        w = numpyro.sample("w", dist.Normal(mean, 1.0).mask(held))
        numpyro.sample("x", dist.Normal(jnp.where(held, w, 0.0), 1.0), obs=Y[rows])


def discrete(some=None):
    """A discrete latent in each row, which is summed out."""
    means = numpyro.sample("means", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", 4, subsample_size=some) as rows:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        k = numpyro.sample("k", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(means[k] + z, 1.0), obs=Y[rows])


def series(some=None):
    """Rows that move through a scan."""
    drift = numpyro.sample("drift", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 4, subsample_size=some):
        first = numpyro.sample("first", dist.Normal(0.0, 1.0))

    def step(level, y):
        with numpyro.plate("rows", 4, subsample_size=some) as rows:
            level = numpyro.sample("level", dist.Normal(level + drift, 1.0))
            numpyro.sample("y", dist.Normal(level, 1.0), obs=y[rows])
        return level, None

    scan(step, first, TABLE.T)


def points(some=None):
    """Point parameters beside latents of rows: empirical Bayes."""
    mean = numpyro.param("mean", 0.3)
    spread = numpyro.param("spread", 1.0, constraint=dist.constraints.positive)
    with numpyro.plate("rows", 4, subsample_size=some) as rows:
        z = numpyro.sample("z", dist.Normal(mean, spread))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=Y[rows])


MODELS = {
    f.__name__: f
    for f in (
        hierarchy,
        only_local,
        vectors,
        nested,
        crossed,
        scaled,
        missing,
        discrete,
        series,
        points,
    )
}
