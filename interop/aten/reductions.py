"""Sums, means, variances, extremes, cumulative sums."""

from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast
from interop.aten.registry import Table

rules = Table()


def axes(dim: Any) -> tuple[int, ...] | None:
    """torch's ``dim`` as numpy's ``axis``: none and an empty list are all axes."""
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return None
    return tuple(dim) if isinstance(dim, list | tuple) else (dim,)


def at_least_one_axis(x: jax.Array) -> jax.Array:
    """A scalar as a vector of one, along which torch reduces it."""
    return x if x.ndim else x[None]


def reduced(function: Any, x: jax.Array, dim: Any, keepdim: bool) -> jax.Array:
    """``function`` over ``dim``, which may name axis 0 of a scalar."""
    if not x.ndim:
        return function(x[None], axis=0, keepdims=False)
    return function(x, axis=axes(dim), keepdims=keepdim)


@rules("aten.sum.dim_IntList", "aten.sum.default")
def total(
    x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, result: Any
) -> jax.Array:
    return reduced(jnp.sum, cast(x, result.dtype), dim, keepdim)


@rules("aten.mean.dim", "aten.mean.default")
def mean(
    x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, result: Any
) -> jax.Array:
    return reduced(jnp.mean, cast(x, result.dtype), dim, keepdim)


@rules("aten.prod.default", "aten.prod.dim_int")
def product(
    x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, result: Any
) -> jax.Array:
    return reduced(jnp.prod, cast(x, result.dtype), dim, keepdim)


@rules("aten.any.default", "aten.any.dim", "aten.any.dims", "aten._is_any_true.default")
def any_true(x: Any, dim: Any = None, keepdim: bool = False, *, result: Any) -> jax.Array:
    return reduced(jnp.any, x, dim, keepdim).astype(result.dtype)


@rules("aten.all.default", "aten.all.dim", "aten.all.dims", "aten._is_all_true.default")
def all_true(x: Any, dim: Any = None, keepdim: bool = False, *, result: Any) -> jax.Array:
    return reduced(jnp.all, x, dim, keepdim).astype(result.dtype)


@rules("aten.count_nonzero.default", "aten.count_nonzero.dim_IntList")
def count_nonzero(x: Any, dim: Any = None, *, result: Any) -> jax.Array:
    return reduced(jnp.sum, (x != 0).astype(result.dtype), dim, False)


@rules("aten.nansum.default")
def nansum(
    x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, result: Any
) -> jax.Array:
    return reduced(jnp.nansum, cast(x, result.dtype), dim, keepdim)


# ---- variances ----------------------------------------------------------------------------------


def variance(x: jax.Array, dim: Any, correction: Any, keepdim: bool) -> jax.Array:
    """With ``correction`` taken from the count, which may leave none: then NaN or infinity."""
    x, axis = (x, axes(dim)) if x.ndim else (x[None], (0,))
    count = x.size if axis is None else 1
    for i in axis or ():
        count *= x.shape[i]
    center = jnp.mean(x, axis=axis, keepdims=True)
    deviation = jnp.abs(x - center) ** 2 if jnp.iscomplexobj(x) else (x - center) ** 2
    freedom = max(count - (1 if correction is None else correction), 0)
    squares = jnp.sum(deviation, axis=axis, keepdims=keepdim)
    return squares / jnp.asarray(freedom, squares.dtype)


@rules("aten.var.correction")
def var(
    x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False, result: Any
) -> jax.Array:
    return variance(x, dim, correction, keepdim).reshape(result.shape)


@rules("aten.std.correction")
def std(
    x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False, result: Any
) -> jax.Array:
    return _root(variance(x, dim, correction, keepdim)).reshape(result.shape)


@rules("aten.var_mean.correction")
def var_mean(
    x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False, result: Any
) -> Any:
    average = reduced(jnp.mean, x, dim, keepdim)
    return variance(x, dim, correction, keepdim).reshape(result[0].shape), average


@rules("aten.std_mean.correction")
def std_mean(
    x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False, result: Any
) -> Any:
    average = reduced(jnp.mean, x, dim, keepdim)
    return _root(variance(x, dim, correction, keepdim)).reshape(result[0].shape), average


