"""A module as it was when it was converted: its structure copied, its tensors shared, never run."""

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import torch
from torch.nn.parameter import is_lazy

from interop._torch import has_backward_hooks, pytree, with_own_graph
from interop.aten.registry import Rules
from interop.errors import ConversionError, DecidesOnValues
from interop.from_torch.aliases import Aliases
from interop.from_torch.calls import Flat
from interop.from_torch.copies import structure_of
from interop.from_torch.elsewhere import Elsewhere
from interop.from_torch.export import from_exported, lowered, one_at_a_time, record
from interop.from_torch.gradient_modes import GradientModes
from interop.from_torch.known import Known, is_small
from interop.from_torch.lowering import Exported, State, Types, numbered
from interop.from_torch.program import Aval, walk
from interop.from_torch.side_effects import Attributes, Fresh, Trace, attributes_of, refuse_memory
from interop.from_torch.structures import Structure
from interop.from_torch.substitutes import substitutes
from interop.memory import first_names, overlaps


class Snapshot:
    """What :class:`interop.from_torch.modules.Net` needs of a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.name = type(module).__name__
        _refuse_hooks(module)
        _refuse_uninitialised(module)
        self._originals, self._module = list(module.modules()), structure_of(module)
        self._modes = {n: m.training for n, m in module.named_modules(remove_duplicate=False)}
        self.parameters = {n for n, _ in module.named_parameters(remove_duplicate=False)}
        state, held = module.state_dict(keep_vars=True), self.tensors()
        self.state_names = tuple(state)
        self.extra = copy.deepcopy({n: x for n, x in state.items() if n not in held})
        self.ties = _ties(self.tensors())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every parameter and buffer by name, in ``state_dict``'s order, then those not saved."""
        state = dict(self._module.state_dict(keep_vars=True))
        held = {
            **dict(self._module.named_parameters(remove_duplicate=False)),
            **dict(self._module.named_buffers(remove_duplicate=False)),
        }
        named = {n: t for n, t in state.items() if n in held}
        return {**named, **{n: t for n, t in held.items() if n not in named}}

    def export(
        self,
        training: bool,
        structure: Structure,
        examples: Sequence[torch.Tensor],
        rules: Rules,
        types: Types,
    ) -> Exported:
        """The module in evaluation or training mode, at inputs of a structure.

        Where it decides on values, those of small buffers of integers become part of the program.
        """
        arguments = (training, structure, examples, rules, types)
        try:
            exported = self._exported(*arguments, {})
        except DecidesOnValues:
            if not (buffers := self._integers()):
                raise
            return self._exported(*arguments, buffers)
        if _has_open_shapes(exported) and (buffers := self._integers()):
            with contextlib.suppress(ConversionError):
                return self._exported(*arguments, buffers)
        return exported

    def _integers(self) -> dict[str, torch.Tensor]:
        """The buffers on which Python may decide."""
        held = dict(self._module.named_buffers())
        return {
            name: buffer
            for name, buffer in held.items()
            if is_small(buffer) and not (buffer.is_floating_point() or buffer.is_complex())
        }

    def _exported(
        self,
        training: bool,
        structure: Structure,
        examples: Sequence[torch.Tensor],
        rules: Rules,
        types: Types,
        buffers: Mapping[str, torch.Tensor],
    ) -> Exported:
        decided: set[str] = set()

        def once(attributes: Attributes) -> Trace:
            module = self._copy(training)
            known = Known(module, buffers)
            for (path, name), attribute in attributes.items():
                vars(module.get_submodule(path))[name] = attribute.value
            before, after = attributes_of(module), {}
            # When forward ends, for torch.export puts them back.
            module.register_forward_hook(lambda *_: after.update(attributes_of(module)))
            with contextlib.ExitStack() as stack:
                aliases, fresh = Aliases(module, self._originals), Fresh(module)
                for mode in (known, GradientModes(module, fresh), aliases, fresh):
                    stack.enter_context(mode)
                stack.enter_context(substitutes(module))
                call = Flat(structure)
                recorded = record(module, tuple(examples), call)
            decided.update(known.decided)
            return Trace(recorded, call, before, after, fresh)

        def lower(trace: Trace) -> Exported:
            exported = lowered(trace.recorded, self._module, rules, types, self.tensors())
            return trace.call.described(exported)

        with one_at_a_time:
            elsewhere = Elsewhere(self._module)
            try:
                trace = once({})
                refuse_memory(trace, once, lower, self.tensors())
                elsewhere.refuse_memory(trace, lambda: once({}), lower)
                exported, fresh = lower(trace), trace.fresh
                del trace
                fresh.refuse_leaks()
            finally:
                elsewhere.put_back()
        if changed := decided & {o.name for o in exported.outputs if isinstance(o, State)}:
            raise DecidesOnValues(
                f"forward decides on the buffer '{min(changed)}' in Python, and changes it: use "
                "torch.where, or torch.cond for a branch"
            )
        return replace(exported, fixed={n: buffers[n].numpy().copy() for n in decided})

    def _copy(self, training: bool) -> torch.nn.Module:
        """A copy in a mode."""
        module = structure_of(self._module)
        as_it_was = self._modes[""]
        for name, part in module.named_modules(remove_duplicate=False):
            part.training = training and (self._modes[name] or not as_it_was)
        return module


