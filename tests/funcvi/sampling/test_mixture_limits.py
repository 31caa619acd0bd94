"""Mixtures at the edges: gradients that stay finite, and refusals with a reason."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms as nt

import funcvi as fv
from funcvi.sampling.gradients import pathwise_obstacle
from funcvi.sampling.mixture import mixture_obstacle
from tests.funcvi.sampling.test_mixture import KEY, UNIVARIATE, same, slopes

# ---- what must stay finite ----------------------------------------------------------------------


def all_gradients(make: Any, t: Any, shape: tuple[int, ...] = (500,)) -> Any:
    """One gradient for each draw."""

    def value(t: Any, key: Any) -> Any:
        return jnp.sum(jnp.arcsinh(fv.sample(make(t), key)))

    keys = jax.random.split(KEY, shape)
    return jax.jit(jax.vmap(jax.grad(value), (None, 0)))(t, keys)


EXTREMES: dict[str, tuple[Any, Any]] = {
    "far apart": (
        same(lambda t: dist.Normal(t[1:3], t[3:5])),
        [0.3, -1e6, 1e6, 1.0, 1e-3],
    ),
    "of one point almost": (same(lambda t: dist.Normal(t[1:3], t[3:5])), [0.3, 0, 1, 1e-20, 1.0]),
    "large and small": (same(lambda t: dist.Normal(t[1:3], t[3:5])), [0.3, 0, 1, 1e10, 1e-10]),
    "Cauchy far apart": (same(lambda t: dist.Cauchy(t[1:3], t[3:5])), [0.3, -1e6, 1e6, 1e-3, 1.0]),
    "Gamma near zero": (
        same(lambda t: dist.Gamma(t[1:3], t[3:5])),
        [0.3, 1e-2, 1e4, 1.0, 1e-3],
    ),
    "LogNormal wide": (same(lambda t: dist.LogNormal(t[1:3], t[3:5])), [0.3, 0, 5, 10.0, 0.1]),
    "Weibull steep": (same(lambda t: dist.Weibull(t[1:3], t[3:5])), [0.3, 1e-3, 1e3, 200.0, 0.05]),
    "Gompertz steep": (same(lambda t: dist.Gompertz(t[1:3], t[3:5])), [0.3, 1.0, 1e-3, 1e3, 1e-2]),
    "Kumaraswamy at both ends": (
        same(lambda t: dist.Kumaraswamy(t[1:3], t[3:5])),
        [0.3, 0.02, 30.0, 5.0, 0.02],
    ),
    "vectors far apart": (
        same(lambda t: dist.Normal(t[1:5].reshape(2, 2), t[5:7]).to_event(1)),
        [0.3, 0, 1e5, -1e5, 0, 1.0, 1e-2],
    ),
    "weight of zero": (same(lambda t: dist.Normal(t[1:3], 1.0)), [0.0, 1e4, 0.0]),
    "logit of minus infinity": (
        lambda t: dist.MixtureSameFamily(
            dist.Categorical(logits=t[:3], validate_args=False), dist.Normal(t[3:], 1.0)
        ),
        [-np.inf, 0.0, 1.0, 50.0, 0.0, 1.0],
    ),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", EXTREMES)
def test_gradients_stay_finite(name: str) -> None:
    make, t = EXTREMES[name]
    found = all_gradients(make, jnp.asarray(t, jnp.float32))
    assert np.isfinite(found).all()
    assert (np.abs(found) > 0).any()


def test_an_excluded_component_changes_nothing() -> None:
    """Logit minus infinity, or weight zero: draws and gradients are those of the others alone."""

    def with_it(t: Any) -> Any:
        logits = jnp.concatenate([jnp.array([-jnp.inf]), t[:2]])
        loc = jnp.concatenate([jnp.array([7.0]), t[2:]])
        mixing = dist.Categorical(logits=logits, validate_args=False)
        return dist.MixtureSameFamily(mixing, dist.Normal(loc, 1.0))

    def without(t: Any) -> Any:
        return dist.MixtureSameFamily(dist.Categorical(logits=t[:2]), dist.Normal(t[2:], 1.0))

    t, x = jnp.array([0.3, -0.4, 0.0, 2.0]), jnp.linspace(-4, 9, 27)
    np.testing.assert_allclose(slopes(with_it, t, x), slopes(without, t, x), rtol=1e-5, atol=1e-5)
    draws = fv.sample(
        dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.array([0.0, 1.0, 0.0])),
            dist.Normal(jnp.array([-100.0, 0.0, 100.0]), 1.0),
        ),
        KEY,
        (10_000,),
    )
    assert (jnp.abs(draws) < 10).all()


def test_weights_that_are_lost_give_lost_draws() -> None:
    mixing = dist.Categorical(probs=jnp.array([jnp.nan, 0.5]), validate_args=False)
    assert jnp.isnan(fv.sample(dist.MixtureSameFamily(mixing, dist.Normal(jnp.zeros(2))), KEY))


# ---- refusals -----------------------------------------------------------------------------------

HALF = dist.Categorical(probs=jnp.array([0.5, 0.5]))
REFUSED = {
    "StudentT": (
        dist.MixtureSameFamily(HALF, dist.StudentT(jnp.array([3.0, 4.0]))),
        "MixtureSameFamily of StudentT: no derivative of its cdf is known",
    ),
    "Beta": (dist.MixtureSameFamily(HALF, dist.Beta(jnp.ones(2), 2.0)), "of Beta: no derivative"),
    "Poisson": (dist.MixtureSameFamily(HALF, dist.Poisson(jnp.ones(2))), "of Poisson: discrete"),
    "Uniform": (
        dist.MixtureGeneral(HALF, [dist.Uniform(0.0, 1.0), dist.Uniform(2.0, 3.0)]),
        "of Uniform: no derivative",
    ),
    "an edge that moves": (
        dist.MixtureSameFamily(
            HALF,
            dist.TransformedDistribution(
                dist.Exponential(jnp.ones(2)), nt.AffineTransform(jnp.arange(2.0), 1.0)
            ),
        ),
        "of TransformedDistribution: no derivative",
    ),
    "coordinates that do not factorise": (
        dist.MixtureSameFamily(HALF, dist.Dirichlet(jnp.ones((2, 3)))),
        "of Dirichlet: no derivative",
    ),
    "vectors of different supports": (
        dist.MixtureGeneral(
            HALF,
            [dist.Normal(jnp.zeros(2)).to_event(1), dist.HalfNormal(jnp.ones(2)).to_event(1)],
            support=dist.constraints.independent(dist.constraints.real, 1),
        ),
        "MixtureGeneral of different supports",
    ),
    "masked": (
        dist.MixtureSameFamily(HALF, dist.Normal(jnp.zeros(2)).mask(jnp.array([True, False]))),
        "of Normal: no derivative",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_reason(name: str) -> None:
    d, message = REFUSED[name]
    assert message in (mixture_obstacle(d) or "")
    assert (pathwise_obstacle(d) or "").endswith("so its weights get no gradient")
    assert jnp.shape(fv.sample(d, KEY, (3,))) == (3, *d.event_shape)


# ---- shapes --------------------------------------------------------------------------------------


def batch(t: Any) -> Any:
    return dist.MixtureSameFamily(
        dist.Categorical(logits=jnp.stack([t, -t, 2 * t], axis=-1)),
        dist.Normal(jnp.arange(3.0) + t[..., None], 0.7),
    )


def test_a_batch_is_each_of_its_mixtures() -> None:
    t = jnp.array([0.2, -0.4])
    x = jnp.array([[0.1, 1.4], [-0.5, 2.2], [3.0, 0.7]])
    found = slopes(batch, t, x)
    for i in range(2):
        np.testing.assert_allclose(found[:, i, i], slopes(batch, t[i], x[:, i]), rtol=2e-5)
        assert (found[:, i, 1 - i] == 0).all()


@pytest.mark.parametrize("form", ["weights wider", "components wider", "expanded", "general"])
def test_shapes_broadcast(form: str) -> None:
    w = jnp.full((3, 2), 0.5)
    loc = jnp.arange(2.0)

    def make(scale: Any) -> Any:
        normal = dist.Normal(loc, scale)
        if form == "weights wider":
            return dist.MixtureSameFamily(dist.Categorical(probs=w), normal)
        if form == "components wider":
            wide = dist.Normal(jnp.zeros((3, 2)), scale)
            return dist.MixtureSameFamily(dist.Categorical(probs=w[0]), wide)
        if form == "expanded":
            return dist.MixtureSameFamily(dist.Categorical(probs=w[0]), normal).expand([3])
        each = [dist.Normal(0.0, scale), dist.Normal(jnp.zeros(3), 1.0)]
        return dist.MixtureGeneral(dist.Categorical(probs=w[0]), each)

    def total(scale: Any) -> Any:
        drawn = fv.sample(make(scale), KEY, (5, 4))
        assert drawn.shape == (5, 4, 3)
        return drawn.sum()

    assert jnp.isfinite(jax.grad(total)(1.3))
    assert fv.sample(make(1.3), KEY, (0,)).shape == (0, 3)


def in_scan(f: Any) -> Any:
    return lambda t: jax.lax.scan(lambda c, _: (c + f(t), None), 0.0, None, length=1)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Gamma", "Normal and Laplace"])
def test_one_gradient_under_every_transformation(name: str) -> None:
    make, _, theta = UNIVARIATE[name]
    t = jnp.asarray(theta)

    def f(t: Any) -> Any:
        return jnp.sum(jnp.tanh(fv.sample(make(t), KEY, (50,))))

    expected = jax.jit(jax.grad(f))(t)
    for found in (
        jax.grad(jax.jit(f))(t),
        jax.jit(jax.vmap(jax.grad(f)))(t[None])[0],
        jax.jit(jax.grad(lambda t: jax.vmap(f)(t[None]).sum()))(t),
        jax.jit(jax.grad(in_scan(f)))(t),
        jax.jit(jax.grad(jax.checkpoint(f)))(t),
        jax.jit(jax.jacfwd(f))(t),
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
