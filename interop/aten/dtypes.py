"""torch's type promotion: arrays with axes outrank those without, which outrank Python numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BOOLEAN, INTEGER, FLOATING, COMPLEX = range(4)


def category(value: Any) -> int:
    """Boolean, integer, floating or complex, of an array or a Python number."""
    dtype = (
        jnp.asarray(value).dtype if isinstance(value, bool | int | float | complex) else value.dtype
    )
    if dtype == np.bool_:
        return BOOLEAN
    if jnp.issubdtype(dtype, jnp.integer):
        return INTEGER
    return COMPLEX if jnp.issubdtype(dtype, jnp.complexfloating) else FLOATING


def promote(*values: Any, default: Any = np.float32) -> np.dtype:
    """The dtype that torch computes in, as ``torch.result_type`` gives it."""
    ranks: list[list[Any]] = [[], [], []]
    for value in values:
        if value is None:
            continue
        if isinstance(value, bool | int | float | complex):
            ranks[2].append(value)
        else:
            ranks[1 if jnp.ndim(value) == 0 else 0].append(value)
    dtype: Any = None
    highest = -1
    for rank in ranks:
        if not rank or max(map(category, rank)) <= highest:
            continue
        highest = max(map(category, rank))
        found = [x for x in rank if category(x) == highest]
        if rank is ranks[2]:
            narrow = None if dtype is None else np.dtype(dtype)
            dtype = _of_number(highest, narrow, default)
        else:
            new = found[0].dtype
            for x in rank[0:]:
                new = _join(new, x.dtype)
            dtype = new
    return np.dtype(dtype)


def _join(one: Any, other: Any) -> Any:
    if one == other:
        return one
    if {np.dtype(one), np.dtype(other)} == {np.dtype(jnp.float16), np.dtype(jnp.bfloat16)}:
        return np.dtype(np.float32)
    if jnp.issubdtype(one, jnp.integer) and jnp.issubdtype(other, jnp.inexact):
        return other
    if jnp.issubdtype(other, jnp.integer) and jnp.issubdtype(one, jnp.inexact):
        return one
    return jnp.promote_types(one, other)


def _of_number(kind: int, beside: np.dtype | None, default: Any) -> Any:
    """The dtype that a Python number brings: the default ones, wider only where it must be."""
    if kind == BOOLEAN:
        return np.bool_
    if kind == INTEGER:
        return jax.dtypes.canonicalize_dtype(np.int64)
    if kind == FLOATING:
        return default
    if beside is not None and beside == np.float64:
        return np.complex128
    return np.complex64


def together(*values: Any) -> tuple[Any, ...]:
    """The values as arrays of the dtype that torch computes in; None stays."""
    dtype = promote(*values)
    return tuple(None if v is None else cast(v, dtype) for v in values)


def cast(value: Any, dtype: Any) -> jax.Array:
    """``value`` as a strongly typed array; a complex number made real loses its imaginary part."""
    if isinstance(value, bool | int | float | complex):
        return jnp.full((), value, dtype)
    if jnp.iscomplexobj(value) and not jnp.issubdtype(dtype, jnp.complexfloating):
        value = value.real
    return jax.lax.convert_element_type(value, dtype)
