"""Which weights are a layer's: their entries meet the inputs in one product, and nowhere else.

Read off the function's jaxpr, so any function will do: through ``jit``, ``jax.checkpoint``,
``cond`` and ``scan``, and through whatever only moves or scales a weight's entries on their way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend import core
from jax.extend.core import primitives

from funcvi.loops import contains
from funcvi.networks.axes import (
    Axes,
    axes_after,
    axes_of_input,
    axes_of_weight,
    carries_others,
    joined,
    plain_axes,
    shape_of,
    weight_axes,
)

__all__ = ["CALLS", "PRODUCTS", "SLICING", "Layer", "called", "survey"]

PRODUCTS = (lax.dot_general_p, lax.conv_general_dilated_p)
"""Linear in each operand: what a Gaussian weight gives is Gaussian, given the other operand."""

CALLS = (primitives.jit_p, primitives.closed_call_p, primitives.remat_p)
"""Run a jaxpr on their operands."""

CUSTOM = (primitives.custom_jvp_call_p, primitives.custom_vjp_call_p)
"""Run a jaxpr whose derivative is written by hand."""

SLICING = (lax.slice_p, lax.split_p)
"""Give some of the entries."""

MOVING = (
    lax.transpose_p,
    lax.reshape_p,
    lax.squeeze_p,
    lax.broadcast_in_dim_p,
    lax.rev_p,
    lax.copy_p,
    lax.convert_element_type_p,
    *SLICING,
)
"""Give each entry once, or not at all, elsewhere or in another floating dtype."""

LINEAR = (lax.add_p, lax.sub_p, lax.mul_p, lax.div_p, lax.neg_p)
"""Scale or shift each entry, where the other operand is neither random in it nor of the inputs."""

SOLVES = (
    primitives.linear_solve_p,
    primitives.triangular_solve_p,
    primitives.tridiagonal_solve_p,
    lax.fft_p,
)
"""Products in which a weight may stand, but not with the law of a layer."""

SUMS = (lax.reduce_sum_p, lax.cumsum_p, lax.reduce_window_sum_p, lax.fft_p)
"""With what is multiplied entry by entry before, a product."""

_SHARED = "is shared within a row: its product keeps an axis that is neither batch nor position"

Kind: TypeAlias = Literal["local", "plain", "refused"]


class Layer(NamedTuple):
    """What "local" and "flipout" do with a weight, and why.

    Attributes:
        kind: "local": the noise moves to the output of the weight's one product. "plain": one draw
            for the whole batch, since the weight enters no product, as biases and scales do, or is
            listed as plain. "refused": the weight enters a product, but in a way in which its noise
            cannot be moved; an error unless it is listed as plain.
        why: a phrase.
    """

    kind: Kind
    why: str


@dataclass(frozen=True)
class _Value:
    """What a value inside the function is made of.

    Attributes:
        inputs: whether it depends on the inputs.
        weights: of which weights it is a function; none once it is an activation, which depends on
            the inputs.
        entries: the weight of which it has entries, each at most once, scaled or shifted.
        scaled_by: the weights with whose entries it multiplies what depends on the inputs.
        axes: what its axes are.
    """

    axes: Axes
    inputs: bool = False
    weights: frozenset[int] = frozenset()
    entries: int | None = None
    scaled_by: frozenset[int] = frozenset()


@dataclass
class _Survey:
    """Walks a jaxpr, and notes what happens to each weight."""

    products: set[int] = field(default_factory=set)
    obstacles: dict[int, str] = field(default_factory=dict)

    def walk(self, jaxpr: core.Jaxpr, arguments: Sequence[_Value]) -> list[_Value]:
        """The values of the jaxpr's outputs."""
        values = {v: _Value(plain_axes(shape_of(v))) for v in jaxpr.constvars}
        readers: dict[core.Var, list[core.JaxprEqn | None]] = {}
        for equation in (*jaxpr.eqns, None):
            for v in jaxpr.outvars if equation is None else equation.invars:
                if not isinstance(v, core.Literal):
                    readers.setdefault(v, []).append(equation)

        def read(v: core.Var | core.Literal) -> _Value:
            return _Value(plain_axes(shape_of(v))) if isinstance(v, core.Literal) else values[v]

        def write(variables: Sequence[core.Var], results: Sequence[_Value]) -> None:
            for v, value in zip(variables, results, strict=True):
                uses = readers.get(v, [])
                if len(uses) > 1 and not _disjoint(uses):
                    (value,) = self._stop([value], "is used more than once")
                values[v] = value

        write(jaxpr.invars, arguments)
        for equation in jaxpr.eqns:
            write(equation.outvars, self._results(equation, [read(v) for v in equation.invars]))
        return [read(v) for v in jaxpr.outvars]

    def _results(self, equation: core.JaxprEqn, operands: list[_Value]) -> list[_Value]:
        primitive, params = equation.primitive, equation.params
        if primitive in PRODUCTS:
            return [self._product(equation, operands)]
        if primitive in CALLS:
            return self.walk(called(equation).jaxpr, operands)
        if primitive is lax.scan_p:
            return self._scan(equation, operands)
        if primitive is lax.while_p:
            first, second = params["cond_nconsts"], params["body_nconsts"]
            operands = self._stop(operands, "is used in a while loop")
            constants, start = operands[first : first + second], operands[first + second :]
            carry, _ = self._loop(params["body_jaxpr"].jaxpr, constants, start, [])
            self.walk(params["cond_jaxpr"].jaxpr, [*operands[:first], *carry])
            return carry
        if primitive is lax.cond_p:
            outputs = [  # which branch runs does not make a weight an activation
                self._stop(self.walk(branch.jaxpr, operands[1:]), "is returned by a branch of cond")
                for branch in params["branches"]
            ]
            return [_join(each) for each in zip(*outputs, strict=True)]
        if primitive in CUSTOM:
            rule = f"is used inside a {primitive}, whose own derivative would be lost"
            return self.walk(params["call_jaxpr"].jaxpr, self._stop(operands, rule))
        axes = axes_after(equation, [value.axes for value in operands])
        self._note_sum(equation, operands)
        kept = _entries(equation, operands)
        if kept is None:
            self._stop(operands, f"is used by {primitive}")
            inner = core.jaxprs_in_params(params)
            if primitive in SOLVES or any(contains(j, (*PRODUCTS, *SOLVES)) for j in inner):
                self.products.update(*(value.weights for value in operands))
        result = replace(_join(operands), entries=kept)
        if result.inputs and primitive in (lax.mul_p, lax.div_p):
            scales = frozenset().union(*(o.weights | o.scaled_by for o in operands))
            matrices = {w for w in scales if any(len(weight_axes(o.axes, w)) > 1 for o in operands)}
            result = replace(result, weights=frozenset(matrices), scaled_by=scales)
        elif primitive in (*MOVING, lax.neg_p):
            result = replace(result, scaled_by=operands[0].scaled_by)
        return [replace(result, axes=each) for each in axes]

    def _note_sum(self, equation: core.JaxprEqn, operands: list[_Value]) -> None:
        """A product with the inputs may be written as one entry by entry, and a sum."""
        if equation.primitive not in SUMS:
            return
        (value,) = operands
        along = _summed(equation, len(value.axes))
        for weight in value.scaled_by:
            if set(along) & set(weight_axes(value.axes, weight)):
                self.products.add(weight)
                self.obstacles[weight] = (
                    "is multiplied with the inputs entry by entry, and the result summed"
                )

    def _product(self, equation: core.JaxprEqn, operands: list[_Value]) -> _Value:
        for value in operands:
            self.products |= value.weights
        left, right = operands
        if left.entries is not None and equation.primitive is lax.conv_general_dilated_p:
            self._stop([left], "is convolved, as if it were an image")
        for place, (value, other) in enumerate(((left, right), (right, left))):
            if value.entries is not None and not other.inputs:
                self._stop([value], "enters a product with what does not depend on the inputs")
            elif value.entries is not None and carries_others(equation, 1 - place, other.axes):
                self._stop([value], _SHARED)
        (axes,) = axes_after(equation, [left.axes, right.axes])
        return replace(_join(operands), axes=axes, scaled_by=frozenset())

    def _scan(self, equation: core.JaxprEqn, operands: list[_Value]) -> list[_Value]:
        fixed, carried = equation.params["num_consts"], equation.params["num_carry"]
        constants = self._stop(operands[:fixed], "is used at every step of a scan")
        start = self._stop(operands[fixed : fixed + carried], "is carried through a scan")
        body = equation.params["jaxpr"].jaxpr
        xs = operands[fixed + carried :]
        steps = plain_axes([equation.params["length"]])
        lead = joined([steps, *(x.axes[:1] for x in xs if x.inputs)])
        slices = [replace(x, axes=x.axes[1:]) for x in xs]
        carry, rest = self._loop(body, constants, start, slices)
        rest = [replace(value, axes=(*lead, *value.axes)) for value in rest]
        return [*carry, *self._stop(rest, "is returned by a scan")]

    def _loop(
        self, body: core.Jaxpr, constants: list[_Value], carry: list[_Value], xs: list[_Value]
    ) -> tuple[list[_Value], list[_Value]]:
        """What is carried after any number of steps, and the other outputs of a step."""
        before: list[_Value] = []
        while carry != before:
            before, outputs = carry, _Survey().walk(body, [*constants, *carry, *xs])
            carry = [_join(pair) for pair in zip(before, outputs[: len(before)], strict=True)]
        outputs = self.walk(body, [*constants, *carry, *xs])
        self._stop(outputs[: len(carry)], "is carried through a loop")
        return carry, outputs[len(carry) :]

    def _stop(self, values: list[_Value], obstacle: str) -> list[_Value]:
        """The values, no longer a weight's entries."""
        for value in values:
            if value.entries is not None:
                self.obstacles.setdefault(value.entries, obstacle)
        return [replace(value, entries=None) for value in values]


