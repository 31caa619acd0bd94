"""Laws of every family: both directions, gradients, jit, vmap, batches, extremes, dtypes."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv
from funcvi.bijections import SignedExp
from funcvi.families import Family
from funcvi.families.roles import Learned, Members, Nested
from tests.funcvi.catalogue import CATALOGUE, NOT_DISTRIBUTIONS, REFUSED, covered

NAMES = list(CATALOGUE)
# One entry's laws share draws and compiled functions, so they share a process.
EVERY_ENTRY = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.catalogue_law, pytest.mark.xdist_group(name)])
        for name in NAMES
    ],
)
TWO = ([0.9, 1.3], [1.4, 2.1], [2.2, 0.8])
# Points of the support, where there are no draws, draws take long to compile, or the support moves.
POINTS: dict[str, Any] = {
    "ImproperUniform": [[[0.3, 1.2, 0.7], [0.9, 0.4, 2.1]]] * 3,
    "Unit": np.zeros((3, 2, 0)),
    "IntervalCensoredDistribution": [[[0.2, 1.4], [-0.6, 0.9]], [[0.7, 0.9], [-1.6, 0.1]]],
    "GaussianCopulaBeta/matrix": [[0.3, 0.6, 0.8], [0.5, 0.2, 0.7]],
    "GaussianCopulaBeta/cholesky": [[0.3, 0.6, 0.8], [0.5, 0.2, 0.7]],
    "SineBivariateVonMises/correlation": [[[0.3, -0.6], [0.8, 1.4]], [[-0.3, 2.6], [-1.8, 0.4]]],
    "SineBivariateVonMises/weighted": [[[0.3, -0.6], [0.8, 1.4]], [[-0.3, 2.6], [-1.8, 0.4]]],
    "LogUniform": TWO,
    "Pareto": [[3.1, 4.2], [5.6, 3.8]],
    "Uniform": [[1.1, 1.3], [1.4, 1.2]],
    "TransformedDistribution/truncated": [[1.9, 2.3], [2.6, 1.7], [3.1, 2.8]],
    **dict.fromkeys([n for n in NAMES if "TruncatedGamma" in n], TWO),
}
# The density does not depend on these: a point mass is 0 or minus infinity, and where high is
# low plus a width, moving low moves both.
# numpyro's density of a folded distribution leaves out the transforms of its base.
NO_GRADIENT = {
    "Delta": {"v"},
    "Delta/event": {"v"},
    "Uniform": {"low"},
    "FoldedDistribution/affine": {"transforms"},
}
# numpyro takes no batch of a transition matrix, nor of a ZeroSumNormal's scale.
NO_BATCH: dict[str, Any] = {
    "GaussianStateSpace/covariance": (AssertionError, "should be a square matrix"),
    "GaussianStateSpace/precision": (AssertionError, "should be a square matrix"),
    "GaussianStateSpace/scale_tril": (AssertionError, "should be a square matrix"),
    "ZeroSumNormal": (ValueError, "no batch in numpyro"),
}
if not hasattr(dist, "HurdleGamma"):  # numpyro 0.21
    NO_BATCH["TransformedDistribution/cholesky"] = (ValueError, "Only support 2-dimensional")
# jax has no derivative of betainc in its first two arguments, which the copula's density needs.
NO_DERIVATIVE = {"GaussianCopulaBeta/matrix", "GaussianCopulaBeta/cholesky"}
DOUBLE = (
    "CirculantNormal/row",
    "GaussianCopula/matrix",
    "MixtureGeneral",
    "MultivariateNormal/covariance",
    "MultivariateNormal/precision",
    "OrderedLogistic",
    "TransformedDistribution/cholesky",
    "TruncatedNormal/both",
    "Uniform",
    "Wishart/scale_matrix",
    "joint/nested",
)


@cache
def case(name: str) -> tuple[Any, Any, Family, Any]:
    """(distribution, params, family, points) of a catalogue entry."""
    d = CATALOGUE[name]()
    params, q = fv.unconstrain(d)
    if name in POINTS:
        return d, params, q, jnp.asarray(POINTS[name])
    return d, params, q, sample(d, jax.random.key(1), (3,))


def sample(d: Any, key: Any, shape: tuple[int, ...]) -> Any:
    leaves, tree = jax.tree.flatten(d, is_leaf=lambda m: isinstance(m, dist.Distribution))
    keys = jax.random.split(key, len(leaves))
    drawn = [_draw(m, k, shape) for m, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def _draw(d: Any, key: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(d, dist.TruncatedPolyaGamma):  # numpyro swaps its batch and sample axes
        return fv.sample(d, key, shape)
    return d.sample(key, shape)


def log_prob(d: Any, x: Any) -> list[Any]:
    return [m.log_prob(p) for m, p in zip(members(d), jax.tree.leaves(x), strict=True)]


def members(d: Any) -> list[Any]:
    return jax.tree.leaves(d, is_leaf=lambda m: isinstance(m, dist.Distribution))


def moderate(params: Any, seed: int, size: float = 0.5) -> Any:
    """Params moved by about ``size`` in a fixed random direction."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(
        tree, [leaf + jnp.asarray(rng.normal(0, size, leaf.shape), leaf.dtype) for leaf in leaves]
    )


