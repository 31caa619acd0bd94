"""Graphs that need none of torch's own passes, each of which takes as long as the export.

Most graphs are functional as torch.export records them, or nearly: ``relu_`` of what a convolution
has just made is ``relu``. What is less plain is left to ``run_decompositions``.
"""

import operator
from collections.abc import Container
from typing import Any

import torch

from interop._torch import OpOverload, aliases, batch_norm_evaluated, is_composite, is_mutable
from interop.errors import ConversionError
from interop.from_torch.lowering import IGNORED, operation_name
from interop.from_torch.sources import source_of

__all__ = ["complete_users", "made_functional", "makes_memory", "show_views"]

_BATCH_NORM = torch.ops.aten.batch_norm.default

_WRITE_STATISTICS = {
    f"aten.{name}.default"
    for name in ("batch_norm", "instance_norm", "native_batch_norm", "cudnn_batch_norm")
} | {"aten.miopen_batch_norm.default"}
"""Operations that write into their arguments, of which their schemas do not tell."""

_FRESH = {
    *(f"aten.conv{n}d.{how}" for n in (1, 2, 3) for how in ("default", "padding")),
    *("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.linear.default"),
    *("aten.batch_norm.default", "aten.layer_norm.default", "aten.group_norm.default"),
    *("aten.matmul.default", "aten.adaptive_avg_pool2d.default", "aten.max_pool2d.default"),
}
"""Composite operations whose results are new memory: others may return what they are given."""


def complete_users(program: Any) -> None:
    """Tell each node of all that read it.

    Where ``torch.no_grad`` splits a forward, torch forgets who reads the one tensor that a part
    gives, and then cannot erase those readers.
    """
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for read in node.all_input_nodes:
                    read.users.setdefault(node)


def show_views(program: Any) -> None:
    """Replace what may return its argument, and does not say so, by what says so.

    torch would take the result for new memory, and what is written into it for its own.
    """
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in _calls(module):
                _show_view(node)
            nodes = _calls(module)
            written = {_base(node.args[0]) for node in nodes if is_mutable(node.target)}
            for node in nodes:
                if _is_hidden_view(node) and _base(node) in written:
                    raise ConversionError(
                        f"{node.target} of one tensor may be a view of it, which is written into "
                        f"({source_of(node)}): add .clone()"
                    )
            module.recompile()


def _calls(module: Any) -> list[Any]:
    return [node for node in module.graph.nodes if node.op == "call_function"]


def _show_view(node: Any) -> None:
    if node.target in _GRIDS:
        _show_grid(node)
    elif node.target is torch.ops.aten.dropout.default and not (node.args[1] and node.args[2]):
        node.target, node.args = torch.ops.aten.alias.default, node.args[:1]
    elif _is_hidden_view(node):
        before, after = _letters(node)
        if before and len({*before}) == len(before) == len(after):
            dims = [before.index(letter) for letter in after]
            node.target, node.args = torch.ops.aten.permute.default, (node.args[1][0], dims)
            node.kwargs = {}
    else:
        node.target = _SAFE.get(node.target, node.target)


_GRIDS = (torch.ops.aten.meshgrid.default, torch.ops.aten.meshgrid.indexing)


def _show_grid(node: Any) -> None:
    """Each grid as an expanded view of its line."""
    lines, graph = node.args[0], node.graph
    indexing = node.kwargs.get("indexing", node.args[1] if len(node.args) > 1 else "ij")
    places = list(range(len(lines)))
    if indexing == "xy" and len(lines) > 1:
        places[:2] = 1, 0
    sizes = [1] * len(lines)
    for place, line in zip(places, lines, strict=True):
        sizes[place] = line.meta["val"].numel()
    for user in list(node.users):
        if user.target is not operator.getitem:
            continue
        place, line = places[user.args[1]], lines[user.args[1]]
        shape = [size if at == place else 1 for at, size in enumerate(sizes)]
        with graph.inserting_before(user):
            view = graph.call_function(torch.ops.aten.view.default, (line, shape))
            grid = graph.call_function(torch.ops.aten.expand.default, (view, sizes))
        view.meta = {**user.meta, "val": line.meta["val"].view(shape)}
        grid.meta = dict(user.meta)
        user.replace_all_uses_with(grid)
        graph.erase_node(user)
    if not node.users:
        graph.erase_node(node)


def _is_hidden_view(node: Any) -> bool:
    """Whether it is an einsum of one tensor that may sum over nothing."""
    if node.target is not torch.ops.aten.einsum.default or len(node.args[1]) != 1:
        return False
    before, after = _letters(node)
    sizes = dict(zip(before, node.args[1][0].meta["val"].shape, strict=False))
    return not any(size != 1 for letter, size in sizes.items() if letter not in after)


