"""Pathwise gradients against score-function ones, and what each obstacle says."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import funcvi as fv
from funcvi.sampling.draw import raw_sample
from funcvi.sampling.flow import members, pathwise_obstacle, score_obstacle, support_of
from tests.funcvi.catalogue import CATALOGUE, NESTINGS, SINGLE

ALL = {**SINGLE, **NESTINGS}
DRAWS = 4000
# jax has no derivative of its draws' inverse betainc; numpyro takes it from a package that we
# do not depend on.
UNDRAWABLE = {"GaussianCopulaBeta/matrix", "GaussianCopulaBeta/cholesky"}


def continuous_and_pathwise(name: str) -> bool:
    return name not in UNDRAWABLE and pathwise_obstacle(ALL[name]()) is None


PATHWISE = [name for name in ALL if continuous_and_pathwise(name)]


def bounded(x: Any) -> Any:
    """A bounded function of each draw (draws, ...): neither even nor odd, no moment needed."""
    flat = jnp.reshape(x, (x.shape[0], -1))
    weights = jnp.cos(1.0 + 2.0 * jnp.arange(flat.shape[1]))
    return jnp.sin(jnp.tanh(flat - 0.3) @ weights + 0.4)


def per_draw_gradients(name: str) -> tuple[Any, Any, Any]:
    """(pathwise, score-function or None, bounded values): each gradient of shape (draws, leaf)."""
    params, q = fv.unconstrain(ALL[name]())
    leaves, tree = jax.tree.flatten(params)
    sizes = [leaf.size for leaf in leaves]
    splits = np.cumsum(sizes)[:-1]

    def build(u: Any) -> Any:
        parts = jnp.split(u, splits)
        shaped = [jnp.reshape(p, leaf.shape) for p, leaf in zip(parts, leaves, strict=True)]
        return q(jax.tree.unflatten(tree, shaped))

    start = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])
    keys = jax.random.split(jax.random.key(zlib.crc32(name.encode())), DRAWS)

    def felt(x: Any) -> Any:
        """Angles through a continuous function of the circle: a draw that passes the cut at pi
        must not change the value by a jump, whose derivative no path has."""
        if support_of(q(params)) is not constraints.circular:
            return bounded(x)
        return bounded(jnp.sin(x) + 0.5 * jnp.cos(x))

    def value(u: Any, key: Any) -> Any:
        return felt(raw_sample(build(u), key, (1,)))[0]

    def score(u: Any, x: Any) -> Any:
        return build(u).log_prob(x).sum()

    def both(key: Any) -> Any:
        x = raw_sample(build(start), key, (1,))[0]
        f = felt(x[None])[0]
        return jax.grad(value)(start, key), jax.grad(score)(start, x), f

    pathwise, scores, f = jax.jit(lambda keys: jax.lax.map(both, keys, batch_size=500))(keys)
    return pathwise, scores, f


def mean_and_error(x: Any) -> tuple[Any, Any]:
    x = np.asarray(x, np.float64)
    return x.mean(0), x.std(0) / np.sqrt(len(x))


def obstacle_to_the_score(name: str) -> str | None:
    """The obstacle with the params traced, as inside a gradient: a support may move with them."""
    params, q = fv.unconstrain(ALL[name]())
    found: list[Any] = []

    def note(params: Any) -> Any:
        found.append(score_obstacle(q(params)))
        return 0.0

    jax.eval_shape(note, params)
    return found[0]


COMPARED = [n for n in PATHWISE if jax.tree.leaves(fv.unconstrain(ALL[n]())[0])]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPARED)
def test_pathwise_gradients_agree_with_the_score_function(name: str) -> None:
    obstacle = obstacle_to_the_score(name)
    if obstacle is not None:
        compare_with_finite_differences(name)
        return
    pathwise, scores, f = per_draw_gradients(name)
    assert np.isfinite(pathwise).all()
    # A mean score of zero, so any baseline keeps the estimate's mean.
    other = (np.asarray(f) - np.mean(f))[:, None] * np.asarray(scores)
    (a, da), (b, db) = mean_and_error(pathwise), mean_and_error(other)
    z = np.abs(a - b) / np.sqrt(da**2 + db**2 + 1e-12)
    assert (z < 5).all(), (z, a, b)


def compare_with_finite_differences(name: str) -> None:
    """Where the support moves: draws at u + h and u - h from other keys, so that no path is shared
    whose derivative could be wrong in the same way."""
    params, q = fv.unconstrain(ALL[name]())
    key = jax.random.key(zlib.crc32(name.encode()))
    draws, h = 40_000, 0.2
    sample = jax.jit(lambda p, key: bounded(raw_sample(q(p), key, (draws,))))
    gradient = jax.jit(
        jax.vmap(jax.grad(lambda p, key: bounded(raw_sample(q(p), key, (1,)))[0]), (None, 0))
    )(params, jax.random.split(key, 20_000))
    for index, leaf in enumerate(jax.tree.leaves(params)):
        moved = []
        for sign in (1, -1):
            leaves, tree = jax.tree.flatten(params)
            leaves[index] = leaf + sign * h
            moved.append(
                sample(jax.tree.unflatten(tree, leaves), jax.random.fold_in(key, sign + 9))
            )
        (up, dup), (down, ddown) = (mean_and_error(m) for m in moved)
        along = jax.tree.leaves(gradient)[index].reshape(20_000, -1).sum(1)
        mean, error = mean_and_error(along)
        difference, noise = (up - down) / (2 * h), np.hypot(dup, ddown) / (2 * h)
        # h**2 / 6 times a third derivative of order one bounds what the difference leaves out.
        assert abs(mean - difference) < 5 * np.hypot(error, noise) + h**2 / 6, (mean, difference)


# ---- obstacles ----------------------------------------------------------------------------------

PATHWISE_OBSTACLES = {
    "RightCensoredDistribution": "RightCensoredDistribution do not follow its log_prob",
    "ImproperUniform": "ImproperUniform cannot be sampled",
    "Unit": "Unit is a factor",
    "HurdleProbs": "the gate gets no gradient",
    "HurdleGamma": "the gate gets no gradient",
    "HurdleLogNormal": "the gate gets no gradient",
    "ZeroInflatedLogits": "the gate gets no gradient",
    "Poisson": "Poisson is discrete",
    "joint/list": "Poisson is discrete",
}


@pytest.mark.parametrize("name", [n for n in PATHWISE_OBSTACLES if n in CATALOGUE])
def test_pathwise_obstacles(name: str) -> None:
    assert PATHWISE_OBSTACLES[name] in (pathwise_obstacle(CATALOGUE[name]()) or "")


def test_obstacles_reach_through_wrappers() -> None:
    mixture = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.3, 0.7])), dist.StudentT(jnp.array([[3.0, 4.0]] * 2))
    )
    for wrapped in (
        mixture.to_event(1),
        mixture.expand((3, 2)),
        mixture.mask(True),
        dist.TransformedDistribution(mixture, dist.transforms.ExpTransform()),
        {"x": dist.Normal(), "y": (mixture,)},
    ):
        assert "weights" in (pathwise_obstacle(wrapped) or "")
    copula = dist.GaussianCopula(dist.Poisson(jnp.ones(2)), correlation_cholesky=jnp.eye(2))
    assert "discrete" in (pathwise_obstacle(copula) or "")
    angles = dist.SineBivariateVonMises(0.4, 0.3, 2.7, 3.4, correlation=0.8)
    assert pathwise_obstacle(angles) is None
    mirrored = pathwise_obstacle(dist.SineSkewed(angles, jnp.array([0.3, -0.4])))
    assert mirrored == "SineSkewed mirrors the draws of a SineBivariateVonMises at random"


class Foreign(dist.Normal):
    """Somebody's own class, outside numpyro."""

    reparametrized_params: list[str] = []  # noqa: RUF012


