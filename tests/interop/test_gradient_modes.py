"""Gradients that forward stops itself, and those that it takes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import interop
from tests.interop.module_cases import Of, agree, array, numbers


def under(mode: Any, m: Any, x: torch.Tensor) -> torch.Tensor:
    with mode:
        h = (x * m.w).exp()
    return h.clone() * x + m.w


@torch.inference_mode()
def decorated(x: torch.Tensor) -> torch.Tensor:
    return x.exp()


def frozen(m: Any, x: torch.Tensor) -> torch.Tensor:
    before = x * m.w
    m.w.requires_grad_(False)
    after = before * m.w.exp()
    m.w.requires_grad_(True)
    return after + m.w**2


def flagged(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.w.requires_grad = False
    after = x * m.w.exp()
    m.w.requires_grad = True
    return after + m.w**2


def detached_in_place(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = (x * m.w).exp()
    h.detach_()
    return h * m.w


def clamped(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = x * m.w
    h.detach().clamp_(min=0.1)
    return h**2 * m.w


def scaled_by_data(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = x * m.w
    h.data *= 3
    h.data[:1] = 0.5
    return h**2


def moved(values: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    return values.detach() + of - of.detach()


def set_data(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = x * m.w
    values = torch.cat([torch.full_like(h[:1], 0.5), 3 * h[1:]])
    return moved(values, h) ** 2


#: What stops a gradient or writes past it, and the same by ``detach``.
STOPPED = {
    "inverse of a detached mask": (
        lambda m, x: x * m.w * ~(x > 0).detach(),
        lambda m, x: x * m.w * (x <= 0),
    ),
    "clamp_ of a detached alias": (
        clamped,
        lambda m, x: moved((x * m.w).clamp(min=0.1), x * m.w) ** 2 * m.w,
    ),
    "writes into data": (scaled_by_data, set_data),
    "inference_mode": (
        lambda m, x: under(torch.inference_mode(), m, x),
        lambda m, x: (x * m.w).exp().detach() * x + m.w,
    ),
    "inference_mode, decorator": (
        lambda m, x: decorated(x * m.w).clone() * x + m.w,
        lambda m, x: (x * m.w).exp().detach() * x + m.w,
    ),
    "inference_mode(False)": (
        lambda m, x: under(torch.inference_mode(False), m, x),
        lambda m, x: (x * m.w).exp() * x + m.w,
    ),
    "no_grad": (
        lambda m, x: under(torch.no_grad(), m, x),
        lambda m, x: (x * m.w).exp().detach() * x + m.w,
    ),
    "set_grad_enabled": (
        lambda m, x: under(torch.set_grad_enabled(False), m, x),
        lambda m, x: (x * m.w).exp().detach() * x + m.w,
    ),
    "requires_grad_": (
        frozen,
        lambda m, x: x * m.w * m.w.detach().exp() + m.w**2,
    ),
    "requires_grad": (flagged, lambda m, x: x * m.w.detach().exp() + m.w**2),
    "data": (lambda m, x: x * m.w.data * m.w, lambda m, x: x * m.w.detach() * m.w),
    "detach_": (detached_in_place, lambda m, x: (x * m.w).exp().detach() * m.w),
}


@pytest.mark.parametrize("name", STOPPED)
def test_gradients_stop_where_torch_stops_them(name: str) -> None:
    function, same = STOPPED[name]
    w, x = numbers(3, seed=1), array(numbers(4, 3))
    nets = [interop.to_jax(Of(f, w=w)) for f in (function, same)]
    for value in nets[0](nets[0].params, x), jax.jit(nets[0])(nets[0].params, x):
        np.testing.assert_allclose(value, nets[1](nets[1].params, x), rtol=1e-6)
    for number in (0, 1):
        slopes = [jax.grad(lambda p, x, n=n: n(p, x).sum(), number)(n.params, x) for n in nets]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *slopes)


def test_a_change_in_place_under_inference_mode_is_refused() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = x * m.w
        with torch.inference_mode():
            y.mul_(2)
        return y

    net = interop.to_jax(Of(forward, w=numbers(3)))
    with pytest.raises(interop.ConversionError, match="mul_ changes a tensor in place under torch"):
        net(net.params, jnp.ones(3))


def forces(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    energy = (x * m.w).sin().sum()
    return torch.autograd.grad(energy, x, create_graph=True)[0]


def energy(m: Any, x: torch.Tensor) -> torch.Tensor:
    return (x * m.w).sin().sum()


def test_gradients_taken_in_forward() -> None:
    agree(Of(forces, w=numbers(3, seed=1)), numbers(4, 3))


@pytest.mark.parametrize(
    "take",
    [
        torch.func.grad,
        lambda f: lambda x: torch.func.vjp(f, x)[1](torch.ones(())),
        torch.func.jacfwd,
        torch.func.jacrev,
        torch.func.hessian,
    ],
    ids=["grad", "vjp", "jacfwd", "jacrev", "hessian"],
)
def test_derivatives_of_torch_func_are_refused(take: Any) -> None:
    net = interop.to_jax(Of(lambda m, x: take(lambda x: energy(m, x))(x), w=numbers(3)))
    with pytest.raises(interop.ConversionError, match=r"torch.func differentiates.*jax.grad"):
        net(net.params, jnp.ones(3))
