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


def exact(guide, params, values):
    """By automatic differentiation of the map from noise, in float64, and the slopes by values."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, "float64")), (params, values["z"]))
        into = dist.transforms.ComposeTransform(guide(wide[0]).unconstrained.transforms)

        def density(z):
            noise = into.inv(z)
            det = jnp.linalg.slogdet(jax.jacobian(into)(noise))[1]
            return dist.Normal(0.0, 1.0).log_prob(noise).sum() - det

        np.testing.assert_allclose(into(into.inv(wide[1])), wide[1], rtol=1e-9, atol=1e-9)
        scored = guide(wide[0]).log_prob({"z": wide[1]})
        slopes = jax.vmap(jax.grad(lambda z: guide(wide[0]).log_prob({"z": z})))(wide[1])
        densities = jax.vmap(density)(wide[1])
        np.testing.assert_allclose(scored, densities, rtol=1e-9, atol=1e-9)
        return np.asarray(densities), np.asarray(slopes)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_densities_are_those_of_the_map(kind, size):
    guide, params = bent(kind, size)
    drawn, log_q = guide(params).sample_and_log_prob(KEY, (20,))
    # Values that are not draws lie outside of the splines too.
    others = {"z": 4 * jax.random.normal(jax.random.key(5), (20, size))}
    score = jax.jit(lambda params, values: guide(params).log_prob(values))
    for values, known in ((drawn, [log_q]), (others, [])):
        densities, slopes = exact(guide, params, values)
        # What float32 has rounded away of a value moves its density by the slope.
        rounding = np.finfo("float32").eps * np.sum(np.abs(slopes) * (1 + np.abs(values["z"])), -1)
        for found in (*known, score(params, values), guide(params).log_prob(values)):
            assert found.dtype == jnp.float32
            assert (
                np.abs(found - densities) < 30 * rounding + 1e-4 * (1 + np.abs(densities))
            ).all()


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
    assert (np.abs(jax.jacobian(whole)(jnp.array([0.1, 0.5, -0.3, 0.8]))) > 0).all()


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


@functools.cache
def moving_loss():
    guide = fv.flow(CORRELATED, num_layers=2, width=8)
    return guide, fv.negative_elbo(guide, num_samples=8, estimator="sticking_the_landing")


def test_it_is_fitted_by_sticking_the_landing_too():
    guide, loss = moving_loss()
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
