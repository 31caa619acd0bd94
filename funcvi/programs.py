"""Compiled programs that are shared by what they compute, not by which Python object made them.

``jax.jit`` knows a function by identity: a closure written again compiles again, and one whose
surroundings changed is not noticed. Here a function is traced at every call, so whatever it reads
(attributes, globals, arrays that were mutated) is read anew; the arrays that it closes over become
arguments; and the compiled program is found by the jaxpr that is left. Tracing costs milliseconds
where compiling costs seconds.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jax.tree_util import PyTreeDef

from funcvi import _jax
from funcvi.tangents import moved_p

__all__ = ["Function", "Traced", "program", "run", "trace", "value_and_grad"]

Array: TypeAlias = jax.Array | np.ndarray
T = TypeVar("T")
P = TypeVar("P")

_MOST = 64
"""Programs kept: a compiled fit takes a few megabytes."""

_programs: "OrderedDict[Hashable, object]" = OrderedDict()
_gradients: "OrderedDict[Hashable, object]" = OrderedDict()
_lock = Lock()


@dataclass(frozen=True)
class Function:
    """A jaxpr as a function ``(constants, *args) -> result``."""

    jaxpr: Jaxpr
    tree: PyTreeDef
    is_frozen: ClassVar[bool] = True  # see _jax.frozen

    def __call__(self, constants: Sequence[Array], *args: object) -> Any:
        """The result, from constants in place of those that were closed over."""
        leaves = jax.core.eval_jaxpr(self.jaxpr, constants, *jax.tree.leaves(args))
        return self.tree.unflatten(leaves)


@dataclass(frozen=True)
class Traced:
    """What a function computes now.

    Attributes:
        function: the computation, ``(constants, *args) -> result``.
        constants: the arrays that the function closes over.
        shapes: of the leaves of the result.
        key: equal for two traces only if they compute the same of constants and arguments.
        rules: what the derivative depends on beside the jaxpr (``jax.custom_jvp``), empty if
            nothing; equal for two traces of one key only if they have the same derivative.
    """

    function: Function
    constants: tuple[Array, ...]
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    key: Hashable
    rules: tuple[Hashable, ...]


def trace(function: Callable[..., object], *args: object) -> Traced:
    """The function of these arguments (arrays, or shapes and dtypes) as it is at this moment."""
    for forget in (_jax.forget_traces, _jax.forget_reductions):
        forget()
        closed, result = jax.make_jaxpr(lambda *a: function(*a), return_shape=True)(*args)
        facts = _facts(closed)
        if not facts.reduces:
            break
    shapes, tree = jax.tree.flatten(result)
    key = (facts.key, jax.tree.structure(args), tree)
    constants = tuple(c if isinstance(c, jax.Array) else np.array(c) for c in facts.constants)
    return Traced(Function(_lifted(closed), tree), constants, tuple(shapes), key, facts.rules)


def value_and_grad(traced: Traced, *args: object) -> Traced:
    """``(constants of traced, *args) -> (result, gradient)``, the gradient by the first of args.

    Traced at its first call for a key and rules only: JAX keeps the rules of its own functions, so
    most are met again. Where the result is a tuple, its first entry is differentiated.
    """
    is_tuple = jax.tree.structure(0) != traced.function.tree

    def gradient(constants: Sequence[Array], first: object, *others: object) -> object:
        def value(first: object) -> Any:
            return traced.function(constants, first, *others)

        return jax.value_and_grad(value, has_aux=is_tuple)(first)

    key = traced.key, traced.rules
    return _kept(_gradients, key, lambda: trace(gradient, traced.constants, *args))


def program(key: Hashable, make: Callable[[], P]) -> P:
    """The program kept under this key, or a new one. The one used longest ago makes room."""
    return _kept(_programs, key, make)


def _kept(store: "OrderedDict[Hashable, object]", key: Hashable, make: Callable[[], P]) -> P:
    with _lock:
        if key in store:
            store.move_to_end(key)
            return store[key]  # type: ignore[return-value]
    new = make()
    with _lock:
        store[key] = new
        while len(store) > _MOST:
            store.popitem(last=False)
    return new


def run(function: Callable[..., T], *args: object) -> T:
    """``function(*args)``, compiled; another function that computes the same compiles nothing.

    Under a transformation the function is simply called.
    """
    if not _jax.is_concrete(args):
        return function(*args)
    traced = trace(function, *args)
    if not _jax.is_concrete(traced.constants):
        return function(*args)
    compiled = program(("run", traced.key), lambda: jax.jit(traced.function))
    result: T = compiled(traced.constants, *args)
    return result


# ---- constants -----------------------------------------------------------------------------------


def _lifted(closed: ClosedJaxpr) -> Jaxpr:
    """The jaxpr whose constants are all that it closes over; a jit that has some is inlined."""
    constants: list[Var] = list(closed.jaxpr.constvars)
    equations: list[JaxprEqn] = []
    renamed: dict[Var, Var | Literal] = {}

    def rename(atom: Var | Literal) -> Var | Literal:
        return atom if isinstance(atom, Literal) else renamed.get(atom, atom)

    def inline(jaxpr: Jaxpr) -> None:
        for equation in jaxpr.eqns:
            inputs = [rename(a) for a in equation.invars]
            outputs: list[Var | Literal] = [Var(v.aval) for v in equation.outvars]
            inner = equation.params["jaxpr"] if equation.primitive.name == "jit" else None
            if inner is None or not _facts(inner).constants:
                equations.append(equation.replace(invars=inputs, outvars=outputs))  # type: ignore[arg-type]
            else:
                places = [Var(v.aval) for v in inner.jaxpr.constvars]
                constants.extend(places)
                renamed.update(zip(inner.jaxpr.constvars, places, strict=True))
                renamed.update(zip(inner.jaxpr.invars, inputs, strict=True))
                inline(inner.jaxpr)
                outputs = [rename(a) for a in inner.jaxpr.outvars]
            renamed.update(zip(equation.outvars, outputs, strict=True))

    if len(_facts(closed).constants) == len(constants):
        return closed.jaxpr
    inline(closed.jaxpr)
    outputs = [rename(a) for a in closed.jaxpr.outvars]
    return closed.jaxpr.replace(constvars=constants, eqns=equations, outvars=outputs)


# ---- comparison ----------------------------------------------------------------------------------

_REDUCTIONS = {"reduce", "reduce_window"}

# What a custom derivative is made of plays no part in the value.
_RULES = {
    "custom_jvp_call": ("jvp_jaxpr_fun",),
    "custom_vjp_call": ("fwd_jaxpr_thunk", "bwd", "out_trees"),
    moved_p.name: ("rule",),
}


class _Key:
    """Values compared one by one, with the hash computed once."""

    __slots__ = ("hash", "parts")

    def __init__(self, *parts: Hashable) -> None:
        self.parts = parts
        self.hash = hash(parts)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, _Key) and self.hash == other.hash and self.parts == other.parts
        )


class _Same:
    """Equal to nothing but the same object, which it keeps alive."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


