"""A case of the fuzzer: what is drawn at random, the program that it is, and its exact answer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis.strategies as hs
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

import funcvi as fv
from fuzzing import oracles
from fuzzing.laws import COMPOSED, KINDS, ROLES, Law, exact, is_discrete, make, roles_of, speed

Loss = Callable[[jax.Array, jax.Array], jax.Array]


class Case(NamedTuple):
    """All that a program depends on.

    Attributes:
        objective: a name of ``OBJECTIVES``.
        q, p: laws; a ``p`` of None where the objective takes a function.
        function: a name of ``FUNCTIONS``, for expectations.
        notches: for each point, for each row of the batch, an integer for each number of q, then
            of p or of the function; see ``laws.ROLES``.
        wrapper: how rows become one distribution or a joint.
        estimator: as the objective takes it.
        dtype: "float32", or "float64" with x64 enabled.
        order: 0 for the value alone, up to 2 for the second derivative.
        derivative: how the derivatives are taken.
        transformation: "vmap" over points and keys, "scan" over keys, "jit" of one point after the
            other, "eager", compared with jit at one key.
        fixed: whether p's numbers are constants of the program.
        num_samples: draws at each evaluation.
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

    @property
    def roles(self) -> tuple[str, ...]:
        """Of q's numbers, then of the rest."""
        return roles_of(self.q) + (roles_of(self.p) if self.p else FUNCTIONS[self.function].roles)

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
        return np.asarray(values, self.dtype).reshape(*np.shape(self.notches)[:2], -1)

    def directions(self) -> np.ndarray:
        """Of the same shape: generic, and no faster than the numbers can bear."""
        points = self.points().astype(float)
        scale = np.vectorize(speed, otypes=[float])(np.array(self.roles), points)
        size = points[0].size
        generic = np.cos(1 + 2.3 * np.arange(size)) + 0.1
        moving = np.arange(points.shape[2]) < (self.own if self.fixed else points.shape[2])
        return np.asarray(scale * generic.reshape(points[0].shape) * moving, self.dtype)


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
        return bound(q, p.log_prob, key=key, num_samples=2, estimator=case.estimator)

    return loss


def of_guide(case: Case, fixed: np.ndarray, objective: Callable[..., Any]) -> Loss:
    p = make(case.p, list(jnp.asarray(fixed[0, case.own :])))
    target = fv.target(lambda x: p.log_prob(x["a"]), supports={"a": constraints.real})
    start = jnp.asarray(fixed[:, : case.own])
    guide = fv.guide(target, (start, lambda n: {"a": make(case.q, list(n[0]))}))
    of = objective(guide, case.num_samples, case.estimator)
    return lambda numbers, key: of(numbers[:, : case.own], key)


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
    coarser = 2.0 if case.objective in ("iw", "renyi") else 1.0
    mass: list[float] = []

    def at(place: float, step: float) -> float:
        each = []
        for row in point + place * direction:
            q = exact(case.q, row[: case.own])
            p = exact(case.p, row[case.own :]) if case.p else q
            n = oracles.nodes(q, p, is_discrete(case.q), coarser * step)
            mass.append(oracles.outside(n))
            each.append(_one(case, n, row[case.own :]))
        if case.wrapper == "expand":
            return 2 * each[0]
        if case.wrapper == "mask" and case.objective == "kl":
            return each[0]
        product = case.objective == "expectation" and case.wrapper in ("to_event", "joint")
        return float(np.prod(each) if product else np.sum(each))

    with np.errstate(all="ignore"):
        return oracles.Answer(oracles.answer(at), max(mass, default=0.0))


def _one(case: Case, n: oracles.Nodes, rest: np.ndarray) -> float:
    if case.objective == "expectation":
        return float(np.sum(n.mass * FUNCTIONS[case.function].of(np, n.x, *rest)))
    if case.objective == "iw":
        return oracles.of_pairs(n, oracles.log_mean)
    if case.objective == "renyi":
        power = 1 - ALPHA
        return -oracles.of_pairs(n, lambda pairs: oracles.log_mean(pairs, power))
    return oracles.divergence(n)


ALPHA = 0.5

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
}


# ---- strategies ----------------------------------------------------------------------------------

_TRUNCATABLE = ("Normal", "Laplace", "Logistic", "Cauchy", "StudentT", "SoftLaplace")
_WIDER = {
    "positive": ("positive", "positive", "real"),
    "unit": ("unit", "unit", "positive", "real"),
    "edge": ("real", "positive", "edge"),
    "real": ("real", "real", "real", "positive", "edge"),
}


