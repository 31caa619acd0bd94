"""Is the gradient of a stochastic loss right? Compare it with estimates made in other ways."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import block_diag

from funcvi._checks import check_key
from funcvi._types import Key, Loss, Params

__all__ = ["GradientCheck", "GradientRow", "check_gradients"]

_STEP = 0.1  # of the finite difference, on unconstrained space, where scales are of order one
_EACH = 8  # leaves up to this size are checked coordinate by coordinate
_DIRECTIONS = 4  # larger ones along this many random directions


@dataclass(frozen=True)
class GradientRow:
    """The comparison for one parameter (one leaf of the params).

    Attributes:
        name: path of the leaf.
        bias_z: the difference to the finite difference in standard errors, largest in size over the
            leaf's coordinates (or random directions, for a large leaf).
        reference_z: the same against the reference's gradient; NaN without a reference.
        bias: that largest difference itself, loss units per unit of parameter.
        variance: of one evaluation's gradient, averaged over the leaf's coordinates.
        reference_variance: of the reference's; NaN without a reference.
        is_zero: the gradient was exactly zero at every evaluation.
        flagged: whether the gradient is judged wrong.
    """

    name: str
    bias_z: float
    reference_z: float
    bias: float
    variance: float
    reference_variance: float
    is_zero: bool
    flagged: bool


@dataclass(frozen=True)
class GradientCheck:
    """The report of :func:`check_gradients`; ``ok`` if no parameter is flagged."""

    rows: tuple[GradientRow, ...]
    num_samples: int

    @property
    def ok(self) -> bool:
        """Whether every parameter's gradient agrees with the other estimates."""
        return not any(row.flagged for row in self.rows)

    def __str__(self) -> str:
        compared = any(np.isfinite(r.reference_z) for r in self.rows)
        width = max(9, *(len(r.name) for r in self.rows))
        header = f"{'parameter':{width}}  bias z    variance"
        lines = [header + ("   ref. z  of ref." if compared else "")]
        lines.append("-" * len(lines[0]))
        for r in self.rows:
            line = f"{r.name:{width}}  {r.bias_z:6.1f}  {r.variance:10.3g}"
            if compared:
                line += f"  {r.reference_z:7.1f}  {r.reference_variance:7.2g}"
            lines.append(line + ("" if not r.flagged else ("  ZERO" if r.is_zero else "  BIASED")))
        against = "finite differences" + (" and the reference" if compared else "")
        lines.append(f"{self.num_samples} evaluations, against {against}.")
        if not self.ok:
            lines.append(
                "The flagged gradients do not follow the expected loss: use fv.kl, fv.expectation "
                "or fv.negative_elbo, which choose an estimator that does."
            )
        return "\n".join(lines)


