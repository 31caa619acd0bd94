"""``torch.autograd.Function``: its forward and its backward, exported each for itself.

torch.export would take the forward apart and lose the backward. Here a call becomes one operation,
``interop::function``, which JAX runs as a ``custom_vjp``.
"""

import contextlib
import inspect
import operator
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import library
from torch.utils.checkpoint import CheckpointFunction

from interop._torch import (
    Dirichlet,
    intercepted_functions,
    keep_unused,
    pytree,
    sample_dirichlet,
)
from interop.errors import ConversionError
from interop.from_torch.sources import own_frame

__all__ = ["Call", "Parts", "calls_recorded", "hooked", "in_the_way_of_gradients"]


class Context:
    """What ``forward`` and ``backward`` take for ``ctx``."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[torch.Tensor | None, ...] = ()

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None:
        """They are ``saved_tensors`` in backward."""
        self.saved_tensors = tensors

    def mark_dirty(self, *_: torch.Tensor) -> None:
        """Refused: arrays are not written in place."""
        raise ConversionError(
            f"a torch.autograd.Function changes its input in place ({own_frame()}): return a new "
            "tensor, without ctx.mark_dirty"
        )

    def ignore(self, *_: Any) -> None:
        """What has no meaning in JAX, where every gradient comes as an array."""

    save_for_forward = mark_non_differentiable = set_materialize_grads = ignore


class Parts(NamedTuple):
    """Modules to export, with example inputs: of backward, after forward was exported."""

    forward: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    backward: Callable[[], tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]


@dataclass
class Call:
    """One call of a function: its class, and what it was called with."""

    kind: type
    inputs: tuple[Any, ...]
    at: tuple[int, ...]
    source: str
    output: Any = field(default=None)  # leaves and structure; tensors are examples
    context: Any = field(default=None)  # attributes after forward; tensors are examples

    def forward(self, context: Context, tensors: Sequence[torch.Tensor]) -> Any:
        """The outputs of its ``forward``; ``context`` is what backward reads."""
        inputs = list(self.inputs)
        for i, tensor in zip(self.at, tensors, strict=True):
            inputs[i] = tensor
        kind: Any = self.kind
        if not _has_setup(kind):
            return kind.forward(context, *inputs)
        output = kind.forward(*inputs)
        kind.setup_context(context, tuple(inputs), output)
        return output

    def new_context(self) -> Context:
        """Every input of floats needs its gradient."""
        tensors = [x if i in self.at else None for i, x in enumerate(self.inputs)]
        return Context(tuple(x is not None and _is_smooth(x) for x in tensors))

    def examples(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """New tensors like its outputs."""
        leaves, spec = pytree.tree_flatten(self.forward(self.new_context(), tensors))
        self.output = (leaves, spec)
        return [_like(x) for x in leaves if isinstance(x, torch.Tensor)]

    def structured(self, tensors: Sequence[torch.Tensor]) -> Any:
        """Tensors in the structure of what ``forward`` returns."""
        leaves, spec = self.output
        fresh = iter(tensors)
        return pytree.tree_unflatten(
            [next(fresh) if isinstance(x, torch.Tensor) else x for x in leaves], spec
        )

    def parts(self) -> Parts:
        """What to export."""
        inputs = tuple(_real(self.inputs[i]) for i in self.at)
        return Parts(_Forward(self), inputs, lambda: (_Backward(self), self._of_backward()))

    def _of_backward(self) -> tuple[torch.Tensor, ...]:
        saved = _tensors(self.context)
        outputs = [x for x in self.output[0] if isinstance(x, torch.Tensor)]
        return tuple(_real(x) for x in (*saved, *outputs))


class _Forward(torch.nn.Module):
    """Outputs, then what backward needs."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, *tensors: torch.Tensor) -> Any:
        context = self.call.new_context()
        output = self.call.forward(context, tensors)
        self.call.context = vars(context)
        outputs = [x for x in pytree.tree_leaves(output) if isinstance(x, torch.Tensor)]
        return (*outputs, *_tensors(vars(context)))


