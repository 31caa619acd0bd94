"""to_jax: params, buffers, ties, modes, reports and exported programs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import interop
from interop import ConversionError
from tests.interop.module_cases import KEY, Of, array, numbers

# ---- names, ties, buffers -----------------------------------------------------------------------


def test_names_are_those_of_state_dict_and_buffers_are_apart() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    net = interop.to_jax(module)
    assert list(net.params) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(net.buffers) == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert list(net.state_dict(net.params)) == list(module.state_dict())
    for name, tensor in module.named_parameters():
        np.testing.assert_array_equal(net.params[name], tensor.detach())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Any) -> Any:
        return self.head(torch.tanh(self.embed(x)))


def test_tied_weights_are_one_parameter_with_one_gradient() -> None:
    module = Tied()
    net = interop.to_jax(module)
    assert list(net.params) == ["embed.weight"]
    assert net.ties == {"head.weight": "embed.weight"}
    ids = torch.tensor([[0, 3], [6, 3]])
    module(ids).square().sum().backward()
    slope = jax.grad(lambda p: jnp.sum(net(p, jnp.asarray(ids.numpy(), jnp.int32)) ** 2))(
        net.params
    )
    np.testing.assert_allclose(
        slope["embed.weight"], module.embed.weight.grad, rtol=1e-4, atol=1e-5
    )
    moved = {"embed.weight": net.params["embed.weight"] + 1}
    interop.load_into(module, moved)
    assert module.head.weight is module.embed.weight
    assert list(net.state_dict(moved)) == list(module.state_dict())
    with pytest.raises(ValueError, match=r"'head.weight' is tied to 'embed.weight'"):
        net({**net.params, "head.weight": net.params["embed.weight"]}, jnp.zeros((1,), jnp.int32))


def test_parameters_that_overlap_are_refused() -> None:
    memory = torch.zeros(6)
    module = Of(None, a=memory[:4], b=memory[2:])
    with pytest.raises(ConversionError, match="'a' and 'b' overlap in memory"):
        interop.to_jax(module)


def test_names_and_shapes_are_checked_all_at_once() -> None:
    net = interop.to_jax(nn.Linear(3, 2))
    with pytest.raises(
        ValueError, match=r"'bias' is missing; 'weight' has shape \(3, 2\)"
    ) as raised:
        net({"weight": jnp.zeros((3, 2)), "scale": 1.0}, jnp.zeros(3))
    assert "'scale' is unknown" in str(raised.value)
    with pytest.raises(TypeError, match="expected a dict"):
        net([1.0], jnp.zeros(3))


def test_neither_side_sees_the_other_change() -> None:
    module = nn.Linear(3, 2)
    net = interop.to_jax(module)
    before = np.array(net.params["weight"])
    with torch.no_grad():
        module.weight.zero_()
    np.testing.assert_array_equal(net.params["weight"], before)
    x = jnp.ones((1, 3))
    assert jnp.any(net(net.params, x) != net({**net.params, "weight": jnp.zeros((2, 3))}, x))


def test_frozen_parameters_are_named() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    module[0].requires_grad_(False)
    assert interop.to_jax(module).frozen == ("0.weight", "0.bias")


# ---- calls --------------------------------------------------------------------------------------


def test_complex_gradients_are_conjugates_of_torchs_and_descend_so() -> None:
    module = Of(
        lambda m, x: (m.w * x - (2 - 3j)).abs().square().sum(), w=torch.tensor([1 + 2j, 1j])
    )
    x = torch.tensor([1 + 1j, 2 - 1j])
    module(x).backward()
    net, given = interop.to_jax(module), array(x)
    gradient = jax.grad(net)(net.params, given)
    descent = jax.tree.map(jnp.conj, gradient)
    np.testing.assert_allclose(descent["w"], module.w.grad, rtol=1e-6)
    after = jax.tree.map(lambda p, d: p - 0.05 * d, net.params, descent)
    assert net(after, given) < net(net.params, given)


def test_any_batch_size_and_every_transformation() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    net = interop.to_jax(module)
    for size in (1, 5):
        x = numbers(size, 3)
        np.testing.assert_allclose(
            net(net.params, array(x)), module(x).detach(), rtol=1e-5, atol=1e-6
        )
    x = array(numbers(5, 3))
    expected = net(net.params, x)
    one = lambda row: net(net.params, row)  # noqa: E731
    np.testing.assert_allclose(jax.vmap(one)(x), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.jit(one)(x), expected, rtol=1e-6, atol=1e-6)
    forward, reverse = jax.jacfwd(one)(x[0]), jax.jacrev(one)(x[0])
    np.testing.assert_allclose(forward, reverse, rtol=1e-5, atol=1e-6)
    many = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), net.params)
    assert jax.vmap(net, (0, None))(many, x).shape == (2, 5, 2)
    assert jnp.isfinite(jax.hessian(lambda x: net(net.params, x).sum())(x[0])).all()


def test_inputs_and_outputs_of_any_structure() -> None:
    def forward(_: Any, pair: Any, scale: float = 1.0, *, extra: Any = None) -> Any:
        first, rest = pair
        out = first * scale + rest["b"]
        return {"sum": out if extra is None else out + extra, "both": [first, (out, None)], "n": 3}

    net = interop.to_jax(Of(forward))
    x = jnp.arange(3.0)
    found = net({}, (x, {"b": x}), 2.0)
    np.testing.assert_array_equal(found["sum"], 3 * x)
    assert found["n"] == 3
    assert found["both"][1][1] is None
    np.testing.assert_array_equal(net({}, (x, {"b": x}), 2.0, extra=x)["sum"], 4 * x)
    np.testing.assert_array_equal(jax.jit(net)({}, (x, {"b": x}), extra=x)["sum"], 3 * x)


def test_a_second_call_exports_and_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net = interop.to_jax(nn.Linear(3, 2))
    net(net.params, jnp.ones((2, 3)))
    monkeypatch.setattr(torch.export, "export", None)
    net(net.params, jnp.zeros((2, 3)))
    jax.jit(net)(net.params, jnp.zeros((2, 3)))


# ---- modes, buffers, random numbers -------------------------------------------------------------


def test_training_returns_new_buffers_and_changes_none() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.3))
    net = interop.to_jax(module)
    x = numbers(8, 3)
    found, buffers = jax.jit(net.train)(net.params, array(x))
    expected = module.train()(x)
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-5)
    for name, tensor in module.named_buffers():
        np.testing.assert_allclose(buffers[name], tensor, rtol=1e-5, atol=1e-6)
    assert net.buffers["1.num_batches_tracked"] == 0
    again = net(net.params, array(x), buffers=buffers)
    np.testing.assert_allclose(again, module.eval()(x).detach(), rtol=1e-4, atol=1e-5)


def test_a_submodule_frozen_in_evaluation_stays_so() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3)).train()
    module[0].eval()
    net = interop.to_jax(module)
    _, buffers = net.train(net.params, array(numbers(8, 3)))
    assert buffers["0.num_batches_tracked"] == 0
    assert buffers["1.num_batches_tracked"] == 1


def test_dropout_takes_a_key() -> None:
    net = interop.to_jax(nn.Sequential(nn.Dropout(0.25), nn.Dropout(0.5)))
    x = jnp.ones((100, 100))
    np.testing.assert_array_equal(net({}, x), x)
    with pytest.raises(ConversionError, match="no key came: pass key="):
        net.train({}, x)
    one, other = (net.train({}, x, key=k)[0] for k in jax.random.split(KEY))
    assert jnp.any(one != other)
    np.testing.assert_array_equal(one, net.train({}, x, key=jax.random.split(KEY)[0])[0])
    np.testing.assert_allclose(jnp.unique(one), jnp.array([0, 8 / 3]), rtol=1e-6)
    assert abs(jnp.mean(one > 0) - 0.375) < 0.03


# ---- reports, exported programs -----------------------------------------------------------------


def test_a_report_lists_every_operation() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout())
    report = interop.report(module, torch.ones(2, 3), training=True)
    assert report.covered
    assert {"aten.linear.default"} <= {o.name for o in report.operations}
    obstacle = interop.report(Of(lambda m, x: x if x.sum() > 0 else -x), torch.ones(3)).obstacle
    assert "torch.cond" in obstacle


def test_an_exported_program_arrives_without_its_class(tmp_path: Any) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    batch = torch.export.Dim("batch")
    path = tmp_path / "model.pt2"
    torch.export.save(
        torch.export.export(module, (numbers(4, 3),), dynamic_shapes=({0: batch},)), path
    )
    net = interop.to_jax(torch.export.load(path))
    assert list(net.params) == [n for n, _ in module.named_parameters()]
    for size in (2, 7):
        x = numbers(size, 3)
        np.testing.assert_allclose(
            net(net.params, array(x)), module(x).detach(), rtol=1e-5, atol=1e-5
        )
    fixed = interop.to_jax(torch.export.export(module, (numbers(4, 3),)))
    np.testing.assert_allclose(
        fixed(fixed.params, array(numbers(4, 3))),
        module(numbers(4, 3)).detach(),
        rtol=1e-5,
        atol=1e-5,
    )
    with pytest.raises(ConversionError, match=r"exported for .*\[4, 3\].*\[5, 3\]"):
        fixed(fixed.params, jnp.ones((5, 3)))
