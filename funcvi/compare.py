"""Whether KL(q || p) makes sense at all: shapes, kinds and supports, checked before any draw."""

from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from funcvi.constraints import constraint_name
from funcvi.sampling.gradients import GATED, support_of

__all__ = ["check_pair"]

_CURVED = (
    type(constraints.simplex),
    type(constraints.corr_cholesky),
    type(constraints.corr_matrix),
    type(constraints.lower_cholesky),
    type(constraints.positive_definite),
    type(constraints.sphere),
    constraints.zero_sum,
)
_ORDERED = (type(constraints.ordered_vector), type(constraints.positive_ordered_vector))


def check_pair(q: Any, p: Any, label: str) -> None:
    """Raise ValueError where the divergence is undefined or infinite for any parameters."""
    names = f"q{label} = {type(q).__name__}", f"p{label} = {type(p).__name__}"
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"{names[0]} has event shape {q.event_shape}, {names[1]} has {p.event_shape}: "
            "they must be the same (see to_event)."
        )
    if _broadcast(q.batch_shape, p.batch_shape) != q.batch_shape:
        raise ValueError(
            f"{names[0]} has batch shape {q.batch_shape}, {names[1]} has {p.batch_shape}: p must "
            "broadcast to q's. Expand q, or reshape one of them."
        )
    if isinstance(q, dist.Delta):
        return
    if q.is_discrete != p.is_discrete:
        kinds = ["discrete" if d.is_discrete else "continuous" for d in (q, p)]
        raise ValueError(
            f"{names[0]} is {kinds[0]} and {names[1]} is {kinds[1]}: KL(q || p) is undefined."
        )
    if _outside(support_of(q), support_of(p)):
        raise ValueError(
            f"KL(q || p) is infinite: {names[0]} has support {constraint_name(support_of(q))}, "
            f"{names[1]} only {constraint_name(support_of(p))}.\n"
            "Choose a q whose support lies inside p's."
        )
    if _has_atom(q) and not _has_atom(p):
        raise ValueError(
            f"KL(q || p) is infinite: {names[0]} gives zero a probability, {names[1]} has a "
            "density there. Choose two hurdles, or none."
        )


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None


def _outside(q: Any, p: Any) -> bool:
    """Known to reach outside; False where it cannot be told (bounds that are traced)."""
    if type(q) is type(p) and not _bounds(q):
        return False
    if isinstance(p, _ORDERED):
        return isinstance(q, type(constraints.real)) or _bounds(q) is not None
    ours, theirs = _bounds(q), _bounds(p)
    if ours is None or theirs is None:
        curved = isinstance(q, _CURVED), isinstance(p, _CURVED)
        if all(curved):
            return True
        return curved[0] != curved[1] and (ours is not None or theirs is not None)
    if any(isinstance(b, jax.core.Tracer) for b in (*ours, *theirs)):
        return False
    return bool(np.any(np.less(ours[0], theirs[0])) or np.any(np.greater(ours[1], theirs[1])))


def _bounds(support: Any) -> tuple[Any, Any] | None:
    if isinstance(support, type(constraints.real)):
        return -np.inf, np.inf
    if isinstance(support, type(constraints.boolean)):
        return 0, 1
    low = getattr(support, "lower_bound", None)
    high = getattr(support, "upper_bound", None)
    if low is None and high is None:
        return None
    return (-np.inf if low is None else low), (np.inf if high is None else high)


def _has_atom(d: Any) -> bool:
    """A hurdle (or zero inflation) over a continuous distribution: part mass, part density."""
    while hasattr(d, "base_dist") and not isinstance(d, GATED):
        d = d.base_dist
    return isinstance(d, GATED) and not d.base_dist.is_discrete
