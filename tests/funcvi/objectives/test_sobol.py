"""Losses of Sobol' draws: unbiased over keys, and with less variance than independent ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import integrate, stats

import funcvi as fv
from tests.funcvi.models.minibatches import MODELS

KEY = jax.random.key(11)
SHAPES = {"a": (constraints.real, (3,)), "b": constraints.positive}


def smooth(v):
    """Poisson counts whose rate is a sum: all coordinates matter, and none alone."""
    rate = v["b"] * jnp.exp(jnp.sum(v["a"] * jnp.array([1.0, -0.5, 0.2])))
    prior = dist.Normal(0.0, 1.0).log_prob(v["a"]).sum() + dist.Gamma(2.0, 1.0).log_prob(v["b"])
    return prior + dist.Poisson(rate).log_prob(jnp.array([3.0, 1.0])).sum()


@functools.cache
def target():
    return fv.target(smooth, supports=SHAPES)


GUIDES = {
    "mean_field": fv.mean_field,
    "full_rank": fv.full_rank,
    "low_rank": lambda t: fv.low_rank(t, rank=2),
    "blocks": lambda t: fv.blocks(t, {"b": fv.mean_field, "a": fv.full_rank}),
    "flow": lambda t: fv.flow(t, num_layers=2, width=4, scale=0.5),
    "images": lambda t: fv.guide(
        t,
        {
            "a": dist.TransformedDistribution(
                dist.Normal(jnp.zeros(3), 0.5), [dist.transforms.AffineTransform(0.1, 0.7)]
            ),
            "b": dist.Normal(0.0, 0.5),
        },
    ),
}


def differ(a, b):
    """How far two means are apart, in standard errors."""
    gap = jnp.abs(a.mean(0) - b.mean(0))
    error = jnp.sqrt((a.var(0) + b.var(0)) / len(a))
    return float(jnp.max(jnp.where(gap < 1e-5, 0.0, gap / error)))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["pathwise", "sticking_the_landing"])
@pytest.mark.parametrize("name", GUIDES)
def test_the_mean_is_that_of_independent_draws_and_the_variance_lower(name, estimator):
    guide = GUIDES[name](target())
    keys = jax.random.split(KEY, 1000 if name == "flow" else 4000)
    params, tree = jax.flatten_util.ravel_pytree(guide.init(KEY))

    def values_and_slopes(noise):
        loss = fv.negative_elbo(guide, num_samples=64, estimator=estimator, noise=noise)
        both = jax.value_and_grad(lambda p, k: loss(tree(p), k))
        return jax.jit(jax.vmap(both, (None, 0)))(params, keys)

    of = {noise: values_and_slopes(noise) for noise in ("independent", "sobol")}
    for found, expected in zip(of["sobol"], of["independent"], strict=True):
        assert differ(found, expected) < 5
    value, slope = (
        b.var(0) / a.var(0) for a, b in zip(of["sobol"], of["independent"], strict=True)
    )
    assert float(value) > 8
    assert float(jnp.nanmedian(slope)) > (1.2 if name == "flow" else 3)


def test_means_equal_quadrature(optimised):
    t = fv.target(lambda v: -jnp.exp(v["x"]) + v["x"], supports={"x": constraints.real})
    guide = fv.mean_field(t, loc={"x": 0.3}, scale=0.8)
    loss = fv.negative_elbo(guide, num_samples=8, noise="sobol")
    params, keys = guide.init(KEY), jax.random.split(KEY, 4000)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, keys)

    def exact(loc, scale):
        q = stats.norm(loc, scale)
        return integrate.quad(
            lambda x: q.pdf(x) * (q.logpdf(x) + np.exp(x) - x), loc - 9 * scale, loc + 9 * scale
        )[0]

    assert abs(values.mean() - exact(0.3, 0.8)) < 4 * values.std() / len(keys) ** 0.5
    slope = slopes["x"]["loc"]
    expected = (exact(0.301, 0.8) - exact(0.299, 0.8)) / 0.002
    assert abs(slope.mean() - expected) < 4 * slope.std() / len(keys) ** 0.5


@pytest.mark.slow
def test_the_variance_falls_faster_than_that_of_independent_draws():
    def variance(count):
        guide = fv.mean_field(fv.target(smooth, supports=SHAPES), scale=0.5)
        params, keys = guide.init(KEY), jax.random.split(KEY, 1000)
        loss = fv.negative_elbo(guide, num_samples=count, noise="sobol")
        return float(jax.jit(jax.vmap(loss, (None, 0)))(params, keys).var())

    with jax.enable_x64(True):
        few, many = variance(16), variance(256)
    assert few / many > 16**1.7  # independent draws have 16, and smooth functions nearly 16**3


@pytest.mark.slow
def test_eagerly_and_under_jit_in_both_widths_and_of_minibatches():
    loss = fv.negative_elbo(fv.full_rank(target()), num_samples=4, noise="sobol")
    params = loss.guide.init(KEY)
    np.testing.assert_allclose(loss(params, KEY), jax.jit(loss)(params, KEY), rtol=1e-5)
    narrow = loss(params, KEY)
    with jax.enable_x64(True):
        loss = fv.negative_elbo(
            fv.full_rank(fv.target(smooth, supports=SHAPES)), num_samples=4, noise="sobol"
        )
        wide = loss({n: jnp.asarray(x, jnp.float64) for n, x in params.items()}, KEY)
        assert wide.dtype == jnp.float64
        np.testing.assert_allclose(wide, narrow, rtol=1e-4)
    guide = fv.mean_field(fv.target(MODELS["hierarchy"], some=2))
    params, keys = guide.init(KEY), jax.random.split(KEY, 4000)
    values = [
        jax.jit(jax.vmap(fv.negative_elbo(guide, num_samples=4, noise=n), (None, 0)))(params, keys)
        for n in ("independent", "sobol")
    ]
    assert differ(*values) < 4


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda t: fv.mixture(t, num_components=2), {}, "of guide = MixtureSameFamily .*otherwise"),
        (fv.mean_field, {"estimator": "score_function"}, "'a'.* = Normal are made by score"),
        (
            lambda t: fv.guide(
                t, {"a": dist.Normal(jnp.zeros(3), 1.0), "b": dist.StudentT(4.0, 0.0, 1.0)}
            ),
            {},
            r"guide\['b'\] = StudentT are made otherwise",
        ),
    ],
)
def test_draws_that_are_no_maps_of_normal_noise_are_refused(make, options, message):
    guide = make(target())
    loss = fv.negative_elbo(guide, noise="sobol", **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(loss, jax.eval_shape(guide.init, KEY), KEY)


def test_numbers_of_draws_and_names_of_noise():
    with pytest.raises(ValueError, match=r"a power of two \(16, 64, 256\), got 12"):
        fv.negative_elbo(fv.mean_field(target()), num_samples=12, noise="sobol")
    with pytest.raises(ValueError, match=r"noise must be one of independent, sobol; got 'halton'"):
        fv.negative_elbo(fv.mean_field(target()), noise="halton")
    wide = fv.target(lambda v: -jnp.sum(v["x"] ** 2), supports={"x": (constraints.real, (30_000,))})
    guide = fv.mean_field(wide)
    with pytest.raises(ValueError, match="21201 coordinates at most, and a draw needs 30000"):
        jax.eval_shape(fv.negative_elbo(guide, noise="sobol"), jax.eval_shape(guide.init, KEY), KEY)