def plain_laws(domain: str) -> hs.SearchStrategy[Law]:
    return hs.sampled_from([Law(name) for name, kind in KINDS.items() if kind.domain == domain])


def laws(domain: str) -> hs.SearchStrategy[Law]:
    """Laws with values in a domain, plain or composed of others."""
    plain = plain_laws(domain)
    if domain in ("circle", "two", "three", "six"):
        return plain
    mixture = hs.tuples(hs.just("MixtureGeneral"), hs.tuples(plain, plain))
    same = plain.map(lambda law: ("MixtureSame", (law, law)))
    if domain == "count":
        return plain | same.map(lambda pair: Law(*pair))
    real = plain_laws("real")

    def one(name: str, of: hs.SearchStrategy[Law]) -> hs.SearchStrategy[tuple[str, tuple[Law]]]:
        return of.map(lambda law: (name, (law,)))

    even = hs.sampled_from([Law(n) for n in _TRUNCATABLE])
    options = {
        "real": [one("Affine", real), hs.tuples(hs.just("MixtureGeneral"), hs.tuples(real, real))],
        "positive": [one("Exp", real), one("Folded", even)],
        "unit": [one("Sigmoid", real)],
        "edge": [
            *(one(n, even) for n in ("TruncatedLow", "TruncatedHigh", "TruncatedBoth")),
            one("Affine", plain_laws("positive") | plain_laws("unit")),
            hs.tuples(hs.just("MixtureGeneral"), hs.tuples(real, plain_laws("positive"))),
        ],
    }[domain]
    if domain in ("real", "positive"):
        options += [mixture, same]
    composed = hs.one_of(options).map(lambda pair: Law(*pair))
    return plain | composed


def bends(law: Law) -> bool:
    return law.kind in ("Laplace", "AsymmetricLaplace") or any(map(bends, law.parts))


DOMAINS = ("real", "positive", "unit", "edge", "circle", "two", "three", "six", "count")


@hs.composite
def cases(draw: Any, only: str | None = None) -> Case:
    """Any case; ``only`` names the objective."""
    objective = only or draw(hs.sampled_from(["kl", "kl", "expectation", "iw", "elbo", "renyi"]))
    from_guide = objective in ("elbo", "renyi")
    domain = "real" if from_guide else draw(hs.sampled_from(DOMAINS))
    if objective == "iw":
        domain = draw(hs.sampled_from(("real", "two", "three", "count", "positive")))
    q = draw(laws(domain))
    function = p = None
    if objective == "expectation":
        function = draw(hs.sampled_from(list(FUNCTIONS)))
    else:
        theirs = (domain,) if from_guide or objective == "iw" else _WIDER.get(domain, (domain,))
        p = draw(laws(draw(hs.sampled_from(theirs))))
    plain = ["none", "expand", "batch"]
    wrappers = ["none"] if from_guide else plain if objective == "iw" else [*plain, "mask", "joint"]
    if objective not in ("iw", "elbo", "renyi"):
        wrappers.append("to_event")
    wrapper = draw(hs.sampled_from(wrappers))
    if objective == "expectation" and wrapper == "mask":
        wrapper = "batch"
    fixed = from_guide or draw(hs.sampled_from([False, False, True]))
    rows = 1 if wrapper in ("none", "expand") else 2
    count = len(roles_of(q)) + (len(roles_of(p)) if p else len(FUNCTIONS[function].roles))
    notch = hs.integers(-4, 4) | hs.integers(-4, 4) | hs.integers(-9, 9)
    row = hs.tuples(*[notch] * count)
    point = hs.tuples(*[row] * rows)
    # A target of the user's own that bends has no right second derivative: that is documented.
    orders = [1, 0] if p and objective != "kl" and bends(p) else [2, 1, 0]
    points = hs.tuples(*[point] * (1 if fixed else draw(hs.sampled_from([5, 1]))))
    return Case(
        objective,
        q,
        p,
        function,
        draw(points),
        wrapper,
        draw(hs.sampled_from([None, None, None, *OBJECTIVES[objective][2]])),
        draw(hs.sampled_from(["float32", "float64"])),
        draw(hs.sampled_from(orders)),
        draw(hs.sampled_from(["jvp of grad", "hessian", "grad of grad", "jvp of jvp"])),
        draw(hs.sampled_from(["vmap", "jit", "scan", "eager"])),
        fixed,
        draw(hs.sampled_from([8, 2, 3])),
    )


__all__ = ["COMPOSED", "OBJECTIVES", "Case", "along", "answers", "cases", "dist"]
