"""Which axis of a value is the batch, which are positions and which features.

A product whose noise moves to its output gives each entry noise of its own. That is right for what
a row's entries owe to columns of the weight of their own, and for other rows; positions are the
usual approximation. Any other axis that the product carries along would share the weight.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import TypeAlias

from jax import lax
from jax.extend import core

__all__ = [
    "Axes",
    "axes_after",
    "axes_of_input",
    "axes_of_weight",
    "carries_others",
    "joined",
    "plain_axes",
    "shape_of",
    "weight_axes",
]

#: What one factor of an axis is, and its size. A nonnegative number is an axis of the inputs, in
#: their order, 0 the batch; a negative one a weight's; none is an axis that the function made.
Factor: TypeAlias = tuple[frozenset[int], int]

#: The factors of each axis, without those of size one: a reshape may merge axes and split them.
Axes: TypeAlias = tuple[tuple[Factor, ...], ...]

_ROW, _APART, _LAST, _MADE = 0, 1_000, 1_000_000, 1_000_000_000
_UNKNOWN = frozenset([_ROW, _MADE])  # refused wherever it is, contracted or carried along


def plain_axes(shape: Sequence[int]) -> Axes:
    """Of what depends on no inputs."""
    return tuple(_axis(frozenset(), n) for n in shape)


def axes_of_input(shape: Sequence[int], is_index: bool) -> Axes:
    """The batch, positions, and features, which an array of indices does not have."""
    last = len(shape) - 1
    return tuple(
        _axis(frozenset([_LAST if i and i == last and not is_index else _APART * i]), n)
        for i, n in enumerate(shape)
    )


def axes_of_weight(shape: Sequence[int], weight: int) -> Axes:
    """Each the weight's own."""
    return tuple(_axis(frozenset([-1 - weight]), n) for n in shape)


def weight_axes(axes: Axes, weight: int) -> list[int]:
    """The axes along which the weight's entries lie."""
    return [i for i, axis in enumerate(axes) if any(-1 - weight in what for what, _ in axis)]


def joined(values: Sequence[Axes]) -> Axes:
    """Of a value made of these entry by entry, all of one shape."""
    return tuple(reduce(_both, each) for each in zip(*values, strict=True))


def carries_others(equation: core.JaxprEqn, place: int, axes: Axes) -> bool:
    """Whether a product carries along other axes of its operand than the batch and positions."""
    params = equation.params
    if equation.primitive is lax.conv_general_dilated_p:
        numbers = params["dimension_numbers"].lhs_spec
        contracted, free = [numbers[1]], [numbers[0]]
    else:
        contracted, shared = (each[place] for each in params["dimension_numbers"])
        free = [i for i in range(len(axes)) if i not in (*contracted, *shared)]
    within, kept = min(_places(axes, contracted), default=_ROW + 1), _places(axes, free)
    return kept.count(_ROW) > 1 or max(kept, default=-1) >= within  # twice: pairs of rows


def _places(axes: Axes, which: Iterable[int]) -> list[int]:
    parts = [[p for p in what if p >= 0] or [_MADE] for i in which for what, _ in axes[i]]
    return [place for part in parts for place in part]


def shape_of(v: core.Var | core.Literal) -> tuple[int, ...]:
    """Of what is no array, as a token, none."""
    return tuple(getattr(v.aval, "shape", ()))


def axes_after(equation: core.JaxprEqn, operands: Sequence[Axes]) -> list[Axes]:
    """The axes of the results of an operation that runs no jaxpr."""
    return [_after(equation, operands, shape_of(v)) for v in equation.outvars]


def _after(equation: core.JaxprEqn, operands: Sequence[Axes], shape: tuple[int, ...]) -> Axes:
    primitive, params = equation.primitive, equation.params
    before = [shape_of(v) for v in equation.invars]
    plain = plain_axes(shape)
    if primitive is lax.transpose_p:
        return tuple(operands[0][i] for i in params["permutation"])
    if primitive is lax.reshape_p:
        return _reshaped(operands[0], shape)
    if primitive is lax.broadcast_in_dim_p:
        return _placed(dict(zip(params["broadcast_dimensions"], operands[0], strict=True)), shape)
    if primitive is lax.squeeze_p:
        return _without(operands[0], params["dimensions"])
    if primitive.name.startswith(("reduce_", "arg")) and "axes" in params:
        return _without(operands[0], params["axes"])
    if primitive is lax.dot_general_p:
        contracted, shared = params["dimension_numbers"]
        kept = [_without(o, (*contracted[i], *shared[i])) for i, o in enumerate(operands)]
        common = joined([tuple(o[j] for j in shared[i]) for i, o in enumerate(operands)])
        return _of_inputs((*common, *kept[0], *kept[1]))
    if primitive is lax.conv_general_dilated_p:
        image, numbers = _of_inputs(operands[0]), params["dimension_numbers"]
        pairs = [*zip(numbers.lhs_spec, numbers.out_spec, strict=True)]
        return _placed({o: image[i] for i, o in (pairs[0], *pairs[2:])}, shape)
    if primitive is lax.gather_p:
        return _gathered(params["dimension_numbers"], operands[0], operands[1], shape)
    if primitive is lax.concatenate_p:
        along = params["dimension"]
        result = list(joined([_without(o, [along]) for o in operands]))
        parts = [_merged(o[along]) for o in operands]
        again = [_MADE] if sum(_ROW in part for part in parts) > 1 else []  # the rows once more
        result.insert(along, _axis(frozenset().union(*parts, again), shape[along]))
        return tuple(result)
    if primitive.name == "tile":
        longer = [n != m for n, m in zip(before[0], shape, strict=True)]
        return tuple(
            _axis(_merged(axis) | {_MADE}, n) if more and _places_of(axis) else _resized(axis, n)
            for axis, more, n in zip(operands[0], longer, shape, strict=True)
        )
    if primitive.name in ("random_bits", "random_split", "random_unwrap"):
        return (*operands[0], *plain[len(operands[0]) :])
    named = [(o, s) for o, s in zip(operands, before, strict=True) if any(map(_places_of, o))]
    if primitive.name.startswith("scatter"):
        named = [(o, s) for o, s in named if o is not operands[1] or s != before[1]]
    if any(len(s) != len(shape) for _, s in named) or "solve" in primitive.name:
        return tuple(_axis(_UNKNOWN, n) for n in shape)
    return joined([plain, *(tuple(map(_resized, o, shape)) for o, _ in named)])