def assert_close(actual: Any, expected: Any, tolerance: float = 2e-4) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert jnp.shape(a) == jnp.shape(b)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_the_catalogue_covers_every_public_name() -> None:
    assert covered() == set(dist.__all__) - NOT_DISTRIBUTIONS


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_documented_error(name: str) -> None:
    with pytest.raises(TypeError, match=REFUSED[name]):
        fv.family(getattr(dist, name))


@pytest.mark.few(4)
@EVERY_ENTRY
def test_params_to_distribution_to_params(name: str) -> None:
    _, params, q, _ = case(name)
    assert_close(q.inverse(q(params)), params)
    moved = moderate(params, 0)
    assert_close(q.inverse(q(moved)), moved, 1e-3)


@pytest.mark.few(4)
@EVERY_ENTRY
def test_distribution_to_params_to_distribution(name: str) -> None:
    d, params, q, x = case(name)
    again = q(params)
    for a, b in zip(members(d), members(again), strict=True):
        assert type(a) is type(b)
        assert (a.batch_shape, a.event_shape) == (b.batch_shape, b.event_shape)
    assert_close(log_prob(again, x), log_prob(d, x))


@cache
def values_and_gradients(name: str) -> tuple[list[Any], Any, Any]:
    """(three params, their log_probs, gradients of a weighted sum), by one jitted vmap."""
    _, params, q, x = case(name)
    copies = [params, moderate(params, 1, 0.2), moderate(params, 2, 0.2)]

    def total(params: Any) -> Any:
        values = log_prob(q(params), x)
        # Weights, so that gradients of opposite sign at different points do not cancel.
        return sum(jnp.sum(v * _weights(v.shape, v.dtype)) for v in values), values

    def both(params: Any, _: Any) -> Any:
        (_, values), gradient = jax.value_and_grad(total, has_aux=True)(params)
        return values, gradient

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies)
    return copies, *jax.jit(jax.vmap(both))(stacked, jnp.zeros(3))


def _weights(shape: tuple[int, ...], dtype: Any) -> Any:
    return jnp.asarray(1 + 0.5 * np.sin(1.0 + np.arange(np.prod(shape, dtype=int))), dtype).reshape(
        shape
    )


@EVERY_ENTRY
def test_gradients_are_finite_and_reach_every_leaf(name: str) -> None:
    if name in NO_DERIVATIVE:
        with pytest.raises(ValueError, match="Betainc gradient"):
            values_and_gradients(name)
        return
    _, _, gradients = values_and_gradients(name)
    without = NO_GRADIENT.get(name, set())
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        depends = not any(getattr(step, "key", None) in without for step in path)
        assert bool(np.any(np.abs(leaf) > 1e-6)) == depends, path


@EVERY_ENTRY
def test_jit_and_vmap_equal_an_eager_loop(name: str) -> None:
    _, params, q, x = case(name)
    if name in NO_DERIVATIVE:
        values = jax.jit(lambda p: log_prob(q(p), x))(params)
        assert_close(values, log_prob(q(params), x))
        return
    copies, values, _ = values_and_gradients(name)
    for i, copy in enumerate(copies):
        assert_close([v[i] for v in values], log_prob(q(copy), x), 1e-3)


@pytest.mark.few(4)
@EVERY_ENTRY
def test_batched_params_give_a_batched_distribution(name: str) -> None:
    d, params, q, x = case(name)
    if not jax.tree.leaves(params):
        assert jax.tree.structure(q(params)) == jax.tree.structure(d)
        return
    copies = [params, moderate(params, 1, 0.2)]
    if name in NO_BATCH:
        error, message = NO_BATCH[name]
        with pytest.raises(error, match=message):
            q(jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies))
        return
    batched = q(jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies))
    for a, b in zip(members(d), members(batched), strict=True):
        if fv.unconstrain(a)[0]:
            assert b.batch_shape == (2, *a.batch_shape)
            assert b.event_shape == a.event_shape
    # Draws (sample, batch, event) against batches (2, batch, event): an axis between.
    points = jax.tree.map(lambda v: jnp.stack([v, v], 1), x)
    values = log_prob(batched, points)
    for i, copy in enumerate(copies):
        assert_close([v[:, i] for v in values], log_prob(q(copy), x), 1e-3)


# ---- extremes -----------------------------------------------------------------------------------


