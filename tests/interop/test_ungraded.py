"""Writes of what has a gradient into what has none: as in torch, or refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import interop
from tests.interop.module_cases import Of


def without(function: Any) -> Any:
    """The function under no_grad."""
    return torch.no_grad()(function)


@torch.no_grad()
def accumulated(w: Any, x: Any) -> Any:
    out = torch.zeros(3)
    out.add_(w)
    out[1:] += x[1:]
    out[:1].mul_(w[:1])
    return out


@torch.no_grad()
def alias_and_all(w: Any, x: Any) -> Any:
    y = w * x
    return y.detach(), y


def written_past(alias: Any) -> Any:
    """As torch's Gamma keeps its draws above zero."""

    @torch.no_grad()
    def function(w: Any, x: Any) -> Any:
        y = w * x
        alias(y).clamp_(min=0.4)
        return y

    return function


def plus(y: Any, v: Any) -> Any:
    y += v
    return y


def with_a_part(y: Any, v: Any) -> Any:
    y[1:] = v[1:]
    return y


def with_a_view(y: Any, v: Any) -> Any:
    y.view(3, 1).mul_(v[:, None])
    return y


MADE: dict[str, Any] = {
    "a product": without(lambda w, x: w * x),
    "a detached one": without(lambda w, x: (w * x).view(3).detach()),
    "data": without(lambda w, x: (w * x).data),
    "a sum in place": accumulated,
    "one of several": without(lambda w, x: torch.topk(w * x, 3).values),
    "a constant": without(lambda w, x: torch.arange(3.0)),
    "a clone": lambda w, x: (w * x).detach().clone(),
    "the alias of two": lambda w, x: alias_and_all(w, x)[0],
    "the tensor of two": lambda w, x: alias_and_all(w, x)[1],
    "a detached one that is written": written_past(lambda y: y.detach()),
    "the alias of one that is written": written_past(lambda y: y.detach().detach()),
    "a part of one that is written": written_past(lambda y: y.detach()[1:]),
    "detached twice": without(lambda w, x: (w * x).detach().detach()),
    "moved": lambda w, x: without(lambda w, x: (w * x).detach())(w, x).to(w.device),
}


@pytest.mark.parametrize("write", [plus, with_a_part, with_a_view])
@pytest.mark.parametrize("name", MADE)
def test_gradients_of_what_is_written_are_torchs(name: str, write: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        y = write(MADE[name](m.w, x), m.v * x)
        return y * m.w + x

    agree(forward)


def test_values_that_are_not_written_have_no_gradient() -> None:
    agree(lambda m, x: accumulated(m.w, x) * m.v + m.w)
    agree(lambda m, x: alias_and_all(m.w, x)[0] * m.v + alias_and_all(m.w, x)[1] * m.w)


def agree(forward: Any) -> None:
    weights = np.cos(np.arange(3.0, dtype=np.float32))
    module = Of(forward, w=torch.tensor([-1.0, 2.0, 3.0]), v=torch.tensor([2.0, 0.5, -1.0]))
    x = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    net, given = interop.to_jax(module), jnp.asarray(x.detach().numpy())
    expected = module(x)
    theirs = torch.autograd.grad(
        (expected * torch.from_numpy(weights)).sum(), [module.w, module.v, x], allow_unused=True
    )
    np.testing.assert_allclose(net(net.params, given), expected.detach(), rtol=1e-5)
    found, of_x = jax.grad(lambda p, x: (net(p, x) * weights).sum(), (0, 1))(net.params, given)
    for have, want in zip((found["w"], found["v"], of_x), theirs, strict=True):
        want = np.zeros(3) if want is None else want
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)


def of_a_detached(m: Any, x: Any) -> Any:
    a = (m.w * x).detach()
    a += m.v
    return a


def of_its_view(m: Any, x: Any) -> Any:
    a = (m.w * x).detach()
    a[1:] = x[1:]
    return a[1:] * 2


def of_data(m: Any, x: Any) -> Any:
    a = (m.w * x).data
    a.mul_(m.v)
    return a + 1


def of_a_tensor_and_its_alias(m: Any, x: Any) -> Any:
    a, y = alias_and_all(m.w, x)
    a += m.v
    return y


def of_an_alias_and_its_tensor(m: Any, x: Any) -> Any:
    a, y = alias_and_all(m.w, x)
    y += m.v
    return a * 2


def of_a_stopped(m: Any, x: Any) -> Any:
    y = x * 1
    y.detach_()
    y += m.v
    return y


@pytest.mark.parametrize(
    "forward",
    [
        of_a_detached,
        of_its_view,
        of_data,
        of_a_tensor_and_its_alias,
        of_an_alias_and_its_tensor,
        of_a_stopped,
    ],
)
def test_gradients_that_would_be_lost_are_refused_by_their_line(forward: Any) -> None:
    net = interop.to_jax(Of(forward, w=torch.ones(3), v=torch.ones(3)))
    with pytest.raises(interop.ConversionError, match=r"test_ungraded\.py:\d+.*clone"):
        net(net.params, jnp.ones(3))
