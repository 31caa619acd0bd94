"""What forward asks of values that are known when it is exported, it is told."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import interop
from interop.errors import ConversionError


class Calls(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def lengths(x: torch.Tensor) -> Any:
    shapes = torch.tensor([[1, 2], [2, 2]])
    return [part.sum() for part in x.split(shapes.prod(1).tolist())]


def loop(x: torch.Tensor) -> torch.Tensor:
    steps = torch.arange(3)
    for i in range(int(steps.max())):
        x = x * float(steps[i] + 2)
    return x if bool((steps > 1).any()) else -x


def mask(x: torch.Tensor) -> Any:
    chosen = torch.arange(6) % 2 == 0
    y = x.clone()
    y[chosen] = y[chosen] * 2
    return x[chosen], y, x[chosen.nonzero().squeeze(1)], torch.masked_select(x, chosen)


def repeats(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(torch.tensor([1, 2, 0, 1, 1, 1]), dim=0)


def through_views(x: torch.Tensor) -> torch.Tensor:
    table = torch.zeros(3, dtype=torch.int64)
    table[1:].fill_(2)
    table[0] += 1
    return x[: int(table.sum())] * table.sum()


def inner_gradient(x: torch.Tensor) -> torch.Tensor:
    t = torch.linspace(0, 1, 6).requires_grad_()
    y = (t.repeat_interleave(2) ** 2).sum() * x
    return torch.autograd.grad(y.sum(), t, create_graph=True)[0]


CASES: dict[str, Any] = {
    f.__name__: f for f in (lengths, loop, mask, repeats, through_views, inner_gradient)
}


@pytest.mark.parametrize("name", CASES)
def test_constants_of_forward(name: str) -> None:
    x = torch.linspace(-1, 2, 6, requires_grad=True)
    expected = torch.utils._pytree.tree_leaves(CASES[name](x))
    sum(y.sum() for y in expected).backward()
    net = interop.to_jax(Calls(CASES[name]), downcast=True)

    def total(x: Any) -> Any:
        found = jax.tree.leaves(net({}, x))
        return sum(jnp.sum(y) for y in found), found

    slope, found = jax.jit(jax.grad(total, has_aux=True))(jnp.asarray(x.detach().numpy()))
    for y, z in zip(found, expected, strict=True):
        np.testing.assert_allclose(y, z.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(slope, x.grad.numpy(), rtol=1e-6)


def test_what_inputs_have_a_part_in_is_not_known() -> None:
    def writes(x: torch.Tensor) -> torch.Tensor:
        table = torch.zeros(3)
        table[1:] = x[:2]
        return x if bool(table.sum() > 0) else -x

    def writes_through_a_view(x: torch.Tensor) -> torch.Tensor:
        table = torch.zeros(3)
        table.view_as(x).add_(x)
        return x if bool(table.sum() > 0) else -x

    def draws(x: torch.Tensor) -> torch.Tensor:
        return x if bool(torch.zeros(2).bernoulli_(0.5).sum() > 0) else -x

    def draws_by_its_own(x: torch.Tensor) -> torch.Tensor:
        drawn = torch.ones(2).multinomial(1, generator=torch.Generator())
        return x if bool(drawn.sum() > 0) else -x

    def undefined(x: torch.Tensor) -> torch.Tensor:
        return x if bool(torch.zeros(2).new_empty(3).sum() > 0) else -x

    for function in (writes, writes_through_a_view, draws, draws_by_its_own, undefined):
        net = interop.to_jax(Calls(function))
        with pytest.raises(ConversionError, match="decides on"):
            net({}, jnp.ones(3), key=jax.random.key(0))


def test_static_inputs_are_known() -> None:
    def pack(x: torch.Tensor, grid: torch.Tensor) -> Any:
        positions = torch.cat([torch.arange(h * w) for h, w in grid.tolist()])
        ends = grid.prod(-1).cumsum(0)
        return x[positions], x * ends.max(), [part.sum() for part in x.tensor_split(ends[:-1])]

    net = interop.to_jax(Calls(pack), downcast=True)
    x = np.arange(6.0, dtype=np.float32)
    for grid in (np.array([[1, 2], [2, 2]]), np.array([[2, 2], [2, 1]])):
        expected = pack(torch.from_numpy(x), torch.from_numpy(grid))
        found = jax.jit(lambda x, g: net({}, x, g))(x, interop.Static(grid))
        for y, z in zip(jax.tree.leaves(found), [*expected[:2], *expected[2]], strict=True):
            np.testing.assert_allclose(y, z.numpy())
    as_jax = net({}, x, interop.Static(jnp.array([[2, 2], [2, 1]])))
    np.testing.assert_allclose(as_jax[0], expected[0])
    with pytest.raises(ConversionError):
        net({}, x, jnp.array([[2, 2], [2, 1]]))


def test_a_refusal_names_static_inputs() -> None:
    net = interop.to_jax(Calls(lambda x, mask: x if mask.all() else -x))
    x, mask = jnp.ones(2), jnp.array([True, True])
    with pytest.raises(ConversionError, match=r"interop\.Static"):
        net({}, x, mask)
    np.testing.assert_array_equal(net({}, x, interop.Static(mask)), x)
