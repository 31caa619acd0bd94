"""The programs that a net keeps: one for what means the same, whatever modes surround a call."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import interop
from interop.from_torch import compiled, modules
from tests.interop.module_cases import Of, numbers


class Scaled(nn.Module):
    """Has a sign of zero, and the type of a number, in its result."""

    def forward(self, x: Any, by: Any) -> Any:
        kind = 1.0 if isinstance(by, bool) else 2.0 if isinstance(by, int) else 3.0
        return torch.copysign(x, torch.tensor(float(by))) * kind


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), (1, 1.0), (True, 1), (0, False)])
def test_constants_that_are_equal_but_not_the_same_have_their_own_programs(
    one: Any, other: Any
) -> None:
    net = interop.to_jax(Scaled())
    module, x = Scaled(), torch.ones(2)
    for by in (one, other, one):
        np.testing.assert_array_equal(net({}, jnp.ones(2), by), module(x, by))


def test_keys_of_a_dict_are_inputs_too() -> None:
    net = interop.to_jax(Of(lambda self, x: sum(x.values()) if 1 in x else x["1"] * 2))
    assert net({}, {1: jnp.ones(())}) == 1
    assert net({}, {"1": jnp.ones(())}) == 2


@pytest.mark.parametrize(
    "mode",
    [
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.no_grad,
        torch.inference_mode,
    ],
    ids=["autocast", "no_grad", "inference_mode"],
)
def test_modes_around_a_call_do_not_stay_in_the_program(mode: Any) -> None:
    layer = nn.Linear(3, 2)
    x = numbers(4, 3)
    net = interop.to_jax(layer)
    with mode():
        inside = net(net.params, jnp.asarray(x.numpy()))
        slope = jax.grad(lambda p: net(p, jnp.asarray(x.numpy())).sum())(net.params)
    np.testing.assert_allclose(inside, layer(x).detach(), rtol=1e-6)
    assert inside.dtype == jnp.float32
    np.testing.assert_allclose(slope["bias"], [4.0, 4.0])


def test_default_dtype_is_the_callers() -> None:
    with jax.enable_x64(True):
        net = interop.to_jax(Of(lambda self, x: x.double() + torch.ones(3)))
        both = []
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            try:
                net_of = interop.to_jax(Of(lambda self: torch.ones(3)))
                both.append(net_of({}).dtype)
                assert net({}, jnp.ones(3)).dtype == jnp.float64
            finally:
                torch.set_default_dtype(torch.float32)
    assert both == [jnp.float32, jnp.float64]


def test_only_the_programs_called_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_PROGRAMS", 2)
    net = interop.to_jax(nn.ReLU())
    exports: list[Any] = []
    export = net._source.export
    monkeypatch.setattr(net._source, "export", lambda *a: exports.append(a) or export(*a))
    for size in (1, 2, 1, 3, 1, 2):
        net({}, jnp.ones(size))
    assert len(exports) == 4  # 2 was forgotten for 3, as 1 had been called since


def test_compiled_before_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    net = interop.to_jax(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    net.compile(jax.ShapeDtypeStruct((4, 3), "float32"))
    net.compile(jnp.ones((4, 3)), training=True)
    monkeypatch.setattr(torch.export, "export", None)
    monkeypatch.setattr(compiled, "run", None)  # what a new trace would need
    net(net.params, jnp.ones((4, 3)))
    net.train(net.params, jnp.ones((4, 3)))


def test_compiling_refuses_what_a_call_would() -> None:
    net = interop.to_jax(Of(lambda self, x: x if x.sum() > 0 else -x))
    with pytest.raises(interop.ConversionError, match="decides on a tensor's values"):
        net.compile(jax.ShapeDtypeStruct((3,), "float32"))


def test_arithmetic_of_sizes() -> None:
    class Sizes(nn.Module):
        def forward(self, x: Any) -> Any:
            n = x.shape[0]
            least, most = torch.sym_min(n, 4), torch.sym_max(n, 4)
            true = torch._is_all_true(x > 0) & torch._is_any_true(x > 5)
            return x * least + most, x * torch.sym_float(n), true

    batch = torch.export.Dim("batch", min=2, max=9)
    program = torch.export.export(Sizes(), (torch.ones(3),), dynamic_shapes=({0: batch},))
    net = interop.to_jax(program, downcast=True)
    for n in (2, 5, 7):
        x = torch.arange(1.0, n + 1)
        for found, expected in zip(net({}, jnp.asarray(x.numpy())), Sizes()(x), strict=True):
            np.testing.assert_allclose(found, expected)