def _letters(node: Any) -> tuple[str, str]:
    """Of an einsum's one tensor and its result: none, if the equation leaves some unsaid."""
    before, arrow, after = node.args[0].replace(" ", "").partition("->")
    return (before, after) if arrow and before.isalpha() else ("", "")


def _base(node: Any) -> Any:
    """What a chain of views and writes looks at."""
    while getattr(node, "op", None) == "call_function" and node.args:
        if _is_hidden_view(node):
            node = node.args[1][0]
        elif aliases(node.target) or node.target is operator.getitem:
            node = node.args[0]
        else:
            break
    return node


_SAFE = {
    torch.ops.aten.unsafe_chunk.default: torch.ops.aten.chunk.default,
    torch.ops.aten.unsafe_split.Tensor: torch.ops.aten.split.Tensor,
    torch.ops.aten.unsafe_split_with_sizes.default: torch.ops.aten.split_with_sizes.default,
}


def made_functional(program: Any, rules: Container[str]) -> bool:
    """Replace operations in place by functional ones, as far as no view can tell.

    Returns:
        Whether all operations of the program are functional now, and have rules.
    """
    module = program.graph_module
    parts = [part for part in module.modules() if isinstance(part, torch.fx.GraphModule)]
    kinds = {spec.kind.name for spec in program.graph_signature.output_specs}
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    if len(parts) > 1 or kinds - {"USER_OUTPUT"} or not all(_is_plain(n, rules) for n in nodes):
        return False
    places = {node: place for place, node in enumerate(module.graph.nodes)}
    written = [node for node in nodes if is_mutable(node.target)]
    functional = all(_replace_in_place(node, places) for node in written)
    if functional:
        for node in nodes:
            if node.target is _BATCH_NORM:
                _replace_batch_norm(module.graph, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return functional


def _is_plain(node: Any, rules: Container[str]) -> bool:
    """Whether it is functional, or has a functional twin, for which there is a rule."""
    target = node.target
    if not isinstance(target, OpOverload):
        return operation_name(target) in rules
    if target is _BATCH_NORM:
        return len(node.args) > 7 and node.args[5] is False and str(batch_norm_evaluated) in rules
    if is_mutable(target):
        return (twin := _twin(target)) is not None and str(twin) in rules
    return str(target) not in _WRITE_STATISTICS and (str(target) in rules or str(target) in IGNORED)


def _twin(target: OpOverload) -> OpOverload | None:
    """The operation that returns what ``target`` writes into its first argument, and only there."""
    name = target._schema.name.removeprefix("aten::")
    written = [i for i, x in enumerate(target._schema.arguments) if _is_written(x)]
    if written != [0] or not name.endswith("_") or target.namespace != "aten":
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    twin = getattr(packet, target._overloadname, None)
    if not isinstance(twin, OpOverload) or is_mutable(twin) or aliases(twin):
        return None
    mine, its = ([str(x.type) for x in t._schema.arguments] for t in (target, twin))
    return twin if mine == its and len(twin._schema.returns) == 1 else None


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _replace_in_place(node: Any, places: dict[Any, int]) -> bool:
    """By its twin, whose result whoever comes later reads, if no view of the memory was made.

    One after another: what an earlier one wrote into has its result in its place by then.
    """
    first, value = node.args[0], node.meta.get("val")
    if not isinstance(first, torch.fx.Node) or not isinstance(value, torch.Tensor):
        return False
    twin = _twin(node.target)
    if twin is None or node.kwargs.keys() - {x.name for x in twin._schema.arguments}:
        return False
    types = {getattr(x.meta.get("val"), "dtype", None) for x in node.all_input_nodes}
    if types != {value.dtype} or not value.is_floating_point():
        return False  # by promotion the twin's result could be of another dtype
    earlier = [user for user in first.users if places[user] < places[node]]
    if not all(makes_memory(n) for n in (first, *earlier)):
        return False
    node.target = twin
    first.replace_all_uses_with(node, lambda user: places[user] > places[node])
    return True


def makes_memory(node: Any) -> bool:
    """Whether nothing that it is given can be seen in its result."""
    target = node.target
    if not isinstance(target, OpOverload) or aliases(target):
        return False
    return str(target) in _FRESH or not is_composite(target)


def _replace_batch_norm(graph: Any, node: Any) -> None:
    """In evaluation, by the operation that does not ask whether it is training."""
    x, weight, bias, mean, variance, _, momentum, epsilon, *_ = node.args
    value = node.meta["val"]
    arguments = (x, weight, bias, mean, variance, momentum, epsilon)
    with graph.inserting_before(node):
        both = graph.call_function(batch_norm_evaluated, arguments)
    both.meta = {**node.meta, "val": (value, value.new_empty(0), value.new_empty(0))}
    node.target, node.args = operator.getitem, (both, 0)
