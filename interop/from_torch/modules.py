"""torch modules as pure functions: ``net = to_jax(module)``, ``net(params, *inputs)``."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from interop._torch import pytree
from interop.arrays import to_array
from interop.aten import RULES
from interop.errors import ConversionError, UncoveredOperation
from interop.from_torch.lowering import Argument, Constant, Exported, Result, State, Types
from interop.from_torch.outputs import jax_tree
from interop.from_torch.program import Context, Ref, run, walk
from interop.from_torch.snapshot import Snapshot

Arrays = dict[str, jax.Array]


class Net:
    """A torch module as a pure function; made by :func:`to_jax`.

    Attributes:
        params: the parameters, named as in ``state_dict``; a tied one under its first name.
        buffers: the buffers by name; :meth:`train` returns them changed, nothing differentiates
            them.
        ties: the other names of tied tensors, each with the name that holds it.
        frozen: names of parameters with ``requires_grad=False``; for a mask in the optimizer.
    """

    def __init__(self, source: Any, *, downcast: bool = False) -> None:
        self._source = source
        self._downcast = downcast
        types = self._types()
        state = source.tensors()
        self.ties: dict[str, str] = source.ties
        self.params: Arrays = {}
        self.buffers: Arrays = {}
        for name, tensor in state.items():
            if name in self.ties:
                continue
            types.hold(tensor.dtype, partial(repr, name))
            held = self.params if name in source.parameters else self.buffers
            held[name] = to_array(tensor, name=name, downcast=not types.x64)
        self.frozen = tuple(n for n in self.params if not state[n].requires_grad)
        self._compiled: OrderedDict[Any, _Compiled] = OrderedDict()

    def __call__(
        self,
        params: Mapping[str, Any],
        *inputs: Any,
        buffers: Mapping[str, Any] | None = None,
        key: jax.Array | None = None,
        **kwargs: Any,
    ) -> Any:
        """The module's output in evaluation mode.

        Args:
            params: arrays named as in ``params``, each of the same shape.
            *inputs: what the module's ``forward`` takes, arrays in place of tensors, any shape and
                batch size; Python numbers, strings and None are constants.
            buffers: in place of the net's own.
            key: for modules that draw random numbers even in evaluation.
            **kwargs: keyword arguments of ``forward``.

        Raises:
            ConversionError: torch.export refuses the module, or an operation is not covered.
            ValueError: names are missing or unknown, or shapes differ.
        """
        return self._apply(False, params, buffers, key, inputs, kwargs)[0]

    def train(
        self,
        params: Mapping[str, Any],
        *inputs: Any,
        buffers: Mapping[str, Any] | None = None,
        key: jax.Array | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Arrays]:
        """The module's output in training mode, and its buffers after the call.

        Submodules that were put in evaluation mode inside a module in training mode stay in it. The
        arguments are those of a call; dropout and other random operations need ``key``.
        """
        return self._apply(True, params, buffers, key, inputs, kwargs)

    def compile(
        self,
        *inputs: Any,
        training: bool = False,
        buffers: Mapping[str, Any] | None = None,
        key: jax.Array | None = None,
        **kwargs: Any,
    ) -> None:
        """Export and compile now what a call with inputs like these needs, and run it once.

        Without it the first call does so, within the trace of whatever calls it. Refusals come
        here, before a long job begins.

        Args:
            *inputs: as for a call; ``jax.ShapeDtypeStruct`` stands for zeros of its shape.
            training: compile :meth:`train` instead.
            buffers: as for a call.
            key: as for a call.
            **kwargs: keyword arguments of ``forward``.

        Raises:
            ConversionError: as a call would.

        Example:
            >>> import torch, jax, interop
            >>> net = interop.to_jax(torch.nn.Linear(3, 2))
            >>> net.compile(jax.ShapeDtypeStruct((5, 3), "float32"))
        """
        inputs, kwargs = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x,
            (inputs, kwargs),
        )
        jax.block_until_ready(self._apply(training, self.params, buffers, key, inputs, kwargs))

    def state_dict(
        self, params: Mapping[str, Any], buffers: Mapping[str, Any] | None = None
    ) -> Arrays:
        """Every array under every name that the module's ``state_dict`` has, tied ones repeated."""
        held = {**self._named(params, self.params, "params"), **(buffers or self.buffers)}
        return {name: held[self.ties.get(name, name)] for name in self._source.state_names}

    def __repr__(self) -> str:
        count = sum(x.size for x in self.params.values())
        return f"Net({self._source.name}, {len(self.params)} arrays, {count:,} parameters)"

    def _types(self) -> Types:
        return Types(bool(jax.config.read("jax_enable_x64")), self._downcast)

    def _named(self, given: Mapping[str, Any], own: Arrays, what: str) -> Arrays:
        """``given`` with its names and shapes checked."""
        if not isinstance(given, Mapping):
            raise TypeError(f"{what}: expected a dict of arrays, got {type(given).__name__}")
        wrong = [f"'{n}' is missing" for n in own if n not in given]
        for name, value in given.items():
            if name in self.ties:
                wrong.append(f"'{name}' is tied to '{self.ties[name]}': pass that name alone")
            elif name not in own:
                wrong.append(f"'{name}' is unknown")
            elif np.shape(value) != own[name].shape:
                wrong.append(f"'{name}' has shape {np.shape(value)}, not {own[name].shape}")
        if wrong:
            more = f", and {len(wrong) - 8} more" if len(wrong) > 8 else ""
            raise ValueError(f"{what}: {'; '.join(wrong[:8])}{more}")
        return dict(given)

    def _apply(
        self,
        training: bool,
        params: Mapping[str, Any],
        buffers: Mapping[str, Any] | None,
        key: jax.Array | None,
        inputs: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, Arrays]:
        params = self._named(params, self.params, "params")
        buffers = self._named(self.buffers if buffers is None else buffers, self.buffers, "buffers")
        leaves, spec = pytree.tree_flatten((inputs, kwargs))
        leaves = [_array(leaf) for leaf in leaves]
        arrays = [x for x in leaves if isinstance(x, jax.Array)]
        compiled = self._compile(training, leaves, spec)
        outputs, mutations = compiled.function(params, buffers, key, arrays)
        flat = iter(outputs)
        full = [next(flat) if c is _DYNAMIC else c for c in compiled.constants]
        result = jax_tree(full, compiled.out_spec)
        return result, {**buffers, **mutations}

    def _compile(self, training: bool, leaves: list[Any], spec: Any) -> "_Compiled":
        types = self._types()
        # The spec as a string, which hashes as its contexts may not.
        leaf_keys = tuple(map(_exactly, leaves))
        at = (training, types, torch.get_default_dtype(), leaf_keys, str(spec))
        if at in self._compiled and self._compiled[at].in_spec == spec:
            self._compiled.move_to_end(at)
            return self._compiled[at]
        examples = [_example(x, types) for x in leaves]
        args, kwargs = pytree.tree_unflatten(examples, spec)
        exported = self._source.export(training, args, kwargs, RULES, types)
        _refuse_uncovered(exported)
        self._compiled[at] = _Compiled(exported, leaves, spec, self.ties)
        if len(self._compiled) > _PROGRAMS:
            self._compiled.popitem(last=False)
        return self._compiled[at]


_PROGRAMS = 64
"""How many programs a net keeps, those called last."""

_DYNAMIC = object()
"""Marks the outputs that are arrays."""


class _Compiled:
    """One exported program, bound to names, jitted."""

    def __init__(
        self, exported: Exported, leaves: list[Any], in_spec: Any, ties: Mapping[str, str]
    ) -> None:
        self.in_spec, self.out_spec = in_spec, exported.out_spec
        user = [
            v
            for v, output in zip(exported.program.outputs, exported.outputs, strict=True)
            if isinstance(output, Result)
        ]
        self.constants = [_DYNAMIC if isinstance(v, Ref) else v for v in user]
        slots = [isinstance(x, jax.Array) for x in leaves]
        static = [None if dynamic else x for x, dynamic in zip(leaves, slots, strict=True)]

        def function(params: Arrays, buffers: Arrays, key: Any, arrays: list[Any]) -> Any:
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
            outputs, mutations = [], {}
            for value, marked, output in zip(
                found, exported.program.outputs, exported.outputs, strict=True
            ):
                if isinstance(output, State):
                    mutations[ties.get(output.name, output.name)] = value
                elif isinstance(marked, Ref):
                    outputs.append(value)
            return outputs, mutations

        self.function = jax.jit(function)


def to_jax(module: Any, *, downcast: bool = False) -> Net:
    """A torch module, or an exported program, as a pure JAX function of its parameters.

    The module is exported for each shape, dtype and mode that the function is called with, inside
    the trace of jit, grad or vmap, and cached. The arrays are copies: neither side sees the other
    change.

    Args:
        module: a ``torch.nn.Module``, or a ``torch.export.ExportedProgram``, which has its mode and
            shapes in it.
        downcast: without x64, hold float64 in float32 and compute int64 in int32; else these are
            errors. Integers that only index, and integer buffers whose values fit, need no
            permission.

    Returns:
        A :class:`Net`: ``net(params, *inputs)`` in evaluation mode, ``net.train(params, *inputs,
        key=key)`` in training mode, ``net.params`` and ``net.buffers``.

    Raises:
        ConversionError: the module holds what cannot be converted: 64-bit floats without x64,
            quantised or sparse tensors, tensors that overlap in memory, backward hooks.

    Example:
        >>> import torch, jax, interop
        >>> net = interop.to_jax(torch.nn.Linear(3, 2))
        >>> sorted(net.params)
        ['bias', 'weight']
        >>> net(net.params, jax.numpy.ones((5, 3))).shape
        (5, 2)
    """
    if isinstance(module, torch.nn.Module):
        return Net(Snapshot(module), downcast=downcast)
    if isinstance(module, torch.export.ExportedProgram):
        from interop.from_torch.snapshot import ProgramSnapshot

        return Net(ProgramSnapshot(module), downcast=downcast)
    raise TypeError(
        f"to_jax: expected a torch.nn.Module or an ExportedProgram, got {type(module).__name__}"
    )