def survey(
    jaxpr: core.Jaxpr, weights: Sequence[int], inputs: range, has_rows: range
) -> dict[int, Layer]:
    """For each argument that is a weight, how it enters.

    Args:
        jaxpr: of the function.
        weights: which arguments are weights.
        inputs: which are inputs.
        has_rows: the arguments whose first axis is the batch, if it has the length of the first's.
    """
    shapes = [shape_of(v) for v in jaxpr.invars]
    num_rows = next((shapes[i][0] for i in has_rows if shapes[i]), None)
    walked = _Survey()
    arguments = []
    for i, (v, shape) in enumerate(zip(jaxpr.invars, shapes, strict=True)):
        if i in weights:
            arguments.append(_Value(axes_of_weight(shape, i), weights=frozenset([i]), entries=i))
        elif i in has_rows and shape[:1] == (num_rows,):
            is_index = not jnp.issubdtype(_shaped(v).dtype, jnp.inexact)
            arguments.append(_Value(axes_of_input(shape, is_index), inputs=True))
        else:
            arguments.append(_Value(plain_axes(shape), inputs=i in inputs))
    walked._stop(walked.walk(jaxpr, arguments), "is returned")
    found = {}
    for i in weights:
        if i not in walked.products:
            found[i] = Layer("plain", "enters no product")
        elif i in walked.obstacles:
            found[i] = Layer("refused", walked.obstacles[i])
        else:
            found[i] = Layer("local", "enters one product with what depends on the inputs")
    return found


