"""Which weights are a layer's: their entries meet the inputs in one product, and nowhere else.

Read off the function's jaxpr, so any function will do: through ``jit``, ``jax.checkpoint``,
``cond`` and ``scan``, and through whatever only moves or scales a weight's entries on their way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend import core
from jax.extend.core import primitives

__all__ = ["CALLS", "LINEAR", "MOVING", "PRODUCTS", "SLICING", "Layer", "called", "survey"]

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

SOLVES = (primitives.linear_solve_p, primitives.triangular_solve_p, primitives.tridiagonal_solve_p)
"""Products in which a weight may stand, but not with the law of a layer."""

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
    """What a value inside of the function is made of.

    Attributes:
        inputs: whether it depends on the inputs.
        weights: of which weights it is a function; none once it is an activation, which depends on
            the inputs.
        entries: the weight of which it has entries, each at most once, scaled or shifted.
    """

    inputs: bool = False
    weights: frozenset[int] = frozenset()
    entries: int | None = None


@dataclass
class _Survey:
    """Walks a jaxpr, and notes what happens to each weight."""

    products: set[int] = field(default_factory=set)
    obstacles: dict[int, str] = field(default_factory=dict)

    def walk(self, jaxpr: core.Jaxpr, arguments: Sequence[_Value]) -> list[_Value]:
        """The values of the jaxpr's outputs."""
        values = dict.fromkeys(jaxpr.constvars, _Value())
        readers: dict[core.Var, list[core.JaxprEqn | None]] = {}
        for equation in (*jaxpr.eqns, None):
            for v in jaxpr.outvars if equation is None else equation.invars:
                if not isinstance(v, core.Literal):
                    readers.setdefault(v, []).append(equation)

        def read(v: core.Var | core.Literal) -> _Value:
            return _Value() if isinstance(v, core.Literal) else values[v]

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
            rule = f"is used inside of a {primitive}, whose own derivative would be lost"
            return self.walk(params["call_jaxpr"].jaxpr, self._stop(operands, rule))
        kept = _entries(equation, operands)
        if kept is None:
            self._stop(operands, f"is used by {primitive}")
            if primitive in SOLVES or any(map(_multiplies, core.jaxprs_in_params(params))):
                self.products.update(*(value.weights for value in operands))
        result = replace(_join(operands), entries=kept)
        if result.inputs and _gated(equation, operands):
            result = replace(result, weights=frozenset().union(*(o.weights for o in operands)))
        return [result] * len(equation.outvars)

    def _product(self, equation: core.JaxprEqn, operands: list[_Value]) -> _Value:
        for value in operands:
            self.products |= value.weights
        left, right = operands
        if left.entries is not None and equation.primitive is lax.conv_general_dilated_p:
            self._stop([left], "is convolved, as if it were an image")
        for value, other in ((left, right), (right, left)):
            if value.entries is not None and not other.inputs:
                self._stop([value], "enters a product with what does not depend on the inputs")
        return _join(operands)

    def _scan(self, equation: core.JaxprEqn, operands: list[_Value]) -> list[_Value]:
        fixed, carried = equation.params["num_consts"], equation.params["num_carry"]
        constants = self._stop(operands[:fixed], "is used at every step of a scan")
        start = self._stop(operands[fixed : fixed + carried], "is carried through a scan")
        body = equation.params["jaxpr"].jaxpr
        carry, rest = self._loop(body, constants, start, operands[fixed + carried :])
        return [*carry, *self._stop(rest, "is returned by a scan")]

    def _loop(
        self, body: core.Jaxpr, constants: list[_Value], carry: list[_Value], xs: list[_Value]
    ) -> tuple[list[_Value], list[_Value]]:
        """What is carried after any number of steps, and the other outputs of a step."""
        while True:
            outputs = _Survey().walk(body, [*constants, *carry, *xs])
            after = [_join(pair) for pair in zip(carry, outputs[: len(carry)], strict=True)]
            if after == carry:
                break
            carry = after
        outputs = self.walk(body, [*constants, *carry, *xs])
        self._stop(outputs[: len(carry)], "is carried through a loop")
        return carry, outputs[len(carry) :]

    def _stop(self, values: list[_Value], obstacle: str) -> list[_Value]:
        """The values, no longer a weight's entries."""
        for value in values:
            if value.entries is not None:
                self.obstacles.setdefault(value.entries, obstacle)
        return [replace(value, entries=None) for value in values]


def survey(jaxpr: core.Jaxpr, is_weight: Sequence[bool | None]) -> dict[int, Layer]:
    """For each argument that is a weight, how it enters; the other arguments are the inputs.

    Args:
        jaxpr: of the function.
        is_weight: for each argument: a weight, an input, or (None) neither.
    """
    walked = _Survey()
    arguments = [
        _Value(weights=frozenset([i]), entries=i) if weight else _Value(inputs=weight is False)
        for i, weight in enumerate(is_weight)
    ]
    walked._stop(walked.walk(jaxpr, arguments), "is returned")
    found = {}
    for i, weight in enumerate(is_weight):
        if not weight:
            continue
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
    """What a value made of these is made of."""
    if len(values) == 1:
        return replace(values[0], entries=None)
    if any(value.inputs for value in values):
        return _Value(inputs=True)
    return _Value(weights=frozenset().union(*(value.weights for value in values)))


def _entries(equation: core.JaxprEqn, operands: list[_Value]) -> int | None:
    """The weight whose entries the result still has."""
    places = [i for i, value in enumerate(operands) if value.entries is not None]
    if len(places) != 1:
        return None
    (place,) = places
    weight = operands[place].entries
    before, after = _shaped(equation.invars[place]), _shaped(equation.outvars[0])
    others = operands[:place] + operands[place + 1 :]
    if not jnp.issubdtype(after.dtype, jnp.floating):
        return None
    if equation.primitive in MOVING:
        return weight if after.size <= before.size else None
    if equation.primitive not in LINEAR or after.shape != before.shape:
        return None
    if equation.primitive is lax.div_p and place == 1:
        return None
    return None if any(o.inputs or weight in o.weights for o in others) else weight


def _shaped(v: core.Var | core.Literal) -> ShapedArray:
    assert isinstance(v.aval, ShapedArray)  # weights, and what is made of them, are arrays
    return v.aval


def _gated(equation: core.JaxprEqn, operands: list[_Value]) -> bool:
    """Whether a matrix is multiplied, entry by entry, by what depends on the inputs: still one."""
    shape = _shaped(equation.outvars[0]).shape
    return (
        equation.primitive in (lax.mul_p, lax.div_p)
        and len(shape) > 1
        and any(
            value.entries is not None and _shaped(v).shape == shape
            for value, v in zip(operands, equation.invars, strict=True)
        )
    )


def _disjoint(uses: list[core.JaxprEqn | None]) -> bool:
    """Whether all are slices that have no entry in common."""
    boxes = []
    for equation in uses:
        if equation is None or equation.primitive is not lax.slice_p:
            return False
        start, stop = equation.params["start_indices"], equation.params["limit_indices"]
        boxes.append(list(zip(start, stop, strict=True)))
    return all(
        any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(one, other, strict=True))
        for i, one in enumerate(boxes)
        for other in boxes[:i]
    )


def _multiplies(jaxpr: core.Jaxpr) -> bool:
    """Whether it has a product at any depth."""
    return any(
        equation.primitive in (*PRODUCTS, *SOLVES)
        or any(map(_multiplies, core.jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )
