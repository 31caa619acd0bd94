"""Latents inside of subsampling plates: what a minibatch tells has the mean of all rows."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import funcvi as fv
from tests.funcvi.models.minibatches import MODELS, Y

KEY = jax.random.key(3)
OF_NUMPYRO = {"hierarchy", "only_local", "vectors", "nested", "crossed", "scaled", "series"}


@functools.cache
def targets(name):
    """Of some rows of a model, and of all."""
    return fv.target(MODELS[name], some=2), fv.target(MODELS[name])


def somewhere(target, key=KEY):
    keys = jax.random.split(key, len(target.shapes))
    return {
        n: 0.7 * jax.random.normal(k, s)
        for k, (n, s) in zip(keys, target.shapes.items(), strict=True)
    }


def all_rows(minibatch):
    """Every minibatch: by plate, an array of shape (minibatch, row)."""
    each = [itertools.combinations(range(size), some) for size, some in minibatch.sizes.values()]
    found = list(itertools.product(*each))
    return {
        plate: jnp.array([rows[i] for rows in found]) for i, plate in enumerate(minibatch.sizes)
    }


def taken(z, minibatch, rows):
    for site, axes in minibatch.axes.items():
        for axis, plate in axes.items():
            z = z | {site: jnp.take(z[site], rows[plate], axis=axis)}
    return z


@pytest.mark.few(1)
@pytest.mark.parametrize("name", MODELS)
def test_the_target_is_that_of_all_rows(name):
    some, full = targets(name)
    assert dict(some.shapes) == dict(full.shapes)
    assert not some.is_random
    assert some.plates == full.plates
    z = somewhere(full)
    np.testing.assert_allclose(some.log_density(z), full.log_density(z), rtol=1e-5)
    np.testing.assert_allclose(some.log_density(z, KEY), full.log_density(z), rtol=1e-5)
    assert set(some.constrain(z)) == set(full.constrain(z))
    if name in OF_NUMPYRO:
        values = full.constrain(z)
        model = handlers.seed(MODELS[name], KEY)
        expected = log_density(model, (), {}, values)[0] + full.log_det(z)
        np.testing.assert_allclose(some.log_density(z), expected, rtol=1e-5)


@pytest.mark.few(1)
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_mean_over_all_minibatches_is_the_density_and_its_gradient(name, x64):
    with jax.enable_x64(x64):
        some, full = fv.target(MODELS[name], some=2), fv.target(MODELS[name])
        z, minibatch = somewhere(full), some.minibatch

        def mean(z):
            def one(rows):
                return minibatch.log_density(taken(z, minibatch, rows), rows)

            return jnp.mean(jax.vmap(one)(all_rows(minibatch)))

        value, slope = jax.jit(jax.value_and_grad(mean))(z)
        expected, exact = jax.jit(jax.value_and_grad(full.log_density))(z)
        tolerance = {"rtol": 1e-10, "atol": 1e-10} if x64 else {"rtol": 1e-4, "atol": 1e-4}
        np.testing.assert_allclose(value, expected, **tolerance)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), slope, exact)


def differ(found, expected):
    """How far two means are apart, in standard errors."""
    error = jnp.sqrt((found.var(0) + expected.var(0)) / len(found))
    gap = jnp.abs(found.mean(0) - expected.mean(0))
    return float(jnp.max(jnp.where(gap < 1e-5, 0.0, gap / error)))


GUIDES = {
    "mean field": fv.mean_field,
    "blocks": lambda t: fv.blocks(t, {("mean", "rate"): fv.full_rank, "z": fv.mean_field}),
    "heavy tails": lambda t: fv.guide(
        t, {n: dist.StudentT(5.0, jnp.zeros(s), 0.3) for n, s in t.shapes.items()}
    ),
    "a shared encoder": lambda t: fv.guide(
        t,
        (
            {"slope": jnp.array(0.3), "mean": jnp.zeros(2)},
            lambda p: {
                "mean": dist.Normal(p["mean"][0], 0.2),
                "rate": dist.Normal(p["mean"][1], 0.3),
                "z": dist.Normal(p["slope"] * jnp.arange(4.0), 0.4),
            },
        ),
        spread=0.0,
    ),
}
WAYS = {
    **{name: ("hierarchy", make, {}) for name, make in GUIDES.items()},
    "score": ("hierarchy", fv.mean_field, {"estimator": "score_function"}),
    "sticking": ("hierarchy", fv.mean_field, {"estimator": "sticking_the_landing"}),
    **{name: (name, fv.mean_field, {}) for name in MODELS if name != "hierarchy"},
    "rows of a normal": (
        "vectors",
        lambda t: fv.guide(
            t,
            {
                "v": dist.MultivariateNormal(jnp.zeros((4, 2)), scale_tril=0.3 * jnp.eye(2)),
                **{n: dist.Normal(jnp.zeros(s), 0.3) for n, s in t.shapes.items() if n != "v"},
            },
        ),
        {},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_losses_and_gradients_have_the_mean_of_all_rows(way):
    name, make, options = WAYS[way]
    some, full = targets(name)
    losses = [fv.negative_elbo(make(t), num_samples=4, **options) for t in (some, full)]
    params = losses[1].guide.init(KEY)
    keys = jax.random.split(KEY, 4000)
    with_slope = [jax.jit(jax.vmap(jax.value_and_grad(f), (None, 0))) for f in losses]
    found, expected = (f(params, keys) for f in with_slope)
    gaps = jax.tree.leaves(jax.tree.map(differ, found, expected))
    assert max(gaps) < 4.5, gaps


@pytest.mark.slow
@pytest.mark.parametrize("way", ["mean field", "score", "crossed"])
def test_second_derivatives_have_the_mean_of_all_rows(way):
    name, make, options = WAYS[way]
    some, full = targets(name)
    losses = [fv.negative_elbo(make(t), num_samples=8, **options) for t in (some, full)]
    params, tree = jax.flatten_util.ravel_pytree(losses[1].guide.init(KEY))
    keys = jax.random.split(KEY, 20_000)

    def curvature(loss):
        return lambda key: jax.hessian(lambda p: loss(tree(p), key))(params)

    found, expected = (jax.jit(jax.vmap(curvature(f)))(keys) for f in losses)
    assert differ(found, expected) < 5


@pytest.mark.slow
def test_rows_that_are_not_read_have_no_gradient():
    some, _ = targets("hierarchy")
    guide = fv.mean_field(some)
    loss = fv.negative_elbo(guide, num_samples=1)
    params = guide.init(KEY)
    slope = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))
    slopes = slope(params, jax.random.split(KEY, 20))["z"]
    counts = jnp.sum(slopes["loc"] != 0, -1), jnp.sum(slopes["scale"] != 0, -1)
    assert all(bool(jnp.all(count == 2)) for count in counts)
    assert bool(jnp.all(jnp.any(slopes["loc"] != 0, 0)))  # each row has its turn
    of_eight = jax.jit(jax.grad(fv.negative_elbo(guide, num_samples=8)))(params, KEY)["z"]["loc"]
    assert int(jnp.sum(of_eight != 0)) > 2  # each draw reads rows of its own


@pytest.mark.slow
def test_eagerly_and_under_jit_and_of_all_rows_it_is_the_same():
    some, full = targets("hierarchy")
    loss = fv.negative_elbo(fv.mean_field(some), num_samples=2)
    params = loss.guide.init(KEY)
    np.testing.assert_allclose(loss(params, KEY), jax.jit(loss)(params, KEY), rtol=1e-5)
    whole = fv.target(MODELS["hierarchy"], some=4)
    assert whole.minibatch is None
    same = [fv.negative_elbo(fv.mean_field(t), num_samples=2)(params, KEY) for t in (whole, full)]
    np.testing.assert_array_equal(*same)


@pytest.mark.slow
def test_many_posteriors_from_minibatches():
    def model(y, some=None):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(y), subsample_size=some) as rows:
            z = numpyro.sample("z", dist.Normal(mean, 1.0))
            numpyro.sample("y", dist.Normal(z, 0.5), obs=y[rows])

    def one(y, key, some):
        guide = fv.mean_field(fv.target(model, y, some=some))
        optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 1500))
        fit = fv.fit(fv.negative_elbo(guide), guide.init(key), optimizer, key=key, num_steps=1500)
        return guide(fit.params)

    data = jax.random.normal(KEY, (3, 6)) + jnp.arange(3.0)[:, None]
    keys = jax.random.split(KEY, 3)
    found, expected = (
        jax.jit(jax.vmap(functools.partial(one, some=some)))(data, keys) for some in (2, None)
    )
    a, b = (q.unconstrained for q in (found, expected))
    for site in ("mean", "z"):
        inner, outer = a[site], b[site]
        assert jnp.max(jnp.abs(inner.mean - outer.mean) / outer.variance**0.5) < 0.15
        assert jnp.max(jnp.abs(jnp.log(inner.variance / outer.variance)) / 2) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hierarchy", "crossed", "points"])
def test_fits_end_where_those_of_all_rows_do(name):
    ends = []
    for target in targets(name):
        guide = fv.mean_field(target)
        optimizer = optax.adam(optax.cosine_decay_schedule(0.03, 4000))
        loss = fv.negative_elbo(guide, num_samples=32)
        ends.append(fv.fit(loss, guide.init(KEY), optimizer, key=KEY, num_steps=4000).params)
    loss = fv.negative_elbo(fv.mean_field(targets(name)[1]), num_samples=20_000)
    at_some, at_all = (loss(params, KEY) for params in ends)
    assert abs(at_some - at_all) < 0.02


@pytest.mark.slow
def test_outputs_are_of_all_rows():
    some, full = targets("hierarchy")
    posterior = fv.mean_field(some)(fv.mean_field(some).init(KEY))
    same = fv.mean_field(full)(posterior.params)
    draws = fv.sample(posterior, KEY, (5,))
    assert draws["z"].shape == draws["shifted"].shape == (5, 4)
    jax.tree.map(np.testing.assert_array_equal, draws, fv.sample(same, KEY, (5,)))
    np.testing.assert_allclose(posterior.log_prob(draws), same.log_prob(draws), rtol=1e-5)
    model = functools.partial(MODELS["hierarchy"], some=2)
    predicted = posterior.predict(model, key=KEY, num_samples=5)
    assert predicted["y"].shape == (5, 4)
    found, expected = (fv.diagnose(q, key=KEY, num_samples=200) for q in (posterior, same))
    np.testing.assert_allclose(found.elbo, expected.elbo, rtol=1e-4)


@pytest.mark.slow
def test_arviz_has_all_rows():
    pytest.importorskip("arviz")
    target = fv.target(MODELS["hierarchy"], some=2)
    posterior = fv.mean_field(target)(fv.mean_field(target).init(KEY))
    data = posterior.to_arviz(num_samples=20)
    assert data.posterior["z"].dims == ("chain", "draw", "rows")
    assert data.log_likelihood["y"].shape == data.posterior_predictive["y"].shape == (1, 20, 4)
    np.testing.assert_array_equal(data.observed_data["y"], Y)
