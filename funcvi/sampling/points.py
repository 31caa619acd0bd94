"""Values with their logarithms: what a density with a singular edge must see of a draw.

In float32 a Beta(2, 0.2) variable has 3 % of its mass above 1 - 2**-24, and half of all draws of a
Gamma(1e-3, 1) are below 1e-300: the value rounds to an edge, the log of its distance does not.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Point", "Value", "changed", "log_above", "log_below", "together", "value_of"]


class Point(NamedTuple):
    """A value with the logs of its distances to the edges of its support; all of one shape.

    Attributes:
        x: the value, (*sample, *batch, *event).
        above: log(x - low), or None.
        below: log(high - x), or None.
        low: the lower edge; None stands for zero.
        high: the upper edge; None stands for one.
    """

    x: Array
    above: Array | None = None
    below: Array | None = None
    low: Array | None = None
    high: Array | None = None


Value: TypeAlias = Array | Point


def value_of(x: Value) -> Array:
    """The value alone."""
    return x.x if isinstance(x, Point) else x


def changed(x: Value, shape: Callable[[Array], Array]) -> Value:
    """The value and its logarithms in another shape."""
    return Point(*jax.tree.map(shape, tuple(x))) if isinstance(x, Point) else shape(x)


def together(values: Sequence[Value], axis: int = 0) -> Value:
    """Stacked, with the logarithms that all of them have."""
    points = [x for x in values if isinstance(x, Point)]
    if len(points) < len(values):
        return jnp.stack([value_of(x) for x in values], axis)
    _, above, below, low, high = zip(*points, strict=True)
    return Point(
        jnp.stack([x.x for x in points], axis),
        *(
            None if any(x is None for x in each) else jnp.stack(each, axis)
            for each in (above, below)
        ),
        *(_edges(each, standard, points, axis) for each, standard in ((low, 0.0), (high, 1.0))),
    )


def _edges(
    each: Sequence[Array | None], standard: float, points: Sequence[Point], axis: int
) -> Array | None:
    if all(x is None for x in each):
        return None
    pairs = zip(each, points, strict=True)
    return jnp.stack([jnp.full_like(p.x, standard) if x is None else x for x, p in pairs], axis)


def log_above(point: Point) -> Array:
    """log x of a value that is not negative."""
    if point.above is None or point.low is None:
        return jnp.log(point.x) if point.above is None else point.above
    known = point.low == 0
    return jnp.where(known, point.above, jnp.log(jnp.where(known, 1.0, point.x)))


def log_below(point: Point) -> Array:
    """log(1 - x) of a value that is not above one."""
    if point.below is None or point.high is None:
        return jnp.log1p(-point.x) if point.below is None else point.below
    known = point.high == 1
    return jnp.where(known, point.below, jnp.log1p(-jnp.where(known, 0.0, point.x)))
