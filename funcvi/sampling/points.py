"""Values with their logarithms: what a density with a singular edge must see of a draw.

In float32 a Beta(2, 0.2) variable has 3 % of its mass above 1 - 2**-24, and half of all draws of a
Gamma(1e-3, 1) are below 1e-300: the value rounds, its logarithms do not.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import log_sigmoid
from numpyro.distributions import transforms as nt

from funcvi.bijections import Exp
from funcvi.vector_bijections import Simplex

__all__ = ["Point", "Value", "before", "changed", "log_det", "through", "together", "value_of"]


class Point(NamedTuple):
    """A positive value, one between zero and one, or one on the simplex, with its logarithms.

    Attributes:
        x: the value, (*sample, *batch, *event).
        log_x: its logarithm, of the same shape.
        log_rest: log(1 - x) of a value between zero and one; None otherwise.
    """

    x: Array
    log_x: Array
    log_rest: Array | None = None


Value: TypeAlias = Array | Point


def value_of(x: Value) -> Array:
    """The value alone."""
    return x.x if isinstance(x, Point) else x


def changed(x: Value, shape: Callable[[Array], Array]) -> Value:
    """The value and its logarithms in another shape."""
    return Point(*jax.tree.map(shape, tuple(x))) if isinstance(x, Point) else shape(x)


def together(values: Sequence[Value], axis: int = 0) -> Value:
    """Stacked, with the logarithms that all of them have."""
    if not all(isinstance(x, Point) for x in values):
        return jnp.stack([value_of(x) for x in values], axis)
    if any(x[2] is None for x in values):
        values = [Point(x[0], x[1]) for x in values]
    return Point(*jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *map(tuple, values)))


def through(transform: nt.Transform, x: Value, y: Array | None = None) -> Value:
    """The image y of a value, with its logarithms where they are known.

    Example:
        >>> import jax.numpy as jnp
        >>> print(through(nt.SigmoidTransform(), jnp.float32(30.0)).log_rest)
        -30.0
    """
    if isinstance(transform, nt.IndependentTransform):
        return through(transform.base_transform, x, y)
    if isinstance(transform, nt.ComposeTransform):
        return reduce(lambda x, part: through(part, x), transform.parts, x)
    y = transform(value_of(x)) if y is None else y
    if isinstance(x, Point):
        is_power = isinstance(transform, nt.PowerTransform)
        return Point(y, transform.exponent * x.log_x) if is_power else y
    if isinstance(transform, nt.ExpTransform) or (type(transform) is Exp and transform.is_plain):
        return Point(y, x)
    if isinstance(transform, nt.SigmoidTransform):
        return Point(y, log_sigmoid(x), log_sigmoid(-x))
    return Point(y, transform.log_image(x)) if isinstance(transform, Simplex) else y


def before(transform: nt.Transform, y: Value) -> tuple[Value, Array]:
    """The value that a transform takes to y, and the log determinant there.

    Example:
        >>> import jax.numpy as jnp
        >>> point = Point(jnp.float32(0.0), jnp.float32(-300.0))
        >>> x, log_det = before(nt.ExpTransform(), point)
        >>> print(x, log_det)
        -300.0 -300.0
    """
    if isinstance(transform, nt.ExpTransform) and isinstance(y, Point):
        return y.log_x, y.log_x
    if isinstance(transform, nt.SigmoidTransform) and isinstance(y, Point):
        log_rest = jnp.log1p(-y.x) if y.log_rest is None else y.log_rest
        return y.log_x - log_rest, y.log_x + log_rest
    if isinstance(transform, nt.PowerTransform) and isinstance(y, Point):
        log_x = y.log_x / transform.exponent
        x: Value = Point(jnp.exp(log_x), log_x)
    else:
        x = transform.inv(value_of(y))
    return x, log_det(transform, x, y)


def log_det(transform: nt.Transform, x: Value, y: Value, intermediates: object = None) -> Array:
    """The log determinant of a transform from x to y."""
    if isinstance(transform, nt.PowerTransform) and isinstance(x, Point) and isinstance(y, Point):
        return jnp.log(jnp.abs(transform.exponent)) + y.log_x - x.log_x
    values = value_of(x), value_of(y)
    return jnp.asarray(transform.log_abs_det_jacobian(*values, intermediates))