def _has_open_shapes(exported: Exported) -> bool:
    """Whether a shape depends on values, which running it will refuse."""
    results = jax.tree.leaves(
        [step.result for step in walk(exported.program)], is_leaf=lambda x: isinstance(x, Aval)
    )
    return any(isinstance(x, Aval) and None in x.shape for x in results)


class ProgramSnapshot:
    """The same of an exported program, which has its mode and its shapes in it."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.name = "ExportedProgram"
        self._program = program
        signature = program.graph_signature
        self.parameters = set(signature.parameters)
        self.state_names = tuple(program.state_dict)
        self.extra: dict[str, Any] = {}
        self.ties = _ties(self.tensors())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every parameter and buffer by name."""
        constants = {
            n: self._program.constants[n]
            for n in self._program.graph_signature.non_persistent_buffers
        }
        return {**self._program.state_dict, **constants}

    def export(
        self,
        training: bool,
        structure: Structure,
        examples: Sequence[torch.Tensor],
        rules: Rules,
        types: Types,
    ) -> Exported:
        """The program itself, if it was exported for inputs like these."""
        with one_at_a_time:
            exported = from_exported(with_own_graph(self._program), rules, types, self.tensors())
        leaves, spec = pytree.tree_flatten(structure.build(examples))
        _refuse_other_inputs(self._program, leaves, spec)
        places = {id(x): i for i, x in enumerate(examples)}
        return numbered(exported, [places.get(id(x)) for x in leaves])


def _refuse_other_inputs(
    program: torch.export.ExportedProgram, leaves: Sequence[Any], spec: Any
) -> None:
    expected = program.call_spec.in_spec
    if spec != expected:
        raise ConversionError(f"the program was exported for inputs {expected}, got {spec}")
    known = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    specs = [s for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    for given, spec in zip(leaves, specs, strict=True):
        expected = known.get(spec.arg.name)
        if not isinstance(expected, torch.Tensor):
            constant = getattr(spec.arg, "value", given)
            if repr(given) != repr(constant):
                raise ConversionError(
                    f"the program was exported for the constant {constant!r}, got {given!r}: "
                    "export it with that, or pass the module"
                )
            continue
        shape = [n if isinstance(n, int) else "any" for n in expected.shape]
        fits = isinstance(given, torch.Tensor) and given.ndim == len(shape)
        if not fits or any(n not in ("any", m) for n, m in zip(shape, given.shape, strict=True)):
            raise ConversionError(
                f"the program was exported for {expected.dtype} {shape}, got "
                f"{list(getattr(given, 'shape', []))}: export it with dynamic_shapes, or pass the "
                "module"
            )


def _ties(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names of the same memory, each with its first name; tensors that overlap otherwise raise."""
    first = first_names(tensors)
    for one, other in overlaps({n: tensors[n] for n in first.values()}):
        raise ConversionError(
            f"'{one}' and '{other}' overlap in memory without being the same tensor; clone one of "
            "them before converting"
        )
    return {name: of for name, of in first.items() if name != of}


def _refuse_uninitialised(module: torch.nn.Module) -> None:
    state = [*module.named_parameters(), *module.named_buffers()]
    for name in (n for n, x in state if is_lazy(x)):
        raise ConversionError(
            f"'{name}' has no shape yet: call the module once on a batch before converting it"
        )


def _refuse_hooks(module: torch.nn.Module) -> None:
    for name, part in module.named_modules():
        if has_backward_hooks(part):
            raise ConversionError(
                f"'{name or type(part).__name__}' has a backward hook, which JAX would never call: "
                "remove it before converting"
            )
    for name, parameter in module.named_parameters():
        if has_backward_hooks(parameter):
            raise ConversionError(
                f"'{name}' has a gradient hook, which JAX would never call: remove it"
            )