def called(equation: core.JaxprEqn) -> core.ClosedJaxpr:
    """The jaxpr that one of ``CALLS`` runs."""
    name = "call_jaxpr" if equation.primitive is primitives.closed_call_p else "jaxpr"
    inner = equation.params[name]
    return inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())


def _join(values: Sequence[_Value]) -> _Value:
    """What a value made of these is made of; of their axes, if they are of one shape."""
    if len(values) == 1:
        return replace(values[0], entries=None, scaled_by=frozenset())
    same = len({len(value.axes) for value in values}) == 1
    axes = joined([value.axes for value in values]) if same else ()
    if any(value.inputs for value in values):
        return _Value(axes, inputs=True)
    return _Value(axes, weights=frozenset().union(*(value.weights for value in values)))


def _entries(equation: core.JaxprEqn, operands: list[_Value]) -> int | None:
    """The weight whose entries the result still has."""
    places = [i for i, value in enumerate(operands) if value.entries is not None]
    if len(places) != 1:
        return None
    (place,) = places
    weight = operands[place].entries
    before, after = _shaped(equation.invars[place]), _shaped(equation.outvars[0])
    others = operands[:place] + operands[place + 1 :]
    moves = equation.primitive in MOVING and after.size <= before.size
    scales = equation.primitive in LINEAR and after.shape == before.shape
    if (equation.primitive is lax.div_p and place == 1) or any(
        o.inputs or weight in o.weights for o in others
    ):
        scales = False
    return weight if (moves or scales) and jnp.issubdtype(after.dtype, jnp.floating) else None


def _shaped(v: core.Var | core.Literal) -> ShapedArray:
    assert isinstance(v.aval, ShapedArray)  # weights, and what is made of them, are arrays
    return v.aval


def _summed(equation: core.JaxprEqn, rank: int) -> list[int]:
    """The axes that one of ``SUMS`` sums along."""
    params = equation.params
    if equation.primitive is lax.reduce_window_sum_p:
        return [i for i, n in enumerate(params["window_dimensions"]) if n > 1]
    if equation.primitive is lax.fft_p:
        return list(range(rank - len(params["fft_lengths"]), rank))
    return list(params["axes"]) if "axes" in params else [params["axis"]]


def _disjoint(uses: list[core.JaxprEqn | None]) -> bool:
    """Whether all are slices that have no entry in common."""
    slices = [e.params for e in uses if e is not None and e.primitive is lax.slice_p]
    boxes = [list(zip(p["start_indices"], p["limit_indices"], strict=True)) for p in slices]
    return len(boxes) == len(uses) and all(
        any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(one, other, strict=True))
        for one, other in combinations(boxes, 2)
    )
