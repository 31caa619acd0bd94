"""Many small posteriors in one call: each is what it is alone, and none fails in silence."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

import funcvi as fv

KEY = jax.random.key(0)
SIZE = 20
X = jnp.linspace(-1.0, 1.0, 12)


def regression(x: Any, y: Any) -> None:
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.deterministic("residual", y - slope * x)
    numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)


def matched(y: Any, key: Any) -> fv.Posterior:
    target = fv.target(regression, X, y)
    return fv.batch_and_match(target, key=key, num_steps=40, num_samples=16, num_starts=2)


def laplace(y: Any, key: Any) -> fv.Posterior:
    guide = fv.laplace(fv.target(regression, X, y))
    return guide(guide.init(key))


def fitted(y: Any, key: Any) -> fv.Posterior:
    guide = fv.mean_field(fv.target(regression, X, y))
    loss = fv.negative_elbo(guide)
    return guide(fv.fit(loss, guide.init(key), optax.sgd(1e-3), key=key, num_steps=5).params)


def batch(size: int = SIZE) -> tuple[jax.Array, jax.Array]:
    noise = jax.random.normal(KEY, (size, len(X)))
    slopes = jnp.linspace(-2.0, 2.0, size)
    return slopes[:, None] * X + 0.5 * noise, jax.random.split(KEY, size)


@pytest.mark.parametrize("make", [matched, laplace, fitted])
def test_a_batch_is_a_loop(make: Callable[[Any, Any], fv.Posterior]) -> None:
    """The same params, draws with each one's own data, densities and diagnoses."""
    ys, keys = batch()
    many = jax.jit(jax.vmap(make))(ys, keys)
    assert isinstance(many, fv.Posterior)
    diagnosed = fv.diagnose_each(many, key=KEY, num_samples=200)
    assert len(diagnosed) == SIZE
    draws = fv.sample(many, KEY, (3,))
    assert draws["residual"].shape == (3, SIZE, len(X))
    residual = ys - draws["slope"][..., None] * X
    np.testing.assert_allclose(draws["residual"], residual, atol=1e-5)
    both, log_q = many.sample_and_log_prob(KEY, (3,))
    np.testing.assert_allclose(many.log_prob(both), log_q, atol=2e-3)
    at_one_value = many.log_prob({"slope": 0.4, "scale": 0.7})
    for i, one_key in list(enumerate(jax.random.split(KEY, SIZE)))[:: SIZE // 3]:
        alone = make(ys[i], keys[i])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=2e-3, atol=2e-4),
            many.params,
            alone.params,
        )
        found = fv.diagnose(alone, key=one_key, num_samples=200)
        assert abs(found.elbo - diagnosed[i].elbo) < 0.01
        picked = jax.tree.map(lambda x, i=i: x[i], many)
        assert abs(fv.diagnose(picked, key=one_key, num_samples=200).elbo - found.elbo) < 0.01
        density = alone.log_prob({"slope": 0.4, "scale": 0.7})
        np.testing.assert_allclose(at_one_value[i], density, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("make", [matched, laplace])
@pytest.mark.filterwarnings("ignore:laplace")
def test_one_that_fails_is_seen_and_stops_no_other(make: Any) -> None:
    ys, keys = batch(3)
    many = jax.jit(jax.vmap(make))(ys.at[1, 4].set(jnp.nan), keys)
    failed = np.isnan(many.params["loc"]).any(-1)
    assert failed.tolist() == [False, True, False]
    found = fv.diagnose_each(many, key=KEY, num_samples=200)
    assert [d.verdict == "wrong" for d in found] == [False, True, False]
    assert found[1].elbo == -np.inf
    with pytest.raises(ValueError, match="params hold NaN: nothing was found for these data"):
        fv.sample(many, KEY)
    rest = jax.tree.map(lambda x: x[~failed], many)
    assert fv.sample(rest, KEY)["slope"].shape == (2,)
    with pytest.raises(ValueError, match="non-finite at 100 starts"):
        make(ys[0].at[4].set(jnp.nan), keys[0])


def test_a_support_may_be_of_the_data() -> None:
    def model(y: Any) -> None:
        end = numpyro.sample("end", dist.Uniform(y.max(), y.max() + 4.0))
        numpyro.sample("y", dist.Uniform(0.0, end), obs=y)

    def posterior(y: Any) -> fv.Posterior:
        guide = fv.mean_field(fv.target(model, y), loc={"end": jnp.zeros(())})
        return guide(guide.init(KEY))

    ys = jnp.array([[1.0, 2.0], [30.0, 10.0]])
    many = jax.jit(jax.vmap(posterior))(ys)
    draws = fv.sample(many, KEY, (50,))["end"]
    assert bool(jnp.all((draws > ys.max(1)) & (draws < ys.max(1) + 4)))
    densities = many.log_prob({"end": ys.max(1) + 2.0})
    for i in range(2):
        expected = posterior(ys[i]).log_prob({"end": ys[i].max() + 2.0})
        np.testing.assert_allclose(densities[i], expected, rtol=1e-4)


def clusters(y: Any) -> None:
    means = numpyro.sample("means", dist.Normal(jnp.array([-2.0, 2.0]), 1.0).to_event(1))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)