def recording(tree: Any, log: list[Any]) -> Any:
    """The same tree, whose constructors also write down what they are called with."""
    if isinstance(tree, Members):
        return replace(tree, members={k: recording(m, log) for k, m in tree.members.items()})
    if not isinstance(tree, Nested):
        return tree
    roles = {name: recording(role, log) for name, role in tree.roles.items()}

    def build(**arguments: Any) -> Any:
        log.append((tree, arguments))
        return tree.signature.build(**arguments)

    return Nested(replace(tree.signature, build=build), roles)


def received(q: Family, params: Any) -> list[tuple[str, Any, Any, dict[str, Any]]]:
    """(name, role, value, all arguments) of every learned constructor argument."""
    log: list[Any] = []
    Family(recording(q.tree, log))(params)
    return [
        (f"{node.signature.name}.{keyword}", role, arguments[keyword], arguments)
        for node, arguments in log
        for name, role in node.roles.items()
        if isinstance(role, Learned)
        for keyword in [role.carried.keyword if role.carried else name]
    ]


def assert_strictly_inside(
    label: str, role: Learned, value: Any, arguments: dict[str, Any]
) -> None:
    value = np.asarray(value)
    assert np.isfinite(value).all(), label
    if str(role) == "greater than low":
        assert (value > np.asarray(arguments["low"])).all(), label
        return
    if str(role) == "greater than dimension - 1":
        assert (value > arguments["scale_tril"].shape[-1] - 1).all(), label
        return
    if isinstance(role.bijection, SignedExp):
        assert (np.sign(value) == np.where(role.bijection.negative, -1, 1)).all(), label
        return
    constraint = role.constraint
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    keyword = role.carried.keyword if role.carried else None
    if keyword in ("scale_tril", "correlation_cholesky") or constraint in (
        constraints.lower_cholesky,
        constraints.corr_cholesky,
    ):
        assert (np.diagonal(value, axis1=-2, axis2=-1) > 0).all(), label
        assert (np.triu(value, 1) == 0).all(), label
        if keyword:  # a matrix carried as its factor: both must be finite
            assert np.isfinite(value @ np.swapaxes(value, -1, -2)).all(), label
        if "corr" in f"{keyword}{constraint}".lower():
            np.testing.assert_allclose((value**2).sum(-1), 1, atol=1e-5)
        return
    if keyword == "covariance_rfft":
        constraint = constraints.positive
    low, high = (getattr(constraint, b, None) for b in ("lower_bound", "upper_bound"))
    circular = constraint is constraints.circular
    assert low is None or ((value >= low) if circular else (value > low)).all(), label
    assert high is None or ((value <= high) if circular else (value < high)).all(), label
    assert np.all(constraint(jnp.asarray(value))), label
    if constraint is constraints.simplex:
        assert (value > 0).all(), label


def extremes(params: Any) -> dict[str, Any]:
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(3)

    def filled(make: Any) -> Any:
        return jax.tree.unflatten(tree, [jnp.asarray(make(x.shape), x.dtype) for x in leaves])

    return {
        "all -80": filled(lambda s: np.full(s, -80.0)),
        "all 80": filled(lambda s: np.full(s, 80.0)),
        "signs 1": filled(lambda s: rng.choice([-80.0, 80.0], s)),
        "signs 2": filled(lambda s: rng.choice([-80.0, 80.0], s)),
        "uniform": filled(lambda s: rng.uniform(-80, 80, s)),
    }


@EVERY_ENTRY
def test_extreme_params_stay_strictly_inside(name: str) -> None:
    _, params, q, _ = case(name)
    for which, extreme in extremes(params).items():
        # What numpyro derives from its arguments may overflow; the arguments themselves may not.
        with dist.distribution.validation_enabled(False):
            arguments_received = received(q, extreme)
        for label, role, value, arguments in arguments_received:
            assert_strictly_inside(f"{which}: {label}", role, value, arguments)


# ---- dtypes -------------------------------------------------------------------------------------


@EVERY_ENTRY
def test_single_precision_stays_single(name: str) -> None:
    _, params, q, _ = case(name)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {jnp.dtype("float32")}
    for label, _, value, _ in received(q, params):
        assert value.dtype == jnp.float32, label


@EVERY_ENTRY
def test_double_precision_stays_double(name: str) -> None:
    def dtypes() -> Any:
        params, q = fv.unconstrain(CATALOGUE[name]())
        return params, [value for _, _, value, _ in received(q, params)], q.inverse(q(params))

    with jax.enable_x64(True):
        made = jax.eval_shape(dtypes)
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} <= {jnp.dtype("float64")}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", DOUBLE)
def test_round_trips_in_double_precision(name: str) -> None:
    with jax.enable_x64(True):
        params, q = fv.unconstrain(CATALOGUE[name]())
        moved = moderate(params, 0)
        assert_close(q.inverse(q(moved)), moved, 1e-11)
