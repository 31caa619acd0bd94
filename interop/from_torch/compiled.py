"""One exported program, bound to the names of its state, jitted."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from interop.aten import RULES
from interop.errors import UncoveredOperation
from interop.from_torch.lowering import Argument, Constant, Exported, Result, State, Written
from interop.from_torch.outputs import jax_tree
from interop.from_torch.program import Context, Ref, run, walk

Arrays = dict[str, jax.Array]


class Values(NamedTuple):
    """What a program gives: outputs by position, and what takes the place of its inputs."""

    outputs: list[jax.Array]
    state: Arrays
    written: dict[int, jax.Array]


_DYNAMIC = object()
"""Marks the outputs that are arrays."""


class Compiled:
    """A program for inputs of these shapes.

    Attributes:
        in_spec: the structure of the inputs.
        changed: names of the parameters and buffers that it changes.
        written: positions of the flat inputs that it writes into.
    """

    def __init__(
        self, exported: Exported, leaves: list[Any], in_spec: Any, ties: Mapping[str, str]
    ) -> None:
        steps = walk(exported.program)
        missing = {s.operation: s.source for s in steps if s.operation not in RULES}
        if missing:
            listed = "; ".join(f"{name} ({source})" for name, source in sorted(missing.items())[:8])
            raise UncoveredOperation(f"no rule for {len(missing)} operations: {listed}")
        self.in_spec, self._out_spec = in_spec, exported.out_spec
        marks = list(zip(exported.program.outputs, exported.outputs, strict=True))
        self.changed = {ties.get(o.name, o.name) for _, o in marks if isinstance(o, State)}
        self.written = {o.position for _, o in marks if isinstance(o, Written)}
        user = [mark for mark, output in marks if isinstance(output, Result)]
        self._constants = [_DYNAMIC if isinstance(mark, Ref) else mark for mark in user]
        slots = [isinstance(x, jax.Array) for x in leaves]
        static = [None if dynamic else x for x, dynamic in zip(leaves, slots, strict=True)]

        def function(params: Arrays, buffers: Arrays, key: Any, arrays: list[Any]) -> Values:
            moving = iter(arrays)
            flat = [next(moving) if d else s for d, s in zip(slots, static, strict=True)]
            values = []
            for place in exported.inputs:
                if isinstance(place, Argument):
                    values.append(flat[place.position])
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
                    after.outputs.append(value)
            return after

        self.function = jax.jit(function)

    def result(self, outputs: list[jax.Array]) -> Any:
        """What forward returns, constants among it."""
        flat = iter(outputs)
        leaves = [next(flat) if c is _DYNAMIC else c for c in self._constants]
        return jax_tree(leaves, self._out_spec)
