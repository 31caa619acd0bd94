"""Gradients that forward takes itself: values, and gradients of them, as torch has them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.autograd import functional

import interop
from tests.interop.module_cases import Of

ONE = torch.ones(3)


def force(create: bool, prepare: Any) -> Any:
    def forward(m: Any, x: Any) -> Any:
        x = prepare(x).requires_grad_(True)
        energy = (x**3 * m.w).sum()
        return torch.autograd.grad(energy, x, create_graph=create)[0] * m.w.sum()

    return forward


def adapted(create: bool) -> Any:
    def forward(m: Any, x: Any) -> Any:
        (slope,) = torch.autograd.grad(((m.w * x) ** 2).sum(), m.w, create_graph=create)
        return (m.w - 0.1 * slope) * x

    return forward


def penalty(m: Any, x: Any) -> Any:
    x = x.requires_grad_(True)
    (slope,) = torch.autograd.grad(x**2 * m.w, x, torch.ones_like(x), create_graph=True)
    return (slope.norm(2) - 1) ** 2


def batched(m: Any, x: Any) -> Any:
    x = x.requires_grad_(True)
    rows = torch.autograd.grad(
        x**2 * m.w, x, torch.eye(3), is_grads_batched=True, create_graph=True
    )
    return rows[0]


def backward(m: Any, x: Any) -> Any:
    y = x.detach().clone().requires_grad_(True)
    (y**3 * m.w.detach()).sum().backward()
    return y.grad * m.w


def curvature(m: Any, x: Any) -> Any:
    return functional.hessian(lambda y: (y**3 * m.w).sum(), x, create_graph=True)


def dual(m: Any, x: Any) -> Any:
    with torch.autograd.forward_ad.dual_level():
        pair = torch.autograd.forward_ad.make_dual(x, ONE)
        return torch.autograd.forward_ad.unpack_dual(pair**2 * m.w).tangent


def itself(x: Any) -> Any:
    return x


FORWARDS: dict[str, Any] = {
    "forces, with a graph": force(True, itself),
    "forces, without": force(False, itself),
    "of a clone": force(True, torch.Tensor.clone),
    "of a clone, without": force(False, torch.Tensor.clone),
    "of a detached clone": force(True, lambda x: x.detach().clone()),
    "of a clone detached": force(True, lambda x: x.clone().detach()),
    "a step in forward": adapted(True),
    "a step of first order": adapted(False),
    "a penalty": penalty,
    "batched": batched,
    "backward": backward,
    "jacobian": lambda m, x: functional.jacobian(lambda y: y**2 * m.w, x, create_graph=True),
    "jacobian, without": lambda m, x: functional.jacobian(lambda y: y**2 * m.w, x) * m.w,
    "hessian": curvature,
    "vjp": lambda m, x: functional.vjp(lambda y: y**2 * m.w, x, ONE, create_graph=True)[1],
    "jvp": lambda m, x: functional.jvp(lambda y: y**2 * m.w, x, ONE, create_graph=True)[1],
    "dual numbers": dual,
    "data set": lambda m, x: _set(x * 1, m.w.detach() * 2) * m.w,
    "data of a result set": lambda m, x: _set(x * m.w, x.detach()) * m.w,
}


def _set(x: Any, value: Any) -> Any:
    x.data = value
    return x


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's, of dual numbers
@pytest.mark.parametrize("name", FORWARDS)
def test_gradients_of_gradients(name: str) -> None:
    module = Of(FORWARDS[name], w=torch.tensor([1.0, 2.0, 3.0]))
    net = interop.to_jax(module)
    x = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    expected = module(x)
    weights = torch.cos(torch.arange(expected.numel()).reshape(expected.shape))
    slopes = torch.autograd.grad(
        (expected * weights).sum(), [module.w, x], allow_unused=True, materialize_grads=True
    )

    def loss(params: Any, x: Any) -> Any:
        found = net(params, x)
        return (found * weights.numpy()).sum(), found

    both, found = jax.grad(loss, (0, 1), has_aux=True)(net.params, jnp.asarray([1.0, -2.0, 0.5]))
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(both[0]["w"], slopes[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(both[1], slopes[1], rtol=1e-5, atol=1e-5)


REFUSED: dict[str, tuple[Any, str]] = {
    "func.grad": (lambda x: torch.func.grad(lambda y: y.square().sum())(x), "jax.grad"),
    "vmap of jacrev": (
        lambda x: torch.func.vmap(torch.func.jacrev(torch.square))(x[None]),
        "jax.grad",
    ),
    "hessian": (lambda x: torch.func.hessian(lambda y: (y**3).sum())(x), "jax.grad"),
    "linearize": (lambda x: torch.func.linearize(torch.square, x)[1](x), "convert those instead"),
    "backward with a graph": (
        lambda x: (x.requires_grad_() ** 2).sum().backward(create_graph=True),
        r"torch.autograd.grad\(..., create_graph=True\)",
    ),
    "data of another shape": (lambda x: _set(x * 1, torch.ones(2)), "keep shape and dtype"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_names_the_way(name: str) -> None:
    function, message = REFUSED[name]
    net = interop.to_jax(Of(lambda m, x: function(x)))
    with pytest.raises(interop.ConversionError, match=message):
        net({}, jnp.ones(3))
