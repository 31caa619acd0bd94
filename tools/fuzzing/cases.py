"""A case of the fuzzer: what is drawn at random, the program that it is, and its exact answer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

import funcvi as fv
from funcvi.densities.log_prob import log_prob
from fuzzing import oracles, vectors
from fuzzing.exact import Exact, affine, exp, sigmoid
from fuzzing.laws import ROLES, Law, exact, is_discrete, make, roles_of, speed

Loss = Callable[[jax.Array, jax.Array], jax.Array]


class Case(NamedTuple):
    """All that a program depends on.

    Attributes:
        objective: a name of ``OBJECTIVES``.
        q, p: laws; a ``p`` of None where the objective takes a function.
        function: a name of ``FUNCTIONS``, for expectations.
        notches: for each point, for each row of the batch, an integer for each number of q, then
            of p or of the function; see ``laws.ROLES``.
        wrapper: how rows become one distribution or a joint; of guides, "none" for a log density
            as the target, "model" for a model, "mean_field" for a model with that guide.
        estimator: as the objective takes it.
        dtype: "float32", "bfloat16", "float16", or "float64" with x64 enabled.
        order: 0 for the value alone, up to 2 for the second derivative.
        derivative: how the derivatives are taken.
        transformation: "vmap" over points and keys, "scan" over keys, "jit" of one point after the
            other, "eager", compared with jit at one key.
        fixed: whether p's numbers are constants of the program.
        num_samples: draws at each evaluation.
        site: the support of the target's site, for guides: a name of ``SITES``.
    """

    objective: str
    q: Law
    p: Law | None
    function: str | None
    notches: tuple[tuple[tuple[int, ...], ...], ...]
    wrapper: str
    estimator: str | None
    dtype: str
    order: int
    derivative: str
    transformation: str
    fixed: bool
    num_samples: int
    site: str = "real"

    @property
    def roles(self) -> tuple[str, ...]:
        """Of q's numbers, then of the rest."""
        return roles_of(self.q) + (roles_of(self.p) if self.p else self._function_roles)

    @property
    def _function_roles(self) -> tuple[str, ...]:
        return FUNCTIONS[self.function].roles if self.function else ()

    @property
    def own(self) -> int:
        """The number of q's numbers."""
        return len(roles_of(self.q))

    def points(self) -> np.ndarray:
        """The numbers, of shape (points, rows, numbers), rounded to the case's dtype."""
        values = [
            [[ROLES[r](n) for r, n in zip(self.roles, row, strict=True)] for row in point]
            for point in self.notches
        ]
        return np.asarray(values, jnp.dtype(self.dtype)).reshape(*np.shape(self.notches)[:2], -1)

    def directions(self) -> np.ndarray:
        """Of the same shape: generic, and no faster than the numbers can bear."""
        points = self.points().astype(float)
        scale = np.vectorize(speed, otypes=[float])(np.array(self.roles), points)
        size = points[0].size
        generic = np.cos(1 + 2.3 * np.arange(size)) + 0.1
        moving = np.arange(points.shape[2]) < (self.own if self.fixed else points.shape[2])
        return np.asarray(scale * generic.reshape(points[0].shape) * moving, jnp.dtype(self.dtype))


class Function(NamedTuple):
    roles: tuple[str, ...]
    of: Callable[..., Any]


FUNCTIONS = {
    "square": Function(("real",), lambda xp, x, a: (x - a) ** 2),
    "sine": Function(("positive",), lambda xp, x, a: xp.sin(a * x)),
    "tanh": Function(("real",), lambda xp, x, a: xp.tanh(x - a)),
    "softplus": Function(("real",), lambda xp, x, a: xp.logaddexp(x - a, 0.0)),
    "linear": Function(("real",), lambda xp, x, a: a * x),
}


# ---- programs ------------------------------------------------------------------------------------


def wrapped(case: Case, law: Law, numbers: jax.Array) -> Any:
    """The rows of numbers, (rows, numbers), as the wrapper has them."""
    columns = list(numbers.T)
    if case.wrapper == "none":
        return make(law, [c[0] for c in columns])
    if case.wrapper == "expand":
        return make(law, [c[0] for c in columns]).expand((2,))
    if case.wrapper == "joint":
        return {"a": make(law, [c[0] for c in columns]), "b": make(law, [c[1] for c in columns])}
    d = make(law, columns)
    if not d.batch_shape:  # a law without numbers
        d = d.expand((2,))
    if case.wrapper == "to_event":
        return d.to_event(1)
    if case.wrapper == "mask":
        return d.mask(jnp.array([True, False]))
    return d