def test_a_class_from_elsewhere_is_asked() -> None:
    assert pathwise_obstacle(Foreign()) == "Foreign.has_rsample is False"


SCORE_OBSTACLES = {
    "Uniform": "support of Uniform moves",
    "LogUniform": "support of LogUniform moves",
    "Pareto": "support of Pareto moves",
    "Levy": "support of Levy moves",
    "Delta": "Delta has no normalised density",
    "ImproperUniform": "no normalised density",
    "Unit": "no normalised density",
    "LeftCensoredDistribution": "which is a likelihood",
    "IntervalCensoredDistribution": "which is a likelihood",
    "MaskedDistribution": "zero where masked",
    "TransformedDistribution/truncated": "moves",
}


@pytest.mark.parametrize("name", SCORE_OBSTACLES)
def test_score_obstacles(name: str) -> None:
    assert SCORE_OBSTACLES[name] in (obstacle_to_the_score(name) or "")


@pytest.mark.parametrize(
    "name",
    sorted(
        CATALOGUE.keys()
        & {
            "Normal",
            "TruncatedNormal/both",
            "MixtureSameFamily",
            "Poisson",
            "HurdleGamma",
            "FoldedDistribution",
            "TransformedDistribution/compose",
            "MaskedDistribution/flag",
            "Beta",
            "Independent",
        }
    ),
)
def test_no_score_obstacle(name: str) -> None:
    assert obstacle_to_the_score(name) is None


def test_a_freed_bound_moves_the_support() -> None:
    params, q = fv.unconstrain(dist.TruncatedNormal(0.3, 1.2, low=-0.5), low=fv.free())

    def moved(params: Any) -> Any:
        assert "moves" in (score_obstacle(q(params)) or "")
        assert "moves" in (score_obstacle({"x": q(params)}) or "")
        return 0.0

    jax.jit(moved)(params)
    assert score_obstacle(q(params)) is None  # nothing is differentiated here


def test_members_of_a_joint_in_order() -> None:
    joint = {"a": dist.Normal(), "b": (dist.Gamma(1.0), [dist.Cauchy()])}
    assert [type(m).__name__ for m in members(joint)] == ["Normal", "Gamma", "Cauchy"]
    assert members(dist.Normal())[0].batch_shape == ()
