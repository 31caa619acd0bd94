"""What cannot be estimated from some rows of latents inside of plates, and is refused by name."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.autoguide import AutoNormal

import funcvi as fv
from tests.funcvi.models.minibatches import MODELS, Y

KEY = jax.random.key(0)


def target():
    return fv.target(MODELS["hierarchy"], some=2)


WHOLE = {
    "full_rank": fv.full_rank,
    "low_rank": lambda t: fv.low_rank(t, rank=2),
    "flow": fv.flow,
    "mixture": lambda t: fv.mixture(t, num_components=2),
    "laplace": fv.laplace,
    "blocks": lambda t: fv.blocks(t, [["z"], ["mean", "rate"]]),
    "a site's vector": lambda t: fv.guide(
        t,
        {
            "z": dist.MultivariateNormal(jnp.zeros(4), jnp.eye(4)),
            "mean": dist.Normal(0.0, 1.0),
            "rate": dist.Normal(0.0, 1.0),
        },
    ),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", WHOLE)
def test_guides_of_all_rows_at_once(name):
    guide = WHOLE[name](target())
    params = jax.eval_shape(guide.init, KEY)
    message = r"2 of the 4 rows of plate 'rows'.*site 'z' of all rows.*\n.*mean_field.*blocks.*enc"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(fv.negative_elbo(guide), params, KEY)


READERS = {
    "forward_kl": lambda g: fv.forward_kl(g, num_samples=8),
    "negative_renyi_elbo": lambda g: fv.negative_renyi_elbo(g, alpha=0.5, num_samples=8),
    "negative_importance_weighted_elbo": lambda g: fv.negative_importance_weighted_elbo(
        g, num_samples=8
    ),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", READERS)
def test_losses_that_are_not_linear(name):
    with pytest.raises(ValueError, match=rf"fv.{name} is not linear.*site 'z'.*plate 'rows'"):
        READERS[name](fv.mean_field(target()))


@pytest.mark.slow
def test_enumeration_and_numpyros_guides():
    guide = fv.mean_field(target())
    loss = fv.negative_elbo(guide, estimator="enumeration")
    with pytest.raises(ValueError, match="enumeration needs a single distribution"):
        loss(guide.init(KEY), KEY)
    with pytest.raises(ValueError, match=r"draws its own rows.*'z'.*\n?.*mean_field"):
        fv.guide(target(), AutoNormal(MODELS["hierarchy"]))


def rows_with(likelihood, size=4, some=2):
    """A model whose rows have latents, and a likelihood of these and the rows' numbers."""

    def model(y):
        with numpyro.plate("rows", size, subsample_size=some) as rows:
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            likelihood(z, y, rows)

    return model


def observe(mean, y):
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def summed_outside(y):
    with numpyro.plate("rows", 4, subsample_size=2) as rows:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        observe(z, y[rows])
    numpyro.factor("total", -(jnp.sum(z) ** 2))


def scaled_by_hand(y):
    with numpyro.plate("rows", 4, subsample_size=2) as rows:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        with numpyro.handlers.scale(scale=4 / len(rows)):
            observe(z, y[rows])


def rows_by_number(y):
    """Latents of two users at places that are those of four."""
    with numpyro.plate("rows", 4, subsample_size=2):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    with numpyro.plate("ratings", 4) as ratings:
        observe(z[ratings], y)


def noisy(z, y, rows):
    kept = jax.random.bernoulli(numpyro.prng_key(), 0.5, z.shape)
    observe(jnp.where(kept, z, 0.0), y[rows])


OTHER = r"'z' is inside the subsampling plate 'rows'.*{} has another log density"
MODELS_REFUSED = {
    "a mean over rows": (
        rows_with(lambda z, y, rows: observe(z - z.mean(), y[rows])),
        OTHER.format("'y'"),
    ),
    "a sum outside": (summed_outside, OTHER.format("'total'")),
    "sums before": (
        rows_with(lambda z, y, rows: observe(jnp.cumsum(z), y[rows])),
        OTHER.format("'y'"),
    ),
    "place in the batch": (
        rows_with(lambda z, y, rows: observe(z + jnp.arange(len(rows)), y[rows])),
        OTHER.format("'y'"),
    ),
    "a scale by hand": (scaled_by_hand, OTHER.format("'y'")),
    "rows by number": (rows_by_number, OTHER.format("'y'")),
    "data of a minibatch": (
        rows_with(lambda z, y, rows: observe(z, y[:2])),
        r"does not run on all of its 4 rows(.|\n)*obs=y\[rows\]",
    ),
    "data of one row": (
        rows_with(lambda z, y, rows: observe(z, y[:1]), some=1),
        r"'y' observes one row, of shape \(1,\)",
    ),
    "another random choice": (rows_with(noisy), "makes other random choices"),
    "sites by number": (
        rows_with(lambda z, y, rows: [observe(z, y[rows]), numpyro.factor(f"f{len(rows)}", 0.0)]),
        r"\['f2', 'f4'\] of the model depend on how many rows",
    ),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", MODELS_REFUSED)
def test_models_whose_rows_depend_on_each_other(name):
    model, message = MODELS_REFUSED[name]
    with pytest.raises(ValueError, match=message):
        fv.target(model, Y)


@pytest.mark.slow
def test_where_the_data_are_traced_they_are_refused_as_the_program_runs():
    dependent, _ = MODELS_REFUSED["a mean over rows"]
    independent = rows_with(lambda z, y, rows: observe(z, y[rows]))

    def loss(model):
        def of(y):
            guide = fv.mean_field(fv.target(model, y))
            return fv.negative_elbo(guide, num_samples=1)(guide.init(KEY), KEY)

        return jax.jit(jax.vmap(of))

    data = jnp.stack([Y, 2 * Y])
    assert bool(jnp.all(jnp.isfinite(loss(independent)(data))))
    with pytest.raises(jax.errors.JaxRuntimeError, match="'y' has another log density"):
        loss(dependent)(data)


def test_points_that_are_learned_are_not_compared_at_every_step():
    guide = fv.mean_field(fv.target(MODELS["points"], some=2))
    loss = fv.negative_elbo(guide, num_samples=1)
    jaxpr = jax.make_jaxpr(loss)(guide.init(KEY), KEY)
    assert "pure_callback" not in str(jaxpr)
