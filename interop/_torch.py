"""The private names of torch that interop uses, each with what it must do."""

import contextlib
import copy
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
)
from torch.distributions.dirichlet import _Dirichlet as Dirichlet
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.utils import _pytree as pytree

DATA_DEPENDENT = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
)
"""What tracing raises where Python asks for the value of a tensor."""

functional_inputs = torch.autograd.functional._grad_preprocess
"""What ``torch.autograd.functional`` makes of inputs: detached, if they require no gradient."""

pack, unpack = torch._pack_padded_sequence, torch._pad_packed_sequence
"""What ``torch.nn.utils.rnn`` packs and unpacks sequences with."""

rejection_sampler: Any = inspect.unwrap(torch.distributions.von_mises._rejection_sample)
"""The loop that draws von Mises angles."""

all_true = torch._is_all_true
"""Whether every entry of a tensor of bools is true, as a tensor: what distributions check with."""

sample_dirichlet = torch._sample_dirichlet
"""Draws by concentration, without a derivative in torch: ``Dirichlet`` adds it."""

batch_norm_evaluated: OpOverload = torch.ops.aten._native_batch_norm_legit_no_training.default
"""Of inputs, weight, bias, running mean and variance, momentum and epsilon; it writes into none."""

__all__ = [
    "DATA_DEPENDENT",
    "METADATA",
    "BatchNorm",
    "Dirichlet",
    "FakeTensor",
    "HigherOrderOperator",
    "OpOverload",
    "aliases",
    "all_true",
    "batch_norm_evaluated",
    "data_getter",
    "data_setter",
    "decompositions",
    "flag_setter",
    "functional_inputs",
    "gradient_getter",
    "has_backward_hooks",
    "intercepted_functions",
    "is_composite",
    "is_differentiating",
    "is_mutable",
    "is_plain",
    "keep_unused",
    "outside_tracing",
    "pack",
    "pytree",
    "rejection_sampler",
    "sample_dirichlet",
    "share_memory",
    "tables_of",
    "unpack",
    "version",
    "with_own_graph",
    "without_function_modes",
]


def is_mutable(operation: Any) -> bool:
    """Whether it writes into one of its arguments."""
    schema = getattr(operation, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def aliases(operation: Any) -> bool:
    """Whether a result may be a view of an argument."""
    schema = getattr(operation, "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether it has memory of its own: no stand-in of a tracer or of ``torch.func``."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return not wrapped and not torch._is_functional_tensor(tensor)


def is_differentiating() -> bool:
    """Whether ``torch.func`` differentiates what runs now."""
    stack = torch._C._functorch.get_interpreter_stack() or []
    kinds = (torch._C._functorch.TransformType.Grad, torch._C._functorch.TransformType.Jvp)
    return any(interpreter.key() in kinds for interpreter in stack)


def is_composite(operation: OpOverload) -> bool:
    """Whether it is written in terms of others: ``operation.decompose`` runs those."""
    return bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(
            operation.name(), torch._C.DispatchKey.CompositeImplicitAutograd
        )
    )


def decompositions() -> tuple[Mapping[Any, Callable[..., Any]], Mapping[Any, Callable[..., Any]]]:
    """How torch takes operations apart: into the core ones, and any others that it knows."""
    return torch._decomp.core_aten_decompositions(), torch._decomp.decomposition_table


def with_own_graph(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same program; what changes its graph leaves the first one as it was."""
    program = copy.copy(program)
    program._graph_module = copy.deepcopy(program.graph_module)
    return program


_install = threading.RLock()
_handlers = threading.local()
_active = 0
_apply = torch.autograd.Function.__dict__["apply"]


@contextlib.contextmanager
def intercepted_functions(handler: Callable[..., Any]) -> Iterator[None]:
    """``handler(kind, apply, *args)`` in place of ``kind.apply(*args)``, in this thread alone.

    torch has no mode for calls of a ``torch.autograd.Function``, so the method is replaced while
    any thread asks for it; every other thread goes through to torch's own.
    """
    global _active
    handlers = _handlers.__dict__.setdefault("stack", [])
    handlers.append(handler)
    with _install:
        _active += 1
        torch.autograd.Function.apply = classmethod(_dispatch)  # type: ignore[assignment]
    try:
        yield
    finally:
        handlers.pop()
        with _install:
            _active -= 1
            if not _active:
                torch.autograd.Function.apply = _apply  # type: ignore[method-assign]


def _dispatch(kind: Any, *args: Any, **kwargs: Any) -> Any:
    original = _apply.__get__(None, kind)
    handlers = getattr(_handlers, "stack", None)
    return handlers[-1](kind, original, *args, **kwargs) if handlers else original(*args, **kwargs)


def version(tensor: torch.Tensor) -> int:
    """How often its memory was written into; aliases and views count together."""
    return tensor._version


def share_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether they are views of one memory, which stand-ins need not have."""
    dense = one.layout == other.layout == torch.strided
    return dense and one.untyped_storage()._cdata == other.untyped_storage()._cdata


def keep_unused(operation: OpOverload) -> None:
    """Graphs keep this operation even where nothing uses what it gives."""
    torch.fx.node.has_side_effect(operation)


def data_getter() -> Any:
    """What reading ``tensor.data`` is to a ``TorchFunctionMode``."""
    return torch.Tensor.data.__get__  # type: ignore[attr-defined]


METADATA: frozenset[Any] = frozenset(
    {
        *(
            getattr(torch.Tensor, name).__get__
            for name in ("shape", "dtype", "device", "layout", "ndim", "is_sparse", "is_nested")
        ),
        *(
            getattr(torch.Tensor, name)
            for name in ("dim", "size", "stride", "numel", "is_contiguous", "storage_offset")
        ),
        *(
            getattr(torch.Tensor, name)
            for name in ("is_conj", "is_neg", "is_floating_point", "is_complex", "element_size")
        ),
    }
)
"""What asks a tensor for its form: of all that a ``TorchFunctionMode`` sees, the most."""


def data_setter() -> Any:
    """What ``tensor.data = ...`` is to it."""
    return torch.Tensor.data.__set__  # type: ignore[attr-defined]


def gradient_getter() -> Any:
    """What reading ``tensor.grad`` is to it."""
    return torch._C.TensorBase.__dict__["grad"].__get__


def flag_setter() -> Any:
    """What ``tensor.requires_grad = ...`` is to it."""
    return torch.Tensor.requires_grad.__set__  # type: ignore[attr-defined]


def tables_of(module: torch.nn.Module) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What a module holds itself, by name: parameters, buffers, and other attributes."""
    tables = ("_parameters", "_buffers", "_modules")
    others = {n: v for n, v in vars(module).items() if n not in tables}
    return module._parameters, module._buffers, others


def has_backward_hooks(of: torch.nn.Module | torch.Tensor) -> bool:
    """Whether something is called with its gradients."""
    return bool(of._backward_hooks or getattr(of, "_backward_pre_hooks", None))


@contextlib.contextmanager
def without_function_modes() -> Iterator[None]:
    """No ``TorchFunctionMode`` of whoever calls is on; afterwards they are again."""
    with contextlib.ExitStack() as stack:
        while torch._C._len_torch_function_stack():
            mode = torch.overrides._pop_mode()
            stack.callback(torch.overrides._push_mode, mode)
        yield


@contextlib.contextmanager
def outside_tracing() -> Iterator[None]:
    """Tensors made here have values, though torch.export runs."""
    with without_function_modes(), torch.utils._python_dispatch._disable_current_modes():
        yield
