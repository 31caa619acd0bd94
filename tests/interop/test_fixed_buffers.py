"""Buffers of integers on which forward decides in Python: part of the program, or refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import interop
from tests.interop.module_cases import Of


def of(forward: Any, **buffers: Any) -> torch.nn.Module:
    module = Of(forward)
    for name, value in buffers.items():
        module.register_buffer(name, torch.tensor(value))
    return module


def padded(self: Any, x: torch.Tensor) -> torch.Tensor:
    left = self.kernel - self.stride
    if x.shape[-1] <= max(left, self.stride):
        x = F.pad(x, (0, 1))
    return F.pad(x, (left, self.stride)) * self.scale


def sliced(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x[self.start : self.start + 2].sum() + x[: self.start].prod()


def in_a_view(self: Any, x: torch.Tensor) -> torch.Tensor:
    numbers = torch.zeros(3, dtype=torch.int64)
    numbers[1:].add_(self.start)
    return x.repeat(2) if numbers[2] > 0 else x


MODULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "padding": (padded, {"kernel": 3, "stride": 1, "scale": 2}),
    "bounds": (sliced, {"start": 1}),
    "a flag": (lambda self, x: x if self.start else -x, {"start": False}),
    "a mask": (lambda self, x: x[self.start].sum(), {"start": [True, False, True]}),
    "its places": (lambda self, x: x[self.start.nonzero()[:, 0]], {"start": [0, 1, 3]}),
    "a size": (lambda self, x: x.expand(self.start.item(), -1), {"start": 4}),
    "a size as it is": (lambda self, x: x.expand(self.start, -1), {"start": 4}),
    "counts": (lambda self, x: x.repeat_interleave(self.start, 0), {"start": [2, 0, 1]}),
    "a list": (lambda self, x: x.split(self.start.tolist())[1], {"start": [2, 1]}),
    "a size of itself": (
        lambda self, x: torch.reshape(input=self.start, shape=(1,)).expand(self.start) * x[0],
        {"start": 3},
    ),
    "a factor": (lambda self, x: x * int(self.start), {"start": 4}),
    "by a view": (in_a_view, {"start": 1}),
}


@pytest.mark.parametrize(("forward", "buffers"), MODULES.values(), ids=MODULES)
def test_values_are_part_of_the_program(forward: Any, buffers: dict[str, Any]) -> None:
    module, x = of(forward, **buffers), torch.tensor([2.0, 3.0, 5.0])
    net = interop.to_jax(module)
    found = jax.jit(lambda x: net({}, x))(x.numpy())
    np.testing.assert_allclose(found, module(x), rtol=1e-6)
    name = next(iter(buffers))
    other = net.buffers | {name: net.buffers[name] + 1}
    with pytest.raises(interop.ConversionError, match=f"decides on the buffer '{name}'"):
        net({}, x.numpy(), buffers=other)
    with pytest.raises(interop.ConversionError, match="not as an argument of jit"):
        jax.jit(lambda buffers: net({}, x.numpy(), buffers=buffers))(net.buffers)


def test_buffers_that_decide_nothing_stay_arguments() -> None:
    net = interop.to_jax(of(padded, kernel=3, stride=1, scale=2))
    x = jnp.array([2.0, 3.0, 5.0])
    for scale in (2, 7):
        found = net({}, x, buffers=net.buffers | {"scale": jnp.array(scale)})
        np.testing.assert_array_equal(found, np.pad(x, (2, 1)) * scale)


def test_a_buffer_that_works_as_a_value_is_not_fixed() -> None:
    net = interop.to_jax(of(lambda self, x: x * self.start.item(), start=3))
    found = jax.jit(lambda n: net({}, jnp.ones(2), buffers={"start": n}))(jnp.array(5))
    np.testing.assert_array_equal(found, [5, 5])


def counting(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.start += 1
    return x if self.start > 2 else -x


def counting_in_a_view(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.start[:1].fill_(1)
    return x if self.start[0] else -x


@pytest.mark.parametrize(("forward", "start"), [(counting, 0), (counting_in_a_view, [False, True])])
def test_a_buffer_that_decides_and_changes_is_refused(forward: Any, start: Any) -> None:
    net = interop.to_jax(of(forward, start=start))
    with pytest.raises(interop.ConversionError, match=r"decides on the buffer 'start'.*changes"):
        net.stateful({}, jnp.ones(3))


def test_parameters_decide_nothing() -> None:
    module = of(lambda self, x: x if self.weight > 0 else -x)
    module.weight = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(interop.ConversionError, match="decides on a tensor's values"):
        interop.to_jax(module)({"weight": jnp.ones(())}, jnp.ones(3))
