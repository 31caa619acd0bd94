"""torch.no_grad inside a module: decompositions forget it, so what it computes is detached."""

import operator
from typing import Any

import torch

from interop._torch import aliases, is_mutable
from interop.errors import ConversionError
from interop.from_torch.functional import makes_memory
from interop.from_torch.sources import source_of


def keep_no_grad(program: Any) -> Any:
    """The exported program with values computed under no_grad detached, in every body."""
    signature = program.graph_signature
    frozen = {
        given
        for given, name in signature.inputs_to_parameters.items()
        if not program.state_dict[name].requires_grad
    }
    _visit(program.graph_module, {*signature.inputs_to_buffers, *frozen})
    program.graph_module.recompile()
    return program


def _visit(module: Any, buffers: set[str]) -> None:
    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        if getattr(node.target, "__name__", "") == "wrap_with_set_grad_enabled":
            enabled, body, *inputs = node.args
            inner = getattr(module, body.target)
            of_buffers = {
                p.name
                for p, given in zip(_placeholders(inner), inputs, strict=True)
                if getattr(given, "name", None) in buffers
            }
            if enabled:
                _visit(inner, of_buffers)
            else:
                _detach_all(inner, of_buffers)
        else:
            for argument in node.args:
                inner = _body(module, argument)
                if inner is not None:
                    _visit(inner, set())


def _placeholders(module: Any) -> list[Any]:
    return [n for n in module.graph.nodes if n.op == "placeholder"]


def _body(module: Any, argument: Any) -> Any:
    if getattr(argument, "op", None) != "get_attr":
        return None
    found = getattr(module, str(argument.target), None)
    return found if isinstance(found, torch.fx.GraphModule) else None


def _detach_all(module: Any, buffers: set[str]) -> None:
    """Detach what operations make of tensors from outside: all else has no gradient then.

    New memory is detached as new memory, into which gradients may be written after the block; a
    view's detached alias would lose them.
    """
    graph = module.graph
    outside = {n for n in _placeholders(module) if n.name not in buffers}
    graded = set(outside)
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if is_mutable(node.target):
            if node.args and _base(node.args[0]) in outside:
                raise ConversionError(
                    f"{node.target} changes a tensor in place under torch.no_grad, past its "
                    f"gradient ({source_of(node)}). Compute a new tensor instead."
                )
            with graph.inserting_before(node):
                for given in graded.intersection(node.all_input_nodes):
                    node.replace_input_with(given, _detached(graph, given, copied=False))
        elif graded.intersection(node.all_input_nodes):
            if isinstance(node.meta.get("val"), torch.Tensor):
                copied = makes_memory(node.args[0] if node.target is operator.getitem else node)
                with graph.inserting_after(node):
                    detached = _detached(graph, node, copied)
                for reader in [u for u in node.users if u is not detached]:
                    reader.replace_input_with(node, detached)
            else:  # several, of which each is taken out
                graded.add(node)
    module.recompile()


def _detached(graph: Any, node: Any, copied: bool) -> Any:
    operation = torch.ops.aten.detach_copy if copied else torch.ops.aten.detach
    detached = graph.call_function(operation.default, (node,))
    detached.meta = dict(node.meta)
    return detached


def _base(node: Any) -> Any:
    """What a chain of views looks at."""
    while getattr(node, "op", None) == "call_function" and node.args:
        if not aliases(node.target) and node.target is not torch.ops.aten.detach.default:
            return node
        node = node.args[0]
    return node
