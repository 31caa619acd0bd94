"""Whether KL(q || p) makes sense at all: shapes, kinds and supports."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from funcvi.constraints import constraint_name
from funcvi.densities.within import within
from funcvi.runtime_checks import require
from funcvi.sampling.gradients import GATED, covers_the_line, support_of
from funcvi.sampling.nesting import is_inside
from funcvi.sampling.supports import is_discrete

__all__ = ["checked_pair"]


def checked_pair(
    q: dist.Distribution, p: dist.Distribution, label: str
) -> Callable[[Array], Array]:
    """A function that returns KL(q || p) as it is, made after checking that it is defined.

    What classes, shapes and constant bounds say is checked here. Bounds that are arrays are
    compared by the function that is returned: eagerly at once, under jit when the program runs.

    Raises:
        ValueError: the divergence is undefined or infinite.
    """
    names = f"q{label} = {type(q).__name__}", f"p{label} = {type(p).__name__}"
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"{names[0]} has event shape {q.event_shape}, {names[1]} has {p.event_shape}: "
            "they must be the same (see to_event)."
        )
    sides = zip(reversed(q.batch_shape), reversed(p.batch_shape), strict=False)
    if len(p.batch_shape) > len(q.batch_shape) or any(theirs not in (1, n) for n, theirs in sides):
        raise ValueError(
            f"{names[0]} has batch shape {q.batch_shape}, {names[1]} has {p.batch_shape}: p must "
            "broadcast to q's. Expand q, or reshape one of them."
        )
    if isinstance(q, dist.Delta):
        inside_p = within(p, jnp.asarray(q.v) + 0, exact=True)  # of booleans, integers
        if inside_p is True:
            return lambda value: value
        return lambda value: jnp.where(inside_p, value, jnp.inf)
    if is_discrete(q) != is_discrete(p):
        kinds = ["discrete" if is_discrete(d) else "continuous" for d in (q, p)]
        raise ValueError(
            f"{names[0]} is {kinds[0]} and {names[1]} is {kinds[1]}: KL(q || p) is undefined."
        )
    if _has_atom(q) and not _has_atom(p):
        raise ValueError(
            f"KL(q || p) is infinite: {names[0]} gives zero a probability, {names[1]} has a "
            "density there. Choose two hurdles, or none."
        )

    def error() -> ValueError:
        return ValueError(
            f"KL(q || p) is infinite: {names[0]} has support {constraint_name(support_of(q))}, "
            f"{names[1]} only {constraint_name(support_of(p))}.\n"
            "Choose a q whose support lies inside p's."
        )

    # numpyro calls the support of an affine image the line, whatever it is the image of: then each
    # draw tells.
    whole = not isinstance(support_of(q), type(constraints.real)) or covers_the_line(q)
    inside = is_inside(support_of(q), support_of(p)) if whole else True
    if isinstance(inside, jax.Array):
        return lambda value: require(inside, value, error)
    if not inside:
        raise error()
    return lambda value: value


def _has_atom(d: dist.Distribution) -> bool:
    """A hurdle (or zero inflation) over a continuous distribution: part mass, part density."""
    while hasattr(d, "base_dist") and not isinstance(d, GATED):
        d = d.base_dist
    return isinstance(d, GATED) and not is_discrete(d.base_dist)
