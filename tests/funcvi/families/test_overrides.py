"""Held, freed, tied and re-bijected parameters; nesting; classes; params from a network; repr."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

import funcvi as fv
from funcvi.bijections import Exp, Interval, Softplus

# ---- held ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("override", [2.0, fv.fixed(2.0), jnp.array(2.0), np.float32(2.0)])
def test_a_value_holds_a_parameter(override: Any) -> None:
    q = fv.family(dist.Normal, scale=override)
    d = q({"loc": 0.3})
    assert (float(d.loc), float(d.scale)) == (np.float32(0.3), 2.0)
    gradient = jax.grad(lambda p: q(p).log_prob(1.0))({"loc": 0.3})
    np.testing.assert_allclose(gradient["loc"], 0.7 / 4, rtol=1e-6)


def test_fixed_without_a_value_takes_the_one_of_the_instance() -> None:
    params, q = fv.unconstrain(dist.Normal(0.3, 2.0), scale=fv.fixed())
    assert set(params) == {"loc"}
    assert float(q(params).scale) == 2.0


def test_fixed_without_a_value_and_without_an_instance_asks_for_one() -> None:
    with pytest.raises(ValueError, match=r"needs 'scale'.*fv\.family\(Normal, scale=\.\.\.\)"):
        fv.family(dist.Normal, scale=fv.fixed())({"loc": 0.0})


def test_a_covariance_is_held_as_given() -> None:
    covariance = jnp.array([[2.0, 0.3], [0.3, 1.0]])
    q = fv.family(dist.MultivariateNormal, covariance_matrix=covariance)
    d = q({"loc": jnp.zeros(2)})
    np.testing.assert_allclose(d.covariance_matrix, covariance)
    params, held = fv.unconstrain(d, covariance_matrix=fv.fixed())
    assert set(params) == {"loc"}
    np.testing.assert_allclose(held(params).covariance_matrix, covariance, rtol=1e-6)


def test_overrides_reach_through_wrappers_and_members() -> None:
    d = {"x": dist.Normal(jnp.zeros(2), 1.5).to_event(1), "y": dist.Gamma(2.0, 3.0)}
    params, q = fv.unconstrain(d, x={"scale": fv.fixed()}, y={"rate": 3.0})
    assert {k: set(v) for k, v in params.items()} == {"x": {"loc"}, "y": {"concentration"}}
    assert float(q(params)["y"].rate) == 3.0
    with pytest.raises(ValueError, match=r"y\.rate is held at 4 .* has 3"):
        fv.unconstrain(d, y={"rate": 4.0})


# ---- freed --------------------------------------------------------------------------------------


def test_truncation_bounds_are_held_until_freed() -> None:
    d = dist.TruncatedNormal(0.3, 1.2, low=-0.5, high=2.0)
    params, _ = fv.unconstrain(d)
    assert set(params) == {"base_dist"}
    params, q = fv.unconstrain(d, low=fv.free(), high=fv.free())
    assert set(params) == {"base_dist", "low", "high"}
    np.testing.assert_allclose(q(params).log_prob(0.4), d.log_prob(0.4), rtol=1e-5)
    gradient = jax.grad(lambda p: q(p).log_prob(jnp.array(0.4)))(params)
    assert all(np.isfinite(g) and g != 0 for g in (gradient["low"], gradient["high"]))
    crossed = q({**params, "low": jnp.array(5.0), "high": jnp.array(-30.0)})
    assert float(crossed.high) > float(crossed.low)


def test_what_is_no_array_cannot_be_freed() -> None:
    with pytest.raises(ValueError, match=r"dimension is no array and cannot be learned"):
        fv.unconstrain(dist.LKJCholesky(3, 1.5), dimension=fv.free())
    with pytest.raises(ValueError, match=r"total_count has no unconstrained form"):
        fv.unconstrain(dist.BinomialProbs(0.3, 7), total_count=fv.free())


# ---- tied ---------------------------------------------------------------------------------------


def test_tied_to_a_sibling() -> None:
    q = fv.family(dist.Beta, concentration0=fv.tied("concentration1"))
    d = q({"concentration1": 0.7})
    assert float(d.concentration0) == float(d.concentration1)
    assert set(q.inverse(d)) == {"concentration1"}


def test_tied_through_a_function() -> None:
    q = fv.family(dist.Normal, scale=fv.tied("loc", lambda loc: 0.5 + loc**2))
    d = q({"loc": 2.0})
    assert float(d.scale) == 4.5
    value = jax.grad(lambda p: q(p).scale)({"loc": 2.0})
    assert float(value["loc"]) == 4.0


@pytest.mark.parametrize(
    ("joint", "path", "other"),
    [
        ({"a": dist.Normal, "b": dist.Normal}, "a.scale", "b"),
        ({"a": dist.Normal(0.0, 1.5).expand((1,)).to_event(1), "b": dist.Normal}, "a.scale", "b"),
        ((dist.Normal, dist.Normal), "0.scale", "1"),
        ({"a": {"c": dist.Normal}, "b": dist.Normal}, "a.c.scale", "b"),
    ],
)
def test_tied_across_a_joint(joint: Any, path: str, other: str) -> None:
    q = fv.family(joint, {other: {"scale": fv.tied(path, lambda s: 2 * s)}})
    has_batch = isinstance(joint, dict) and isinstance(joint["a"], dist.Independent)
    first = jax.tree.map(lambda u: jnp.full((1,) * has_batch, u), {"loc": 0.0, "scale": 0.4})
    second = {"loc": 0.0}
    if isinstance(joint, tuple):
        made = q((first, second))
        twice = made[1].scale
    else:
        made = q({"a": {"c": first} if ".c." in path else first, "b": second})
        twice = made["b"].scale
    np.testing.assert_allclose(twice, 2 * np.exp(0.4), rtol=1e-6)
    again = q.inverse(made)
    assert set(again[1] if isinstance(joint, tuple) else again["b"]) == {"loc"}


def test_a_tied_covariance_is_carried_as_its_factor() -> None:
    d = dist.MultivariateNormal(jnp.zeros(2), covariance_matrix=jnp.array([[2.0, 0.3], [0.3, 1.0]]))
    params, q = fv.unconstrain(
        {"a": d, "b": d}, b={"covariance_matrix": fv.tied("a.covariance_matrix")}
    )
    assert set(params["b"]) == {"loc"}
    made = q(params)
    np.testing.assert_array_equal(made["a"].scale_tril, made["b"].scale_tril)
    other = dist.MultivariateNormal(jnp.zeros(2), covariance_matrix=jnp.eye(2))
    with pytest.raises(ValueError, match=r"b\.covariance_matrix is tied"):
        q.inverse({"a": d, "b": other})


def test_circular_ties() -> None:
    q = fv.family(
        dist.Beta,
        concentration1=fv.tied("concentration0"),
        concentration0=fv.tied("concentration1"),
    )
    circle = "concentration1 -> concentration0 -> concentration1"
    with pytest.raises(ValueError, match=f"tied in a circle: {circle}; free one"):
        q({})
    far = fv.family(
        {"a": dist.Normal, "b": dist.Normal},
        a={"scale": fv.tied("b.scale")},
        b={"scale": fv.tied("a.scale")},
    )
    with pytest.raises(ValueError, match=r"a\.scale -> b\.scale -> a\.scale"):
        far({"a": {"loc": 0.0}, "b": {"loc": 0.0}})


@pytest.mark.parametrize("source", ["sigma", "a.sigma", "c.scale", "a.scale.more"])
def test_unknown_sources(source: str) -> None:
    q = fv.family({"a": dist.Normal, "b": dist.Normal}, b={"scale": fv.tied(source)})
    with pytest.raises(ValueError, match="dotted path from the top"):
        q({"a": {"loc": 0.0, "scale": 0.0}, "b": {"loc": 0.0}})


def test_a_distribution_cannot_be_tied() -> None:
    with pytest.raises(ValueError, match="base_dist is a distribution: tie its parameters"):
        fv.family(dist.FoldedDistribution, base_dist=fv.tied("a"))


# ---- a bijection of one's own -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "u", "expected"),
    [
        (Exp(floor=0.1), 0.0, 1.1),
        (Softplus(floor=0.1), 0.0, 0.1 + np.log(2)),
        (Interval(0.5, 2.5), 0.0, 1.5),
        (constraints.interval(0.5, 2.5), 0.0, 1.5),
        (constraints.softplus_positive, 0.0, np.log(2)),
        (nt.SoftplusTransform(), 0.0, np.log(2)),
        (fv.free(Exp(floor=0.1)), 0.0, 1.1),
        (fv.free(constraints.greater_than(2.0)), 0.0, 3.0),
    ],
)
def test_own_bijection(override: Any, u: float, expected: float) -> None:
    for made in (
        fv.family(dist.Normal, scale=override),
        fv.unconstrain(dist.Normal(0.0, expected), scale=override)[1],
    ):
        d = made({"loc": 0.0, "scale": u})
        np.testing.assert_allclose(d.scale, expected, rtol=1e-6)
        np.testing.assert_allclose(made.inverse(d)["scale"], u, atol=1e-5)


def test_own_bijection_of_a_covariance() -> None:
    matrix = jnp.array([[2.0, 0.3], [0.3, 1.0]])
    own = nt.ComposeTransform([nt.LowerCholeskyTransform(), nt.CholeskyTransform().inv])
    params, q = fv.unconstrain(
        dist.MultivariateNormal(jnp.zeros(2), covariance_matrix=matrix), covariance_matrix=own
    )
    np.testing.assert_allclose(q(params).covariance_matrix, matrix, rtol=1e-5)


def test_below_a_floor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale = 0\.05 .*greater than\(0\.1\)"):
        fv.unconstrain(dist.Normal(0.0, 0.05), scale=Exp(floor=0.1))


# ---- nesting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base",
    [dist.Normal, dist.Normal(0.3, 1.2), fv.family(dist.Normal)],
    ids=["class", "instance", "family"],
)
def test_nested_families(base: Any) -> None:
    q = fv.family(dist.LeftTruncatedDistribution, base_dist=base, low=-0.5)
    d = q({"base_dist": {"loc": 0.3, "scale": 0.0}})
    assert isinstance(d.base_dist, dist.Normal)
    np.testing.assert_allclose(
        d.log_prob(0.4), dist.TruncatedNormal(0.3, 1.0, low=-0.5).log_prob(0.4)
    )


def test_nested_families_keep_their_overrides() -> None:
    inner = fv.family(dist.Normal, scale=2.0)
    q = fv.family({"x": inner, "y": dist.Gamma})
    made = q({"x": {"loc": 0.3}, "y": {"concentration": 0.0, "rate": 0.0}})
    assert float(made["x"].scale) == 2.0
    assert fv.family(inner) is inner
    with pytest.raises(ValueError, match="a family already"):
        fv.family(inner, loc=1.0)


def test_a_mixture_of_classes() -> None:
    q = fv.family(
        dist.MixtureSameFamily,
        mixing_distribution=dist.CategoricalProbs,
        component_distribution=dist.Normal,
    )
    d = q(
        {
            "mixing_distribution": {"probs": jnp.zeros(1)},
            "component_distribution": {"loc": jnp.zeros(2), "scale": jnp.zeros(2)},
        }
    )
    np.testing.assert_allclose(d.log_prob(0.3), dist.Normal().log_prob(0.3), rtol=1e-6)


def test_a_missing_nested_argument_is_named() -> None:
    with pytest.raises(ValueError, match="needs 'base_dist'"):
        fv.family(dist.FoldedDistribution)({})


# ---- params from a network ----------------------------------------------------------------------


def test_a_network_may_make_the_params() -> None:
    q = fv.family(dist.MultivariateNormal)
    weights = 0.1 * jax.random.normal(jax.random.key(0), (4, 5))

    def encoder(weights: Any, x: Any) -> Any:
        out = x @ weights
        return {"loc": out[..., :2], "scale_tril": out[..., 2:]}

    def loss(weights: Any, x: Any) -> Any:
        d = q(encoder(weights, x))
        assert d.batch_shape == x.shape[:-1]
        return -d.log_prob(jnp.ones(2)).sum()

    for batch in ((), (3,), (2, 3)):
        gradient = jax.jit(jax.grad(loss))(weights, jnp.ones((*batch, 4)))
        assert np.isfinite(gradient).all()
        assert np.any(gradient != 0)


# ---- classes ------------------------------------------------------------------------------------


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("of", "params", "kind"),
    [
        (dist.Bernoulli, {"probs": jnp.zeros(2)}, dist.BernoulliProbs),
        (dist.Bernoulli, {"logits": jnp.zeros(2)}, dist.BernoulliLogits),
        (dist.Categorical, {"probs": jnp.zeros((2, 3))}, dist.CategoricalProbs),
        (dist.Categorical, {"logits": jnp.zeros((2, 3))}, dist.CategoricalLogits),
        (
            dist.MultivariateNormal,
            {"loc": jnp.zeros((2, 3)), "covariance_matrix": jnp.zeros(6)},
            dist.MultivariateNormal,
        ),
        (
            dist.MultivariateNormal,
            {"loc": jnp.zeros((2, 3)), "scale_tril": jnp.zeros((2, 6))},
            dist.MultivariateNormal,
        ),
        (dist.TruncatedNormal, {"loc": jnp.zeros(2), "scale": jnp.zeros(2)}, dist.Normal),
        (
            dist.TruncatedNormal,
            {"loc": jnp.zeros(2), "scale": jnp.zeros(2), "low": jnp.zeros(2)},
            dist.LeftTruncatedDistribution,
        ),
    ],
)
def test_the_names_of_the_params_choose_the_parameterisation(
    of: Any, params: Any, kind: Any
) -> None:
    q = fv.family(of)
    d = q(params)
    assert type(d) is kind
    assert d.batch_shape == (2,)
    again = q(q.inverse(d))  # by the factor, where a covariance is carried as one
    x = jnp.zeros(d.event_shape, int) if d.is_discrete else jnp.full(d.event_shape, 0.4)
    np.testing.assert_allclose(again.log_prob(x), d.log_prob(x), rtol=1e-6)


def test_static_arguments_are_given_once() -> None:
    q = fv.family(dist.LKJCholesky, dimension=3)
    assert q({"concentration": 0.0}).event_shape == (3, 3)
    with pytest.raises(ValueError, match=r"LKJCholesky needs 'dimension'.*dimension=\.\.\."):
        fv.family(dist.LKJCholesky)({"concentration": 0.0})
    counted = fv.family(dist.Binomial, total_count=7)
    assert float(counted({"logits": 0.0}).mean) == 3.5
    assert float(fv.family(dist.Binomial)({"logits": 0.0}).mean) == 0.5  # numpyro's default


# ---- repr ---------------------------------------------------------------------------------------


def test_repr_shows_every_parameter_and_its_fate() -> None:
    q = fv.family(
        {"x": dist.Normal(jnp.zeros(3), jnp.full(3, 1.5)).to_event(1), "y": dist.Gamma},
        x={"scale": Softplus(floor=0.01)},
        y={"rate": fv.tied("x.scale", lambda s: s), "concentration": 2.0},
    )
    assert repr(q).splitlines() == [
        "Family of a joint of 2",
        "  x: Independent(Normal)",
        "    loc: real, free, shape (3,)",
        "    scale: greater than(0.01), free by softplus with floor 0.01, shape (3,)",
        "    reinterpreted_batch_ndims: fixed at 1",
        "  y: Gamma",
        "    concentration: fixed at 2.0",
        "    rate: tied to x.scale through a function",
    ]


def test_repr_of_bounds_choices_and_what_is_missing() -> None:
    assert "high: greater than low, free" in repr(fv.family(dist.Uniform))
    text = repr(fv.family(dist.Bernoulli))
    assert text.startswith("Family of Bernoulli")
    assert "probs: unit interval, free by sigmoid" in text
    assert "logits: real, free" in text
    assert "dimension: fixed, value still to be given" in repr(fv.family(dist.LKJ))
    assert "covariance_matrix: positive definite, free" in repr(fv.family(dist.MultivariateNormal))


def test_repr_inside_jit() -> None:
    seen = []

    def show(scale: Any) -> Any:
        seen.append(repr(fv.family(dist.Normal, scale=scale)))
        return scale

    jax.jit(show)(jnp.ones(2))
    assert "scale: fixed at a traced array of shape (2,)" in seen[0]


def test_a_whole_member_of_a_joint_is_held() -> None:
    held = dist.Normal(2.0, 3.0)
    params, q = fv.unconstrain({"a": dist.Normal(0.0, 1.0), "b": held}, b=fv.fixed())
    assert params["b"] == {}
    assert q(params)["b"] is held
