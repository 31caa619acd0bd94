"""torch modules as pure functions: ``net = to_jax(module)``, ``net(params, *inputs)``."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from interop.arrays import to_array
from interop.aten import RULES
from interop.errors import ConversionError
from interop.from_torch.compiled import Arrays, Compiled
from interop.from_torch.lowering import Types
from interop.from_torch.snapshot import Snapshot
from interop.from_torch.structures import Structure, flatten, is_array, to_pytree


class After(NamedTuple):
    """What a module returns, and its state and inputs after the call."""

    output: Any
    params: Arrays
    buffers: Arrays
    inputs: tuple[tuple[Any, ...], dict[str, Any]]


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
            try:
                held[name] = to_array(tensor, name=name, downcast=not types.x64)
            except TypeError as error:  # sparse, nested, on no device
                raise ConversionError(f"{error}, and register that in its place") from error
        self.frozen = tuple(n for n in self.params if not state[n].requires_grad)
        self._compiled: OrderedDict[Any, Compiled] = OrderedDict()

    def __call__(
        self,
        params: Mapping[str, Any],
        *inputs: Any,
        buffers: Mapping[str, Any] | None = None,
        key: jax.Array | None = None,
        **kwargs: Any,
    ) -> Any:
        """The module's output in evaluation mode.

        A forward that changes a buffer or an input in place is refused: see :meth:`stateful`.

        Args:
            params: arrays named as in ``params``, each of the same shape.
            *inputs: what the module's ``forward`` takes, arrays in place of tensors, any shape and
                batch size; Python numbers, strings and None are constants.
            buffers: in place of the net's own.
            key: for modules that draw random numbers even in evaluation.
            **kwargs: keyword arguments of ``forward``.

        Raises:
            ConversionError: torch.export refuses the module, an operation is not covered, or
                forward changes its buffers or inputs.
            ValueError: names are missing or unknown, or shapes differ.
        """
        return self._apply(False, params, buffers, key, inputs, kwargs, "output").output

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
        after = self._apply(True, params, buffers, key, inputs, kwargs, "buffers")
        return after.output, after.buffers

    def stateful(
        self,
        params: Mapping[str, Any],
        *inputs: Any,
        training: bool = False,
        buffers: Mapping[str, Any] | None = None,
        key: jax.Array | None = None,
        **kwargs: Any,
    ) -> After:
        """The module's output, and all that its forward changes in place.

        For caches that are written into, running state in evaluation, and codes that training
        updates: pass what comes back to the next call. Gradients flow through it.

        Args:
            params: as for a call.
            *inputs: as for a call.
            training: in training mode, else in evaluation mode.
            buffers: as for a call.
            key: as for a call.
            **kwargs: keyword arguments of ``forward``.

        Returns:
            An :class:`After` with ``output``, ``params``, ``buffers`` and ``inputs``, the last
            ``(inputs, kwargs)`` as forward leaves them.

        Example:
            >>> import torch, jax.numpy as jnp, interop
            >>> class Sum(torch.nn.Module):
            ...     def forward(self, x, total):
            ...         return x * total.add_(x)
            >>> net = interop.to_jax(Sum())
            >>> after = net.stateful({}, jnp.float32(2.0), jnp.float32(1.0))
            >>> (x, total), _ = after.inputs
            >>> print(after.output, total)
            6.0 3.0
        """
        return self._apply(training, params, buffers, key, inputs, kwargs)

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
        jax.block_until_ready(self._apply(training, self.params, buffers, key, inputs, kwargs))

    def state_dict(
        self, params: Mapping[str, Any], buffers: Mapping[str, Any] | None = None
    ) -> Arrays:
        """What the module's ``state_dict`` has, under its names, tied arrays repeated.

        What ``get_extra_state`` gave when the module was converted is there as it was, tensors as
        arrays.

        Args:
            params: as ``self.params``.
            buffers: as ``self.buffers``, of which training makes new ones (statistics of batch
                normalisation). They may be left out where params are those of the conversion.

        Raises:
            ValueError: names or shapes differ; or params are others, and buffers are not given.
        """
        trained = any(params.get(name) is not x for name, x in self.params.items())
        if buffers is None and self.buffers and trained:
            first = next(iter(self.buffers))
            raise ValueError(
                f"buffers ({first!r}, ...) go with these params: pass those that training "
                "returned, or net.buffers where it returned none."
            )
        held = {
            **to_pytree(self._source.extra, downcast=self._downcast),
            **self._named(params, self.params, "params"),
            **(buffers or self.buffers),
        }
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
        returned: str = "all",
    ) -> After:
        params = self._named(params, self.params, "params")
        buffers = self._named(self.buffers if buffers is None else buffers, self.buffers, "buffers")
        leaves, structure = flatten((inputs, kwargs), is_array)
        arrays = [_array(leaf) for leaf in leaves]
        compiled = self._compile(training, arrays, structure)
        _refuse_others(compiled.fixed, buffers)
        if returned != "all":
            self._refuse_lost(compiled, lost=returned == "output")
        values = compiled.function(params, buffers, key, arrays)
        params = {n: values.state.get(n, x) for n, x in params.items()}
        buffers = {n: values.state.get(n, x) for n, x in buffers.items()}
        left = compiled.inputs(structure, arrays, values)
        return After(compiled.output(values), params, buffers, left)

    def _refuse_lost(self, compiled: Compiled, *, lost: bool) -> None:
        """What a call would not return: inputs, parameters, and buffers if they are lost."""
        names = sorted(n for n in compiled.changed if lost or n in self.params)
        changes = [f"'{n}'" for n in names] + compiled.lost
        if changes:
            raise ConversionError(
                f"forward changes {', '.join(changes[:8])} in place, which this call would not "
                "return: call net.stateful, which does"
            )

    def _compile(self, training: bool, arrays: list[jax.Array], structure: Structure) -> Compiled:
        types = self._types()
        avals = tuple((x.shape, x.dtype) for x in arrays)
        at = (training, types, torch.get_default_dtype(), avals, structure)
        if at in self._compiled:
            self._compiled.move_to_end(at)
            return self._compiled[at]
        examples = [_example(x, types) for x in arrays]
        exported = self._source.export(training, structure, examples, RULES, types)
        self._compiled[at] = Compiled(exported, self.ties)
        if len(self._compiled) > _PROGRAMS:
            self._compiled.popitem(last=False)
        return self._compiled[at]


_PROGRAMS = 64
"""How many programs a net keeps, those called last."""


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


def _refuse_others(fixed: Mapping[str, np.ndarray], buffers: Arrays) -> None:
    """Buffers on whose values forward decides in Python have those that it was converted with."""
    for name, value in fixed.items():
        try:
            same = np.array_equal(np.asarray(buffers[name]), value)
        except jax.errors.TracerArrayConversionError:
            same = False
        if not same:
            raise ConversionError(
                f"forward decides on the buffer '{name}' in Python, so its value is part of the "
                f"program: leave buffers= out, or give {value.tolist()} for it, and not as an "
                "argument of jit"
            )


def _array(leaf: Any) -> jax.Array:
    """An input, strongly typed."""
    if isinstance(leaf, torch.Tensor):
        raise TypeError(
            "an input is a torch.Tensor: pass interop.to_array(tensor), or interop.to_pytree of "
            "what holds it"
        )
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.zeros(leaf.shape, leaf.dtype)
    array = jnp.asarray(leaf)
    if isinstance(leaf, np.ndarray | np.generic) and array.dtype != leaf.dtype:
        raise ConversionError(
            f"an input is {leaf.dtype}, which JAX would hold as {array.dtype}: set "
            f"jax_enable_x64, or pass it as {array.dtype}"
        )
    return jax.lax.convert_element_type(array, array.dtype)


def _example(array: jax.Array, types: Types) -> torch.Tensor:
    with torch.inference_mode(False):  # which the caller may be in
        return torch.empty(array.shape, dtype=types.present(array.dtype))
