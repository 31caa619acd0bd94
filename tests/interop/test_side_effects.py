"""What forward changes in place comes back from ``stateful``, or is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import interop
from tests.interop.module_cases import Of, array, numbers


class Cache(nn.Module):
    """Attention's keys, written into a tensor that is passed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, cache: dict[str, Any], at: torch.Tensor) -> torch.Tensor:
        cache["k"].index_copy_(0, at, self.linear(x))
        return cache["k"].sum(0)


def test_a_cache_that_is_written_comes_back() -> None:
    module = Cache()
    net = interop.to_jax(module)
    x, k = numbers(1, 3), torch.zeros(4, 3)
    cache, expected = {"k": jnp.zeros((4, 3))}, []
    step = jax.jit(net.stateful)
    for i in range(3):
        after = step(net.params, array(x), cache, at=jnp.array([i]))
        expected.append(module(x, {"k": k}, torch.tensor([i])).detach())
        np.testing.assert_allclose(after.output, expected[-1], rtol=1e-5)
        (_, cache), kwargs = after.inputs
        np.testing.assert_allclose(cache["k"], k.detach(), rtol=1e-5)
        assert kwargs["at"] == i
    with pytest.raises(interop.ConversionError, match=r"changes input 1 in place.*net.stateful"):
        net(net.params, array(x), cache, jnp.array([0]))
    slope = jax.grad(lambda p: net.stateful(p, array(x), cache, jnp.array([3])).output.sum())
    np.testing.assert_allclose(slope(net.params)["linear.bias"], np.ones(3), rtol=1e-6)


class Counts(nn.Module):
    """Counts its calls in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x * self.count


@pytest.mark.parametrize("training", [False, True])
def test_running_state_in_both_modes(training: bool) -> None:
    net = interop.to_jax(Counts())
    buffers = net.buffers
    for i in range(1, 4):
        after = net.stateful({}, jnp.ones(2), training=training, buffers=buffers)
        buffers = after.buffers
        np.testing.assert_array_equal(after.output, [i, i])
    assert buffers["count"] == 3
    assert net.buffers["count"] == 0
    with pytest.raises(interop.ConversionError, match="changes 'count' in place"):
        net({}, jnp.ones(2))
    assert net.train({}, jnp.ones(2))[1]["count"] == 1


def test_a_parameter_that_training_changes() -> None:
    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.code = nn.Parameter(torch.ones(2), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.code.mul_(0.5).add_(0.5 * x)
            return x * self.code

    net = interop.to_jax(Codes())
    after = net.stateful(net.params, jnp.array([3.0, 5.0]), training=True)
    np.testing.assert_array_equal(after.params["code"], [2.0, 3.0])
    np.testing.assert_array_equal(after.output, [6.0, 15.0])
    with pytest.raises(interop.ConversionError, match="changes 'code' in place"):
        net.train(net.params, jnp.ones(2))
    np.testing.assert_array_equal(net(net.params, jnp.ones(2)), [1.0, 1.0])


@pytest.mark.parametrize("name", ["code", "graph", "module", "meta"])
def test_state_may_have_the_names_of_a_graph(name: str) -> None:
    module = nn.Module()
    module.register_parameter(name, nn.Parameter(torch.ones(2)))
    module.forward = lambda x: x * getattr(module, name)  # type: ignore[method-assign]
    net = interop.to_jax(module)
    np.testing.assert_array_equal(net({name: jnp.full(2, 3.0)}, jnp.ones(2)), [3.0, 3.0])


# ---- attributes ---------------------------------------------------------------------------------


class Keeps(nn.Module):
    """Leaves something in an attribute."""

    def __init__(self, function: Any, **attributes: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def state(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.h = m.h + x
    return m.h


def in_place(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.h.add_(x)
    return m.h * 2


def lazy(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.h = x if m.h is None else m.h + x
    return m.h


def number(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.n += 1
    return x * m.n


def listed(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.xs.append(x)
    return sum(m.xs)


MEMORY = {
    "tensor": (state, {"h": torch.zeros(2)}, r"forward keeps '(0\.)?h'"),
    "tensor in place": (in_place, {"h": torch.zeros(2)}, r"forward keeps '(0\.)?h'"),
    "from None": (lazy, {"h": None}, r"forward keeps '(0\.)?h'"),
    "number": (number, {"n": 0}, r"forward keeps '(0\.)?n'"),
    "list": (listed, {"xs": []}, r"forward keeps '(0\.)?xs'"),
}


@pytest.mark.parametrize("name", MEMORY)
def test_what_the_next_call_would_read_is_refused(name: str) -> None:
    function, attributes, message = MEMORY[name]
    for module in (Keeps(function, **attributes), nn.Sequential(Keeps(function, **attributes))):
        net = interop.to_jax(module)
        with pytest.raises(interop.ConversionError, match=message):
            net({}, jnp.ones(2))


def last(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.last, m.calls = x * 2, m.calls + 1
    m.history.append(m.last)
    return m.last


def masked(m: Any, x: torch.Tensor) -> torch.Tensor:
    if m.mask is None or m.mask.shape[-1] != x.shape[-1]:
        m.mask = torch.tril(torch.ones(x.shape[-1], x.shape[-1]))
    return x @ m.mask


def overwritten(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.weight = x * 3
    return m.weight + 1


HARMLESS = {
    "kept to be looked at": (last, {"last": None, "calls": 0, "history": []}),
    "a mask": (masked, {"mask": None}),
    "written before it is read": (overwritten, {"weight": torch.ones(2)}),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_later_call_is_no_obstacle(name: str) -> None:
    function, attributes = HARMLESS[name]
    net = interop.to_jax(Keeps(function, **attributes))
    module = Keeps(function, **attributes)
    for seed in range(2):
        x = numbers(2, seed=seed)
        np.testing.assert_allclose(net({}, array(x)), module(x), rtol=1e-6)
    np.testing.assert_allclose(net({}, array(numbers(3, 2))), module(numbers(3, 2)), rtol=1e-6)


def test_lists_of_inputs_are_no_state() -> None:
    net = interop.to_jax(Of(lambda m, xs: xs.pop() + xs[0]))
    assert net({}, [jnp.ones(()), jnp.zeros(())]) == 1
