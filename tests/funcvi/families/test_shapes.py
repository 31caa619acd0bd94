"""What the batch shape shows is what is learned: each element has its own, unless it is shared."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import transforms as nt

import funcvi as fv
from funcvi.families import Family
from funcvi.families.roles import Learned
from tests.funcvi.families.test_laws import EVERY_ENTRY, case, recording

#: numpyro takes no batch of these.
ONE_FOR_ALL = {"GaussianStateSpace.transition_matrix"}


@EVERY_ENTRY
def test_every_parameter_has_the_batch_shape_of_its_distribution(name: str) -> None:
    _, params, q, _ = case(name)
    log: list[Any] = []
    Family(recording(q.tree, log))(params)
    for node, arguments in log:
        made = node.signature.build(**arguments)
        for argument, role in node.roles.items():
            label = f"{node.signature.name}.{argument}"
            if not isinstance(role, Learned) or label in ONE_FOR_ALL:
                continue
            keyword = role.carried.keyword if role.carried else argument
            assert role.shape is not None
            if isinstance(made, dist.Distribution):
                batch = arguments[keyword].shape[: len(made.batch_shape)]
                assert batch == made.batch_shape, label
                assert role.batch == made.batch_shape, label
            else:  # a transform: one for each element that it is applied to
                assert role.shape[: len(role.batch)] == role.batch, label


TWO = dist.Normal(jnp.zeros(2), 1.0)
CASES: dict[str, tuple[Any, dict[str, tuple[int, ...]]]] = {
    "scalar scale": (dist.Normal(jnp.zeros(3), 1.0), {"loc": (3,), "scale": (3,)}),
    "expand": (dist.Normal(0.0, 1.0).expand([3]), {"loc": (3,), "scale": (3,)}),
    "expand, to_event": (
        dist.Normal(0.0, 1.0).expand([4, 3]).to_event(1),
        {"loc": (4, 3), "scale": (4, 3)},
    ),
    "to_event, expand": (TWO.to_event(1).expand([5]), {"loc": (5, 2), "scale": (5, 2)}),
    "axes of size one": (
        dist.Normal(jnp.zeros((4, 1)), jnp.ones(3)),
        {"loc": (4, 3), "scale": (4, 3)},
    ),
    "mask": (dist.Normal().mask(jnp.ones(3, bool)), {"loc": (3,), "scale": (3,)}),
    "covariance": (
        dist.MultivariateNormal(jnp.zeros((5, 2)), covariance_matrix=jnp.eye(2)),
        {"loc": (5, 2), "covariance_matrix": (5, 3)},
    ),
    "covariance, expand": (
        dist.MultivariateNormal(jnp.zeros(2), precision_matrix=jnp.eye(2)).expand([4, 5]),
        {"loc": (4, 5, 2), "precision_matrix": (4, 5, 3)},
    ),
    "mixture, expand": (
        dist.MixtureSameFamily(
            dist.Categorical(probs=jnp.full(3, 1 / 3)), dist.Normal(jnp.arange(3.0), 1.0)
        ).expand([4]),
        {
            "mixing_distribution.probs": (4, 2),
            "component_distribution.loc": (4, 3),
            "component_distribution.scale": (4, 3),
        },
    ),
    "general mixture, one wide component": (
        dist.MixtureGeneral(
            dist.Categorical(probs=jnp.full(2, 0.5)), [TWO, dist.Laplace(0.0, 1.0)]
        ),
        {
            "mixing_distribution.probs": (2, 1),
            "component_distributions.0.loc": (2,),
            "component_distributions.0.scale": (2,),
            "component_distributions.1.loc": (2,),
            "component_distributions.1.scale": (2,),
        },
    ),
    "transforms act on each element": (
        dist.TransformedDistribution(
            dist.Normal(0.0, 1.0).expand([2]).to_event(1), nt.AffineTransform(0.0, 1.0)
        ).expand([5]),
        {
            "base_distribution.loc": (5, 2),
            "base_distribution.scale": (5, 2),
            "transforms.0.loc": (5, 2),
            "transforms.0.scale": (5, 2),
        },
    ),
    "an event without a declaration": (
        dist.Delta(jnp.zeros(2), event_dim=1).expand([3]),
        {"v": (3, 2)},
    ),
    "truncated": (
        dist.TruncatedNormal(0.0, 1.0, low=jnp.array([-1.0, -2.0])),
        {"base_dist.loc": (2,), "base_dist.scale": (2,)},
    ),
}


def shapes(params: Any) -> dict[str, tuple[int, ...]]:
    found = jax.tree_util.tree_leaves_with_path(params)
    return {
        ".".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path): leaf.shape
        for path, leaf in found
    }


@pytest.mark.few(4)
@pytest.mark.parametrize("name", CASES)
def test_shapes_of_params(name: str) -> None:
    d, expected = CASES[name]
    params, q = fv.unconstrain(d)
    assert shapes(params) == expected
    again = q(params)
    assert type(again) is type(d)
    assert (again.batch_shape, again.event_shape) == (d.batch_shape, d.event_shape)
    x = d.sample(jax.random.key(0), (4,))
    np.testing.assert_allclose(again.log_prob(x), d.log_prob(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "start", [dist.Normal(jnp.zeros(3), 1.0), dist.Normal(0.0, 1.0).expand([3])]
)
def test_a_fit_to_three_scales_reaches_the_optimum(start: Any) -> None:
    target = dist.Normal(jnp.array([0.0, 1.0, -3.0]), jnp.array([0.1, 1.0, 10.0]))
    params, q = fv.unconstrain(start)
    optimizer = optax.adam(0.05)

    def divergence(params: Any) -> Any:
        d = q(params)
        d = getattr(d, "base_dist", d)
        ratio = d.scale / target.scale
        return jnp.sum(
            0.5 * (ratio**2 + ((d.loc - target.loc) / target.scale) ** 2 - 1) - jnp.log(ratio)
        )

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update(jax.grad(divergence)(params), state)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=2000)[0])
    fitted, _ = run((params, optimizer.init(params)))
    assert divergence(params) > 5
    assert divergence(fitted) < 1e-3


def test_many_leaves_of_a_network_gain_leading_axes() -> None:
    _, q = fv.unconstrain(dist.Normal(jnp.zeros(3), 1.0), scale=fv.shared())
    params = {"loc": jnp.zeros((32, 3)), "scale": jnp.zeros((32, 1))}
    assert q(params).batch_shape == (32, 3)
    _, q = fv.unconstrain(dist.Normal(0.0, 1.0).expand([3]), scale=fv.shared())
    d = q({"loc": jnp.zeros((32, 3)), "scale": jnp.arange(32.0)})  # one for each row
    np.testing.assert_allclose(d.base_dist.scale, jnp.exp(jnp.arange(32.0))[:, None], rtol=1e-6)
    assert d.batch_shape == (32, 3)


# ---- shared -------------------------------------------------------------------------------------


def test_shared_keeps_one_for_all() -> None:
    params, q = fv.unconstrain(dist.Normal(jnp.zeros(3), 1.5), scale=fv.shared())
    assert (params["loc"].shape, params["scale"].size) == ((3,), 1)
    np.testing.assert_allclose(q(params).scale, 1.5, rtol=1e-6)
    assert "loc: real, free, shape (3,)" in repr(q)
    assert "scale: positive, free by exp, shape (1,), shared by 3" in repr(q)
    gradient = jax.grad(lambda p: q(p).log_prob(1.0).sum())(params)
    np.testing.assert_allclose(gradient["scale"], 3 * (1 / 1.5**2 - 1), rtol=1e-5)


def test_shared_through_wrappers_with_a_bijection_of_its_own() -> None:
    d = dist.Normal(0.0, 1.5).expand([4, 3]).to_event(1)
    params, q = fv.unconstrain(d, scale=fv.shared(fv.Softplus(floor=0.1)))
    assert (params["loc"].shape, params["scale"].shape) == ((4, 3), ())
    assert "softplus with floor 0.1, shared by 12" in repr(q)
    assert q(params).batch_shape == (4,)
    assert q.inverse(q(params))["scale"].shape == ()
    rows = {"loc": jnp.zeros((7, 4, 3)), "scale": jnp.zeros(7)}
    assert q.inverse(q(rows))["scale"].shape == (7,)
    wide = dist.ExpandedDistribution(dist.Normal(jnp.zeros((4, 3)), jnp.ones((4, 3))), (4, 3))
    with pytest.raises(ValueError, match="scale is shared, but the distribution has several"):
        q.inverse(wide.to_event(1))


def test_shared_mixing_weights_and_covariances() -> None:
    d = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.3, 0.7])),
        dist.MultivariateNormal(jnp.zeros((5, 2, 3)), covariance_matrix=jnp.eye(3)),
    )
    params, q = fv.unconstrain(
        d,
        mixing_distribution={"probs": fv.shared()},
        component_distribution={"covariance_matrix": fv.shared()},
    )
    assert params["mixing_distribution"]["probs"].shape == (1,)
    assert params["component_distribution"]["covariance_matrix"].size == 6
    assert "shared by 5" in repr(q)
    assert "shared by 10" in repr(q)
    assert q(params).batch_shape == (5,)


def test_shared_of_a_class_takes_the_shape_that_the_params_have() -> None:
    q = fv.family(dist.Normal, scale=fv.shared())
    assert "scale: positive, free by exp, shared" in repr(q)
    params = q.inverse(dist.Normal(jnp.zeros(3), 1.0))
    assert (params["loc"].shape, params["scale"].size) == ((3,), 1)


def test_what_differs_within_the_batch_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match=r"high is shared, but its constraint \(greater than low"):
        fv.unconstrain(dist.Uniform(jnp.array([0.0, 0.5]), 2.0), high=fv.shared())
    params, q = fv.unconstrain(
        dist.Uniform(jnp.zeros(1), 2.0).expand([3]), low=fv.shared(), high=fv.shared()
    )
    assert {leaf.size for leaf in params.values()} == {1}
    assert q(params).batch_shape == (3,)


def test_one_leaf_for_a_batch_is_refused_with_the_remedy() -> None:
    _, q = fv.unconstrain(dist.Normal(jnp.zeros(3), 1.0))
    with pytest.raises(ValueError, match=r"'scale' must have shape \(\*batch, 3\).*fv\.shared"):
        q({"loc": jnp.zeros(3), "scale": jnp.zeros(1)})


def test_a_tie_to_more_than_the_own_batch_is_refused() -> None:
    joint = {"a": dist.Normal(jnp.zeros(3), 1.0), "b": dist.Normal(0.0, 1.0)}
    with pytest.raises(ValueError, match=r"b\.scale has shape \(\).*share that one by scale=fv"):
        fv.unconstrain(joint, b={"scale": fv.tied("a.scale")})
    params, q = fv.unconstrain(
        {**joint, "a": dist.Normal(0.0, 1.0).expand([3])},
        a={"scale": fv.shared()},
        b={"scale": fv.tied("a.scale")},
    )
    assert q(params)["b"].batch_shape == ()