class _Backward(torch.nn.Module):
    """From what forward saved, and the outputs' gradients, those of the inputs that are tensors."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, *tensors: torch.Tensor) -> Any:
        call, fresh = self.call, iter(tensors)
        context = Context(())
        leaves, spec = pytree.tree_flatten(call.context)
        leaves = [next(fresh) if isinstance(x, torch.Tensor) else x for x in leaves]
        vars(context).update(pytree.tree_unflatten(leaves, spec))
        gradients = [next(fresh) if isinstance(x, torch.Tensor) else None for x in call.output[0]]
        kind: Any = call.kind
        slopes = kind.backward(context, *gradients)
        slopes = slopes if isinstance(slopes, tuple) else (slopes,)
        return tuple(slopes[i] for i in call.at)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, torch.Tensor)]


def _is_smooth(x: torch.Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _like(x: torch.Tensor) -> torch.Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _real(x: torch.Tensor) -> torch.Tensor:
    """An example without values."""
    return torch.empty(tuple(map(int, x.shape)), dtype=x.dtype)


def _has_setup(kind: Any) -> bool:
    return kind.setup_context is not torch.autograd.Function.setup_context


# ---- while torch.export runs ---------------------------------------------------------------------

_calls: ContextVar[list[Call]] = ContextVar("calls")


@library.custom_op("interop::function", mutates_args=())
def _function(tensors: list[torch.Tensor], number: int) -> list[torch.Tensor]:
    raise NotImplementedError("interop::function is for torch.export alone")


@_function.register_fake
def _(tensors: list[torch.Tensor], number: int) -> list[torch.Tensor]:
    return _calls.get()[number].examples(tensors)


def _ignore_gradient(ctx: Any, *gradients: Any) -> Any:
    raise NotImplementedError("interop::function is for torch.export alone")


_function.register_autograd(_ignore_gradient)


@library.custom_op("interop::hooked", mutates_args=())
def _hooked(tensors: list[torch.Tensor], number: int) -> list[torch.Tensor]:
    raise NotImplementedError("interop::hooked is for torch.export alone")


_hooked.register_fake(lambda tensors, number: [_like(x) for x in tensors])
_hooked.register_autograd(_ignore_gradient)
keep_unused(torch.ops.interop.hooked.default)


@contextlib.contextmanager
def calls_recorded(calls: list[Call]) -> Iterator[None]:
    """Into ``calls`` go those of functions that torch.export meets, by the number in the graph."""
    token = _calls.set(calls)
    try:
        with intercepted_functions(_recorded):
            yield
    finally:
        _calls.reset(token)


def _recorded(kind: Any, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call gives in place of ``kind.apply``."""
    # Those of custom operations and of control flow are torch's way to trace them.
    if kind.__name__.startswith("GeneratedBackwardFor_") or kind.__module__.startswith("torch._"):
        return original(*args, **kwargs)
    if kind is Dirichlet:  # whose draws have a derivative in JAX
        return sample_dirichlet(*args)
    if kind is CheckpointFunction:  # which computes again what it does not keep
        function, _, *inputs = args
        return function(*inputs)
    if _has_setup(kind):
        bound = inspect.signature(kind.forward).bind(*args, **kwargs)
        bound.apply_defaults()
        args = bound.args
    at = tuple(i for i, x in enumerate(args) if isinstance(x, torch.Tensor))
    if len(_tensors(args)) > len(at):
        raise ConversionError(
            f"{kind.__name__} takes tensors inside a list or dict, to which torch gives no "
            f"gradient ({own_frame()}): pass each as an argument"
        )
    calls = _calls.get()
    calls.append(Call(kind, args, at, own_frame()))
    tensors = [args[i] for i in at]
    return calls[-1].structured(torch.ops.interop.function(tensors, len(calls) - 1))


# ---- hooks of tensors ----------------------------------------------------------------------------


class _Handle:
    """What ``register_hook`` gives."""

    def remove(self) -> None:
        raise ConversionError(
            f"a hook is removed in forward ({own_frame()}), where torch would not have called it: "
            "do not register it"
        )


def hooked(tensor: torch.Tensor, hook: Callable[[torch.Tensor], torch.Tensor | None]) -> _Handle:
    """``tensor.register_hook(hook)``: recorded as an operation, which has its place later."""

    class Hook:
        setup_context = torch.autograd.Function.setup_context

        @staticmethod
        def forward(context: Context, x: torch.Tensor) -> torch.Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(context: Context, gradient: torch.Tensor) -> torch.Tensor:
            changed = hook(gradient)
            return gradient if changed is None else changed

    Hook.__name__ = "a hook of a tensor"
    calls = _calls.get()
    calls.append(Call(Hook, (tensor,), (0,), own_frame()))
    calls[-1].examples([tensor])
    torch.ops.interop.hooked([tensor], len(calls) - 1)
    return _Handle()


def in_the_way_of_gradients(program: Any) -> Any:
    """Each hook's operation between its tensor and what uses it, the first next to the users."""
    for module in program.graph_module.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        hooks: dict[Any, list[Any]] = {}
        for node in module.graph.nodes:
            if node.target is torch.ops.interop.hooked.default:
                hooks.setdefault(node.args[0][0], []).append(node)
        for tensor, nodes in hooks.items():
            users = [u for u in tensor.users if u not in nodes]
            result = tensor
            for node in reversed(nodes):
                node.args = ([result], node.args[1])
                result.append(node)
                with module.graph.inserting_after(node):
                    result = module.graph.call_function(operator.getitem, (node, 0))
                result.meta = dict(tensor.meta)
            for user in users:
                user.replace_input_with(tensor, result)
        module.recompile()
    return program