def check_gradients(
    loss: Loss,
    params: Params,
    *,
    key: Key,
    reference: Loss | None = None,
    num_samples: int = 1000,
    args: tuple[Any, ...] = (),
    threshold: float = 4.0,
) -> GradientCheck:
    """Compare ``jax.grad(loss)`` with finite differences, and with another loss's gradient.

    Both sides of each central difference use one key, and so does the gradient beside it, which
    makes the comparison sharp; steps h and h / 2 are extrapolated (Richardson) and their difference
    bounds the truncation error. Jumps of discrete draws are seen, because the average over keys is
    differenced, whatever estimator the loss uses.

    Args:
        loss: ``loss(params, key, *args) -> scalar``.
        params: where to check, a pytree of floating-point arrays.
        key: a key.
        reference: another loss with the same expectation, such as the same one with
            ``estimator="score_function"``, whose gradient is compared too.
        num_samples: evaluations, each with a key of its own, to average over; at least 30.
        args: further arguments of both losses.
        threshold: standard errors from which a difference is called bias.

    Returns:
        A :class:`GradientCheck`; print it, or test ``.ok``.

    Raises:
        ValueError: too few evaluations, or params without leaves.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> import funcvi as fv
        >>> params, q = fv.unconstrain(dist.Gamma(2.0, 1.0))
        >>> def loss(params, key, estimator=None):
        ...     return fv.kl(q(params), dist.LogNormal(0.0, 1.0), key=key, num_samples=8,
        ...                  estimator=estimator)
        >>> def scored(params, key):
        ...     return loss(params, key, "score_function")
        >>> key = jax.random.key(0)
        >>> fv.check_gradients(loss, params, key=key, reference=scored, num_samples=200).ok
        True
    """
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 30:
        raise ValueError(f"num_samples must be an integer of at least 30, got {num_samples!r}.")
    if not jax.tree.leaves(params):
        raise ValueError("params is an empty pytree: there is no gradient to check.")
    check_key(key)
    direction_key, key = jax.random.split(key)
    names, owner, directions = _directions(params, direction_key)
    flat, unravel = ravel_pytree(params)

    losses = [loss] if reference is None else [loss, reference]

    def one(key: Key) -> tuple[Array, Array]:
        value, *_ = functions = [lambda v, f=f: f(unravel(v), key, *args) for f in losses]
        wide, narrow = (_differences(value, flat, directions, h) for h in (_STEP, _STEP / 2))
        gradients = [directions @ jax.grad(f)(flat) for f in functions]
        return value(flat), jnp.stack([wide, narrow, *gradients])

    keys = jax.random.split(key, num_samples)
    columns = jax.jit(lambda keys: jax.lax.map(one, keys))(keys)
    values, slopes = (np.asarray(x, np.float64) for x in columns)
    if not np.isfinite(slopes[:, 3:]).all():
        raise ValueError(
            "the gradient of reference is not finite at some evaluations: hand in another one."
        )
    eps = float(jnp.finfo(flat.dtype).eps)
    rows = [
        _row(name, values, slopes[..., owner == i], threshold, eps) for i, name in enumerate(names)
    ]
    return GradientCheck(tuple(rows), num_samples)


def _directions(params: Params, key: Key) -> tuple[list[str], np.ndarray, Array]:
    """Unit directions in the flattened params, and the leaf that each belongs to."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    blocks = []
    for i, (_, leaf) in enumerate(leaves):
        size = np.size(leaf)
        if size <= _EACH:
            blocks.append(np.eye(size))
        else:
            signs = jax.random.rademacher(jax.random.fold_in(key, i), (_DIRECTIONS, size))
            blocks.append(np.asarray(signs, float) / np.sqrt(size))
    names = [jax.tree_util.keystr(path) or "params" for path, _ in leaves]
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    dtype = jnp.result_type(*(leaf for _, leaf in leaves))
    return names, owner, block_diag(*blocks).astype(dtype)


def _differences(
    value: Callable[[Array], Array], flat: Array, directions: Array, step: float
) -> Array:
    def central(v: Array) -> Array:
        return (value(flat + step * v) - value(flat - step * v)) / (2 * step)

    return jax.lax.map(central, directions)


def _row(
    name: str, values: np.ndarray, slopes: np.ndarray, threshold: float, eps: float
) -> GradientRow:
    """From losses (evaluations,) and their slopes (evaluations, ways, directions)."""
    wide, narrow, gradient, *references = np.moveaxis(slopes, 1, 0)
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
    reference_z, reference_variance = float("nan"), float("nan")
    if references and finite.all():
        gap = gradient - references[0]
        spread = np.sqrt(gap.var(0, ddof=1) / n + rounding**2)
        each = gap.mean(0) / np.maximum(spread, np.finfo(np.float64).tiny)
        reference_z = float(each[int(np.argmax(np.abs(each)))])
        reference_variance = float(references[0].var(0, ddof=1).mean())
    wrong = abs(z[worst]) > threshold or abs(reference_z) > threshold or not finite.all()
    return GradientRow(
        name,
        float(z[worst]),
        reference_z,
        float(bias[worst]),
        float(gradient.var(0, ddof=1).mean()),
        reference_variance,
        bool((gradient == 0).all()),
        bool(wrong),
    )