def _gathered(
    numbers: lax.GatherDimensionNumbers, array: Axes, indices: Axes, shape: tuple[int, ...]
) -> Axes:
    """Axes of windows are the array's, the others those of the indices."""
    collapsed, shared = numbers.collapsed_slice_dims, numbers.operand_batching_dims
    windows = iter(_without(array, (*collapsed, *shared)))
    places = iter(enumerate(indices))
    partners = dict(zip(numbers.start_indices_batching_dims, shared, strict=True))
    chosen = frozenset().union(*(_places_of(array[i]) for i in collapsed))
    result = []
    for i, n in enumerate(shape):
        if i in numbers.offset_dims:
            result.append(_resized(next(windows), n))
            continue
        place, axis = next(places)
        if place in partners:
            axis = _both(axis, array[partners[place]])
        elif any(what >= 0 for what in chosen):  # any row or position, any number of times
            axis = _axis(_merged(axis) | chosen | {_MADE}, n)
        result.append(axis)
    return tuple(result)


def _reshaped(axes: Axes, shape: Sequence[int]) -> Axes:
    """The factors in their order, split where the new axes end."""
    rest, result = [factor for axis in axes for factor in axis], []
    for n in shape:
        axis: list[Factor] = []
        while n > 1:
            what, size = rest.pop(0)
            if n % size == 0:
                axis.append((what, size))
                n //= size
            elif size % n == 0:
                axis.append((what, n))
                later = frozenset(p + 1 if _ROW < p < _MADE else p for p in what)
                rest.insert(0, (later, size // n))
                n = 1
            else:
                return tuple(_axis(_UNKNOWN, n) for n in shape)
        result.append(tuple(axis))
    return tuple(result)


def _axis(what: frozenset[int], size: int) -> tuple[Factor, ...]:
    return () if size == 1 else ((what, size),)


def _without(axes: Axes, places: Iterable[int]) -> Axes:
    gone = set(places)
    return tuple(axis for i, axis in enumerate(axes) if i not in gone)


def _of_inputs(axes: Axes) -> Axes:
    """Without the weights' own: what a product gives has their entries no longer."""
    return tuple(
        tuple((frozenset(p for p in what if p >= 0), n) for what, n in axis) for axis in axes
    )


def _places_of(axis: tuple[Factor, ...]) -> frozenset[int]:
    return frozenset().union(*(what for what, _ in axis))


def _merged(axis: tuple[Factor, ...]) -> frozenset[int]:
    """Of the factors as one, of which those that the function made stay known."""
    return frozenset().union(*(what or frozenset([_MADE]) for what, _ in axis))


def _placed(axes: Mapping[int, tuple[Factor, ...]], shape: Sequence[int]) -> Axes:
    """These axes at their places, among others that the function made."""
    return tuple(_resized(axes.get(i, ()), n) for i, n in enumerate(shape))


def _resized(axis: tuple[Factor, ...], size: int) -> tuple[Factor, ...]:
    if math.prod(n for _, n in axis) == size:
        return axis
    return _axis(_merged(axis) if _places_of(axis) else frozenset(), size)


def _both(one: tuple[Factor, ...], other: tuple[Factor, ...]) -> tuple[Factor, ...]:
    """An axis of two values of one shape: if they are different axes of the inputs, the first."""
    if not _places_of(one):
        return other
    if not _places_of(other):
        return one
    if [n for _, n in one] != [n for _, n in other]:
        size = math.prod(n for _, n in one)
        one, other = _axis(_merged(one), size), _axis(_merged(other), size)
    return tuple((_first(a, b), n) for (a, n), (b, _) in zip(one, other, strict=True))


def _first(one: frozenset[int], other: frozenset[int]) -> frozenset[int]:
    either = one | other
    named = [{p for p in each if 0 <= p < _MADE} for each in (one, other)]
    if named[0] == named[1]:
        return either
    return frozenset([*(p for p in either if not 0 <= p < _MADE), min(named[0] | named[1])])