def reduced(y: Any) -> None:
    """A row's cluster is another row's."""
    means = numpyro.sample("means", dist.Normal(jnp.array([-2.0, 2.0]), 1.0).to_event(1))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("y", dist.Normal(jnp.sort(means[z], axis=-1) * (1 + y), 1.0), obs=y)


def masked(y: Any) -> None:
    with numpyro.plate("rows", len(y)):
        centre = numpyro.sample("centre", dist.Normal(0.0, 1.0).mask(y > 0))
        numpyro.sample("y", dist.Normal(jnp.where(y > 0, centre, 0.0), 1.0), obs=y)


def unmasked(y: Any) -> None:
    with numpyro.plate("rows", len(y)):
        centre = numpyro.sample("centre", dist.Normal(0.0, 1.0).mask(y > 0))
        numpyro.sample("y", dist.Normal(centre, 1.0), obs=y)


@pytest.mark.parametrize("model", [clusters, masked])
def test_traced_data_give_the_density_of_known_ones(model: Any) -> None:
    ys = jax.random.normal(KEY, (4, 6))
    shapes = fv.target(model, ys[0]).shapes
    z = {name: jnp.linspace(-1.0, 1.0, shape[0]) for name, shape in shapes.items()}
    alone = [fv.target(model, y).log_density(z) for y in ys]
    for wrap in (lambda f: jax.jit(jax.vmap(f)), lambda f: lambda x: jax.lax.map(f, x)):
        found = wrap(lambda y: fv.target(model, y).log_density(z))(ys)
        np.testing.assert_allclose(found, alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "words"), [(reduced, "something broadcasts"), (unmasked, "other sites depend on")]
)
def test_what_is_refused_is_refused_of_traced_data(model: Any, words: str) -> None:
    y = jnp.array([0.3, -1.2, 0.8, 0.1])
    with pytest.raises(ValueError, match=words):
        fv.target(model, y)
    shape = {reduced: 2, unmasked: 4}[model]
    name = {reduced: "means", unmasked: "centre"}[model]
    z = {name: jnp.arange(1.0, 1.0 + shape)}
    for wrap in (jax.jit, lambda f: lambda x: jax.vmap(f)(x[None])):
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=words):
            jax.block_until_ready(wrap(lambda y: fv.target(model, y).log_density(z))(y))


def test_what_needs_one_posterior_says_so_of_many() -> None:
    ys, keys = batch(2)
    many = jax.jit(jax.vmap(laplace))(ys, keys)
    for read in (
        lambda: many.target,
        lambda: many.summary(),
        lambda: many.predict(regression, X, None, key=KEY),
        lambda: fv.diagnose(many, key=KEY),
    ):
        with pytest.raises(ValueError, match=r"batch of posteriors.*take one, jax\.tree\.map"):
            read()
    one = jax.tree.map(lambda x: x[0], many)
    assert one.summary()["slope"].sd > 0
    with pytest.raises(ValueError, match=r"fv\.diagnose takes a single one"):
        fv.diagnose_each(one, key=KEY)
    with pytest.raises(ValueError, match="map all of a batch of posteriors"):
        fv.sample(fv.Posterior(many.guide, many.params, (many.data[0][:, :3],)), KEY)
    with pytest.raises(TypeError, match="expected a posterior, got Guide"):
        fv.diagnose_each(many.guide, key=KEY)


def test_what_chooses_on_the_host_says_so_under_a_transformation() -> None:
    ys, keys = batch(2)
    target = fv.target(regression, X, ys[0])

    def inferred(y: Any, key: Any) -> Any:
        return fv.infer(fv.target(regression, X, y), key=key)[0].params

    def judged(y: Any, key: Any) -> Any:
        return fv.diagnose(laplace(y, key), key=key).elbo

    for wrap in (lambda f: jax.jit(jax.vmap(f)), lambda f: lambda y, k: jax.jit(f)(y[0], k[0])):
        with pytest.raises(TypeError, match=r"there use fv\.batch_and_match, or fv\.laplace"):
            wrap(inferred)(ys, keys)
        with pytest.raises(TypeError, match=r"fv\.diagnose reports on the host"):
            wrap(judged)(ys, keys)
    with pytest.raises(TypeError, match=r"cannot be called under jit, vmap or"):
        jax.vmap(lambda key: fv.infer(target, key=key)[0].params)(jax.random.split(KEY, 2))


def test_a_log_density_has_its_data_in_a_closure() -> None:
    """Its supports do not read them, so draws are right; its density has ended."""

    def posterior(y: Any) -> fv.Posterior:
        target = fv.target(
            lambda v: dist.Normal(v["x"], 1.0).log_prob(y).sum(),
            supports={"x": constraints.real},
        )
        guide = fv.laplace(target)
        return guide(guide.init(KEY))

    many = jax.jit(jax.vmap(posterior))(jnp.array([[1.0, 2.0], [3.0, 5.0]]))
    np.testing.assert_allclose(many.marginals()["x"].loc, [1.5, 4.0], atol=1e-3)
    with pytest.raises(jax.errors.UnexpectedTracerError):
        fv.diagnose_each(many, key=KEY)
