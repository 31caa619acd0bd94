"""Which weights have noise by row: their entries meet the rows of the inputs in one product.

Read off the function's jaxpr, so any function will do: through ``jit``, ``jax.checkpoint``,
``cond`` and ``scan``, and through whatever is linear in a weight on its way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, NamedTuple, TypeAlias

from jax import lax
from jax.extend import core

from funcvi.loops import contains
from funcvi.networks.linear import (
    CUSTOM,
    MOVING,
    PRODUCTS,
    SOLVES,
    SUMS,
    are_disjoint,
    called,
    keeps_entries,
    summed,
)
from funcvi.networks.rows import Span, free_axes, leads, moved, shape_of

__all__ = ["Kind", "Layer", "Path", "Rows", "survey"]

_NO_ROWS = "enters a product that does not keep the rows of the batch"

Kind: TypeAlias = Literal["local", "flipout", "plain", "refused"]

#: Where an equation is: its place in the jaxpr, after those of the equations that it is within.
Path: TypeAlias = tuple[int, ...]


class Layer(NamedTuple):
    """What becomes of a weight, and why.

    Attributes:
        kind: "local": the output of the weight's one product is drawn, for each row. "flipout":
            the outputs of one row have entries of the weight in common, as the positions of a
            convolution or a sequence do; so one draw is made, and each row flips its signs.
            "plain": one draw for the whole batch, since the weight enters no product, as biases
            and scales do, or is listed as plain. "refused": the weight enters a product, but in a
            way in which its noise cannot be moved; drawn once by default, an error where an
            estimator is asked for, unless it is listed as plain.
        why: a phrase.
    """

    kind: Kind
    why: str


class Rows(NamedTuple):
    """The rows in one product of a weight.

    Attributes:
        before: in the weight's partner; None if the weight has entries for each row, or there is
            one row alone.
        after: in the result.
        positions: whether a row has several results of the same entries.
    """

    before: Span | None
    after: Span | None
    positions: bool


@dataclass(frozen=True)
class _Value:
    """What a value inside the function is made of.

    Attributes:
        inputs: whether it depends on the inputs.
        weights: of which weights it is a function; none once it is an activation, which depends on
            the inputs.
        entries: the weights of which it has entries, each in one place at most, in a linear way.
        scaled_by: the weights with whose entries it multiplies what depends on the inputs.
        lies: for such weights, and those that it is a function of, where their axes lie.
        rows: where the batch lies.
        noisy: the weights whose noise by row it has, each row its own.
    """

    inputs: bool = False
    weights: frozenset[int] = frozenset()
    entries: frozenset[int] = frozenset()
    scaled_by: frozenset[int] = frozenset()
    lies: frozenset[tuple[int, Span]] = frozenset()
    rows: Span | None = None
    noisy: frozenset[int] = frozenset()


@dataclass
class _Survey:
    """Walks a jaxpr, and notes what happens to each weight.

    A batch of one row has no other that it could meet, and JAX drops axes of length one.
    """

    is_single: bool = False
    products: set[int] = field(default_factory=set)
    obstacles: dict[int, str] = field(default_factory=dict)
    mixed: dict[int, str] = field(default_factory=dict)
    layers: dict[Path, Rows] = field(default_factory=dict)
    positions: set[int] = field(default_factory=set)
    followed: set[int] = field(default_factory=set)

    def walk(self, jaxpr: core.Jaxpr, arguments: Sequence[_Value], path: Path = ()) -> list[_Value]:
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
                if len(uses) > 1 and not are_disjoint(uses):
                    (value,) = self._stop([value], "is used more than once")
                values[v] = value

        write(jaxpr.invars, arguments)
        for i, equation in enumerate(jaxpr.eqns):
            operands = [read(v) for v in equation.invars]
            write(equation.outvars, self._results(equation, operands, (*path, i)))
        return [read(v) for v in jaxpr.outvars]

    def _results(self, equation: core.JaxprEqn, operands: list[_Value], path: Path) -> list[_Value]:
        primitive, params = equation.primitive, equation.params
        if primitive in PRODUCTS:
            return [self._product(equation, operands, path)]
        if (run := called(equation)) is not None:
            return self.walk(run.jaxpr, operands[len(operands) - len(run.jaxpr.invars) :], path)
        if primitive is lax.scan_p:
            return self._scan(equation, operands, path)
        if primitive is lax.while_p:
            first, second = params["cond_nconsts"], params["body_nconsts"]
            operands = self._stop(operands, "is used in a while loop")
            constants, start = operands[first : first + second], operands[first + second :]
            carry, _ = self._loop(params["body_jaxpr"].jaxpr, constants, start, [], path)
            self.walk(params["cond_jaxpr"].jaxpr, [*operands[:first], *carry])
            return carry
        if primitive is lax.cond_p:
            outputs = [  # which branch runs does not make a weight an activation
                self._stop(
                    self.walk(branch.jaxpr, operands[1:], (*path, i)),
                    "is returned by a branch of cond",
                )
                for i, branch in enumerate(params["branches"])
            ]
            return [self._join(each, "cond") for each in zip(*outputs, strict=True)]
        if primitive in CUSTOM:
            rule = f"is used inside a {primitive}, whose own derivative would be lost"
            return self.walk(params["call_jaxpr"].jaxpr, self._stop(operands, rule))
        self._note_sum(equation, operands)
        kept = _kept(equation, operands)
        if not kept:
            operands = self._stop(operands, f"is used by {primitive}")
            inner = core.jaxprs_in_params(params)
            if primitive in SOLVES or any(contains(j, (*PRODUCTS, *SOLVES)) for j in inner):
                self.products.update(*(value.weights for value in operands))
        result = replace(_made_of(operands), entries=kept)
        if kept:
            result = replace(result, weights=frozenset().union(*(o.weights for o in operands)))
        elif result.inputs and primitive in (lax.mul_p, lax.div_p):
            scales = frozenset().union(*(o.weights | o.scaled_by for o in operands))
            matrices = {w for w in scales if any(len(_axes(o, w)) > 1 for o in operands)}
            result = replace(result, weights=frozenset(matrices), scaled_by=scales)
        elif primitive in (*MOVING, lax.neg_p):
            result = replace(result, scaled_by=operands[0].scaled_by)
        return self._placed(equation, operands, result)

    def _placed(
        self, equation: core.JaxprEqn, operands: list[_Value], result: _Value
    ) -> list[_Value]:
        """The result in each place, with where its rows and the axes of weights lie."""
        nowhere: list[Span | None] = [None] * len(equation.outvars)
        rows = [moved(equation, i, o.rows) if o.rows else nowhere for i, o in enumerate(operands)]
        lies = [
            (weight, moved(equation, i, span))
            for i, o in enumerate(operands)
            for weight, span in o.lies
        ]
        results = []
        for k in range(len(equation.outvars)):
            found = [(each[k], o.noisy) for each, o in zip(rows, operands, strict=True)]
            span, noisy = self._agreed(found, str(equation.primitive))
            own = frozenset((weight, at) for weight, spans in lies if (at := spans[k]))
            results.append(replace(result, rows=span, noisy=noisy, lies=own))
        return results

    def _agreed(
        self, found: Sequence[tuple[Span | None, frozenset[int]]], primitive: str
    ) -> tuple[Span | None, frozenset[int]]:
        """Where the rows lie in what is made of values with these, and whose noise follows them.

        Without noise by row in them, it does not matter which of their axes are called the rows.
        """
        by_noise = sorted(found, key=lambda each: not each[1])
        span = next((at for at, _ in by_noise if at), None)
        lost = frozenset().union(*(noisy for at, noisy in found if at is None or at != span))
        self._mix(lost, f"gives outputs whose rows meet in {primitive}")
        return span, frozenset().union(*(noisy for _, noisy in found)) - lost

    def _note_sum(self, equation: core.JaxprEqn, operands: list[_Value]) -> None:
        """A product with the inputs may be written as one entry by entry, and a sum."""
        if equation.primitive not in SUMS:
            return
        (value,) = operands
        along = summed(equation)
        for weight in value.scaled_by:
            if along & _axes(value, weight):
                self.products.add(weight)
                self.obstacles[weight] = (
                    "is multiplied with the inputs entry by entry, and the result summed"
                )

    def _product(self, equation: core.JaxprEqn, operands: list[_Value], path: Path) -> _Value:
        for value in operands:
            self.products |= value.weights
        (result,) = self._placed(equation, operands, _made_of(operands))
        if operands[0].entries and operands[1].entries:
            self._stop(operands, "enters a product with another random weight")
        elif operands[0].entries and equation.primitive is lax.conv_general_dilated_p:
            self._stop(operands, "is convolved, as if it were an image")
        elif operands[0].entries or operands[1].entries:
            place = 0 if operands[0].entries else 1
            return self._layer(equation, operands[place], operands[1 - place], place, result, path)
        return result

    def _layer(
        self,
        equation: core.JaxprEqn,
        weight: _Value,
        partner: _Value,
        place: int,
        result: _Value,
        path: Path,
    ) -> _Value:
        """What a weight's product with this partner gives."""
        free = free_axes(equation, 1 - place)
        sizes = shape_of(equation.outvars[0])
        copies = prod(sizes[after] for after in free.values())
        if self.is_single and partner.inputs:
            return self._by_row(weight, result, path, Rows(None, None, copies > 1))
        span = partner.rows if partner.inputs else None
        (after,) = moved(equation, 1 - place, span) if span else (None,)
        if span and after and span.axis in free:
            rows = Rows(span, after, copies > span.size)
            return self._by_row(weight, result, path, rows)
        if copies > 1:
            self._stop([weight], f"{_NO_ROWS}, and whose results have its entries in common")
        elif after:
            self.layers[path] = Rows(None, None, positions=False)
        else:
            self.followed |= weight.entries
            return replace(result, entries=weight.entries, weights=weight.weights)
        return result

    def _by_row(self, weight: _Value, result: _Value, path: Path, rows: Rows) -> _Value:
        self.layers[path] = rows
        if rows.positions:
            self.positions |= weight.entries
        own = weight.entries - set(self.mixed) if rows.after else frozenset()
        return replace(result, noisy=result.noisy | own)

    def _scan(self, equation: core.JaxprEqn, operands: list[_Value], path: Path) -> list[_Value]:
        fixed, carried = equation.params["num_consts"], equation.params["num_carry"]
        constants = self._stop(operands[:fixed], "is used at every step of a scan")
        start = self._stop(operands[fixed : fixed + carried], "is carried through a scan")
        body = equation.params["jaxpr"].jaxpr
        slices = [self._shifted(x, -1) for x in operands[fixed + carried :]]
        carry, rest = self._loop(body, constants, start, slices, path)
        rest = [self._shifted(value, 1) for value in rest]
        return [*carry, *self._stop(rest, "is returned by a scan")]

    def _shifted(self, value: _Value, by: int) -> _Value:
        """With the axis of the steps before the others, or without it."""

        def shifted(span: Span) -> Span | None:
            axis = span.axis + by
            return span._replace(axis=axis) if axis >= 0 else None

        rows = shifted(value.rows) if value.rows else None
        rows, noisy = self._agreed([(rows, value.noisy)], "scan")
        lies = {(w, after) for w, span in value.lies if (after := shifted(span))}
        return replace(value, rows=rows, noisy=noisy, lies=frozenset(lies))

    def _loop(
        self,
        body: core.Jaxpr,
        constants: list[_Value],
        carry: list[_Value],
        xs: list[_Value],
        path: Path,
    ) -> tuple[list[_Value], list[_Value]]:
        """What is carried after any number of steps, and the other outputs of a step."""
        before: list[_Value] = []
        while carry != before:
            trial = _Survey(self.is_single, mixed=self.mixed)
            before, outputs = carry, trial.walk(body, [*constants, *carry, *xs])
            pairs = zip(before, outputs[: len(before)], strict=True)
            carry = [self._join(pair, "a loop") for pair in pairs]
        outputs = self.walk(body, [*constants, *carry, *xs], path)
        self._stop(outputs[: len(carry)], "is carried through a loop")
        return carry, outputs[len(carry) :]

    def _join(self, values: Sequence[_Value], primitive: str) -> _Value:
        """What is one of these values."""
        span, noisy = self._agreed([(value.rows, value.noisy) for value in values], primitive)
        lies = frozenset().union(*(value.lies for value in values))
        return replace(_made_of(values), rows=span, noisy=noisy, lies=lies)

    def _mix(self, noisy: frozenset[int], obstacle: str) -> None:
        """These weights can have no noise by row."""
        for weight in noisy:
            self.mixed.setdefault(weight, obstacle)

    def _stop(self, values: list[_Value], obstacle: str) -> list[_Value]:
        """The values, no longer a weight's entries."""
        for value in values:
            for weight in value.entries:
                known = weight not in self.followed or obstacle.startswith(_NO_ROWS)
                why = obstacle if known else f"{_NO_ROWS}, and {obstacle}"
                self.obstacles.setdefault(weight, why)
        return [replace(value, entries=frozenset()) for value in values]


