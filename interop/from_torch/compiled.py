"""One exported program, bound to the names of its state, jitted."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from interop.aten import RULES
from interop.errors import UncoveredOperation
from interop.from_torch.calls import left_by
from interop.from_torch.lowering import Argument, Constant, Exported, Result, State, Written
from interop.from_torch.program import Context, Ref, run, walk
from interop.from_torch.structures import Structure

Arrays = dict[str, jax.Array]


class Values(NamedTuple):
    """What a program gives: its results, and what takes the place of its state and inputs."""

    results: list[jax.Array]
    state: Arrays
    written: dict[int, jax.Array]


_DYNAMIC = object()
"""Marks the results that are arrays."""


class Compiled:
    """A program for inputs of these shapes.

    Attributes:
        changed: names of the parameters and buffers that it changes.
        lost: the inputs that it changes without returning what they have become, named.
        fixed: the values of buffers that it is made for, by name.
    """

    def __init__(self, exported: Exported, ties: Mapping[str, str]) -> None:
        steps = walk(exported.program)
        missing = {s.operation: s.source for s in steps if s.operation not in RULES}
        if missing:
            listed = "; ".join(f"{name} ({source})" for name, source in sorted(missing.items())[:8])
            raise UncoveredOperation(f"no rule for {len(missing)} operations: {listed}")
        self._exported = exported
        marks = list(zip(exported.program.outputs, exported.outputs, strict=True))
        self.changed = {ties.get(o.name, o.name) for _, o in marks if isinstance(o, State)}
        self.fixed = {ties.get(name, name): value for name, value in exported.fixed.items()}
        results = [mark for mark, output in marks if isinstance(output, Result)]
        self._constants = [_DYNAMIC if isinstance(mark, Ref) else mark for mark in results]
        lost = [o.position for m, o in marks if isinstance(o, Written) and m not in results]
        self.lost = [f"input {i}" for i in sorted(lost)]
        if exported.left is not None and exported.left.lost:
            self.lost.append("what containers among the inputs hold")

        def function(params: Arrays, buffers: Arrays, key: Any, arrays: list[Any]) -> Values:
            values = []
            for place in exported.inputs:
                if isinstance(place, Argument):
                    values.append(arrays[place.position])
                elif isinstance(place, Constant):
                    values.append(jnp.asarray(place.value))
                else:
                    name = ties.get(place.name, place.name)
                    value = params[name] if name in params else buffers[name]
                    values.append(jax.lax.stop_gradient(value) if place.detached else value)
            found = run(exported.program, values, Context(RULES, key))
            after = Values([], {}, {})
            for value, (mark, output) in zip(found, marks, strict=True):
                if isinstance(output, State):
                    after.state[ties.get(output.name, output.name)] = value
                elif isinstance(output, Written):
                    after.written[output.position] = value
                elif isinstance(mark, Ref):
                    after.results.append(value)
            return after

        self.function = jax.jit(function)

    def output(self, values: Values) -> Any:
        """What forward returns, constants among it."""
        return self._exported.result(self._results(values))

    def inputs(self, structure: Structure, arrays: list[Any], values: Values) -> Any:
        """``(args, kwargs)`` as forward leaves them."""
        arrays = [values.written.get(i, x) for i, x in enumerate(arrays)]
        left = self._exported.left
        if left is None:
            return structure.build_pytree(arrays, outputs=False)
        return left_by(left, arrays, self._results(values))

    def _results(self, values: Values) -> list[Any]:
        flat = iter(values.results)
        return [next(flat) if c is _DYNAMIC else c for c in self._constants]
