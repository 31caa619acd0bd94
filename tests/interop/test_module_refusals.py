"""to_jax: gradients that torch would not pass, and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import library, nn

import interop
from interop import ConversionError
from tests.interop.module_cases import Of, agree, array, numbers

# ---- gradients that torch stops, or that would be lost ------------------------------------------


@torch.no_grad()
def _norm(x: Any) -> Any:
    return x.square().sum()


STOPPED = {
    "detach": lambda m, x: x.detach() * m.w,
    "no_grad block": lambda m, x: x / _norm(x) * m.w,
    "in place after": lambda m, x: (x * m.w).add_(x).mul_(2),
    "a view written": lambda m, x: _written(x * m.w),
    "a tensor made inside": lambda m, x: x * m.w + torch.tensor([1.0, -2.0, 0.5]),
    "requires grad switched off": lambda m, x: x * m.w.detach() + m.w,
}


def _written(x: Any) -> Any:
    x = x.clone()
    x[0] = 0
    x[1:, 1] *= 3
    return x


@pytest.mark.parametrize("name", STOPPED)
def test_gradients_stop_where_torch_stops_them(name: str) -> None:
    agree(Of(STOPPED[name], w=numbers(3)), numbers(4, 3, seed=1))


def test_no_grad_keeps_hold_of_parameters_used_twice() -> None:
    def forward(m: Any, x: Any) -> Any:
        with torch.no_grad():
            scale = (m.w * 2).abs().max()
            shifted = x + m.w
            shifted[0] = 1
        return x * m.w / scale + shifted

    agree(Of(forward, w=numbers(3)), numbers(4, 3, seed=1))


def test_parametrized_and_normalised_weights() -> None:
    agree(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), numbers(5, 3))
    module = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4))
    agree(module, numbers(5, 3))
    net = interop.to_jax(module)
    x = numbers(5, 3)
    found, buffers = net.train(net.params, array(x))
    expected = module.train()(x)
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5, atol=1e-5)
    for name, tensor in module.named_buffers():
        np.testing.assert_allclose(buffers[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_backward_that_would_be_lost_is_refused() -> None:
    module = nn.Linear(2, 2)
    handle = module.register_full_backward_hook(lambda *_: None)
    with pytest.raises(ConversionError, match="backward hook"):
        interop.to_jax(module)
    handle.remove()
    interop.to_jax(module)


def test_a_write_in_place_past_the_gradient_is_refused() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = x * m.w
        with torch.no_grad():
            y.mul_(2)
        return y

    with pytest.raises(ConversionError, match=r"in place under torch.no_grad"):
        agree(Of(forward, w=numbers(3)), numbers(4, 3))


# ---- refusals -----------------------------------------------------------------------------------


def test_a_branch_on_data_names_its_line_and_the_way_out() -> None:
    def forward(_: Any, x: Any) -> Any:
        if x.sum() > 0:  # the line
            return x
        return -x

    net = interop.to_jax(Of(forward))
    with pytest.raises(ConversionError, match=r"_refusals.py:\d+: if x.sum\(\) > 0") as raised:
        net({}, jnp.ones(3))
    assert "torch.cond" in str(raised.value)


def test_sixty_four_bits_are_refused_unless_asked_for() -> None:
    module = nn.Linear(3, 2, dtype=torch.float64)
    with pytest.raises(ConversionError, match=r"'weight' is torch.float64.*downcast=True"):
        interop.to_jax(module)
    net = interop.to_jax(module, downcast=True)
    assert net(net.params, jnp.ones(3)).dtype == jnp.float32
    inside = interop.to_jax(Of(lambda m, x: x.double() * 2))
    with pytest.raises(ConversionError, match=r"module_cases.*is torch.float64"):
        inside({}, jnp.ones(3))
    with jax.enable_x64(True):
        net = interop.to_jax(module)
        assert net(net.params, jnp.ones(3)).dtype == jnp.float64


def test_integers_that_may_not_fit_are_refused_unless_asked_for() -> None:
    module = Of(lambda m, x: x * 1000)
    with pytest.raises(ConversionError, match="may not fit in 32 bits"):
        interop.to_jax(module)({}, jnp.arange(3))
    found = interop.to_jax(module, downcast=True)({}, jnp.arange(3))
    np.testing.assert_array_equal(found, [0, 1000, 2000])
    with jax.enable_x64(True):
        assert interop.to_jax(module)({}, jnp.arange(3))[2] == 2000
    large = Of(None)
    large.register_buffer("seen", torch.tensor(2**40))
    with pytest.raises(ValueError, match="seen"):
        interop.to_jax(large)
    with pytest.raises(ConversionError, match="an input is int64"):
        interop.to_jax(module)({}, np.arange(3))


def test_an_operation_without_a_rule_is_named_with_its_line() -> None:
    fragment = library.Library("interop_test", "FRAGMENT")
    fragment.define("mystery(Tensor x) -> Tensor")
    fragment.impl("mystery", lambda x: x.clone(), "CompositeExplicitAutograd")
    module = Of(lambda m, x: torch.ops.interop_test.mystery(x))
    with pytest.raises(
        interop.UncoveredOperation, match=r"interop_test.mystery.*module_cases.py:\d+"
    ):
        interop.to_jax(module)({}, jnp.ones(3))
    report = interop.report(module, torch.ones(3))
    assert not report.covered
    assert report.missing[0].name == "interop_test.mystery.default"
    assert "module_cases.py" in report.missing[0].sources[0]
    assert "NO " in str(report)


def test_a_tensor_is_no_array() -> None:
    net = interop.to_jax(nn.Linear(3, 2))
    with pytest.raises(TypeError, match=r"interop.to_array"):
        net(net.params, torch.ones(3))
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        interop.to_jax(lambda x: x)


def test_a_refusal_names_the_line_in_a_library_beside_torch() -> None:
    code = compile(
        "def f(x): return x if x.sum() > 0 else -x", f"{torch.__path__[0]}vision/a.py", "exec"
    )
    scope: dict[str, Any] = {}
    exec(code, scope)
    net = interop.to_jax(Of(lambda self, x: scope["f"](x)))
    with pytest.raises(ConversionError, match=r"torchvision/a\.py:1"):
        net({}, jnp.ones(2))
