"""A torch module to a ``Program``: gradients kept, operations without rules decomposed."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch

from interop._torch import OpOverload, decompositions, is_composite
from interop.aten.registry import Rules
from interop.errors import ConversionError
from interop.from_torch.lowering import Exported, Types, lower
from interop.from_torch.no_grad import keep_no_grad
from interop.from_torch.sources import own_frame


def export(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    rules: Rules,
    types: Types,
    state: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Exported:
    """Export at these example inputs. Nothing of the module is changed.

    Constants that are tensors of ``state`` are taken for those.
    """
    with exporting():
        try:
            program = torch.export.export(module, args, dict(kwargs), strict=False)
        except ConversionError:
            raise
        except Exception as error:
            raise explained(error, module) from error
    return from_exported(program, rules, types, state)


def from_exported(
    program: Any, rules: Rules, types: Types, state: Mapping[str, torch.Tensor]
) -> Exported:
    """Lower an exported program: what its operations are is torch's word, their rules are ours."""
    with exporting():
        program = decomposed(keep_no_grad(program), rules)
    return lower(program, types, state)


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """No warnings of torch.export's own, and no custom backward that would be lost unseen."""
    original = torch.autograd.Function.__dict__["apply"]

    def refuse(cls: Any, *args: Any, **kwargs: Any) -> Any:
        generated = cls.__name__.startswith("GeneratedBackwardFor_")  # of a custom operation
        if generated or cls.__module__.partition(".")[0] == "torch":
            return original.__func__(cls, *args, **kwargs)
        raise ConversionError(
            f"{cls.__name__} is a torch.autograd.Function: its backward would be lost "
            f"({own_frame()}). Write its forward with torch operations, or as a custom_vjp in JAX."
        )

    with warnings.catch_warnings(), _as_from_the_start():
        warnings.simplefilter("ignore")
        torch.autograd.Function.apply = classmethod(refuse)  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.autograd.Function.apply = original  # type: ignore[method-assign]


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
    """Functional operations; those without a rule in terms of others, as far as torch knows how."""
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


def explained(error: Exception, module: torch.nn.Module) -> ConversionError:
    """torch.export's failure in three lines: what, where, and the way out."""
    name = type(module).__name__
    where = own_frame(error)
    text = " ".join(str(error).split())
    if "ata-dependent" in text or "ataDependent" in type(error).__name__ or "GuardOn" in text:
        return ConversionError(
            f"{name} decides on a tensor's values in Python ({where}); a compiled function cannot. "
            "Use torch.where, or torch.cond for a branch and while_loop for a loop."
        )
    return ConversionError(f"torch.export refused {name} ({where}): {text[:400]}")
