"""Backwards that people write themselves: functions, hooks of activations, checkpoints."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import interop
from tests.interop.module_cases import Of, agree, array, numbers


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, by: float) -> torch.Tensor:
        ctx.by = by
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return -ctx.by * gradient, None


class Swish(torch.autograd.Function):
    """With tensors saved, and a slope that is not its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, torch.sigmoid(x))
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        x, s = ctx.saved_tensors
        return 3 * gradient * s * (1 + x * (1 - s))


class Set(torch.autograd.Function):
    """With its context set apart, a default, and two outputs of which one is an index."""

    @staticmethod
    def forward(x: torch.Tensor, dim: int = -1) -> Any:
        return x.max(dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.dim = inputs
        ctx.shape = x.shape
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: Any) -> Any:
        (index,) = ctx.saved_tensors
        zeros = torch.zeros(ctx.shape, dtype=gradient.dtype)
        return zeros.scatter(
            ctx.dim, index.unsqueeze(ctx.dim), 2 * gradient.unsqueeze(ctx.dim)
        ), None


class Twice(torch.autograd.Function):
    """Of two tensors, one attribute of ctx, one without a gradient; once differentiable."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ctx.w, ctx.inputs = w, {"x": x}
        return torch.where(mask, x * w, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        slopes = [None, (gradient * ctx.inputs["x"]).sum(0), None]
        if ctx.needs_input_grad[0]:
            slopes[0] = gradient * ctx.w + 1
        return tuple(slopes)


class Nested(torch.autograd.Function):
    """Calls another in both directions."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return Swish.apply(x) + 1

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return gradient * Swish.apply(x)


def maximum(m: Any, x: torch.Tensor) -> torch.Tensor:
    values, index = Set.apply(x * m.w)
    return values * index


FUNCTIONS = {
    "gradient reversal": lambda m, x: Reverse.apply(x * m.w, 0.5),
    "saved tensors": lambda m, x: Swish.apply(Swish.apply(x) * m.w),
    "context set apart": maximum,
    "several inputs": lambda m, x: Twice.apply(x, m.w, x > 0) ** 2,
    "nested": lambda m, x: Nested.apply(x * m.w),
    "within a checkpoint": lambda m, x: checkpoint(
        lambda x: Swish.apply(x * m.w), x, use_reentrant=False
    ),
    "hook": lambda m, x: with_hooks(x * m.w, lambda g: -2 * g),
    "hook that gives nothing": lambda m, x: with_hooks(x * m.w, lambda g: None),
    "hooks in their order": lambda m, x: with_hooks(
        x * m.w, lambda g: g + 1, lambda g: g * 2, lambda g: g.clamp(-1, 1)
    ),
    "hook after a use": lambda m, x: used_before(x * m.w),
    "hook of an input": lambda m, x: with_hooks(x, lambda g: 3 * g) * m.w,
    "reentrant checkpoint": lambda m, x: checkpoint(
        lambda x: (x * m.w).sin(), x, use_reentrant=True
    ),
    "reentrant checkpoints in turn": lambda m, x: checkpoint_sequential(
        nn.Sequential(nn.Tanh(), Of(lambda _, x: x * m.w), nn.Tanh()), 2, x, use_reentrant=True
    ),
}


def with_hooks(x: torch.Tensor, *hooks: Any) -> torch.Tensor:
    for hook in hooks:
        x.register_hook(hook)
    return x.sin() * x


def used_before(x: torch.Tensor) -> torch.Tensor:
    y = x.exp()
    x.register_hook(lambda g: -g)
    return y + x**2


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_are_torchs(name: str) -> None:
    agree(Of(FUNCTIONS[name], w=numbers(3, seed=1)), numbers(4, 3))


class Cube(torch.autograd.Function):
    """Saves its output: the second derivative goes through this backward again."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = x**3
        ctx.save_for_backward(y, x)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        y, x = ctx.saved_tensors
        return 5 * gradient * y / x


@pytest.mark.parametrize("function", [Swish, Cube, Reverse])
def test_second_derivatives_are_torchs(function: Any) -> None:
    more = (0.5,) if function is Reverse else ()
    module = Of(lambda m, x: function.apply(x * m.w, *more).exp(), w=numbers(3, seed=1))
    x = numbers(4, 3).requires_grad_()
    (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(slope.square().sum(), x)
    net = interop.to_jax(module)
    slope_of = jax.grad(lambda x: net(net.params, x).sum())
    found = jax.jit(jax.grad(lambda x: jnp.sum(slope_of(x) ** 2)))(array(x))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_batches_are_mapped() -> None:
    net = interop.to_jax(Of(lambda m, x: Swish.apply(x * m.w), w=numbers(3, seed=1)))
    x = array(numbers(5, 4, 3))
    each = jax.vmap(jax.grad(lambda x: net(net.params, x).sum()))(x)
    for i in range(5):
        one = jax.grad(lambda x: net(net.params, x).sum())(x[i])
        np.testing.assert_allclose(each[i], one, rtol=1e-5)


def test_complex_gradients_have_torchs_convention() -> None:
    class Times(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * (2 + 1j)

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * (2 - 1j)

    z = torch.complex(numbers(3), numbers(3, seed=1))
    plain = interop.to_jax(Of(lambda m, z: (z * (2 + 1j)).real.sum()))
    own = interop.to_jax(Of(lambda m, z: Times.apply(z).real.sum()))
    slopes = [jax.grad(lambda z, n=n: n({}, z))(array(z)) for n in (plain, own)]
    np.testing.assert_allclose(*slopes, rtol=1e-6)


class Dirty(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return 2 * gradient


REFUSED = {
    "in place": (lambda m, x: Dirty.apply(x * m.w), "changes its input in place"),
    "list": (lambda m, x: Listed.apply([x * m.w]), "takes tensors inside a list or dict"),
    "closure": (
        lambda m, x: with_hooks(x * 2, lambda g: g * m.w),
        "reads a parameter or buffer that is none of its arguments",
    ),
    "removed": (lambda m, x: (x * m.w).register_hook(lambda g: g).remove(), "a hook is removed"),
}


class Listed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, xs: Any) -> torch.Tensor:
        return xs[0] * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> None:
        return None


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_refused(name: str) -> None:
    function, message = REFUSED[name]
    net = interop.to_jax(Of(function, w=numbers(3, seed=1)))
    with pytest.raises(interop.ConversionError, match=message):
        net(net.params, jnp.ones((4, 3)))
