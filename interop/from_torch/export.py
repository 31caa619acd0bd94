"""A torch module to a ``Program``: gradients kept, operations without rules decomposed."""

import contextlib
import operator
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from interop._torch import (
    DATA_DEPENDENT,
    OpOverload,
    decompositions,
    is_composite,
    without_function_modes,
)
from interop.aten.registry import Rules
from interop.errors import ConversionError, DecidesOnValues, keeps
from interop.from_torch.aliases import state_of
from interop.from_torch.forward import forward_runs
from interop.from_torch.functional import complete_users, made_functional, show_views
from interop.from_torch.functions import Call, calls_recorded, in_the_way_of_gradients
from interop.from_torch.lowering import Exported, Function, State, Types, lower
from interop.from_torch.no_grad import keep_no_grad
from interop.from_torch.quiet import quiet
from interop.from_torch.sources import NOWHERE, own_frame, own_part

one_at_a_time = threading.RLock()
"""Held while a module is exported: torch keeps the modes of its tracing for the whole process."""


@dataclass(frozen=True)
class Recorded:
    """What torch.export records of a module.

    Attributes:
        program: torch's, its operations as they were called, without what ``torch.no_grad`` hides.
        calls: of functions with a backward of their own, by the number that the program has.
    """

    program: Any
    calls: list[Call]

    def constants(self, state: Mapping[str, torch.Tensor]) -> set[str]:
        """The names of tensors that the module holds, and are none of ``state``."""
        named = {
            spec.target.removeprefix(_Root.prefix): self.program.constants[spec.target]
            for spec in self.program.graph_signature.input_specs
            if spec.kind.name == "CONSTANT_TENSOR"
        }
        return {name for name, value in named.items() if not state_of(value, name, state)}

    def operations(self) -> list[Any]:
        """Equal in programs that do the same with inputs of the same names."""
        places = [(s.kind, s.target) for s in self.program.graph_signature.input_specs]
        operations = [
            (node.op, str(node.target), repr(node.args), repr(node.kwargs))
            for part in self.program.graph_module.modules()
            if isinstance(part, torch.fx.GraphModule)
            for node in part.graph.nodes
        ]
        return [places, operations]


def record(
    module: torch.nn.Module,
    inputs: tuple[Any, ...],
    call: Callable[..., Any] = operator.call,
) -> Recorded:
    """Export ``call(module, *inputs)`` at these examples. Nothing of the module is changed."""
    calls: list[Call] = []
    with _exporting(calls):
        try:
            program = torch.export.export(_Root(module, call), inputs, strict=False)
            complete_users(program)
            program = in_the_way_of_gradients(keep_no_grad(program))
        except ConversionError:
            raise
        except Exception as error:
            raise explained(error, module, after_forward=True) from error
    return Recorded(program, calls)


