"""A torch.fx graph to a ``Program``: arguments become plain Python, dtypes become numpy's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np
import torch

from interop._torch import HigherOrderOperator, OpOverload
from interop.arrays import to_array
from interop.dtypes import row_of, torch_dtype
from interop.errors import ConversionError
from interop.from_torch.aliases import state_of
from interop.from_torch.outputs import jax_tree
from interop.from_torch.program import Aval, Program, Ref, Step
from interop.from_torch.sources import source_of

LEAVES_32_BITS = frozenset(
    {"mul", "pow", "prod", "cumprod", "cumsum", "sum", "__lshift__", "bitwise_left_shift", "square"}
    | {"mm", "bmm", "matmul", "dot", "mv", "addmm", "baddbmm", "einsum", "tensordot"}
)
"""Operations whose int64 outcome may not fit in 32 bits though their inputs do."""

IGNORED = frozenset(
    {
        "aten._assert_tensor_metadata.default",
        "aten._assert_scalar.default",
        "aten._assert_async.msg",
        "aten._assert_async.default",
        "aten.sym_constrain_range.default",
        "aten.sym_constrain_range_for_size.default",
    }
)


@dataclass(frozen=True)
class Types:
    """How torch's dtypes are held: as they are with x64; else 64 bits in 32, if asked or safe."""

    x64: bool
    downcast: bool

    def hold(self, dtype: torch.dtype, what: Callable[[], str]) -> np.dtype:
        """The dtype that holds ``dtype``; float64 and complex128 in 32 bits only where asked."""
        row = row_of(dtype)
        if row is None:
            raise ConversionError(f"{what()} is {dtype}, which JAX has no dtype for")
        wide = row.array
        if self.x64:
            return wide
        if wide in (np.dtype(np.float64), np.dtype(np.complex128)) and not self.downcast:
            raise ConversionError(
                f"{what()} is {dtype}: set jax_enable_x64, or pass downcast=True to compute in 32 "
                "bits"
            )
        return np.dtype(jax.dtypes.canonicalize_dtype(wide))

    def present(self, dtype: Any) -> torch.dtype:
        """The torch dtype that an array of ``dtype`` stands for; without x64, int32 is int64."""
        dtype = np.dtype(dtype)
        return torch.int64 if dtype == np.int32 and not self.x64 else torch_dtype(dtype)


@dataclass(frozen=True)
class State:
    """A parameter or buffer by name: an input, or an output that takes its place.

    A ``detached`` one has the values and no gradient.
    """

    name: str
    detached: bool = False


@dataclass(frozen=True)
class Constant:
    """An input that is always this array, and what torch calls it."""

    name: str
    value: Any


@dataclass(frozen=True)
class Argument:
    """An input of the user, by its position among the flat ones."""

    position: int


@dataclass(frozen=True)
class Result:
    """An output that the module returns."""


@dataclass(frozen=True)
class Written:
    """An output that takes the place of an input that forward wrote into."""

    position: int


@dataclass(frozen=True)
class Exported:
    """A program, and what its inputs and outputs are, in its order.

    Positions are those among the tensors of the inputs. Of its results, ``result`` makes what the
    caller gets; ``left`` says what forward leaves of its inputs, if not their own structure.
    ``fixed`` are the values of buffers that the program depends on.
    """

    program: Program
    inputs: tuple[State | Constant | Argument, ...]
    outputs: tuple[State | Result | Written, ...]
    result: Callable[[Sequence[Any]], Any]
    left: "Left | None" = None
    fixed: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Left:
    """Inputs whose containers forward has changed: another structure, or tensors it has made.

    ``places`` are positions of inputs, or ``Result`` numbers as negative ones: -1 is the first.
    ``lost`` are those of them that the module does not return.
    """

    structure: Any
    places: tuple[int, ...]
    lost: bool


@dataclass(frozen=True)
class Function:
    """A function with a backward of its own.

    ``forward`` gives its outputs, ``count`` of them, and what ``backward`` takes before the
    gradients of the outputs; that gives those of the inputs, None where there is none.
    """

    forward: Exported
    backward: Exported
    count: int


