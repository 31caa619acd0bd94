"""State that forward reaches by another path than its attribute follows the params."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import interop
from tests.interop.module_cases import KEY, numbers


class Alias(nn.Module):
    """A weight, and a way to it."""

    def __init__(self, keep: Callable[[Any], Any], reach: Callable[[Any], torch.Tensor]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.kept = keep(self)
        self.reach = reach

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.reach(self)


def closure(w: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: w


class Holder:
    """No module, no container."""

    def __init__(self, w: torch.Tensor) -> None:
        self.w = w


PATHS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], torch.Tensor]]] = {
    "attribute": (lambda m: m.w, lambda m: m.kept),
    "list": (lambda m: [m.w], lambda m: m.kept[0]),
    "tuple": (lambda m: (m.w,), lambda m: m.kept[0]),
    "dict of lists": (lambda m: {"a": [m.w]}, lambda m: m.kept["a"][0]),
    "closure": (lambda m: closure(m.w), lambda m: m.kept()),
    "closure over the module": (lambda m: lambda: m.w, lambda m: m.kept()),
    "default": (lambda m: lambda w=m.w: w, lambda m: m.kept()),
    "partial": (lambda m: functools.partial(torch.mul, m.w), lambda m: m.kept(1.0)),
    "partial of a closure": (
        lambda m: functools.partial(lambda m, by: m.w * by, m),
        lambda m: m.kept(1.0),
    ),
    "object": (lambda m: Holder(m.w), lambda m: m.kept.w),
    "view of a list": (lambda m: [m.w.view(2)], lambda m: m.kept[0]),
    "branch": (
        lambda m: [m.w],
        lambda m: torch.cond(
            m.w.sum() > 0, lambda w: w * m.kept[0] / w, lambda w: -w * m.kept[0] / w, (m.w,)
        ),
    ),
    "stacked list": (lambda m: [m.w, m.w], lambda m: torch.stack(m.kept).mean(0)),
}


@pytest.mark.parametrize("path", PATHS)
def test_values_and_gradients_follow_the_params(path: str) -> None:
    net = interop.to_jax(Alias(*PATHS[path]))
    x, params = jnp.array([1.0, -2.0]), {"w": jnp.array([100.0, 5.0])}
    assert list(net.params) == ["w"]
    np.testing.assert_array_equal(net(params, x), [100.0, -10.0])
    np.testing.assert_array_equal(jax.grad(lambda p: net(p, x).sum())(params)["w"], x)


@pytest.mark.parametrize(
    ("keep", "reach"),
    [
        (lambda m: m.w.data, lambda m: m.kept),
        (lambda m: [m.w.detach()], lambda m: m.kept[0]),
        (lambda m: Holder(m.w.detach()), lambda m: m.kept.w),
    ],
    ids=["attribute", "list", "object"],
)
def test_a_detached_alias_has_the_values_and_no_gradient(keep: Any, reach: Any) -> None:
    net = interop.to_jax(Alias(keep, reach))
    x, params = jnp.array([1.0, -2.0]), {"w": jnp.array([100.0, 5.0])}
    np.testing.assert_array_equal(net(params, x), [100.0, -10.0])
    np.testing.assert_array_equal(jax.grad(lambda p: net(p, x).sum())(params)["w"], [0, 0])


@pytest.mark.parametrize("keep", [lambda m: m.w[:1], lambda m: [m.w.data[1:]]])
def test_a_view_into_a_parameter_is_refused(keep: Any) -> None:
    module = Alias(keep, lambda m: m.kept[0] if isinstance(m.kept, list) else m.kept)
    net = interop.to_jax(module)
    with pytest.raises(interop.ConversionError, match=r"is a view into 'w' .* make it in forward"):
        net(net.params, jnp.ones(2))


def test_what_is_nobodys_parameter_is_a_constant() -> None:
    net = interop.to_jax(Alias(lambda m: [torch.ones(2)], lambda m: m.w + m.kept[0]))
    np.testing.assert_array_equal(net({"w": jnp.zeros(2)}, jnp.ones(2)), [1.0, 1.0])


def test_a_program_that_was_exported_with_aliases() -> None:
    module = Alias(*PATHS["list"])
    program = torch.export.export(module, (torch.ones(2),), strict=False)
    net = interop.to_jax(program)
    np.testing.assert_array_equal(net({"w": jnp.array([7.0, 8.0])}, jnp.ones(2)), [7.0, 8.0])


# ---- parts with modes and running statistics ----------------------------------------------------


class Parts(nn.Module):
    """Linear, normalised, dropped out; called past the attributes that hold them."""

    def __init__(self, keep: Callable[[Any], Any]) -> None:
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)
        self.kept = keep(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.kept(x)


def through(parts: Any, x: torch.Tensor) -> torch.Tensor:
    for part in parts:
        x = part(x)
    return x


def parts_of(m: Any) -> list[nn.Module]:
    return [m.linear, m.norm, m.drop]


CALLED = {
    "closure over the module": lambda m: lambda x: m.drop(m.norm(m.linear(x))),
    "closure over a list": lambda m: (lambda parts: lambda x: through(parts, x))(parts_of(m)),
    "partial": lambda m: functools.partial(through, parts_of(m)),
    "default": lambda m: lambda x, m=m: through((m.linear, m.norm, m.drop), x),
    "keyword default": lambda m: lambda x, *, m=m: m.drop(m.norm(m.linear(x))),
    "closure in a closure": lambda m: (lambda f: lambda x: f(x))(
        lambda x: m.drop(m.norm(m.linear(x)))
    ),
    "closure in an object": lambda m: (
        lambda x, o=Holder(lambda x: m.linear(x)): m.drop(  # noqa: B008
            m.norm(o.w(x))
        )
    ),
    "method of a part": lambda m: lambda x, f=m.linear.forward: m.drop(m.norm(f(x))),
}


@pytest.mark.parametrize("way", CALLED)
@pytest.mark.parametrize("was_training", [True, False])
def test_parts_have_the_mode_of_the_call(way: str, was_training: bool) -> None:
    module = Parts(CALLED[way]).train(was_training)
    net = interop.to_jax(module)
    x = numbers(64, 3)
    given = jnp.asarray(x.numpy())
    module.eval()
    np.testing.assert_allclose(net(net.params, given), module(x).detach(), atol=1e-6)
    out, buffers = net.train(net.params, given, key=KEY)
    zeros = (np.asarray(out) == 0).mean()
    assert 0.25 < zeros < 0.75
    module.train()
    module(x)
    for name, tensor in module.named_buffers():
        np.testing.assert_allclose(buffers[name], tensor, atol=1e-6)


def test_a_replaced_forward() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    first, drop = module[0], module[1]
    module.forward = lambda x: drop(2 * first(x))  # type: ignore[method-assign]
    net = interop.to_jax(module)
    x = numbers(64, 3)
    module.eval()
    np.testing.assert_allclose(
        net(net.params, jnp.asarray(x.numpy())), module(x).detach(), atol=1e-6
    )
    out, _ = net.train(net.params, jnp.asarray(x.numpy()), key=KEY)
    assert 0.25 < (np.asarray(out) == 0).mean() < 0.75


def test_a_part_that_no_copy_can_replace_is_refused_in_another_mode() -> None:
    drop = nn.Dropout(0.5)

    class Global(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = drop

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return drop(x)

    net = interop.to_jax(Global())
    net.train({}, jnp.ones(8), key=KEY)
    with pytest.raises(interop.ConversionError, match="a Dropout is called past the module"):
        net({}, jnp.ones(8))


def test_a_buffer_changed_through_a_list() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(2))
            self.kept = [self.count]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.kept[0].add_(x)
            return self.count * 2

    net = interop.to_jax(Counts())
    out, buffers = net.train({}, jnp.array([1.0, 2.0]), buffers={"count": jnp.ones(2)})
    np.testing.assert_array_equal(buffers["count"], [2.0, 3.0])
    np.testing.assert_array_equal(out, [4.0, 6.0])


def test_a_stored_activation_is_no_obstacle() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.history = nn.Linear(3, 2), []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.history.append(self.linear(x))
            return self.history[-1]

    module = Keeps()
    module(torch.ones(1, 3))
    assert not module.history[0].is_leaf
    net = interop.to_jax(module)
    assert net(net.params, jnp.ones((5, 3))).shape == (5, 2)
    assert len(module.history) == 1


def test_a_buffer_that_is_a_view_is_a_buffer() -> None:
    class Places(nn.Module):
        def __init__(self, keep: bool) -> None:
            super().__init__()
            base = torch.arange(6.0).reshape(2, 3)
            self.register_buffer("places", base.unsqueeze(0)[:, :1])
            self.kept = base if keep else torch.zeros(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.places + self.kept.sum()

    x = jnp.ones((1, 1, 3))
    net = interop.to_jax(Places(keep=False))
    np.testing.assert_array_equal(net({}, x), [[[0.0, 1.0, 2.0]]])
    buffers = {"places": net.buffers["places"] + 1}
    np.testing.assert_array_equal(net({}, x, buffers=buffers), [[[1.0, 2.0, 3.0]]])
    with pytest.raises(interop.ConversionError, match="view into 'places'"):
        interop.to_jax(Places(keep=True))({}, x)