def _refuse_uncovered(exported: Exported) -> None:
    """All that has no rule, at once."""
    missing = {s.operation: s.source for s in walk(exported.program) if s.operation not in RULES}
    if missing:
        listed = "; ".join(f"{name} ({source})" for name, source in sorted(missing.items())[:8])
        raise UncoveredOperation(f"no rule for {len(missing)} operations: {listed}")


def _array(leaf: Any) -> Any:
    """An input leaf: arrays strongly typed, Python constants as they are."""
    if isinstance(leaf, torch.Tensor):
        raise TypeError("an input is a torch.Tensor: pass interop.to_array(tensor)")
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        array = jnp.asarray(leaf)
        if isinstance(leaf, np.ndarray | np.generic) and array.dtype != leaf.dtype:
            raise ConversionError(
                f"an input is {leaf.dtype}, which JAX would hold as {array.dtype}: set "
                f"jax_enable_x64, or pass it as {array.dtype}"
            )
        return jax.lax.convert_element_type(array, array.dtype)
    return leaf


def _exactly(leaf: Any) -> Any:
    """What two leaves share only if they mean the same program: 0.0 is not -0.0, nor 0, nor False.

    Arrays are told by shape and dtype.
    """
    if isinstance(leaf, jax.Array):
        return leaf.shape, leaf.dtype
    if isinstance(leaf, float | complex):
        return type(leaf), repr(leaf)
    return type(leaf), leaf


def _example(leaf: Any, types: Types) -> Any:
    if not isinstance(leaf, jax.Array):
        return leaf
    with torch.inference_mode(False):  # which the caller may be in
        return torch.empty(leaf.shape, dtype=types.present(leaf.dtype))
