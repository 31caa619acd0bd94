"""scatter and its reductions, with torch's gradients at ties and zeros.

A write out of range is dropped, see ``indexing``.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast
from interop.aten.indexing import along
from interop.aten.registry import Table
from interop.aten.shapes import axis

rules = Table()

Places = tuple[Any, ...]


def _placed(x: jax.Array, dim: int, index: jax.Array, source: Any) -> tuple[Any, Places, Any]:
    """``x`` with an axis at least, where to write in it, and what."""
    x, index = jnp.atleast_1d(x), jnp.atleast_1d(index)
    if jnp.ndim(source):
        source = source[tuple(slice(0, n) for n in index.shape)]
    values = jnp.broadcast_to(cast(source, x.dtype), index.shape)
    return x, along(x, axis(dim, x.ndim), index), values


@rules("aten.scatter.src", "aten.scatter.value")
def scatter(x: jax.Array, dim: int, index: jax.Array, source: Any) -> jax.Array:
    """Of several writes to a place the last stays; torch leaves open which."""
    if index.size == 0:
        return x
    rows, where, values = _placed(x, dim, index, source)
    return jnp.reshape(rows.at[where].set(values, mode="drop"), x.shape)


@rules("aten.scatter_add.default")
def scatter_add(x: jax.Array, dim: int, index: jax.Array, source: jax.Array) -> jax.Array:
    return scatter_reduce(x, dim, index, source, "sum")


@rules("aten.scatter.reduce", "aten.scatter.value_reduce")
def scatter_with(x: jax.Array, dim: int, index: Any, source: Any, *, reduce: str) -> jax.Array:
    return scatter_reduce(x, dim, index, source, {"add": "sum", "multiply": "prod"}[reduce])


@rules("aten.scatter_reduce.two")
def scatter_reduce(
    x: jax.Array,
    dim: int,
    index: jax.Array,
    source: Any,
    reduce: str,
    *,
    include_self: bool = True,
) -> jax.Array:
    if index.size == 0:
        return x
    rows, where, values = _placed(x, dim, index, source)
    return jnp.reshape(_reduced(rows, where, values, reduce, include_self), x.shape)


@rules("aten.index_reduce.default")
def index_reduce(
    x: jax.Array,
    dim: int,
    index: jax.Array,
    source: jax.Array,
    reduce: str,
    *,
    include_self: bool = True,
) -> jax.Array:
    shape = [1] * max(source.ndim, 1)
    shape[axis(dim, x.ndim)] = index.size
    spread = jnp.broadcast_to(jnp.reshape(index, shape), jnp.atleast_1d(source).shape)
    return scatter_reduce(x, dim, spread, jnp.atleast_1d(source), reduce, include_self=include_self)


def _reduced(
    x: jax.Array, where: Places, values: jax.Array, reduce: str, include_self: bool
) -> jax.Array:
    touched = jnp.zeros(x.shape, bool).at[where].set(True, mode="drop")
    if reduce == "prod":
        base = x if include_self else jnp.where(touched, jnp.ones_like(x), x)
        return _product(base, values, where)
    if reduce in ("amax", "amin"):
        return _extreme(reduce == "amax", include_self, x, values, where, touched)
    base = x if include_self else jnp.where(touched, jnp.zeros_like(x), x)
    total = base.at[where].add(values, mode="drop")
    if reduce == "sum":
        return total
    count = jnp.full(x.shape, int(include_self), x.dtype).at[where].add(1, mode="drop")
    count = jnp.where(touched, count, 1)
    return total // count if jnp.issubdtype(x.dtype, jnp.integer) else total / count


@jax.custom_jvp
def _product(x: jax.Array, values: jax.Array, where: Places) -> jax.Array:
    return x.at[where].multiply(values, mode="drop")


@_product.defjvp
def _product_slope(primals: Any, tangents: Any) -> Any:
    """Of each factor the product of the others, from the count of zeros among them."""
    x, values, where = primals
    dx, dvalues, _ = tangents
    zeros = (x == 0).astype(jnp.int32).at[where].add(values == 0, mode="drop")
    one, filled = jnp.where(x == 0, 1, x), jnp.where(values == 0, 1, values)
    product = _product(one, filled, where)
    of_values = _product(jnp.ones_like(x), values, where)
    alone = jnp.where(
        values == 0, zeros.at[where].get(mode="fill") == 1, zeros.at[where].get() == 0
    )
    others = jnp.where(alone, product.at[where].get(mode="fill") / filled, 0)
    tangent = (dx * of_values).at[where].add(dvalues * others, mode="drop")
    return _product(x, values, where), tangent


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _extreme(
    largest: bool,
    include_self: bool,
    x: jax.Array,
    values: jax.Array,
    where: Places,
    touched: jax.Array,
) -> jax.Array:
    if not include_self:
        x = jnp.where(touched, _worst(largest, x.dtype), x)
    at = x.at[where]
    return at.max(values, mode="drop") if largest else at.min(values, mode="drop")


@_extreme.defjvp
def _extreme_slope(largest: bool, include_self: bool, primals: Any, tangents: Any) -> Any:
    """Ties share; as in torch an equal entry of ``x`` is one even where it takes no part."""
    x, values, where, touched = primals
    dx, dvalues, _, _ = tangents
    best = _extreme(largest, include_self, *primals)
    own = (x == best).astype(x.dtype)
    theirs = (values == best.at[where].get(mode="fill")).astype(x.dtype)
    ties = jnp.maximum(own.at[where].add(theirs, mode="drop"), 1)
    moved = own * dx if include_self else jnp.where(touched, 0, own * dx)
    return best, moved.at[where].add(theirs * dvalues, mode="drop") / ties


def _worst(largest: bool, dtype: Any) -> Any:
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(-jnp.inf if largest else jnp.inf, dtype)
    if not jnp.issubdtype(dtype, jnp.integer):
        return jnp.asarray(not largest)
    info = jnp.iinfo(dtype)
    return jnp.asarray(info.min if largest else info.max, dtype)
