"""Where the rows of the batch lie in a value, through every operation that keeps them apart.

A weight whose noise is drawn anew for each row may be read by a row's output through that row's
noise alone. So an operation's result has rows only where it is known that what lies at one row owes
nothing to the operand's other rows; of an operation that is not known here, it has none.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax import lax
from jax.extend import core

from funcvi._jax import is_elementwise

__all__ = ["Span", "free_axes", "leads", "moved", "shape_of", "split"]


class Span(NamedTuple):
    """An index, such as the row, as a factor of an axis; a reshape may merge axes and split them.

    Attributes:
        axis: along which it runs.
        size: how many values it has.
        inner: for how many entries of the axis in turn it stays the same.
    """

    axis: int
    size: int
    inner: int = 1


def shape_of(v: core.Var | core.Literal) -> tuple[int, ...]:
    """Of what is no array, as a token, none."""
    return tuple(getattr(v.aval, "shape", ()))


def leads(span: Span | None, shape: Sequence[int]) -> bool:
    """Whether it is the first index of an array of this shape."""
    if span is None or math.prod(shape[: span.axis]) != 1:
        return False
    return shape[span.axis] == span.size * span.inner


def split(shape: Sequence[int], span: Span | None) -> list[list[int]]:
    """The factors of each axis: of the span's, what is before it, itself, and what is within it."""
    factors = [[n] for n in shape]
    if span is not None:
        n = shape[span.axis]
        factors[span.axis] = [n // (span.size * span.inner), span.size, span.inner]
    return factors


def moved(equation: core.JaxprEqn, place: int, span: Span) -> list[Span | None]:
    """An operand's index in each result, where the rest of the result owes nothing to it."""
    before = shape_of(equation.invars[place])
    return [_moved(equation, place, span, before, shape_of(v)) for v in equation.outvars]


def free_axes(equation: core.JaxprEqn, place: int) -> dict[int, int]:
    """The axes of a product's operand that the other does not have: the result's, by its own."""
    params = equation.params
    if equation.primitive is lax.conv_general_dilated_p:
        numbers = params["dimension_numbers"]
        pairs = list(zip(numbers.lhs_spec, numbers.out_spec, strict=True))
        return dict([pairs[0], *pairs[2:]])
    contracted, shared = (each[place] for each in params["dimension_numbers"])
    rank = len(shape_of(equation.invars[place]))
    free = [i for i in range(rank) if i not in (*contracted, *shared)]
    first = len(shared) if place == 0 else len(shape_of(equation.outvars[0])) - len(free)
    return {axis: first + i for i, axis in enumerate(free)}


def _moved(
    equation: core.JaxprEqn,
    place: int,
    span: Span,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> Span | None:
    if equation.primitive is lax.reshape_p:
        return _reshaped(span, before, after)
    axis = _axis(equation, place, span.axis, before, after)
    if axis is None or axis >= len(after) or after[axis] != before[span.axis]:
        return None
    return span._replace(axis=axis)


def _reshaped(span: Span, before: tuple[int, ...], after: tuple[int, ...]) -> Span | None:
    """The axis in which the index is whole again."""
    stride = span.inner * math.prod(before[span.axis + 1 :])
    for axis, n in enumerate(after):
        tail = math.prod(after[axis + 1 :])
        if tail and stride % tail == 0 and (tail * n) % (stride * span.size) == 0:
            return Span(axis, span.size, stride // tail)
    return None


_SAME = ("select_n", "clamp", "convert_element_type", "stop_gradient", "sharding_constraint")
_BATCHED = ("cholesky", "triangular_solve", "lu", "qr", "eigh", "svd", "tridiagonal_solve")


def _axis(
    equation: core.JaxprEqn,
    place: int,
    axis: int,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> int | None:
    """Where the operand's axis is in the result, if the operation works along others alone."""
    primitive, params = equation.primitive, equation.params
    name = primitive.name
    if name in _SAME or is_elementwise(primitive):
        return axis if len(before) == len(after) else None
    if primitive is lax.transpose_p:
        return list(params["permutation"]).index(axis)
    if primitive is lax.broadcast_in_dim_p:
        return int(params["broadcast_dimensions"][axis])
    if primitive is lax.squeeze_p:
        return _without(axis, params["dimensions"])
    if primitive is lax.unstack_p:
        return _without(axis, [params["axis"]])
    if primitive is lax.stack_p:
        return axis + int(axis >= params["axis"])
    if name == "reduce" or (name.startswith(("reduce_", "arg")) and "axes" in params):
        return _without(axis, params["dimensions" if name == "reduce" else "axes"])
    if primitive is lax.dot_general_p:
        shared = list(params["dimension_numbers"][1][place])
        return shared.index(axis) if axis in shared else free_axes(equation, place).get(axis)
    if primitive is lax.conv_general_dilated_p:
        numbers = params["dimension_numbers"]
        images = place == 0 and axis == numbers.lhs_spec[0] and params["batch_group_count"] == 1
        return int(numbers.out_spec[0]) if images else None
    if primitive is lax.gather_p:
        return _gathered(params, place, axis, before, after)
    if name.startswith("scatter"):
        return _scattered(equation, place, axis)
    if _works_along(name, params, axis, before):
        return None
    return axis if name in _KEEPING or name.startswith("reduce_window") else None


_KEEPING = (
    *("concatenate", "split", "pad", "rev", "slice", "dynamic_slice", "dynamic_update_slice"),
    *("sort", "top_k", "tile", "fft", *_BATCHED),
    *("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"),
)


def _works_along(name: str, p: Mapping[str, Any], axis: int, shape: tuple[int, ...]) -> bool:
    """Whether one of ``_KEEPING`` moves or mixes entries along an axis whose length it keeps."""
    if name in ("concatenate", "sort"):
        return bool(p["dimension"] == axis)
    if name in ("split", "top_k") or name.startswith("cum"):
        return bool(p["axis"] == axis)
    if name == "rev":
        return axis in p["dimensions"]
    if name == "tile":
        return bool(p["reps"][axis] != 1)
    if name == "pad":
        return any(p["padding_config"][axis])
    if name == "fft":
        return axis >= len(shape) - len(p["fft_lengths"])
    if name.startswith("reduce_window"):
        return p["window_dimensions"][axis] != 1 or any(p["padding"][axis])
    return name in _BATCHED and axis >= len(shape) - 2


def _without(axis: int, gone: Sequence[int]) -> int | None:
    return None if axis in gone else axis - sum(i < axis for i in gone)


def _gathered(
    params: Mapping[str, Any],
    place: int,
    axis: int,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> int | None:
    """Axes of whole windows are the array's, the others those of the indices."""
    numbers = params["dimension_numbers"]
    batch = [i for i in range(len(after)) if i not in numbers.offset_dims]
    if place == 1:
        return batch[axis] if axis < len(batch) else None
    shared = numbers.operand_batching_dims
    if axis in shared:
        return batch[numbers.start_indices_batching_dims[shared.index(axis)]]
    windows = [i for i in range(len(before)) if i not in (*numbers.collapsed_slice_dims, *shared)]
    return int(numbers.offset_dims[windows.index(axis)]) if axis in windows else None


def _scattered(equation: core.JaxprEqn, place: int, axis: int) -> int | None:
    """What is written stays in its row where whole windows, or batches, are written."""
    numbers = equation.params["dimension_numbers"]
    shared, batches = numbers.operand_batching_dims, numbers.scatter_indices_batching_dims
    if place == 0:
        return axis
    if place == 1:
        return int(shared[batches.index(axis)]) if axis in batches else None
    rank, num_axes = (len(shape_of(equation.invars[i])) for i in (0, 2))
    windows = [i for i in range(rank) if i not in (*numbers.inserted_window_dims, *shared)]
    if axis in numbers.update_window_dims:
        return windows[numbers.update_window_dims.index(axis)]
    of_indices = [i for i in range(num_axes) if i not in numbers.update_window_dims].index(axis)
    return int(shared[batches.index(of_indices)]) if of_indices in batches else None
