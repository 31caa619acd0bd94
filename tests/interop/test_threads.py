"""Threads that convert and call side by side, and one that differentiates in torch meanwhile."""

import logging
import threading
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

import interop
from tests.interop.module_cases import Of, array, numbers


class Cubes(torch.autograd.Function):
    """Has a backward that is not its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, slope: Any) -> Any:
        (x,) = ctx.saved_tensors
        return slope * x * 10


class Marks(nn.Module):
    """Parts that mutate, draw, detach, call a function and hold an alias."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.kept, self.scale = [self.linear.weight], scale
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = Cubes.apply(self.norm(self.linear(x))) * self.scale
        self.mean = self.mean * 0.5 + y.mean(0)
        y.detach()[0] = 0.0
        return y @ self.kept[0] + self.mean


def results(scale: float, sizes: Any) -> Any:
    torch.manual_seed(7)
    with SEEDING:
        module = Marks(scale)
        with torch.no_grad():
            for i, parameter in enumerate(module.parameters()):
                parameter.copy_(numbers(*parameter.shape, seed=i) * scale)
    net = interop.to_jax(module)
    refused = interop.to_jax(Of(lambda m, x: x if x.sum() > 0 else -x))
    found = []
    for size in sizes:
        x = array(numbers(size, 3, seed=size))

        def loss(params: Any, x: Any = x) -> Any:
            after = net.stateful(params, x, training=True)
            return after.output.sum(), (after.output, after.buffers)

        found.append(jax.grad(loss, has_aux=True)(net.params))
        try:
            refused({}, x)
        except interop.ConversionError as error:
            found.append(np.array(len(str(error))))
    return found


SEEDING = threading.Lock()


def differentiate(stop: threading.Event, failures: list[Any]) -> None:
    """What a user's own training does, over and over."""
    x = torch.linspace(-1.0, 1.0, 5, requires_grad=True)
    while not stop.is_set():
        (slope,) = torch.autograd.grad(Cubes.apply(x).sum(), x)
        if not torch.equal(slope, 10 * x) or torch.is_inference_mode_enabled():
            failures.append(slope)
            return
        y = (x * 2).detach()
        y[0] = 5.0
        if not torch.is_grad_enabled() or type(y) is not torch.Tensor:
            failures.append(y)
            return


def test_results_of_threads_are_those_of_one() -> None:
    cases = [(0.5, (2,)), (2.0, (4,))]
    apply = torch.autograd.Function.__dict__["apply"]
    handler = logging.getLogger("torch").handlers
    filters = [list(h.filters) for h in handler]
    alone = [results(*case) for case in cases]
    together: list[Any] = [None, None]
    stop, failures = threading.Event(), []
    other = threading.Thread(target=differentiate, args=(stop, failures))
    workers = [
        threading.Thread(target=lambda i=i: together.__setitem__(i, results(*cases[i])))
        for i in range(2)
    ]
    for thread in (other, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    other.join()
    assert not failures
    for one, two in zip(alone, together, strict=True):
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            np.testing.assert_array_equal(x, y)
    assert torch.autograd.Function.__dict__["apply"] is apply
    assert [list(h.filters) for h in handler] == filters
