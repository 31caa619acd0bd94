"""Packed sequences: recurrent layers over rows of their own lengths, and what is done with them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import rnn

import interop
from tests.interop.module_cases import Of, numbers

LENGTHS = [3, 5, 3, 1]


class Reads(nn.Module):
    """Packs, reads, unpacks."""

    def __init__(self, kind: str, lengths: Any, total: int | None = None, **options: Any) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(3, 4, **options)
        self.lengths, self.total = lengths, total

    def forward(self, x: torch.Tensor, *state: Any) -> Any:
        first = self.layer.batch_first
        decreasing = list(self.lengths) == sorted(self.lengths, reverse=True)
        packed = rnn.pack_padded_sequence(x, self.lengths, first, enforce_sorted=decreasing)
        found, state = self.layer(packed, *state)
        out, lengths = rnn.pad_packed_sequence(found, first, -1.0, self.total)
        return out, state, lengths


def first_state(*shape: int) -> Any:
    return numbers(*shape, seed=5)


CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "LSTM": (lambda: Reads("LSTM", LENGTHS), ()),
    "GRU, batch first": (lambda: Reads("GRU", LENGTHS, batch_first=True), ()),
    "RNN of relu": (lambda: Reads("RNN", LENGTHS, nonlinearity="relu", bias=False), ()),
    "sorted": (lambda: Reads("LSTM", [5, 3, 3, 1]), ()),
    "lengths in a tensor": (lambda: Reads("GRU", torch.tensor(LENGTHS)), ()),
    "shorter than the padding": (lambda: Reads("GRU", [2, 4, 2, 1], total=7), ()),
    "two layers, both directions": (
        lambda: Reads("LSTM", LENGTHS, num_layers=2, bidirectional=True),
        (),
    ),
    "a projection": (lambda: Reads("LSTM", LENGTHS, proj_size=2, bidirectional=True), ()),
    "states given": (
        lambda: Reads("LSTM", LENGTHS, bidirectional=True),
        ((first_state(2, 4, 4), first_state(2, 4, 4)),),
    ),
    "state given": (lambda: Reads("GRU", LENGTHS, bidirectional=True), (first_state(2, 4, 4),)),
    "one row": (lambda: Reads("RNN", [5, 5, 5, 5]), ()),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    make, state = CASES[name]
    torch.manual_seed(0)
    module = make()
    net = interop.to_jax(module, downcast=True)
    x = numbers(4, 5, 3).transpose(0, 1) if not module.layer.batch_first else numbers(4, 5, 3)
    x = x.contiguous().requires_grad_()
    expected = module(x, *state)
    leaves = [y for y in torch.utils._pytree.tree_leaves(expected) if y.is_floating_point()]
    total = sum((y * torch.cos(torch.arange(y.numel())).reshape(y.shape)).sum() for y in leaves)
    slopes = dict(
        zip(
            ["x", *net.params],
            torch.autograd.grad(total, [x, *module.parameters()]),
            strict=True,
        )
    )
    given = jax.tree.map(interop.to_array, state, is_leaf=lambda s: isinstance(s, torch.Tensor))

    def loss(params: Any, x: Any) -> Any:
        found = net(params, x, *given)
        parts = [y for y in jax.tree.leaves(found) if y.dtype == jnp.float32]
        total = sum((y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum() for y in parts)
        return total, (parts, found[2])

    (both, (parts, lengths)) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(
        net.params, interop.to_array(x)
    )
    np.testing.assert_array_equal(lengths, expected[2])
    for one, other in zip(parts, leaves, strict=True):
        np.testing.assert_allclose(one, other.detach(), rtol=1e-5, atol=1e-5)
    for key, one in {"x": both[1], **both[0]}.items():
        np.testing.assert_allclose(one, slopes[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_rows_that_are_packed() -> None:
    def forward(m: Any, x: Any) -> Any:
        packed = rnn.pack_padded_sequence(x, [3, 2], batch_first=True)
        logits = packed._replace(data=packed.data * m.w)
        return logits.data.mean(), rnn.unpack_sequence(logits), rnn.pack_sequence([x[1], x[0, :2]])

    module = Of(forward, w=torch.tensor([1.0, 2.0]))
    x = numbers(2, 3, 2)
    net = interop.to_jax(module)
    mean, rows, again = net(net.params, interop.to_array(x))
    expected = module(x)
    np.testing.assert_allclose(mean, expected[0].detach(), rtol=1e-5)
    for one, other in zip(rows, expected[1], strict=True):
        np.testing.assert_allclose(one, other.detach(), rtol=1e-5)
    np.testing.assert_allclose(again.data, expected[2].data, rtol=1e-5)


class Measured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(3, 4)

    def forward(self, x: torch.Tensor, lengths: Any) -> Any:
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return rnn.pad_packed_sequence(self.layer(packed)[0])[0]


def test_lengths_are_given_as_numbers() -> None:
    module = Measured()
    net = interop.to_jax(module)
    x = numbers(5, 4, 3)
    for lengths in (LENGTHS, [5, 4, 3, 2]):
        expected = module(x, torch.tensor(lengths)).detach()
        for given in (lengths, interop.Static(lengths)):
            found = net(net.params, interop.to_array(x), given)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(interop.ConversionError, match=r"interop.Static\(lengths\)"):
        net(net.params, interop.to_array(x), jnp.array(LENGTHS))


@pytest.mark.parametrize("lengths", [[1, 2], [3, 0], [9, 2]])
def test_lengths_that_do_not_fit(lengths: Any) -> None:
    net = interop.to_jax(Of(lambda m, x: rnn.pack_padded_sequence(x, lengths).data))
    with pytest.raises(interop.ConversionError, match="lengths of a packed sequence are"):
        net({}, jnp.ones((3, 2, 1)))


def test_dropout_between_layers_takes_a_key() -> None:
    module = Reads("LSTM", [64] * 8, num_layers=2, dropout=0.5)
    net = interop.to_jax(module, downcast=True)
    draws = [
        net.train(net.params, jnp.ones((64, 8, 3)), key=jax.random.key(seed))[0][0]
        for seed in range(2)
    ]
    assert not np.allclose(draws[0], draws[1])
