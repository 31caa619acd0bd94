"""Handlers around and inside of models, plates of all kinds, and param sites."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.infer.reparam import (
    ExplicitReparam,
    LocScaleReparam,
    ProjectedNormalReparam,
    TransformReparam,
)

from tests.funcvi.models.entries import Entry, entry

RNG = np.random.default_rng(6)
Y = RNG.normal(1.0, 1.0, 5)


def base(y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("rows", 5):
        local = numpyro.sample("local", dist.LogNormal(mean, scale))
        numpyro.sample("y", dist.Normal(local, 1.0), obs=y)
    numpyro.deterministic("ratio", mean / scale)


def scaled(y):
    with handlers.scale(scale=3.0):
        base(y)


def scaled_latent(y):
    """The prior alone is scaled: a power of it."""
    with handlers.scale(scale=0.5):
        x = numpyro.sample("x", dist.Gamma(3.0, 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def scaled_in_a_scan(y):
    def step(x, y):
        with handlers.scale(scale=2.0):
            x = numpyro.sample("x", dist.LogNormal(jnp.log(x), 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        return x, None

    with handlers.scale(scale=1.5):
        scan(step, 1.0, y)


def scaled_by_row(y):
    with numpyro.plate("rows", 5), handlers.scale(scale=np.arange(1.0, 6.0)):
        x = numpyro.sample("x", dist.Gamma(3.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def masked_data(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", 5), handlers.mask(mask=np.array([True, False, True, True, False])):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def masked_factor(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    with handlers.mask(mask=False):
        numpyro.factor("nothing", mean**2)
    numpyro.sample("y", dist.Normal(mean, 1.0).mask(y > 0), obs=y)


def conditioned(y):
    return handlers.condition(base, data={"y": y, "mean": jnp.array(0.3)})()


def intervened(y):
    return handlers.do(base, data={"mean": jnp.array(0.3)})(y)


def substituted(y):
    """A substitution keeps the site a latent, and its value fixed by the model."""
    return handlers.reparam(base, config={"local": TransformReparam()})(y)


def scoped(y):
    with handlers.scope(prefix="inner", divider="."):
        base(y)
    numpyro.sample("x", dist.Normal(0.0, 1.0))


def scoped_twice(y):
    for number in range(2):
        handlers.scope(base, prefix=f"part {number}")(y)


def lifted(y):
    """Params that a prior makes latents."""

    def inner():
        rate = numpyro.param("rate", 1.0, constraint=constraints.positive)
        numpyro.sample("y", dist.Exponential(rate), obs=jnp.abs(y))

    with handlers.lift(prior={"rate": dist.Gamma(2.0, 1.0)}):
        inner()


def centred_by_a_param(y):
    return handlers.reparam(base, config={"mean": LocScaleReparam()})(y)


def explicitly(y):
    with handlers.reparam(config={"x": ExplicitReparam(dist.transforms.ExpTransform().inv)}):
        x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def a_direction(y):
    """On the sphere, by numpyro's own reparam."""
    with handlers.reparam(config={"x": ProjectedNormalReparam()}):
        x = numpyro.sample("x", dist.ProjectedNormal(jnp.ones(3)))
    numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=y)


def with_names(y):
    """Messages that say how others are to treat a site."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
    with handlers.infer_config(config_fn=lambda site: {"anything": 1}):
        z = numpyro.sample("z", dist.Gamma(1.0, 1.0))
    numpyro.sample("y", dist.Normal(x, z), obs=y)


def empty_plate_axes(y):
    with numpyro.plate("left", 1, dim=-3), numpyro.plate("right", 5, dim=-1):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


@handlers.reparam(config={"shift": LocScaleReparam(0, shape_params=["df"])})
def decorated(y):
    shift = numpyro.sample("shift", dist.StudentT(3.0, 1.0, 2.0))
    numpyro.sample("y", dist.Normal(shift, 1.0), obs=y)


def stacked_plates(y):
    with numpyro.plate_stack("stack", [2, 5]):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def whole_subsample(y):
    """A subsample of everything, in its order."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(y), subsample_size=len(y)) as rows:
        local = numpyro.sample("local", dist.Normal(mean, 1.0))
        numpyro.sample("y", dist.Normal(local, 1.0), obs=y[rows])


def observed_latent_by_value(y):
    numpyro.sample("scale", dist.Gamma(2.0, 1.0), obs=0.7)
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def sums_of_data(y):
    """Transformed, of what was transformed and observed."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    law = dist.TransformedDistribution(
        dist.Normal(mean, 1.0),
        [dist.transforms.AffineTransform(0.5, 2.0), dist.transforms.ExpTransform()],
    )
    numpyro.sample("y", law, obs=jnp.exp(y))


def of_vectors_in_plates(y):
    with numpyro.plate("a", 2, dim=-2), numpyro.plate("b", 5, dim=-1):
        x = numpyro.sample("x", dist.Dirichlet(jnp.ones(3)))
        numpyro.sample("y", dist.Normal(x[..., 0], 1.0), obs=y)
    with numpyro.plate("a", 2, dim=-1):
        numpyro.sample("factor", dist.LKJCholesky(2, 1.0))


def as_keywords(y, *, prior_scale, options):
    x = numpyro.sample("x", dist.Normal(options["loc"], prior_scale))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def by_a_param(y):
    """A param that is learned beside: at its start here."""
    spread = numpyro.param("spread", 0.8, constraint=constraints.positive)
    x = numpyro.sample("x", dist.Gamma(2.0, spread))
    numpyro.sample("y", dist.Normal(x, spread), obs=y)


def masked_latents(y):
    with numpyro.plate("rows", 5), handlers.mask(mask=MASK):
        x = numpyro.sample("x", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


MASK = np.array([True, False, True, True, False])


def masked_latents_density(values):
    x, mask = values["x"], jnp.asarray(MASK)
    seen = dist.Gamma(2.0, 1.0).log_prob(x) + dist.Normal(x, 1.0).log_prob(Y)
    # On the line a standard normal, of the values a log-normal one.
    return jnp.where(mask, seen, dist.LogNormal(0.0, 1.0).log_prob(x)).sum()


ENTRIES = [
    entry(base, Y),
    entry(base, name="a prior alone", y=None),
    entry(scaled, Y),
    entry(scaled_latent, 0.7),
    entry(scaled_in_a_scan, Y),
    entry(scaled_by_row, Y),
    entry(masked_data, Y),
    entry(masked_factor, Y),
    entry(conditioned, Y),
    entry(intervened, Y),
    entry(substituted, Y),
    entry(scoped, Y),
    entry(scoped_twice, Y),
    entry(lifted, Y),
    entry(centred_by_a_param, Y),
    entry(with_names, 0.5),
    entry(a_direction, 0.5),
    entry(empty_plate_axes, Y),
    entry(decorated, Y, name="decorated"),
    entry(stacked_plates, np.stack([Y, -Y])),
    entry(whole_subsample, Y),
    entry(observed_latent_by_value, 0.3),
    entry(sums_of_data, Y),
    entry(of_vectors_in_plates, np.stack([Y, -Y])),
    entry(as_keywords, Y, prior_scale=np.array(2.0), options={"loc": 0.5}),
    entry(by_a_param, 0.5),
    entry(explicitly, 0.5),
    Entry(
        "masked latents",
        masked_latents,
        (Y,),
        log_density=masked_latents_density,
        note="numpyro gives masked entries no density, and their log determinants count",
    ),
]
