"""What cannot work is refused, by name, with the constraint and with a value that does work."""

import ast
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms as nt

import funcvi as fv

# ---- params -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loc": 0.0}, r"missing \['scale'\]"),
        ({"loc": 0.0, "scale": 0.0, "rate": 1.0}, r"unknown \['rate'\]"),
        ({"loc": 0.0, "sigma": 0.0}, r"\['loc', 'scale'\].*missing \['scale'\] and unknown"),
        ({}, r"missing \['loc', 'scale'\]"),
    ],
)
def test_missing_and_unknown_names(params: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fv.family(dist.Normal)(params)


def test_a_held_name_among_the_params_is_said_to_be_held() -> None:
    q = fv.family(dist.Normal, scale=2.0)
    with pytest.raises(ValueError, match=r"\['scale'\] is held or tied, not learned"):
        q({"loc": 0.0, "scale": 0.0})


def test_names_that_fit_no_parameterisation_list_them_all() -> None:
    with pytest.raises(ValueError, match=r"\['probs'\] or \['logits'\].*got \['rate'\]"):
        fv.family(dist.Bernoulli)({"rate": 0.0})


@pytest.mark.parametrize("params", [0.0, [0.0, 0.0], jnp.zeros(2)])
def test_params_that_are_no_dict(params: Any) -> None:
    with pytest.raises(TypeError, match="must be a dict of unconstrained arrays"):
        fv.family(dist.Normal)(params)


@pytest.mark.parametrize("value", [0, jnp.zeros(2, int), True, "0", None])
def test_params_that_are_not_floating_point(value: Any) -> None:
    with pytest.raises(TypeError, match=r"'loc' must be a floating-point array"):
        fv.family(dist.Normal)({"loc": value, "scale": 0.0})


@pytest.mark.parametrize(
    ("loc", "scale", "said"),
    [((4,), (4, 1), r"would broadcast to \(4, 4\)"), ((3,), (2,), "do not broadcast")],
)
def test_shapes_that_make_a_grid_are_refused(loc: Any, scale: Any, said: str) -> None:
    q = fv.family(dist.Normal)
    with pytest.raises(ValueError, match=rf"{said}: loc .*, scale .*jnp\.broadcast_to"):
        q({"loc": jnp.zeros(loc), "scale": jnp.zeros(scale)})
    shape = np.broadcast_shapes((4,), (4, 1))
    meant = {n: jnp.broadcast_to(jnp.zeros(4), shape) for n in ("loc", "scale")}
    assert q(meant).batch_shape == (4, 4)


def test_a_fixed_value_takes_part_in_the_shape_check() -> None:
    q = fv.family(dist.Normal, scale=jnp.ones((4, 1)))
    with pytest.raises(ValueError, match=r"would broadcast to \(4, 4\)"):
        q({"loc": jnp.zeros(4)})


def test_event_shapes() -> None:
    _, q = fv.unconstrain(dist.Dirichlet(jnp.array([1.5, 2.5, 3.5])))
    with pytest.raises(ValueError, match=r"'concentration' must have shape \(\*batch, 3\)"):
        q({"concentration": jnp.zeros(2)})
    with pytest.raises(ValueError, match=r"needs 1 event dimension"):
        fv.family(dist.Dirichlet)({"concentration": jnp.zeros(())})
    assert q({"concentration": jnp.zeros((2, 3))}).batch_shape == (2,)


def test_a_joint_names_its_members() -> None:
    q = fv.family({"a": dist.Normal, "b": dist.Gamma})
    inner = {"loc": 0.0, "scale": 0.0}
    with pytest.raises(ValueError, match=r"must be named \['a', 'b'\]; got \['a'\]"):
        q({"a": inner})
    with pytest.raises(ValueError, match=r"params 'b' of Gamma.*missing"):
        q({"a": inner, "b": {"rate": 0.0}})
    with pytest.raises(ValueError, match="must have 2 entries, got 1"):
        fv.family([dist.Normal, dist.Gamma])([inner])
    with pytest.raises(TypeError, match="must be a list, got dict"):
        fv.family([dist.Normal, dist.Gamma])({"a": inner})
    with pytest.raises(ValueError, match="empty joint"):
        fv.family({})


@pytest.mark.parametrize("of", [3.0, "Normal", dist.constraints.positive, int, None])
def test_what_is_no_distribution(of: Any) -> None:
    with pytest.raises(TypeError, match="expected a numpyro distribution"):
        fv.family(of)


def test_unknown_overrides() -> None:
    with pytest.raises(ValueError, match="Normal has no parameter 'sigma': it has loc, scale"):
        fv.family(dist.Normal, sigma=1.0)
    with pytest.raises(ValueError, match="the joint has no parameter 'c': it has a, b"):
        fv.family({"a": dist.Normal, "b": dist.Gamma}, c={"loc": 1.0})
    with pytest.raises(ValueError, match=r"not together: give one parameterisation"):
        fv.family(dist.Bernoulli, probs=0.3, logits=0.2)


# ---- initial values on and next to boundaries ---------------------------------------------------

NAN, INF = float("nan"), float("inf")
ZERO2 = jnp.zeros(2)


def mvn(**parameter: Any) -> Any:
    return dist.MultivariateNormal(ZERO2, **parameter)


def one_value(cls: Any, name: str, **others: Any) -> Callable[[Any], Any]:
    return lambda value: cls(**{name: value}, **others)


#: Label to (constructor of the value, the value, parameter, constraint, numpyro refuses it too).
BOUNDARIES: dict[str, tuple[Callable[[Any], Any], Any, str, str, bool]] = {
    "scale 0": (one_value(dist.Normal, "scale"), 0.0, "scale", "positive", True),
    "scale 1e-40": (one_value(dist.Normal, "scale"), 1e-40, "scale", "positive", True),
    "scale -1": (one_value(dist.Normal, "scale"), -1.0, "scale", "positive", True),
    "scale inf": (one_value(dist.Normal, "scale"), INF, "scale", "positive", False),
    "scale nan": (one_value(dist.Normal, "scale"), NAN, "scale", "positive", True),
    "loc nan": (one_value(dist.Normal, "loc"), NAN, "loc", "real", True),
    "loc inf": (one_value(dist.Normal, "loc"), INF, "loc", "real", True),
    "one of three": (one_value(dist.Normal, "scale"), [1.0, 0.0, 2.0], "scale", "positive", True),
    "huge": (one_value(dist.Gamma, "concentration"), 1e36, "concentration", "positive", False),
    "probability 0": (one_value(dist.BernoulliProbs, "probs"), 0.0, "probs", "unit", False),
    "probability 1": (one_value(dist.BernoulliProbs, "probs"), 1.0, "probs", "unit", False),
    "one-hot": (
        one_value(dist.CategoricalProbs, "probs"),
        [0.0, 1.0, 0.0],
        "probs",
        "simplex",
        False,
    ),
    "sum above one": (
        one_value(dist.CategoricalProbs, "probs"),
        [0.5, 0.6],
        "probs",
        "simplex",
        True,
    ),
    "tied cutpoints": (
        one_value(dist.OrderedLogistic, "cutpoints", predictor=0.0),
        [0.0, 0.0, 1.0],
        "cutpoints",
        "ordered vector",
        True,
    ),
    "descending cutpoints": (
        one_value(dist.OrderedLogistic, "cutpoints", predictor=0.0),
        [1.0, 0.0, 2.0],
        "cutpoints",
        "ordered vector",
        True,
    ),
    "singular factor": (
        lambda v: mvn(scale_tril=v),
        [[1.0, 0.0], [1.0, 0.0]],
        "scale_tril",
        "lower cholesky",
        True,
    ),
    "singular covariance": (
        lambda v: mvn(covariance_matrix=v),
        [[1.0, 1.0], [1.0, 1.0]],
        "covariance_matrix",
        "positive definite",
        True,
    ),
    "zero covariance": (
        lambda v: mvn(covariance_matrix=v),
        [[0.0, 0.0], [0.0, 0.0]],
        "covariance_matrix",
        "positive definite",
        True,
    ),
    "indefinite precision": (
        lambda v: mvn(precision_matrix=v),
        [[1.0, 2.0], [2.0, 1.0]],
        "precision_matrix",
        "positive definite",
        True,
    ),
    "perfect correlation": (
        lambda v: dist.GaussianCopula(dist.Normal(ZERO2, 1.0), correlation_matrix=v),
        [[1.0, 1.0], [1.0, 1.0]],
        "correlation_matrix",
        "corr matrix",
        True,
    ),
    "flat circulant": (
        lambda v: dist.CirculantNormal(jnp.zeros(3), covariance_row=v),
        [1.0, 1.0, 1.0],
        "covariance_row",
        "positive definite circulant",
        True,
    ),
    "empty interval": (one_value(dist.Uniform, "high", low=1.0), 1.0, "high", "greater", False),
    "reversed interval": (one_value(dist.Uniform, "high", low=2.0), 1.0, "high", "greater", False),
    "far empty interval": (
        one_value(dist.Uniform, "high", low=1e4),
        1e4,
        "high",
        "greater",
        False,
    ),
    "log interval": (one_value(dist.LogUniform, "high", low=2.0), 2.0, "high", "greater", False),
    "open interval": (
        one_value(dist.BetaProportion, "mean", concentration=2.0),
        1.0,
        "mean",
        "interval",
        True,
    ),
    "few degrees": (
        one_value(dist.Wishart, "concentration", scale_tril=jnp.eye(2)),
        1.0,
        "concentration",
        "greater than dimension - 1",
        False,
    ),
    "no scale": (
        lambda v: dist.TransformedDistribution(dist.Normal(), nt.AffineTransform(0.0, v)),
        0.0,
        "scale",
        "non zero real",
        False,
    ),
    "nested": (
        lambda v: {"x": dist.Normal(0.0, v).expand((2,)).to_event(1)},
        0.0,
        "x.scale",
        "positive",
        True,
    ),
}


@pytest.mark.parametrize("label", BOUNDARIES)
def test_a_boundary_is_refused_and_the_suggested_value_works(label: str) -> None:
    make, value, parameter, constraint, _ = BOUNDARIES[label]
    with dist.distribution.validation_enabled(False):
        d = make(jnp.asarray(value, float))
    with pytest.raises(ValueError, match="A value that works") as raised:
        fv.unconstrain(d)
    message = str(raised.value)
    assert re.match(rf"(\w+\.)*{re.escape(parameter)} = ", message), message
    assert constraint in message
    suggestion = ast.literal_eval(message.split("A value that works: ")[1].removesuffix("."))
    better = make(jnp.asarray(suggestion, float))  # validated by numpyro
    params, q = fv.unconstrain(better)
    assert all(np.isfinite(u).all() for u in jax.tree.leaves(params))
    again = q.inverse(q(params))
    for u, v in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("label", BOUNDARIES)
def test_who_refuses_first_when_numpyro_validates(label: str) -> None:
    make, value, _, _, by_numpyro = BOUNDARIES[label]
    message = r"got invalid \w+ parameter" if by_numpyro else "A value that works"
    with pytest.raises(ValueError, match=message):
        fv.unconstrain(make(jnp.asarray(value, float)))


@pytest.mark.parametrize("make", [lambda: dist.Normal(0, 2), lambda: dist.Gamma(np.int64(2), 3)])
def test_integer_parameters_of_a_distribution_become_floats(make: Any) -> None:
    params, q = fv.unconstrain(make())
    assert {u.dtype for u in params.values()} == {jnp.dtype("float32")}
    np.testing.assert_allclose(q(params).log_prob(1.5), make().log_prob(1.5), rtol=1e-6)


# ---- inverse ------------------------------------------------------------------------------------


def test_inverse_of_another_kind() -> None:
    q = fv.family(dist.Normal)
    with pytest.raises(TypeError, match=r"is of Normal, got Laplace: use fv\.unconstrain"):
        q.inverse(dist.Laplace())
    with pytest.raises(TypeError, match="is of Normal, got Independent"):
        q.inverse(dist.Normal(jnp.zeros(2)).to_event(1))
    with pytest.raises(TypeError, match="is of Normal, got dict"):
        q.inverse({"x": dist.Normal()})
    joint = fv.family({"x": dist.Normal})
    with pytest.raises(TypeError, match="is a joint of 1, got Normal"):
        joint.inverse(dist.Normal())
    with pytest.raises(ValueError, match=r"must have members \['x'\]; got \['y'\]"):
        joint.inverse({"y": dist.Normal()})
    with pytest.raises(TypeError, match=r"is of Bernoulli, got Poisson|is of BernoulliProbs"):
        fv.family(dist.Bernoulli).inverse(dist.Poisson(1.0))


def test_inverse_of_another_event_shape() -> None:
    _, q = fv.unconstrain(dist.Dirichlet(jnp.array([1.5, 2.5])))
    with pytest.raises(ValueError, match=r"concentration must have shape"):
        q.inverse(dist.Dirichlet(jnp.array([1.5, 2.5, 3.5])))


def test_inverse_with_other_held_values() -> None:
    q = fv.family(dist.Normal, scale=2.0)
    assert set(q.inverse(dist.Normal(0.3, 2.0))) == {"loc"}
    with pytest.raises(ValueError, match=r"scale is held at 2 .* has 3: free it"):
        q.inverse(dist.Normal(0.3, 3.0))


def test_inverse_with_other_held_members() -> None:
    d = dist.TransformedDistribution(dist.Normal(), nt.AffineTransform(0.3, 1.7))
    _, q = fv.unconstrain(d, transforms=fv.fixed())
    other = dist.TransformedDistribution(dist.Normal(), nt.AffineTransform(0.3, 2.7))
    assert set(q.inverse(d)) == {"base_distribution"}
    with pytest.raises(ValueError, match="transforms is held"):
        q.inverse(other)


def test_inverse_with_values_that_break_a_tie() -> None:
    q = fv.family(dist.Beta, concentration0=fv.tied("concentration1", lambda c: 2 * c))
    assert set(q.inverse(dist.Beta(1.5, 3.0))) == {"concentration1"}
    with pytest.raises(ValueError, match=r"concentration0 is tied to 'concentration1'.*be 3, but"):
        q.inverse(dist.Beta(1.5, 2.0))


def test_inverse_with_values_that_break_a_tie_across_a_joint() -> None:
    q = fv.family(
        {"a": dist.Normal, "b": dist.Normal(jnp.zeros(2)).to_event(1)},
        b={"scale": fv.tied("a.scale")},
    )
    scales = jnp.full(2, 0.7)
    same = {"a": dist.Normal(0.0, 0.7), "b": dist.Normal(jnp.zeros(2), scales).to_event(1)}
    assert set(q.inverse(same)["b"]) == {"loc"}
    with pytest.raises(ValueError, match=r"b\.scale is tied to 'a\.scale'"):
        q.inverse({"a": dist.Normal(0.0, 0.9), "b": same["b"]})


def test_inverse_refuses_to_lose_an_argument() -> None:
    with pytest.raises(ValueError, match=r"LKJCholesky\.dimension = 3 would be lost"):
        fv.family(dist.LKJCholesky).inverse(dist.LKJCholesky(3, 1.5))
    with pytest.raises(ValueError, match=r"total_count = .* would be lost|total_count is held"):
        fv.family(dist.BinomialProbs).inverse(dist.BinomialProbs(0.3, 7))
    q = fv.family(dist.LKJCholesky, dimension=3)
    with pytest.raises(ValueError, match="dimension is held at 3"):
        q.inverse(dist.LKJCholesky(4, 1.5))