def of_divergence(case: Case, fixed: np.ndarray, kl: Callable[..., jax.Array]) -> Loss:
    def loss(numbers, key):
        q = wrapped(case, case.q, numbers[:, : case.own])
        p = wrapped(case, case.p, _theirs(case, fixed, numbers))
        return kl(q, p, key=key, num_samples=case.num_samples, estimator=case.estimator)

    return loss


def of_expectation(case: Case, fixed: np.ndarray, expectation: Callable[..., jax.Array]) -> Loss:
    of = FUNCTIONS[case.function].of

    def loss(numbers, key):
        q = wrapped(case, case.q, numbers[:, : case.own])
        (a,) = _theirs(case, fixed, numbers).T

        def f(x):
            if case.wrapper == "joint":
                return of(jnp, x["a"], a[0]) * of(jnp, x["b"], a[1])
            if case.wrapper in ("none", "expand"):
                return of(jnp, x, a[0])
            return jnp.prod(of(jnp, x, a), axis=-1) if case.wrapper == "to_event" else of(jnp, x, a)

        return jnp.sum(
            expectation(q, f, key=key, num_samples=case.num_samples, estimator=case.estimator)
        )

    return loss


def of_bound(case: Case, fixed: np.ndarray, bound: Callable[..., jax.Array]) -> Loss:
    def loss(numbers, key):
        q = wrapped(case, case.q, numbers[:, : case.own])
        p = wrapped(case, case.p, _theirs(case, fixed, numbers))

        def log_joint(x):  # numpyro's own has a wrong gradient where a Bernoulli's logit is zero
            return log_prob(p, x)

        return bound(q, log_joint, key=key, num_samples=2, estimator=case.estimator)

    return loss


def of_guide(case: Case, fixed: np.ndarray, objective: Callable[..., Any]) -> Loss:
    p = make(case.p, list(jnp.asarray(fixed[0, case.own :])))
    support = SITES[case.site] or p.support
    target = (
        fv.target(lambda x: p.log_prob(x["a"]), supports={"a": support})
        if case.wrapper == "none"
        else fv.target(lambda: numpyro.sample("a", p))
    )

    def q(numbers: jax.Array) -> dict[str, dist.Distribution]:
        return {"a": make(case.q, list(numbers[0]))}

    if case.wrapper == "mean_field":
        of = objective(fv.mean_field(target), case.num_samples, case.estimator)
        return lambda numbers, key: of(fv.unconstrain(q(numbers))[0], key)
    guide = fv.guide(target, (jnp.asarray(fixed[:, : case.own]), q))
    of = objective(guide, case.num_samples, case.estimator)
    return lambda numbers, key: of(numbers[:, : case.own], key)


def of_sample(case: Case, fixed: np.ndarray, sample: Callable[..., Any]) -> Loss:
    """The share of draws that are not finite or outside of the support."""

    def loss(numbers, key):
        q = wrapped(case, case.q, numbers)
        members = q.values() if isinstance(q, dict) else [q]
        draws = [sample(d, key, (case.num_samples,)) for d in members]
        pairs = zip(members, draws, strict=True)
        each = [1.0 - (jnp.isfinite(x).all() & d.support(x).all()) for d, x in pairs]
        kind = draws[0].dtype if jnp.issubdtype(draws[0].dtype, jnp.floating) else case.dtype
        return sum(each).astype(kind)

    return loss


def _theirs(case: Case, fixed: np.ndarray, numbers: jax.Array) -> Any:
    return jnp.asarray(fixed[:, case.own :]) if case.fixed else numbers[:, case.own :]


def along(loss: Loss, case: Case) -> Callable[..., jax.Array]:
    """Value and derivatives along a direction: (numbers, direction, key) to a vector."""
    grad = jax.grad(loss)

    def slope(numbers, direction, key):
        if case.derivative == "jvp of jvp":
            return jax.jvp(lambda n: loss(n, key), (numbers,), (direction,))[1]
        return jnp.vdot(grad(numbers, key), direction)

    def curvature(numbers, direction, key):
        if case.derivative == "hessian":
            hessian = jax.hessian(loss)(numbers, key)
            return jnp.einsum("ijkl,ij,kl", hessian, direction, direction)
        if case.derivative == "grad of grad":
            again = jax.grad(lambda n: slope(n, direction, key))(numbers)
            return jnp.vdot(again, direction)
        return jax.jvp(lambda n: slope(n, direction, key), (numbers,), (direction,))[1]

    def all_of(numbers, direction, key):
        parts = [loss(numbers, key)]
        parts += [slope(numbers, direction, key)] if case.order else []
        parts += [curvature(numbers, direction, key)] if case.order > 1 else []
        return jnp.stack(parts)

    return all_of


