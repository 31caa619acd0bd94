"""Whether one support lies inside another."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints

__all__ = ["is_inside"]

Constraint: TypeAlias = constraints.Constraint

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


def is_inside(q: Constraint, p: Constraint) -> bool | np.bool_ | Array:
    """False if q is known to reach outside p; an array where that depends on arrays.

    Example:
        >>> bool(is_inside(constraints.unit_interval, constraints.positive))
        True
        >>> bool(is_inside(constraints.real, constraints.positive))
        False
    """
    if isinstance(p, constraints.multinomial):  # of one total: draws are asked for theirs
        return isinstance(q, constraints.multinomial) or _bounds(q) is None
    if type(q) is type(p) and _bounds(q) is None:
        return True
    if isinstance(p, _ORDERED):
        return not isinstance(q, type(constraints.real)) and _bounds(q) is None
    ours, theirs = _bounds(q), _bounds(p)
    if ours is None or theirs is None:
        curved = isinstance(q, _CURVED), isinstance(p, _CURVED)
        return not (
            all(curved) or (curved[0] != curved[1] and (ours is not None or theirs is not None))
        )
    inside: bool | np.bool_ | Array = True
    with jax.ensure_compile_time_eval():  # of constants at once, inside jit too
        for high, low in ((ours[0], theirs[0]), (theirs[1], ours[1])):
            if not (_always(high, np.inf) or _always(low, -np.inf)):
                xp = jnp if isinstance(high, jax.Array) or isinstance(low, jax.Array) else np
                inside &= xp.all(xp.greater_equal(high, low))
    return inside


def _always(x: ArrayLike, value: float) -> bool:
    return not isinstance(x, jax.Array) and bool(np.all(np.equal(x, value)))


def _bounds(support: Constraint) -> tuple[ArrayLike, ArrayLike] | None:
    if isinstance(support, type(constraints.real)):
        return -np.inf, np.inf
    if isinstance(support, type(constraints.boolean)):
        return 0, 1
    if isinstance(support, constraints.multinomial):
        return 0, support.upper_bound
    low = getattr(support, "lower_bound", None)
    high = getattr(support, "upper_bound", None)
    if low is None and high is None:
        return None
    return (-np.inf if low is None else low), (np.inf if high is None else high)