def lower(
    exported: Any,
    types: Types,
    state: Mapping[str, torch.Tensor],
    functions: Sequence[Function] = (),
    prefix: str = "",
) -> Exported:
    """The ``Exported`` of a torch ExportedProgram of functional operations.

    Constants that are tensors of ``state`` are taken for those; calls of ``interop::function`` are
    of ``functions``, by number. ``prefix`` is taken off the names of what the module holds.
    """
    signature = exported.graph_signature
    program = lower_graph(exported.graph_module, types, functions)
    inputs: list[State | Constant | Argument] = []
    for spec in signature.input_specs:
        kind = spec.kind.name
        if kind in ("PARAMETER", "BUFFER"):
            inputs.append(State(spec.target.removeprefix(prefix)))
        elif kind == "CONSTANT_TENSOR":
            value = exported.constants[spec.target]
            name = spec.target.removeprefix(prefix)
            known = state_of(value, name, state)
            inputs.append(State(*known) if known else Constant(name, _constant(value, name, types)))
        elif kind == "USER_INPUT":
            inputs.append(Argument(sum(isinstance(i, Argument) for i in inputs)))
        else:
            raise ConversionError(f"input {spec.target} of kind {kind} is not covered")
    kept: list[Any] = []
    outputs: list[State | Result | Written] = []
    users = [s.arg.name for s in signature.input_specs if s.kind.name == "USER_INPUT"]
    for spec, value in zip(signature.output_specs, program.outputs, strict=True):
        kind = spec.kind.name
        if kind == "USER_OUTPUT":
            kept.append(value)
            outputs.append(Result())
        elif kind == "BUFFER_MUTATION" or kind == "PARAMETER_MUTATION":
            kept.append(value)
            outputs.append(State(spec.target.removeprefix(prefix)))
        elif kind == "USER_INPUT_MUTATION":
            kept.append(value)
            outputs.append(Written(users.index(spec.target)))
        else:
            raise ConversionError(f"output {spec.target} of kind {kind} is not covered")
    program = Program(program.inputs, program.steps, tuple(kept))
    spec = exported.call_spec.out_spec
    return Exported(program, tuple(inputs), tuple(outputs), partial(jax_tree, spec=spec))


def numbered(exported: Exported, places: Sequence[int | None]) -> Exported:
    """With other positions for its inputs; those that have none are constants without a use."""

    def moved(place: Any) -> Any:
        if not isinstance(place, Argument | Written):
            return place
        position = places[place.position]
        return Constant("a constant input", 0) if position is None else type(place)(position)

    inputs, outputs = (tuple(map(moved, x)) for x in (exported.inputs, exported.outputs))
    return replace(exported, inputs=inputs, outputs=outputs)


def _constant(value: torch.Tensor, name: str, types: Types) -> Any:
    value = value.detach()
    types.hold(value.dtype, lambda: f"the constant {name}")
    return to_array(value, name=name, downcast=not types.x64)


def lower_graph(module: Any, types: Types, functions: Sequence[Function] = ()) -> Program:
    """The program of one graph module, bodies of control flow included."""
    inputs: list[str] = []
    steps: list[Step] = []
    outputs: tuple[Any, ...] = ()
    bodies: dict[str, Any] = {}

    def argument(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return bodies[value.name] if value.name in bodies else Ref(value.name)
        if isinstance(value, list | tuple):
            items = [argument(v) for v in value]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, dict):
            return {name: argument(v) for name, v in value.items()}
        if isinstance(value, slice):
            return slice(argument(value.start), argument(value.stop), argument(value.step))
        if isinstance(value, torch.dtype):
            return types.hold(value, lambda: f"a dtype argument ({source})")
        if isinstance(value, torch.device | torch.layout | torch.memory_format):
            return None
        return value

    for node in module.graph.nodes:
        source = source_of(node)
        if node.op == "placeholder":
            inputs.append(node.name)
        elif node.op == "get_attr":
            found = _attribute(module, node.target)
            bodies[node.name] = (
                lower_graph(found, types, functions)
                if isinstance(found, torch.fx.GraphModule)
                else _constant(found, node.target, types)
            )
        elif node.op == "call_function":
            name = operation_name(node.target)
            if name in IGNORED:
                continue
            result = _result(node, types, source)
            _refuse_overflow(node, name, types, source)
            _refuse_strides(node, name, source)
            kwargs = {
                k: argument(v)
                for k, v in node.kwargs.items()
                if k not in ("device", "layout", "memory_format", "pin_memory", "generator")
            }
            args = argument(tuple(node.args))
            if name in ("interop.function.default", "interop.hooked.default"):
                args = (args[0], *_directions(functions[args[1]]))
            steps.append(Step(name, args, kwargs, node.name, result, source))
        elif node.op == "output":
            flat = node.args[0]
            outputs = tuple(
                argument(v) for v in (flat if isinstance(flat, tuple | list) else [flat])
            )
    return Program(tuple(inputs), tuple(steps), outputs)