def lowered(
    recorded: Recorded,
    module: torch.nn.Module,
    rules: Rules,
    types: Types,
    state: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Exported:
    """The ``Exported`` of what was recorded of a module.

    Constants that are tensors of ``state`` are taken for those.
    """
    with _exporting(recorded.calls):
        try:
            program = decomposed(recorded.program, rules)
        except ConversionError:
            raise
        except Exception as error:
            raise explained(error, module, after_forward=True) from error
    functions = [_function(call, rules, types, state) for call in recorded.calls]
    return lower(program, types, state, functions, prefix=_Root.prefix)


def export(
    module: torch.nn.Module,
    inputs: tuple[Any, ...],
    rules: Rules,
    types: Types,
    state: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Exported:
    """``lowered`` of ``record`` of a module."""
    return lowered(record(module, inputs), module, rules, types, state)


class _Root(torch.nn.Module):
    """Around a module, whose parameters may have names ("code") that graphs have for themselves."""

    prefix = "module."

    def __init__(self, module: torch.nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *inputs: Any) -> Any:
        try:
            with forward_runs():
                return self.call(self.module, *inputs)
        except ConversionError:
            raise
        except Exception as error:
            # Now, while torch.export has not added the graph to it, which it would print.
            raise explained(error, self.module) from error


def from_exported(
    program: Any, rules: Rules, types: Types, state: Mapping[str, torch.Tensor]
) -> Exported:
    """Lower an exported program: what its operations are is torch's word, their rules are ours."""
    with _exporting([]):
        complete_users(program)
        program = decomposed(keep_no_grad(program), rules)
    return lower(program, types, state)


def _function(
    call: Call, rules: Rules, types: Types, state: Mapping[str, torch.Tensor]
) -> Function:
    """Both directions of a ``torch.autograd.Function``."""
    parts = call.parts()
    forward = export(parts.forward, parts.inputs, rules, types, state)
    backward = export(*parts.backward(), rules, types, state)
    for exported in (forward, backward):
        if any(isinstance(place, State) for place in exported.inputs):
            raise ConversionError(
                f"{call.kind.__name__} reads a parameter or buffer that is none of its arguments "
                f"({call.source}): pass it to apply, so that it has a gradient"
            )
    count = sum(isinstance(x, torch.Tensor) for x in call.output[0])
    return Function(forward, backward, count)


@contextlib.contextmanager
def _exporting(calls: list[Call]) -> Iterator[None]:
    """No warnings of torch.export's own, none of the caller's modes, and functions recorded."""
    with warnings.catch_warnings(), quiet(), _as_from_the_start():
        warnings.simplefilter("ignore")
        with calls_recorded(calls):
            yield


@contextlib.contextmanager
def _as_from_the_start() -> Iterator[None]:
    """Without the modes around the call, which would stay in a program that is kept."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def decomposed(program: Any, rules: Rules) -> Any:
    """Functional operations; those without a rule in terms of others, as far as torch knows how.

    What watches the calls of forward is off: here it would watch torch's own, for most of the time.
    """
    with without_function_modes():
        show_views(program)
        return program if made_functional(program, rules) else _decomposed(program, rules)


def _decomposed(program: Any, rules: Rules) -> Any:
    program = program.run_decompositions({})
    core, others = decompositions()
    known: dict[Any, Callable[..., Any] | None] = {}  # None: torch fails at it
    while True:
        missing = {
            node.target
            for node in _nodes(program.graph_module)
            if isinstance(node.target, OpOverload) and str(node.target) not in rules
        }
        new: dict[Any, Callable[..., Any]] = {}
        for operation in missing - known.keys():
            if operation in core:
                new[operation] = core[operation]
            elif is_composite(operation):
                new[operation] = operation.decompose
            elif operation in others and torch.Tag.core not in operation.tags:
                new[operation] = others[operation]
        if not new:
            return program
        program = _with_as_many_as_possible(program, new, known)


def _with_as_many_as_possible(
    program: Any, new: dict[Any, Callable[..., Any]], known: dict[Any, Callable[..., Any] | None]
) -> Any:
    """Some of torch's decompositions end in what it cannot make functional: those are left out.

    What was known before goes along, for a decomposition may end in what is gone already.
    """
    working = {operation: how for operation, how in known.items() if how is not None}
    known |= new
    try:
        return program.run_decompositions(working | new)
    except Exception:
        for operation, how in new.items():
            try:
                program = program.run_decompositions(working | {operation: how})
            except Exception:
                known[operation] = None
            else:
                working[operation] = how
        return program


def _nodes(module: Any) -> Iterator[Any]:
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                if node.op == "call_function":
                    yield node


def explained(
    error: Exception, module: torch.nn.Module, after_forward: bool = False
) -> ConversionError:
    """torch.export's failure in three lines: what, where, and the way out."""
    name = type(module).__name__
    where = own_frame(error)
    text = " ".join(str(error).split())
    kept = re.search(r"Constant (?:module\.)?(\S+) is mutated in the forward", text)
    if kept:
        return ConversionError(keeps(f"'{kept[1]}'"))
    hashed = "unhashable type" in text and "SymInt" in text  # a set of lengths, say
    if isinstance(error, DATA_DEPENDENT) or "ata-dependent" in text or hashed:
        return DecidesOnValues(
            f"{name} decides on a tensor's values in Python ({where}); a compiled function cannot. "
            "Use torch.where, or torch.cond for a branch and while_loop for a loop; or pass what "
            "it decides on, sizes or a mask, as interop.Static. " + _of_experts(module)
        )
    text = text.rstrip(".")
    if where == NOWHERE and after_forward:  # of what the program holds
        text += ". If forward transforms functions (torch.func, make_fx), convert those instead"
    elif where == NOWHERE:
        where = f"in a {own_part(error)}"
    return ConversionError(f"torch.export refused {name} ({where}): {text[-500:]}.")


def _of_experts(module: torch.nn.Module) -> str:
    """What to do about a loop over the experts that have tokens."""
    if hasattr(module, "set_experts_implementation"):
        return "If these are experts, model.set_experts_implementation('batched_mm') before."
    return (
        "In place of a loop over what nonzero finds (experts with tokens, say), go over all and "
        "weight each by its mask."
    )
