"""What transforms make of values with logarithms: see points.py."""

from functools import reduce

import jax.numpy as jnp
from jax import Array
from jax.nn import log_sigmoid, softplus
from numpyro.distributions import transforms as nt
from numpyro.distributions.util import sum_rightmost

from funcvi.bijections import Exp, Interval, LowerBound, Softplus, UpperBound
from funcvi.sampling.dtypes import inside
from funcvi.sampling.points import Point, Value, log_above, log_below, value_of
from funcvi.vector_bijections import CorrelationFactor, Simplex

__all__ = ["before", "log_det", "through"]

_FAR = -15.0  # softplus(y) is exp(y) below, in float32


def through(transform: nt.Transform, x: Value, y: Array | None = None) -> Value:
    """The image y of a value, with its logarithms where they are known.

    Example:
        >>> import jax.numpy as jnp
        >>> print(through(nt.SigmoidTransform(), jnp.float32(30.0)).below)
        -30.0
    """
    if isinstance(transform, nt.IndependentTransform):
        return through(transform.base_transform, x, y)
    if isinstance(transform, nt.ComposeTransform):
        return reduce(lambda x, part: through(part, x), transform.parts, x)
    y = transform(value_of(x)) if y is None else y
    if isinstance(x, Point):
        if isinstance(transform, nt.AffineTransform):
            return _moved(x, y, transform.loc, transform.scale)
        if isinstance(transform, nt.PowerTransform) and x.low is None:
            return Point(y, transform.exponent * log_above(x))
        return y
    if isinstance(transform, nt.ExpTransform):
        return Point(inside(y, "positive"), x)
    if isinstance(transform, nt.SigmoidTransform):
        return Point(y, log_sigmoid(x), log_sigmoid(-x))
    if isinstance(transform, nt.SoftplusTransform):
        return Point(y, _log_softplus(x))
    return _onto_constraint(transform, x, y)


def _onto_constraint(transform: nt.Transform, x: Array, y: Array) -> Value:
    """By one of our own bijections."""
    if isinstance(transform, Simplex):
        return Point(y, transform.log_image(x))
    if isinstance(transform, CorrelationFactor):
        return Point(y, transform.log_diagonal(transform.log_rest(x)))
    if isinstance(transform, UpperBound):
        return Point(y, below=x, high=jnp.broadcast_to(transform.bound, y.shape))
    if isinstance(transform, Interval):
        edges = (jnp.broadcast_to(edge, y.shape) for edge in (transform.low, transform.high))
        log_width = jnp.log(jnp.asarray(transform.high) - transform.low)
        return Point(y, log_width + log_sigmoid(x), log_width + log_sigmoid(-x), *edges)
    if type(transform) in (Exp, LowerBound, Softplus):
        above = _log_softplus(x) if isinstance(transform, Softplus) else x
        edge = transform.edge
        return Point(y, above, low=None if edge is None else jnp.broadcast_to(edge, y.shape))
    return y


def _log_softplus(x: Array) -> Array:
    far = x < _FAR
    return jnp.where(far, x, jnp.log(softplus(jnp.where(far, 0.0, x))))


def _moved(x: Point, y: Array, loc: Array, scale: Array) -> Point:
    """By an affine transform; an edge that would be infinite is NaN, which is none."""
    positive, log_scale = scale > 0, jnp.log(jnp.abs(scale))
    above = below = low = high = jnp.full_like(y, jnp.nan)
    if x.above is not None:
        above, low = x.above + log_scale, loc + scale * (0.0 if x.low is None else x.low)
    if x.below is not None:
        below, high = x.below + log_scale, loc + scale * (1.0 if x.high is None else x.high)
    return Point(
        y,
        jnp.where(positive, above, below),
        jnp.where(positive, below, above),
        jnp.broadcast_to(jnp.where(positive, low, high), y.shape),
        jnp.broadcast_to(jnp.where(positive, high, low), y.shape),
    )


def before(transform: nt.Transform, y: Value) -> tuple[Value, Array]:
    """The value that a transform takes to y, and the log determinant there.

    Example:
        >>> import jax.numpy as jnp
        >>> point = Point(jnp.float32(0.0), jnp.float32(-300.0))
        >>> x, change = before(nt.ExpTransform(), point)
        >>> print(x, change)
        -300.0 -300.0
    """
    if isinstance(transform, nt.PowerTransform):
        # A power may overflow where its logarithm does not.
        y = y if isinstance(y, Point) else Point(y)
        log_x = log_above(y) / transform.exponent
        known = y.above is not None
        point = Point(jnp.exp(log_x) if known else transform.inv(y.x), log_x)
        return point, log_det(transform, point, y)
    if not isinstance(y, Point):
        x: Value = transform.inv(y)
        return x, log_det(transform, x, y)
    if isinstance(transform, nt.IndependentTransform):
        x, change = before(transform.base_transform, y)
        return x, sum_rightmost(change, transform.reinterpreted_batch_ndims)
    if isinstance(transform, nt.ComposeTransform):
        return _before_each(transform, y)
    if isinstance(transform, nt.ExpTransform):
        return log_above(y), log_above(y)
    if isinstance(transform, nt.SigmoidTransform):
        return log_above(y) - log_below(y), log_above(y) + log_below(y)
    if isinstance(transform, nt.SoftplusTransform):
        far = log_above(y) < _FAR
        near = jnp.where(far, 1.0, y.x)
        x = jnp.where(far, log_above(y), near + jnp.log(-jnp.expm1(-near)))
        return x, -softplus(-x)
    if isinstance(transform, nt.AffineTransform):
        x = _moved_back(y, transform)
    else:
        x = transform.inv(y.x)
    return x, log_det(transform, x, y)


def _moved_back(y: Point, transform: nt.AffineTransform) -> Point:
    """An edge that is zero or one but for rounding is so."""
    loc, scale = jnp.asarray(transform.loc), jnp.asarray(transform.scale)
    x = _moved(y, transform.inv(y.x), -loc / scale, 1 / scale)
    tolerance = 8 * jnp.finfo(y.x.dtype).eps * (1 + jnp.abs(loc / scale))

    low, high = (
        None if edge is None else jnp.where(jnp.abs(edge - at) < tolerance, at, edge)
        for edge, at in ((x.low, 0.0), (x.high, 1.0))
    )
    return x._replace(low=low, high=high)


def _before_each(transform: nt.ComposeTransform, y: Value) -> tuple[Value, Array]:
    total: Array | float = 0.0
    event_dim = transform.codomain.event_dim
    for part in reversed(transform.parts):
        y, change = before(part, y)
        batch_ndim = event_dim - part.codomain.event_dim
        total = total + sum_rightmost(change, batch_ndim)
        event_dim = part.domain.event_dim + batch_ndim
    return y, jnp.asarray(total)


def log_det(transform: nt.Transform, x: Value, y: Value, intermediates: object = None) -> Array:
    """The log determinant of a transform from x to y."""
    if isinstance(transform, nt.PowerTransform) and isinstance(x, Point) and isinstance(y, Point):
        return jnp.log(jnp.abs(transform.exponent)) + log_above(y) - log_above(x)
    values = value_of(x), value_of(y)
    return jnp.asarray(transform.log_abs_det_jacobian(*values, intermediates))
