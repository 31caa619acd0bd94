"""Pathwise gradients against score-function ones, and what each obstacle says."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

import funcvi as fv
from funcvi.sampling.draw import raw_sample
from funcvi.sampling.gradients import (
    members,
    pathwise_obstacle,
    score_obstacle,
    support_of,
    with_fixed_support,
)
from tests.funcvi.catalogue import CATALOGUE, NESTINGS, SINGLE

ALL = {**SINGLE, **NESTINGS}
DRAWS = 4000
# jax has no derivative of its draws' inverse betainc; numpyro takes it from a package that we
# do not depend on.
UNDRAWABLE = {"GaussianCopulaBeta/matrix", "GaussianCopulaBeta/cholesky"}
# numpyro's density leaves out the transforms of what is folded.
OTHER_DENSITY = {"FoldedDistribution/affine"}
COMPARED = [name for name in ALL if name not in UNDRAWABLE]


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
    """The obstacle where all params are learned: a support may move with them."""
    params, q = fv.unconstrain(ALL[name]())
    if (obstacle := score_obstacle(q(params))) is not None:
        return obstacle
    try:
        jax.eval_shape(jax.grad(lambda params: with_fixed_support(q(params), 0.0)), params)
    except ValueError as refusal:
        return str(refusal)
    return None


@pytest.mark.few(4)
@pytest.mark.catalogue_law
@pytest.mark.parametrize("name", COMPARED)
def test_pathwise_gradients_agree_with_the_score_function(name: str) -> None:
    d = ALL[name]()
    if pathwise_obstacle(d) is not None:
        pytest.skip("it is not pathwise")
    if not jax.tree.leaves(fv.unconstrain(d)[0]):
        pytest.skip("it has no params")
    obstacle = obstacle_to_the_score(name)
    if obstacle is not None or name in OTHER_DENSITY:
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


# ---- edges that move ----------------------------------------------------------------------------


def in_scan(f: Any) -> Any:
    return lambda *a: jax.lax.scan(lambda c, _: (c + f(*a), None), 0.0, None, length=2)[0]


def stacked(f: Any) -> Any:
    return lambda w, x: jax.vmap(f)(w[None], x[None]).sum()


#: Of a loss of a learned scalar and of data, the derivative in the first.
TRANSFORMS: dict[str, Any] = {
    "grad": jax.grad,
    "jit of grad": lambda f: jax.jit(jax.grad(f)),
    "grad of jit": lambda f: jax.grad(jax.jit(f)),
    "vmap of grad": lambda f: lambda w, x: jax.vmap(jax.grad(f))(w[None], x[None]),
    "vmap of grad over data": lambda f: lambda w, x: jax.vmap(jax.grad(f), (None, 0))(w, x[None]),
    "grad of vmap": lambda f: jax.grad(stacked(f)),
    "grad of scan": lambda f: jax.grad(in_scan(f)),
    "scan of grad": lambda f: in_scan(jax.grad(f)),
    "hessian": jax.hessian,
    "jvp of grad": lambda f: lambda w, x: jax.jvp(lambda w: jax.grad(f)(w, x), (w,), (w,)),
    "jvp": lambda f: lambda w, x: jax.jvp(lambda w: f(w, x), (w,), (w,)),
    "linearize": lambda f: lambda w, x: jax.linearize(lambda w: f(w, x), w)[1](w),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "cond": lambda f: jax.grad(lambda w, x: jax.lax.cond(x > 0, f, f, w, x)),
}
#: Distributions of an edge of their support and of another parameter.
EDGES: dict[str, Any] = {
    "truncated": lambda edge, w: dist.TruncatedNormal(w, 1.2, low=edge),
    "Uniform": lambda edge, w: dist.Uniform(edge, 4.0),
    "wrapped": lambda edge, w: dist.Pareto(jnp.exp(edge), 2.0).expand([2]).to_event(1),
    "moved along": lambda edge, w: dist.TransformedDistribution(
        dist.Exponential(jnp.exp(w)), nt.AffineTransform(edge, 2.0)
    ),
    "one of a mixture": lambda edge, w: dist.MixtureGeneral(
        dist.Categorical(logits=jnp.stack([w, 0.0])),
        [dist.Normal(w, 1.0), dist.Uniform(edge, 4.0)],
        support=constraints.real,
    ),
    "joint": lambda edge, w: {"a": dist.Normal(w, 1.0), "b": [dist.Levy(edge, 2.0)]},
}


def score(d: Any) -> Any:
    log_q = sum(jnp.sum(m.log_prob(jnp.full(m.shape(), 3.7))) for m in members(d))
    return with_fixed_support(d, log_q)


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("name", "transform"),
    [*(("truncated", t) for t in TRANSFORMS), *((name, "jit of grad") for name in EDGES)],
)
def test_a_learned_edge_is_refused_and_data_is_not(name: str, transform: str) -> None:
    make, derivative = EDGES[name], TRANSFORMS[transform]
    w, data = jnp.asarray(0.4), jnp.asarray(-0.5)
    with pytest.raises(ValueError, match="moves with its parameters"):
        derivative(lambda w, x: score(make(w, x)))(w, data)
    with pytest.raises(ValueError, match="moves with its parameters"):
        derivative(lambda w, x: score(jax.tree.map(jnp.asarray, make(w, x))))(w, data)

    def fixed(w: Any, x: Any) -> Any:
        return score(make(x, w)) + score(jax.lax.stop_gradient(make(w, x))) + w**2

    slopes = jax.tree.leaves(derivative(fixed)(w, data))
    assert all(np.isfinite(s).all() and np.any(s) for s in slopes)


def test_the_remedy_is_named() -> None:
    with pytest.raises(ValueError, match='use estimator="pathwise"'):
        jax.grad(lambda low: score(dist.Uniform(low, 4.0)))(0.0)
    with pytest.raises(ValueError, match="or choose another family"):
        jax.grad(lambda low: score(EDGES["one of a mixture"](low, 0.4)))(0.0)


def test_values_keep_their_own_derivative_and_structure() -> None:
    def f(w: Any) -> Any:
        d = dist.Uniform(-1.0, jnp.array([2.0, 3.0]))
        kept = with_fixed_support(d, {"a": w**2, "n": jnp.arange(3)})
        assert kept["n"].shape == (3,)
        return kept["a"]

    assert float(jax.grad(f)(1.5)) == pytest.approx(3.0)
    assert float(jax.grad(jax.grad(f))(1.5)) == pytest.approx(2.0)


def test_members_of_a_joint_in_order() -> None:
    joint = {"a": dist.Normal(), "b": (dist.Gamma(1.0), [dist.Cauchy()])}
    assert [type(m).__name__ for m in members(joint)] == ["Normal", "Gamma", "Cauchy"]
    assert members(dist.Normal())[0].batch_shape == ()