# ---- answers -------------------------------------------------------------------------------------


def answers(case: Case) -> list[oracles.Answer]:
    """What each point should give."""
    points, directions = case.points().astype(float), case.directions().astype(float)
    return [_answer(case, *pair) for pair in zip(points, directions, strict=True)]


def _answer(case: Case, point: np.ndarray, direction: np.ndarray) -> oracles.Answer:
    mass: list[float] = []

    def at(place: float, step: float) -> float:
        each = []
        for start, row in zip(point, point + place * direction, strict=True):
            still = start if case.objective == "forward_kl" else row
            total = 0.0
            for q, p in sides(case, still):
                n = oracles.nodes(q, p, is_discrete(case.q), step)
                mass.append(oracles.outside(n))
                total += _one(case, n, row)
            each.append(total)
        if case.wrapper == "expand":
            return 2 * each[0]
        if case.wrapper == "mask" and case.objective == "kl":
            return each[0]
        product = case.objective == "expectation" and case.wrapper in ("to_event", "joint")
        return float(np.prod(each) if product else np.sum(each))

    if case.objective == "sample":
        return oracles.Answer(np.zeros(3), 0.0)
    with np.errstate(all="ignore"):
        # Of two draws' weights it errs by a tenth of that or less, far below standard errors.
        gap = 1e-4 if case.objective in ("iw", "renyi", "forward_kl") else 1e-5
        return oracles.Answer(oracles.answer(at, gap=gap), max(mass, default=0.0))


def sides(case: Case, row: np.ndarray) -> list[tuple[Exact, Exact]]:
    """What the oracle knows of q and p; of each number of a vector."""
    q = exact(case.q, row[: case.own])
    p = exact(case.p, row[case.own :]) if case.p else q
    if case.objective in GUIDED and case.site != "real":
        q = onto(q, p.support if SITES[case.site] is None else ENDS[case.site])
    return list(vectors.factors(q, p))


def onto(q: Exact, ends: tuple[float, float]) -> Exact:
    """The law of a site whose unconstrained value has the law q."""
    low, high = ends
    if np.isfinite(low) and np.isfinite(high):
        return affine(sigmoid(q), low, high - low)
    return affine(exp(q), low, 1.0) if np.isfinite(low) else affine(exp(q), high, -1.0)


def _one(case: Case, n: oracles.Nodes, row: np.ndarray) -> float:
    if case.objective == "expectation":
        return float(np.sum(n.mass * FUNCTIONS[case.function].of(np, n.x, *row[case.own :])))
    if case.objective == "iw":
        return oracles.of_pairs(n, oracles.log_mean)
    if case.objective == "renyi":
        power = 1 - ALPHA
        return -oracles.of_pairs(n, lambda pairs: oracles.log_mean(pairs, power))
    if case.objective == "forward_kl":
        ((moved, _),) = sides(case, row)
        return oracles.forward(n, moved)
    return oracles.divergence(n)


ALPHA = 0.5

# None stands for the support of p.
SITES: dict[str, Any] = {
    "real": constraints.real,
    "positive": constraints.positive,
    "unit": constraints.unit_interval,
    "edge": None,
}
ENDS = {"positive": (0.0, np.inf), "unit": (0.0, 1.0)}
GUIDED = ("elbo", "renyi", "forward_kl")

OBJECTIVES: dict[str, tuple[Callable[..., Loss], Callable[..., Any], tuple[str, ...]]] = {
    "kl": (
        of_divergence,
        fv.kl,
        ("closed_form", "enumeration", "pathwise", "score_function", "sticking_the_landing"),
    ),
    "expectation": (of_expectation, fv.expectation, ("enumeration", "pathwise", "score_function")),
    "iw": (
        of_bound,
        fv.importance_weighted_elbo,
        ("doubly_reparameterised", "pathwise", "score_function"),
    ),
    "elbo": (
        of_guide,
        lambda guide, n, e: fv.negative_elbo(guide, num_samples=n, estimator=e),
        ("enumeration", "pathwise", "score_function", "sticking_the_landing"),
    ),
    "renyi": (
        of_guide,
        lambda guide, n, e: fv.negative_renyi_elbo(guide, alpha=ALPHA, num_samples=2),
        (),
    ),
    "forward_kl": (of_guide, lambda guide, n, e: fv.forward_kl(guide, num_samples=2), ()),
    "sample": (of_sample, fv.sample, ()),
}

__all__ = ["FUNCTIONS", "OBJECTIVES", "Case", "along", "answers"]
