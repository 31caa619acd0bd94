"""State of every form: replaced in forward, uninitialised, extra, sparse, and kept activations."""

from collections import deque
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import interop
from tests.interop.module_cases import array, numbers


class Held(nn.Module):
    """A function of state by name."""

    def __init__(self, function: Any, buffer: bool, trained: bool = False) -> None:
        super().__init__()
        self.function = function
        if buffer:
            self.register_buffer("b", torch.ones(3))
        else:
            self.b = nn.Parameter(torch.ones(3), requires_grad=trained)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def assigned(m: Any, x: Any) -> Any:
    m.b = m.b * 0.5 + x
    return m.b * 2


def assigned_twice(m: Any, x: Any) -> Any:
    old, m.b = m.b, m.b + x
    m.b = m.b * 2
    return m.b + old


def without_gradient(m: Any, x: Any) -> Any:
    with torch.no_grad():
        m.b = m.b * 0.5 + x
    return m.b * x


def in_the_table(m: Any, x: Any) -> Any:
    m._buffers["b"] = m.b * 0.5 + x
    return m.b * 2


def registered_again(m: Any, x: Any) -> Any:
    old = m.b
    del m.b
    m.register_buffer("b", old + x)
    return m.b * 2


def the_input(m: Any, x: Any) -> Any:
    old, m.b = m.b, x
    return old * x


def its_data(m: Any, x: Any) -> Any:
    m.b.data = m.b.data * 0.5 + x
    return m.b * 2


def copied(m: Any, x: Any) -> Any:
    with torch.no_grad():
        m.b.copy_(m.b * 0.5 + x)
    return m.b * 2


def updated(m: Any, x: Any) -> Any:
    m.b.mul_(0.5).add_(x)
    return m.b * 2


STATE: dict[str, tuple[Any, bool, bool]] = {
    "buffer assigned": (assigned, True, False),
    "buffer assigned twice": (assigned_twice, True, False),
    "buffer assigned without gradients": (without_gradient, True, False),
    "buffer in its table": (in_the_table, True, False),
    "buffer registered again": (registered_again, True, False),
    "buffer becomes the input": (the_input, True, False),
    "buffer's data": (its_data, True, False),
    "parameter's data": (its_data, False, True),
    "frozen parameter's data": (its_data, False, False),
    "frozen parameter copied into": (copied, False, False),
    "frozen parameter updated": (updated, False, False),
}


@pytest.mark.parametrize("name", STATE)
@pytest.mark.parametrize("nested", [False, True])
def test_state_that_forward_replaces_is_passed_on(name: str, nested: bool) -> None:
    function, *how = STATE[name]
    module: nn.Module = Held(function, *how)
    module = nn.Sequential(nn.Identity(), module) if nested else module
    net = interop.to_jax(module)
    with pytest.raises(interop.ConversionError, match=r"net\.stateful"):
        net(net.params, jnp.ones(3))
    params, buffers = net.params, net.buffers
    for seed in range(3):
        x = numbers(3, seed=seed)
        after = net.stateful(params, array(x), buffers=buffers)
        params, buffers = after.params, after.buffers
        np.testing.assert_allclose(after.output, module(x).detach(), rtol=1e-6)
    for key, tensor in module.state_dict().items():
        np.testing.assert_allclose({**params, **buffers}[key], tensor, rtol=1e-6)


def smaller(m: Any, x: Any) -> Any:
    m.b = m.b[:2]
    return x


def parameter(m: Any, x: Any) -> Any:
    m.b = nn.Parameter(m.b * 0.5 + x)
    return m.b * 2


def part(m: Any, x: Any) -> Any:
    m.layer = nn.Linear(3, 3)
    return m.layer(x)


