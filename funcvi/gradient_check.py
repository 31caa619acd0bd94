"""Is the gradient of a stochastic loss right? Compare it with two estimates made in other ways."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from funcvi._types import Key, Loss, Params
from funcvi.estimators import forced_estimator

__all__ = ["GradientCheck", "GradientRow", "check_gradients"]

_STEP = 0.1  # of the finite difference, on unconstrained space, where scales are of order one
_EACH = 8  # leaves up to this size are checked coordinate by coordinate
_DIRECTIONS = 4  # larger ones along this many random directions


@dataclass(frozen=True)
class GradientRow:
    """What was found for one parameter (one leaf of the params).

    Attributes:
        name: path of the leaf.
        bias_z: the difference to the finite difference in standard errors, largest in size over the
            leaf's coordinates (or random directions, for a large leaf).
        score_z: the same against the score function; NaN where there is none.
        bias: that largest difference itself, loss units per unit of parameter.
        variance: of one evaluation's gradient, averaged over the leaf's coordinates.
        score_variance: of the score-function estimate; NaN where there is none.
        is_zero: the gradient was exactly zero at every evaluation.
        flagged: whether the gradient is judged wrong.
    """

    name: str
    bias_z: float
    score_z: float
    bias: float
    variance: float
    score_variance: float
    is_zero: bool
    flagged: bool


@dataclass(frozen=True)
class GradientCheck:
    """The report of :func:`check_gradients`; ``ok`` if no parameter is flagged."""

    rows: tuple[GradientRow, ...]
    num_evaluations: int
    score: str

    @property
    def ok(self) -> bool:
        """Whether every parameter's gradient agrees with the other estimates."""
        return not any(row.flagged for row in self.rows)

    def __str__(self) -> str:
        width = max(9, *(len(r.name) for r in self.rows))
        lines = [
            f"{'parameter':{width}}  bias z  score z    variance  of score",
            "-" * (width + 45),
        ]
        for r in self.rows:
            verdict = "" if not r.flagged else ("  ZERO" if r.is_zero else "  BIASED")
            lines.append(
                f"{r.name:{width}}  {r.bias_z:6.1f}  {r.score_z:7.1f}  {r.variance:10.3g}"
                f"  {r.score_variance:8.3g}{verdict}"
            )
        lines.append(f"{self.num_evaluations} evaluations; score function: {self.score}.")
        if not self.ok:
            lines.append(
                "The flagged gradients do not follow the expected loss: use fv.kl or "
                "fv.negative_elbo, which choose an estimator that does."
            )
        return "\n".join(lines)


class _Forced:
    """The value of the estimator context: says which to use, and remembers that it was asked."""

    def __init__(self) -> None:
        self.asked = False

    def use(self) -> str:
        self.asked = True
        return "score_function"


def check_gradients(
    loss: Loss,
    params: Params,
    key: Key,
    *,
    num_evaluations: int = 1000,
    args: tuple[Any, ...] = (),
    threshold: float = 4.0,
) -> GradientCheck:
    """Compare ``jax.grad(loss)`` with finite differences and with the score function.

    Both sides of each central difference use one key, and so does the gradient beside it, which
    makes the comparison sharp; steps h and h / 2 are extrapolated (Richardson) and their difference
    bounds the truncation error. Jumps of discrete draws are seen, because the average over keys is
    differenced, whatever estimator the loss uses. The score-function estimate exists where the loss
    is made of ``fv.kl`` and ``fv.negative_elbo``.

    Args:
        loss: ``loss(params, key, *args) -> scalar``.
        params: where to check, a pytree of floating-point arrays.
        key: a key.
        num_evaluations: keys to average over.
        args: further arguments of the loss.
        threshold: standard errors from which a difference is called bias.

    Returns:
        A :class:`GradientCheck`; print it, or test ``.ok``.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> import funcvi as fv
        >>> params, q = fv.unconstrain(dist.Gamma(2.0, 1.0))
        >>> def loss(params, key):
        ...     return fv.kl(q(params), dist.LogNormal(0.0, 1.0), key=key, num_samples=8)
        >>> fv.check_gradients(loss, params, jax.random.key(0), num_evaluations=200).ok
        True
    """
    if num_evaluations < 30:
        raise ValueError(f"num_evaluations must be at least 30, got {num_evaluations}.")
    direction_key, key = jax.random.split(key)
    if not jax.tree.leaves(params):
        raise ValueError("params is an empty pytree: there is no gradient to check.")
    names, owner, directions = _directions(params, direction_key)
    flat, unravel = ravel_pytree(params)
    keys = jax.random.split(key, num_evaluations)

    def value(flat: Array, key: Key) -> Array:
        return loss(unravel(flat), key, *args)

    slopes = _along(value, directions)

    def one(key: Key) -> tuple[Array, Array, Array, Array]:
        wide, narrow = (_differences(value, flat, directions, key, h) for h in (_STEP, _STEP / 2))
        return slopes(flat, key), wide, narrow, value(flat, key)

    found = jax.jit(lambda ks: jax.lax.map(one, ks))(keys)
    score, said = _score_slopes(value, flat, directions, keys)
    gradient, wide, narrow, values = (np.asarray(x, np.float64) for x in found)
    evaluations = _Evaluations(gradient, wide, narrow, values, score)
    eps = float(jnp.finfo(flat.dtype).eps)
    rows = [_row(n, evaluations.of(owner == i), threshold, eps) for i, n in enumerate(names)]
    return GradientCheck(tuple(rows), num_evaluations, said)


