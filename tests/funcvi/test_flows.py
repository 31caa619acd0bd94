"""Flows of splines away from their start: densities by automatic differentiation, all sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

import funcvi as fv
from tests.funcvi.guide_catalogue import CORRELATED, KEY, MEAN

KINDS = ("coupling", "autoregressive")


def normals(size):
    return fv.target(
        lambda v: -jnp.sum(v["z"] ** 2) / 2, supports={"z": (constraints.real, (size,))}
    )


def bent(kind, size, **options):
    """A flow far from its start."""
    guide = fv.flow(normals(size), kind=kind, num_layers=3, num_bins=4, width=7, **options)
    params = guide.init(KEY)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(KEY, len(leaves))
    moved = [x + 0.4 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return guide, jax.tree.unflatten(tree, moved)


def exact(guide, params, z):
    """In float64, by automatic differentiation of the map from noise: z again, its density, and
    the slopes of that."""

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def at(params, z):
        into = dist.transforms.ComposeTransform(guide(params).unconstrained.transforms)
        noise = into.inv(z)
        det = jnp.linalg.slogdet(jax.jacobian(into)(noise))[1]
        density = dist.Normal(0.0, 1.0).log_prob(noise).sum() - det
        scored, slope = jax.value_and_grad(lambda z: guide(params).log_prob({"z": z}))(z)
        return into(noise), density, scored, slope

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, "float64")), (params, z))
        again, density, scored, slope = at(*wide)
    np.testing.assert_allclose(again, z, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scored, density, rtol=1e-9, atol=1e-9)
    return np.asarray(density), np.asarray(slope)


@pytest.mark.few(3)
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_densities_are_those_of_the_map(kind, size):
    guide, params = bent(kind, size)
    draw = jax.jit(lambda params: guide(params).sample_and_log_prob(KEY, (20,)))
    drawn, log_q = draw(params)
    # Values that are not draws lie outside of the splines too.
    others = 4 * jax.random.normal(jax.random.key(5), (20, size))
    both = jnp.concatenate([drawn["z"], others])
    scored = jax.jit(lambda params, z: guide(params).log_prob({"z": z}))(params, both)
    assert scored.dtype == log_q.dtype == jnp.float32
    density, slope = exact(guide, params, both)
    # What float32 has rounded away of a value moves its density by the slope.
    error = 30 * np.finfo("float32").eps * np.sum(np.abs(slope) * (1 + np.abs(both)), -1)
    error += 1e-4 * (1 + np.abs(density))
    assert (np.abs(scored - density) < error).all()
    assert (np.abs(log_q - density[:20]) < error[:20]).all()


def test_eager_is_jit():
    guide, params = bent("autoregressive", 2)
    values, log_q = guide(params).sample_and_log_prob(KEY, (3,))
    both = jax.jit(lambda p: (guide(p).sample_and_log_prob(KEY, (3,)), guide(p).log_prob(values)))
    (again, log_q_again), scored = both(params)
    np.testing.assert_allclose(again["z"], values["z"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_q_again, log_q, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(guide(params).log_prob(values), scored, rtol=1e-3, atol=1e-3)


def test_the_slope_of_a_density_of_given_values():
    with jax.enable_x64(True):
        guide, params = bent("autoregressive", 3)
        values = {"z": jnp.array([0.3, -1.0, 2.0])}
        flat, back = jax.flatten_util.ravel_pytree(params)
        along = jax.random.normal(KEY, flat.shape)
        at = jax.jit(lambda step: guide(back(flat + step * along)).log_prob(values))
        numerical = (at(1e-5) - at(-1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(at)(0.0), numerical, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_bends_by_the_others(kind):
    guide, params = bent(kind, 4)
    first = guide(params).unconstrained.transforms[0]
    depends = np.abs(jax.jacobian(first)(jnp.array([0.1, 0.5, -0.3, 0.8]))) > 0
    halves = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]])
    np.testing.assert_array_equal(depends, halves if kind == "coupling" else np.tri(4))
    whole = dist.transforms.ComposeTransform(guide(params).unconstrained.transforms[:-1])
    assert (np.abs(jax.jit(jax.jacobian(whole))(jnp.array([0.1, 0.5, -0.3, 0.8]))) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_full_rank_does_and_may_start_at_any_normal(kind):
    guide, straight = fv.flow(CORRELATED, kind=kind), fv.full_rank(CORRELATED)
    params = guide.init(KEY)
    values = fv.sample(guide(params), KEY, (50,))
    expected = straight(params["normal"]).log_prob(values)
    np.testing.assert_allclose(guide(params).log_prob(values), expected, rtol=1e-3, atol=1e-3)

    found = fv.batch_and_match(CORRELATED, key=KEY)
    params = guide.inverse(found)
    values = fv.sample(found, KEY, (50,))
    np.testing.assert_allclose(
        guide(params).log_prob(values), found.log_prob(values), rtol=1e-3, atol=1e-3
    )
    mean = fv.sample(guide(params), KEY, (4000,))["pair"].mean(0)
    np.testing.assert_allclose(mean, MEAN[:2], atol=0.1)


def test_it_is_fitted_by_sticking_the_landing_too():
    guide = fv.flow(CORRELATED, num_layers=2, width=8)
    loss = fv.negative_elbo(guide, num_samples=8, estimator="sticking_the_landing")
    fit = fv.fit(loss, guide.init(KEY), optax.adam(1e-2), key=KEY, num_steps=600)
    assert fit.losses[-50:].mean() < fit.losses[:50].mean() - 1
    assert np.isfinite(fit.losses).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "planar"}, "kind must be one of coupling, autoregressive; got 'planar'"),
        ({"num_layers": 0}, "num_layers must be a positive integer, got 0"),
        ({"num_bins": 2.0}, "num_bins must be a positive integer, got 2.0"),
        ({"width": True}, "width must be a positive integer, got True"),
        ({"scale": -1.0}, "every scale must be positive"),
    ],
)
def test_what_is_no_flow(options, message):
    with pytest.raises(ValueError, match=message):
        fv.flow(CORRELATED, **options)