@pytest.mark.parametrize(
    ("function", "buffer", "message"),
    [
        (smaller, True, "replaces the buffer 'b'.*keep its shape"),
        (parameter, False, r"replaces the parameter 'b'.*b.data.copy_"),
        (part, True, "replaces its part 'layer'"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(function: Any, buffer: bool, message: str) -> None:
    net = interop.to_jax(Held(function, buffer))
    with pytest.raises(interop.ConversionError, match=message):
        net.stateful(net.params, jnp.ones(3))


# ---- what a module holds -------------------------------------------------------------------------


def test_parameters_without_a_shape() -> None:
    module = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    with pytest.raises(interop.ConversionError, match=r"'0.weight' has no shape yet: call"):
        interop.to_jax(module)
    module(torch.ones(2, 4))
    interop.to_jax(module)


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_buffers(layout: str) -> None:
    module = nn.Module()
    module.register_buffer("a", getattr(torch.eye(3), layout)())
    with pytest.raises(interop.ConversionError, match=r"'a' has the layout .*\.to_dense\(\)"):
        interop.to_jax(module)


@pytest.mark.parametrize("extra", [torch.tensor([5.0]), {"count": 5, "names": ["a"]}])
def test_extra_state_is_in_the_state_dict(extra: Any) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return extra

        def set_extra_state(self, state: Any) -> None:
            self.state = state

    module = nn.Sequential(Extra(3, 2), nn.ReLU())
    net = interop.to_jax(module)
    found = net.state_dict(net.params)
    assert list(found) == list(module.state_dict())
    kept = found["0._extra_state"]
    assert kept == extra if isinstance(extra, dict) else interop.to_tensor(kept) == extra


class Slotted:
    __slots__ = ("kept",)


KEPT: dict[str, Any] = {
    "attribute": lambda m, h: setattr(m, "kept", h),
    "list": lambda m, h: setattr(m, "kept", [h]),
    "deque": lambda m, h: setattr(m, "kept", deque([{"h": h}])),
    "object": lambda m, h: setattr(m, "kept", type("Kept", (), {"h": h})),
    "slots": lambda m, h: setattr(setattr(m, "kept", Slotted()) or m.kept, "kept", [h]),
}


@pytest.mark.parametrize("way", KEPT)
def test_an_activation_that_was_kept_is_no_obstacle(way: str) -> None:
    module = nn.Linear(3, 2)
    KEPT[way](module, module(torch.ones(1, 3)))
    net = interop.to_jax(module)
    x = numbers(4, 3)
    np.testing.assert_allclose(net(net.params, array(x)), module(x).detach(), rtol=1e-5)


def test_an_alias_keeps_what_the_buffer_was() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("b", torch.ones(3))
            self.kept = [self.b]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.b = self.b * 2 + x
            return self.kept[0] * 1

    found, buffers = interop.to_jax(Both()).train({}, jnp.ones(3))
    np.testing.assert_array_equal(found, [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(buffers["b"], [3.0, 3.0, 3.0])


def returned(m: Any, x: Any) -> Any:
    old, m.b = m.b, m.b * 2 + x
    return old[:2], old


def swapped(m: Any, x: Any) -> Any:
    m.b, m.c = m.c, m.b
    return m.b + x


def flipped(m: Any, x: Any) -> Any:
    m.b = m.b.view(3)
    m.b.add_(x)
    return m.b * 1


@pytest.mark.parametrize("function", [returned, swapped, flipped])
def test_what_a_buffer_was_is_what_it_was(function: Any) -> None:
    module = Held(function, True)
    module.register_buffer("c", torch.full((3,), 5.0))
    net = interop.to_jax(module)
    buffers, x = net.buffers, numbers(3)
    for _ in range(3):
        found, buffers = net.train({}, array(x), buffers=buffers)
        expected = module(x)
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = found if isinstance(found, tuple) else (found,)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
        for key, tensor in module.named_buffers():
            np.testing.assert_allclose(buffers[key], tensor, rtol=1e-6)


def test_a_part_in_two_places_is_not_replaced() -> None:
    shared = nn.ReLU()
    block = nn.Sequential(nn.Linear(3, 3), shared, nn.Linear(3, 3), shared)
    module = nn.Sequential(nn.Sequential(block, nn.Identity()))
    net = interop.to_jax(module)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    have = net(net.params, jnp.asarray(x.numpy()))
    np.testing.assert_allclose(have, module(x).detach().numpy(), rtol=1e-5, atol=1e-6)