class _Facts(NamedTuple):
    """Of a jaxpr: what it computes, and of what."""

    key: _Key  # primitives, their parameters, shapes, dtypes, literals; not the constants
    constants: list[Array]  # all, those of inner jits included
    rules: tuple[Hashable, ...]
    reduces: bool  # by a function of the caller's, whose trace JAX keeps


_known: "WeakKeyDictionary[ClosedJaxpr | Jaxpr, _Facts]" = WeakKeyDictionary()


def _facts(jaxpr: ClosedJaxpr | Jaxpr) -> _Facts:
    """JAX keeps the jaxprs of its own functions, so most are met again."""
    facts = _known.get(jaxpr)
    if facts is None:
        facts = _known[jaxpr] = _read(jaxpr)
    return facts


def _read(closed: ClosedJaxpr | Jaxpr) -> _Facts:
    jaxpr: Jaxpr = closed.jaxpr if isinstance(closed, ClosedJaxpr) else closed
    constants = list(getattr(closed, "consts", ()))
    inputs = (*jaxpr.constvars, *jaxpr.invars)
    numbers: dict[Var, int] = {v: i for i, v in enumerate(inputs)}
    inside: list[_Facts] = []

    def enter(inner: ClosedJaxpr | Jaxpr) -> _Facts:
        inside.append(_facts(inner))
        return inside[-1]

    def atom(a: Var | Literal) -> Hashable:
        return (_comparable(a.val, enter), a.aval) if isinstance(a, Literal) else numbers[a]

    equations: list[Hashable] = []
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        skipped = _RULES.get(name, ())
        if name == "jit":
            skipped = ("jaxpr",)
            inner = enter(params["jaxpr"])
            constants += inner.constants
            equations.append(inner.key)
        arguments = tuple(atom(a) for a in equation.invars)
        values = [(k, _comparable(v, enter)) for k, v in params.items() if k not in skipped]
        equations.append((equation.primitive, arguments, *values))
        first = len(numbers)
        numbers.update({v: first + i for i, v in enumerate(equation.outvars)})
    avals = tuple(v.aval for v in inputs)
    key = _Key(avals, tuple(equations), tuple(atom(a) for a in jaxpr.outvars))
    names = {equation.primitive.name for equation in jaxpr.eqns}
    rules: list[Hashable] = [
        # Of "moved" those that are equal are the same; JAX's are new functions each time.
        _comparable(rule, enter) if equation.primitive is moved_p else _Same(rule)
        for equation in jaxpr.eqns
        for rule in map(equation.params.get, _RULES.get(equation.primitive.name, ()))
    ]
    rules += [rule for inner in inside for rule in inner.rules]
    reduces = bool(names & _REDUCTIONS) or any(inner.reduces for inner in inside)
    return _Facts(key, constants, tuple(rules), reduces)


def _comparable(value: object, enter: Callable[[ClosedJaxpr | Jaxpr], _Facts]) -> Hashable:
    """Equal for two parameters of an equation only if they mean the same."""
    if isinstance(value, (ClosedJaxpr, Jaxpr)):
        inner = enter(value)
        return inner.key, *(_comparable(c, enter) for c in inner.constants)
    if isinstance(value, (tuple, list)):
        return type(value), *(_comparable(v, enter) for v in value)
    if isinstance(value, float):
        return float, value.hex()  # 0.0 is not -0.0, and nan is nan
    if isinstance(value, int):
        return type(value), hex(value)  # hash(-1) is hash(-2)
    if isinstance(value, complex):
        return complex, value.real.hex(), value.imag.hex()
    if isinstance(value, jax.Array):
        return _Same(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return type(value), str(value.dtype), value.shape, value.tobytes()
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return type(value), value
