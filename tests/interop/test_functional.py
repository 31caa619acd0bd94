"""Operations in place, where a graph needs none of torch's passes, and where it does."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import interop
from interop.from_torch import export


def twice(h: torch.Tensor) -> torch.Tensor:
    r = h.mul_(2.0)
    seen = r.t()
    h.add_(1.0)
    return seen.sum(0) + r.sum(1)


def dropped(h: torch.Tensor) -> torch.Tensor:
    same = F.dropout(h, 0.5, False)
    same.add_(1.0)
    return h + 2 * same


def written(view: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that writes into what ``view`` returns."""

    def function(h: torch.Tensor) -> torch.Tensor:
        part = view(h)
        part.mul_(3.0)
        return h.sin() + part.sum()

    return function


def narrow(h: torch.Tensor) -> torch.Tensor:
    half = (h * 2).half()
    half += h
    return half.float()


def of_a_part(h: torch.Tensor) -> torch.Tensor:
    h[:, 0].mul_(3.0)
    return h


def of_integers(h: torch.Tensor) -> torch.Tensor:
    places = (h > 0).long() * 2
    places += 1
    return h * places


def seen_before(h: torch.Tensor) -> torch.Tensor:
    flat = h.view(-1)
    h.tanh_()
    return flat.sum() + h


def returned_twice(h: torch.Tensor) -> torch.Tensor:
    before = h * 1.0
    kept = before
    before.sigmoid_()
    return kept + before * h