class _Evaluations(NamedTuple):
    """Slopes along each direction (evaluations, directions), and losses (evaluations,)."""

    gradient: np.ndarray
    wide: np.ndarray
    narrow: np.ndarray
    values: np.ndarray
    score: np.ndarray | None

    def of(self, mine: np.ndarray) -> "_Evaluations":
        """Those along some of the directions."""
        score = None if self.score is None else self.score[:, mine]
        gradient, wide, narrow = (x[:, mine] for x in (self.gradient, self.wide, self.narrow))
        return _Evaluations(gradient, wide, narrow, self.values, score)


def _directions(params: Params, key: Key) -> tuple[list[str], np.ndarray, Array]:
    """Unit directions in the flattened params, and the leaf that each belongs to."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    total = sum(np.size(leaf) for _, leaf in leaves)
    names, owner, rows, start = [], [], [], 0
    for i, (path, leaf) in enumerate(leaves):
        size = np.size(leaf)
        names.append(jax.tree_util.keystr(path) or "params")
        if size <= _EACH:
            local = np.eye(size)
        else:
            signs = jax.random.rademacher(jax.random.fold_in(key, i), (_DIRECTIONS, size))
            local = np.asarray(signs, float) / np.sqrt(size)
        block = np.zeros((len(local), total))
        block[:, start : start + size] = local
        rows.append(block)
        owner += [i] * len(local)
        start += size
    dtype = jnp.result_type(*(leaf for _, leaf in leaves))
    return names, np.array(owner), jnp.asarray(np.concatenate(rows), dtype)


def _along(value: Callable[..., Array], directions: Array) -> Callable[..., Array]:
    return lambda flat, key: directions @ jax.grad(value)(flat, key)


def _differences(
    value: Callable[..., Array], flat: Array, directions: Array, key: Key, step: float
) -> Array:
    def central(v: Array) -> Array:
        return (value(flat + step * v, key) - value(flat - step * v, key)) / (2 * step)

    return jax.lax.map(central, directions)


def _score_slopes(
    value: Callable[..., Array], flat: Array, directions: Array, keys: Array
) -> tuple[np.ndarray | None, str]:
    forced = _Forced()
    slopes = _along(value, directions)
    try:
        with forced_estimator(forced):
            found = jax.jit(lambda ks: jax.lax.map(lambda k: slopes(flat, k), ks))(keys)
    except ValueError as error:
        return None, f"none ({str(error).splitlines()[0]})"
    if not forced.asked:
        return None, "none (the loss uses neither fv.kl nor fv.negative_elbo)"
    return np.asarray(found, np.float64), "compared"


def _row(name: str, found: _Evaluations, threshold: float, eps: float) -> GradientRow:
    gradient, wide, narrow, values, score = found
    n = len(gradient)
    difference = gradient - (4 * narrow - wide) / 3
    bias = difference.mean(0)
    noise = difference.std(0, ddof=1) / np.sqrt(n)
    # What the finite difference itself cannot resolve: truncation, rounding of the loss, and the
    # rare keys at which a rejection sampler accepts on one side only, three of which may be unseen.
    truncation = np.abs((wide - narrow).mean(0)) / 15
    rounding = 4 * eps * np.abs(values).mean() / _STEP
    unseen = 3 * np.sqrt(2) * values.std(ddof=1) / (2 * _STEP * n)
    resolved = np.sqrt(noise**2 + truncation**2 + rounding**2 + unseen**2)
    z = bias / np.maximum(resolved, np.finfo(np.float64).tiny)
    finite = np.isfinite(z)
    worst = int(np.argmax(np.abs(z))) if finite.all() else int(np.argmin(finite))
    score_z, score_variance = float("nan"), float("nan")
    if score is not None and np.isfinite(score).all() and finite.all():
        spread = np.sqrt((gradient.var(0, ddof=1) + score.var(0, ddof=1)) / n + rounding**2)
        each = (gradient.mean(0) - score.mean(0)) / np.maximum(spread, np.finfo(np.float64).tiny)
        score_z = float(each[int(np.argmax(np.abs(each)))])
        score_variance = float(score.var(0, ddof=1).mean())
    wrong = abs(z[worst]) > threshold or abs(score_z) > threshold or not finite.all()
    return GradientRow(
        name,
        float(z[worst]),
        score_z,
        float(bias[worst]),
        float(gradient.var(0, ddof=1).mean()),
        score_variance,
        bool((gradient == 0).all()),
        bool(wrong),
    )