def survey(
    jaxpr: core.Jaxpr, weights: Sequence[int], inputs: range, has_rows: range
) -> tuple[dict[int, Layer], dict[Path, Rows]]:
    """For each argument that is a weight, how it enters; and the rows in each product of one.

    Args:
        jaxpr: of the function.
        weights: which arguments are weights.
        inputs: which are inputs.
        has_rows: the arguments whose first axis is the batch, if it has the length of the first's.
    """
    shapes = [shape_of(v) for v in jaxpr.invars]
    num_rows = next((shapes[i][0] for i in has_rows if shapes[i]), None)
    walked = _Survey(num_rows == 1)
    arguments = []
    for i, shape in enumerate(shapes):
        if i in weights:
            one = frozenset([i])
            lies = frozenset((i, Span(axis, n)) for axis, n in enumerate(shape) if n > 1)
            arguments.append(_Value(weights=one, entries=one, lies=lies))
        else:
            has_batch = i in has_rows and shape[:1] == (num_rows,)
            arguments.append(_Value(i in inputs, rows=Span(0, shape[0]) if has_batch else None))
    outputs = walked._stop(walked.walk(jaxpr, arguments), "is returned")
    for v, value in zip(jaxpr.outvars, outputs, strict=True):
        if not leads(value.rows, shape_of(v)):
            walked._mix(value.noisy, "reaches an output whose first axis is not the batch")
    obstacles = walked.obstacles | walked.mixed
    found = {}
    for i in weights:
        if i not in walked.products:
            found[i] = Layer("plain", "enters no product")
        elif i in obstacles:
            found[i] = Layer("refused", obstacles[i])
        elif i in walked.positions:
            found[i] = Layer("flipout", "enters one product, and positions of a row share it")
        else:
            found[i] = Layer("local", "enters one product with what depends on the inputs")
    return found, walked.layers


def _made_of(values: Sequence[_Value]) -> _Value:
    """Whether it depends on the inputs, or else on which weights."""
    if len(values) == 1:
        return _Value(inputs=values[0].inputs, weights=values[0].weights)
    if any(value.inputs for value in values):
        return _Value(inputs=True)
    return _Value(weights=frozenset().union(*(value.weights for value in values)))


def _kept(equation: core.JaxprEqn, operands: list[_Value]) -> frozenset[int]:
    """The weights whose entries the result still has."""
    places = [i for i, value in enumerate(operands) if value.entries]
    weights = frozenset().union(*(value.entries for value in operands))
    others = [value for value in operands if not value.entries]
    if not places or any(o.inputs or weights & o.weights for o in others):
        return frozenset()
    return weights if keeps_entries(equation, places) else frozenset()


def _axes(value: _Value, weight: int) -> set[int]:
    """Along which a weight's entries lie."""
    return {span.axis for of, span in value.lies if of == weight}
