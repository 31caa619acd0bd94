"""A torch graph as data, free of torch, and its interpreter: ``run`` traces it with JAX."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.registry import Rule, Rules
from interop.errors import ConversionError, UncoveredOperation


@dataclass(frozen=True)
class Ref:
    """Stands for a value that an input or an earlier step gives."""

    name: str


@dataclass(frozen=True)
class Aval:
    """What torch says of a value: its shape (None where it depends on the inputs) and dtype."""

    shape: tuple[int | None, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Step:
    """One operation. Among its arguments, ``Ref``s are values and ``Program``s are bodies."""

    operation: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    name: str
    result: Any  # Aval, None, or a tuple of them
    source: str


@dataclass(frozen=True)
class Program:
    """Inputs by name, steps in order, outputs (a tuple in which ``Ref``s are values)."""

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class Context:
    """What a run needs besides values: the rules, and a key where random operations are met."""

    rules: Rules
    key: jax.Array | None = None


def run(program: Program, inputs: Sequence[Any], context: Context) -> tuple[Any, ...]:
    """The outputs of ``program``; pure, and traceable by every JAX transformation."""
    values: dict[str, Any] = dict(zip(program.inputs, inputs, strict=True))
    numbers: set[str] = set()  # of Python, where torch runs: the value of ``x.item()``
    for number, step in enumerate(program.steps):
        found = context.rules.get(step.operation)
        if found is None:
            raise UncoveredOperation(f"{step.operation} has no rule ({step.source})")
        args = resolve(step.args, values)
        kwargs = dict(resolve(step.kwargs, values))
        kwargs.update(_injected(found, step, number, context))
        try:
            value = found.function(*args, **kwargs)
        except ConversionError as error:
            if step.source in str(error):
                raise
            raise type(error)(f"{step.operation}: {error} ({step.source})") from error
        except (TypeError, ValueError) as error:  # JAX's own, where it is handed a traced size
            if not numbers & set(_refs((step.args, dict(step.kwargs)))):
                raise
            raise ConversionError(
                f"{step.operation}: a size depends on a tensor's values, which is not known in a "
                "compiled function: pass what decides it as interop.Static; where parameters do "
                f"(the tokens of an expert), compute all and weight them by a mask ({step.source})"
            ) from error
        if step.result is None:
            numbers.add(step.name)
        values[step.name] = _checked(value, step.result, step)
    return resolve(program.outputs, values)


def resolve(tree: Any, values: Mapping[str, Any]) -> Any:
    """``tree`` with each ``Ref`` replaced by its value."""
    if isinstance(tree, Ref):
        return values[tree.name]
    if isinstance(tree, tuple | list):
        return type(tree)(resolve(x, values) for x in tree)
    if isinstance(tree, slice):
        return slice(*(resolve(x, values) for x in (tree.start, tree.stop, tree.step)))
    if isinstance(tree, Mapping):
        return {name: resolve(x, values) for name, x in tree.items()}
    return tree


def _refs(tree: Any) -> Iterator[str]:
    """The names of the values that are among arguments."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, Ref | slice))
    for leaf in leaves:
        if isinstance(leaf, slice):
            yield from _refs([leaf.start, leaf.stop, leaf.step])
        elif isinstance(leaf, Ref):
            yield leaf.name


def _injected(found: Rule, step: Step, number: int, context: Context) -> dict[str, Any]:
    """The keyword arguments that a rule asks for by name: ``result``, ``key``, ``body``."""
    given: dict[str, Any] = {}
    if "result" in found.asks:
        given["result"] = step.result
    if "key" in found.asks:
        if context.key is not None:
            given["key"] = jax.random.fold_in(context.key, number)
        elif "key" not in (found.function.__kwdefaults__ or {}):
            raise ConversionError(
                f"{step.operation} draws random numbers and no key came: pass key= ({step.source})"
            )
    if "body" in found.asks:
        given["body"] = _runner(number, context)
    return given


def _runner(number: int, context: Context) -> Callable[..., tuple[Any, ...]]:
    """Runs a body; ``index`` separates the random numbers of bodies and iterations."""

    def body(program: Program, *inputs: Any, index: Any = 0) -> tuple[Any, ...]:
        key = context.key
        if key is not None:
            key = jax.random.fold_in(jax.random.fold_in(key, number), index)
        return run(program, inputs, Context(context.rules, key))

    return body


def _checked(value: Any, result: Any, step: Step) -> Any:
    """``value`` as strongly typed arrays, if its shapes and dtypes are the ones torch gives."""
    if isinstance(result, tuple | list):
        if not isinstance(value, tuple | list) or len(value) != len(result):
            raise ConversionError(
                f"{step.operation}: the rule gave {type(value).__name__}, torch gives "
                f"{len(result)} values; please report this ({step.source})"
            )
        return tuple(_checked(v, r, step) for v, r in zip(value, result, strict=True))
    if not isinstance(result, Aval):
        return value
    array = jnp.asarray(value)
    expected = tuple(
        have if want is None else want
        for want, have in zip(result.shape, array.shape, strict=False)
    )
    if array.shape != expected or array.ndim != len(result.shape) or array.dtype != result.dtype:
        raise ConversionError(
            f"{step.operation}: the rule gave {array.dtype}{list(array.shape)}, torch gives "
            f"{result.dtype}{list(result.shape)}; please report this ({step.source})"
        )
    return jax.lax.convert_element_type(array, result.dtype)


def walk(program: Program) -> Iterator[Step]:
    """Every step, those of bodies included."""
    for step in program.steps:
        yield step
        for argument in jax.tree.leaves(
            (step.args, dict(step.kwargs)), is_leaf=lambda x: isinstance(x, Program)
        ):
            if isinstance(argument, Program):
                yield from walk(argument)