def in_a_grid(indexing: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that writes into a line of a grid after it was made."""

    def function(h: torch.Tensor) -> torch.Tensor:
        line, other = h[0] * 1.0, h[:, 0] * 1.0
        grids = torch.meshgrid(line, other, indexing=indexing)
        line.mul_(3.0)
        other[1:].add_(h[1:, 0])
        return torch.stack(grids).sin() @ torch.ones(grids[0].shape[-1], 2) + h.sum()

    return function


def chain(h: torch.Tensor) -> torch.Tensor:
    skip = h * 2.0
    h.neg_()
    h += skip
    h.add_(skip).clamp_(min=0.1)
    return F.dropout(h, 0.5, False, inplace=True).view(-1)


PLAIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a chain": chain,
    "returned twice": returned_twice,
    "dropout in evaluation": lambda h: F.dropout(h * 2, 0.5, False, True) * h,
    "differences": lambda h: torch.diff(h, prepend=h[:, :1]) + torch.diff(h > 0, n=1).sum(),
    "reshape_as": lambda h: (h * 2).t().reshape_as(h) + h,
    "einsum with an ellipsis": lambda h: torch.relu_(h * 2) + torch.einsum("...->...", h),
    "to": lambda h: h.to("cpu", torch.float64).to(h) * (h > 0).to(h),
}
OTHERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "seen before": seen_before,
    "seen between two": twice,
    "of what dropout returns": dropped,
    "of another dtype": narrow,
    "of a part": of_a_part,
    "of integers": of_integers,
    "of dropout of nothing": written(lambda h: F.dropout(h, 0.0, True)),
    "of einsum's transpose": written(lambda h: torch.einsum("ij->ji", h)),
    "of einsum's sum": written(lambda h: torch.einsum("ij->i", h.clone())),
    "of a line of a grid": in_a_grid("ij"),
    "of a line of a plot's grid": in_a_grid("xy"),
    "of conj_physical": written(torch.conj_physical),
    "of type_as": written(lambda h: h.type_as(h)),
    "of atleast_1d": written(torch.atleast_1d),
    "of broadcast_tensors": written(lambda h: torch.broadcast_tensors(h, h[:1])[0]),
    "of sum_to_size": written(lambda h: h.sum_to_size(h.shape)),
    "of alpha_dropout in evaluation": written(lambda h: F.alpha_dropout(h, 0.5, False)),
}


class Layer(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm, self.function = nn.Linear(3, 4), nn.BatchNorm1d(4), function
        self.norm.running_mean.copy_(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.norm(self.linear(x)))


@pytest.fixture
def spared(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each conversion, whether torch's passes were not needed."""
    found: list[bool] = []
    original = export.made_functional

    def watched(*arguments: Any) -> bool:
        found.append(original(*arguments))
        return found[-1]

    monkeypatch.setattr(export, "made_functional", watched)
    return found


@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
def test_values_and_gradients_are_torchs(name: str, spared: list[bool]) -> None:
    module = Layer({**PLAIN, **OTHERS}[name]).eval()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    net = interop.to_jax(module, downcast=True)

    def total(params: Any) -> Any:
        out = net(params, jnp.asarray(x.numpy()))
        return jnp.sum(jnp.sin(out)), out

    slopes, out = jax.grad(total, has_aux=True)(net.params)
    expected = module(x)
    expected.sin().sum().backward()
    np.testing.assert_allclose(
        out, expected.detach(), rtol=2e-3 if name == "of another dtype" else 1e-5
    )
    for at, parameter in module.named_parameters():
        scale = 1e-2 if name == "of another dtype" else 1e-5
        np.testing.assert_allclose(slopes[at], parameter.grad, rtol=scale, atol=scale, err_msg=at)
    assert spared == [name in PLAIN]


@pytest.mark.parametrize(
    "view", [lambda h: h.unsafe_chunk(2)[0], lambda h: h.unsafe_split(3)[1]], ids=["chunk", "split"]
)
def test_what_is_called_unsafe_is_a_view(view: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Of values: torch's own gradients are those of new memory."""
    module = Layer(written(view)).eval()
    net = interop.to_jax(module)
    out = net(net.params, jnp.ones((5, 3)))
    np.testing.assert_allclose(out, module(torch.ones(5, 3)).detach(), rtol=1e-5)


def test_a_view_that_does_not_show_is_refused() -> None:
    module = Layer(written(lambda h: torch.einsum("ii->i", h[:4])))
    net = interop.to_jax(module)
    with pytest.raises(interop.ConversionError, match=r"einsum.* may be a view .*test_functional"):
        net(net.params, jnp.ones((5, 3)))


def test_batch_norm_in_training_changes_its_statistics(spared: list[bool]) -> None:
    module = Layer(torch.relu_)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    net = interop.to_jax(module)
    out, buffers = net.train(net.params, jnp.asarray(x.numpy()))
    np.testing.assert_allclose(out, module.train()(x).detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(buffers["norm.running_mean"], module.norm.running_mean, rtol=1e-5)
    assert not np.allclose(buffers["norm.running_var"], 1.0)
    assert spared == [False]


def test_an_input_in_place_is_seen(spared: list[bool]) -> None:
    class Writes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mul_(2.0) + 1.0

    net = interop.to_jax(Writes())
    with pytest.raises(interop.ConversionError, match="in place"):
        net({}, jnp.ones(3))
    after = net.stateful({}, jnp.ones(3))
    np.testing.assert_array_equal(after.inputs[0][0], 2.0 * np.ones(3))
    assert not any(spared)


def test_what_is_not_used_is_left_out() -> None:
    class Idle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            F.relu(x)
            return x + 1.0

    net = interop.to_jax(Idle())
    net({}, jnp.ones(3))
    (compiled,) = net._compiled.values()
    assert "relu" not in {s.operation.split(".")[1] for s in compiled._exported.program.steps}


def test_readers_that_torch_forgot_are_left_out() -> None:
    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.tensor([1.0, 2.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + self.p
            torch.all(y == y)
            with torch.enable_grad():
                noise = x.sin()
            return y * 2 + noise

    x = torch.tensor([3.0, 4.0])
    module = Checked()
    net = interop.to_jax(module)
    np.testing.assert_allclose(net(net.params, x.numpy()), module(x).detach(), rtol=1e-6)
    program = torch.export.export(module, (x,), strict=False)
    net = interop.to_jax(program)
    np.testing.assert_allclose(net(net.params, x.numpy()), module(x).detach(), rtol=1e-6)