def _directions(function: Function) -> tuple[Any, ...]:
    """Programs of arguments alone, with the constants that come before them."""
    both: list[tuple[Program, tuple[Any, ...]]] = []
    for exported in (function.forward, function.backward):
        places = list(zip(exported.program.inputs, exported.inputs, strict=True))
        first = [n for n, place in places if isinstance(place, Constant)]
        rest = [n for n, place in places if isinstance(place, Argument)]
        constants = tuple(place.value for _, place in places if isinstance(place, Constant))
        program = Program((*first, *rest), exported.program.steps, exported.program.outputs)
        both.append((program, constants))
    program, constants = both[0]
    arguments = program.inputs[len(constants) :]
    known = [*map(Ref, arguments), *program.outputs[: function.count]]
    saved = tuple(known.index(x) if x in known else None for x in program.outputs[function.count :])
    return (*both[0], *both[1], function.count, saved)


def operation_name(target: Any) -> str:
    """As torch prints it: aten.add.Tensor; higher_order.cond; getitem and other operators."""
    if isinstance(target, OpOverload):
        return str(target)
    if isinstance(target, HigherOrderOperator):
        return f"higher_order.{target.name()}"
    return getattr(target, "__name__", str(target))


def _attribute(module: Any, target: str) -> Any:
    for part in target.split("."):
        module = getattr(module, part)
    return module


def _result(node: Any, types: Types, source: str) -> Any:
    def of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            dtype = types.hold(value.dtype, lambda: f"the result of {node.target} ({source})")
            shape = tuple(int(n) if isinstance(n, int) else None for n in value.shape)
            return Aval(shape, dtype)
        if isinstance(value, list | tuple):
            return tuple(of(v) for v in value)
        return None

    return of(node.meta.get("val"))


def _refuse_strides(node: Any, name: str, source: str) -> None:
    """Arrays have no strides: as_strided means the same only for what is contiguous in torch."""
    if not name.startswith("aten.as_strided"):
        return
    value = node.args[0].meta.get("val")
    if isinstance(value, torch.Tensor) and (value.storage_offset() or not value.is_contiguous()):
        raise ConversionError(
            f"{name} of a tensor that is a view into another: call contiguous() first ({source})"
        )


def _refuse_overflow(node: Any, name: str, types: Types, source: str) -> None:
    """int64 arithmetic in 32 bits could wrap: only where asked."""
    if types.x64 or types.downcast:
        return
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype is not torch.int64:
        return
    operation = name.split(".")[1] if name.startswith("aten.") else name
    tensors = [a.meta["val"] for a in node.all_input_nodes if "val" in a.meta]
    kinds = {t.dtype for t in tensors if isinstance(t, torch.Tensor)}
    counted = kinds and all(k is torch.bool for k in kinds)
    from_float = any(k.is_floating_point for k in kinds) and operation in ("_to_copy", "to")
    if (operation in LEAVES_32_BITS and not counted) or from_float:
        raise ConversionError(
            f"{name} computes in int64, which may not fit in 32 bits ({source}): set "
            "jax_enable_x64, or pass downcast=True to compute in 32 bits"
        )