def _root(x: jax.Array) -> jax.Array:
    """The square root; where it is zero, as the deviation of a constant is, its gradient is too."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


# ---- extremes -----------------------------------------------------------------------------------


@rules("aten.amax.default", "aten.max.default")
def amax(x: Any, dim: Any = None, keepdim: bool = False) -> jax.Array:
    """Ties share the gradient."""
    return reduced(jnp.max, x, dim, keepdim)


@rules("aten.amin.default", "aten.min.default")
def amin(x: Any, dim: Any = None, keepdim: bool = False) -> jax.Array:
    """Ties share the gradient."""
    return reduced(jnp.min, x, dim, keepdim)


@rules("aten.aminmax.default")
def aminmax(x: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    return reduced(jnp.min, x, dim, keepdim), reduced(jnp.max, x, dim, keepdim)


def pick(x: jax.Array, index: jax.Array, dim: int, keepdim: bool) -> jax.Array:
    """The entries at ``index`` along ``dim``, which alone have the gradient."""
    found = jnp.take_along_axis(x, jnp.expand_dims(index, dim), axis=dim)
    return found if keepdim else jnp.squeeze(found, dim)


def _extreme(function: Any, x: jax.Array, dim: int, keepdim: bool, result: Any) -> Any:
    wide = at_least_one_axis(x)
    index = function(wide, axis=dim)
    values = pick(wide, index, dim, keepdim)
    index = jnp.expand_dims(index, dim) if keepdim else index
    shape = result[0].shape
    return values.reshape(shape), index.astype(result[1].dtype).reshape(shape)


@rules("aten.max.dim")
def max_along(x: Any, dim: int, keepdim: bool = False, *, result: Any) -> Any:
    return _extreme(jnp.argmax, x, dim, keepdim, result)


@rules("aten.min.dim")
def min_along(x: Any, dim: int, keepdim: bool = False, *, result: Any) -> Any:
    return _extreme(jnp.argmin, x, dim, keepdim, result)


def _argument(function: Any, x: jax.Array, dim: Any, keepdim: bool, result: Any) -> jax.Array:
    if dim is None or not x.ndim:
        return function(jnp.ravel(x)).astype(result.dtype).reshape(result.shape)
    return function(x, axis=dim, keepdims=keepdim).astype(result.dtype)


@rules("aten.argmax.default")
def argmax(x: Any, dim: Any = None, keepdim: bool = False, *, result: Any) -> jax.Array:
    return _argument(jnp.argmax, x, dim, keepdim, result)


@rules("aten.argmin.default")
def argmin(x: Any, dim: Any = None, keepdim: bool = False, *, result: Any) -> jax.Array:
    return _argument(jnp.argmin, x, dim, keepdim, result)


@rules("aten.logsumexp.default")
def logsumexp(x: Any, dim: Any = None, keepdim: bool = False, *, result: Any) -> jax.Array:
    return reduced(jax.scipy.special.logsumexp, cast(x, result.dtype), dim, keepdim)


# ---- cumulative ---------------------------------------------------------------------------------


def _cumulative(function: Any, x: jax.Array, dim: int) -> jax.Array:
    return function(at_least_one_axis(x), axis=dim).reshape(x.shape)


@rules("aten.cumsum.default")
def cumulative_sum(x: Any, dim: int, *, dtype: Any = None, result: Any) -> jax.Array:
    return _cumulative(jnp.cumsum, cast(x, result.dtype), dim)


@rules("aten.cumprod.default")
def cumulative_product(x: Any, dim: int, *, dtype: Any = None, result: Any) -> jax.Array:
    return _cumulative(jnp.cumprod, cast(x, result.dtype), dim)


@rules("aten.diff.default")
def differences(
    x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None, *, result: Any
) -> jax.Array:
    """Of booleans, where they change."""
    x, prepend, append = (
        None if part is None else cast(part, result.dtype) for part in (x, prepend, append)
    )
    return jnp.diff(x, n, dim, prepend, append)


@rules("aten.logcumsumexp.default")
def cumulative_logsumexp(x: Any, dim: int) -> jax.Array:
    return _cumulative(jax.lax.cumlogsumexp, x, dim % max(x.ndim, 1))


def _running_extreme(x: jax.Array, dim: int, better: Any, result: Any) -> Any:
    """The latest of the best so far; the gradient goes to it alone."""
    wide = at_least_one_axis(x)
    dim = dim % wide.ndim
    places = jnp.broadcast_to(
        jnp.expand_dims(jnp.arange(wide.shape[dim]), [i for i in range(wide.ndim) if i != dim]),
        wide.shape,
    )

    def join(left: Any, right: Any) -> Any:
        take = better(right[0], left[0]) | jnp.isnan(right[0])
        take = take & ~(jnp.isnan(left[0]) & ~jnp.isnan(right[0]))
        return tuple(jnp.where(take, r, v) for v, r in zip(left, right, strict=True))

    held = jax.lax.stop_gradient(wide)
    index = jax.lax.associative_scan(join, (held, places), axis=dim)[1] if wide.size else places
    values = jnp.take_along_axis(wide, index, axis=dim)
    return values.reshape(x.shape), index.astype(result[1].dtype).reshape(x.shape)


@rules("aten.cummax.default")
def cumulative_max(x: Any, dim: int, *, result: Any) -> Any:
    return _running_extreme(x, dim, jnp.greater_equal, result)


@rules("aten.cummin.default")
def cumulative_min(x: Any, dim: int, *, result: Any) -> Any:
    return _running_extreme(x, dim, jnp.less_equal, result)


@rules("aten.trace.default")
def trace(x: Any, *, result: Any) -> jax.Array:
    return jnp.trace(cast(x, result.dtype))
