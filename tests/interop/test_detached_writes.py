"""What is written through a detached alias is seen, and leaves the gradient that torch leaves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import interop
from tests.interop.module_cases import Of

PLACES = torch.tensor([0, 2])

WRITES: dict[str, Any] = {
    "relu in place": lambda a, x: functional.relu(a, inplace=True),
    "a module in place": lambda a, x: nn.ReLU(inplace=True)(a),
    "dropout in place": lambda a, x: functional.dropout(a, 0.5, False, inplace=True),
    "silu in place": lambda a, x: functional.silu(a, inplace=True),
    "add, out": lambda a, x: torch.add(x.detach(), 1, out=a),
    "of itself, out": lambda a, x: torch.mul(a, 2, out=a),
    "cat, out": lambda a, x: torch.cat([x.detach()[:1], x.detach()[1:]], out=a),
    "index_copy_": lambda a, x: a.index_copy_(0, PLACES, x[:2]),
    "scatter_": lambda a, x: a.scatter_(0, PLACES, x[:2]),
    "copy_": lambda a, x: a.copy_(x),
    "+=": lambda a, x: a.__iadd__(x),
    "an item": lambda a, x: a.__setitem__(0, 9.0),
    "a view filled": lambda a, x: a[:2].fill_(4.0),
    "a view in place": lambda a, x: functional.relu(a.view(3, 1), inplace=True),
    "a view out": lambda a, x: torch.neg(a[1:], out=a[1:]),
    "parts": lambda a, x: [part.mul_(3) for part in a.unbind()],
    "initialised": lambda a, x: nn.init.constant_(a, 3.0),
    "running statistics": lambda a, x: functional.batch_norm(
        torch.ones(4, 3) * x, a, torch.ones(3), training=True
    ),
}

ALIASES: dict[str, Any] = {
    "detach": torch.Tensor.detach,
    "data": lambda t: t.data,
    "view": lambda t: t.detach().view(3),
}


def of_an_activation(write: Any, alias: Any) -> Any:
    def forward(m: Any, x: Any) -> Any:
        y = x * m.w
        write(alias(y), x)
        return y * m.w + x

    return forward


def of_a_parameter(write: Any, alias: Any) -> Any:
    def forward(m: Any, x: Any) -> Any:
        write(alias(m.w), x)
        return x * m.w

    return forward


def agrees(forward: Any) -> None:
    module = Of(forward, w=torch.tensor([-1.0, 2.0, 3.0]))
    net = interop.to_jax(module)
    x = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    given, weights = jnp.asarray([1.0, -2.0, 0.5]), np.cos(np.arange(3.0, dtype=np.float32))

    def loss(params: Any, x: Any) -> Any:
        after = net.stateful(params, x)
        return (after.output * weights).sum(), after

    slopes, after = jax.grad(loss, (0, 1), has_aux=True)(net.params, given)
    expected = module(x)
    theirs = torch.autograd.grad((expected * torch.from_numpy(weights)).sum(), [module.w, x])
    np.testing.assert_allclose(after.output, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(after.params["w"], module.w.detach(), rtol=1e-5)
    np.testing.assert_allclose(slopes[0]["w"], theirs[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slopes[1], theirs[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("kind", [of_an_activation, of_a_parameter])
def test_values_and_gradients(name: str, kind: Any) -> None:
    agrees(kind(WRITES[name], ALIASES["detach"]))


@pytest.mark.parametrize("alias", ["data", "view"])
@pytest.mark.parametrize("kind", [of_an_activation, of_a_parameter])
def test_every_alias(alias: str, kind: Any) -> None:
    agrees(kind(WRITES["a view in place"], ALIASES[alias]))


def test_writes_into_the_tensor_itself_keep_their_gradient() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = x * m.w
        alias = y.detach()
        y.add_(alias)
        return y * m.w

    agrees(forward)


def test_an_infinite_value_stays_one() -> None:
    def forward(m: Any, x: Any) -> Any:
        mask = torch.full((3,), float("-inf")) + x * 0
        mask.detach()[1] = 0.0
        return torch.softmax(mask, 0) * m.w

    net = interop.to_jax(Of(forward, w=torch.ones(3)))
    np.testing.assert_array_equal(net(net.params, jnp.ones(3)), [0.0, 1.0, 0.0])
