import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from interop import ConversionError, to_jax
from interop.aten import RULES
from tests.interop.aten.layer_cases import Batch, Case, draw


def _agree(module, *inputs, training=False):
    """Outputs, last states, and gradients for parameters and inputs."""
    module.train(training)
    inputs = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    outputs = [x for x in jax.tree.leaves(module(*inputs)) if isinstance(x, torch.Tensor)]
    sum((x * torch.cos(torch.arange(x.numel()).view(x.shape))).sum() for x in outputs).backward()
    net = to_jax(module)

    def total(params, arrays):
        run = net.train if training else net
        found = run(params, *arrays)
        found = jax.tree.leaves(found[0] if training else found)
        terms = [jnp.sum(x * jnp.cos(jnp.arange(x.size).reshape(x.shape))) for x in found]
        return sum(terms), found

    arrays = [jnp.asarray(x.detach().numpy()) for x in inputs]
    (_, found), slopes = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(
        net.params, arrays
    )
    for have, want in zip(found, outputs, strict=True):
        np.testing.assert_allclose(have, want.detach(), rtol=1e-5, atol=1e-5)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(slopes[0][name], parameter.grad, rtol=1e-4, atol=1e-4)
    for have, x in zip(slopes[1], inputs, strict=True):
        np.testing.assert_allclose(have, x.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.few(4)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "how",
    [
        {"num_layers": 2, "bidirectional": True},
        {"batch_first": True, "bias": False},
        {"num_layers": 3, "batch_first": True},
        {"proj_size": 2, "num_layers": 2, "bidirectional": True},
    ],
    ids=str,
)
def test_layers(kind, how):
    if "proj_size" in how and kind is not nn.LSTM:
        how = {"num_layers": 2, "bias": False, "bidirectional": True}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of projections without oneDNN
        _agree(kind(3, 4, **how), draw(5, 6, 3))


def test_states_relu_and_a_single_sequence():
    torch.manual_seed(0)
    _agree(nn.RNN(3, 4, nonlinearity="relu"), draw(5, 2, 3), draw(1, 2, 4))
    _agree(nn.GRU(3, 4, bidirectional=True), draw(5, 3), draw(2, 4))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_packed_sequences(name):
    """The rules alone: torch.export itself does not take packed sequences."""
    torch.manual_seed(0)
    layer = {"lstm": nn.LSTM, "gru": nn.GRU}.get(name, nn.RNN)(3, 4, 2, bidirectional=True)
    weights = [p.detach() for p in layer.parameters()]
    data, sizes, state = draw(9, 3), torch.tensor([4, 3, 1, 1]), draw(4, 4, 4)
    how = (True, 2, 0.0, False, True)
    given = (state, state + 1) if name == "lstm" else state
    expected = getattr(torch._VF, name)(data, sizes, given, weights, *how)
    arrays = jax.tree.map(lambda x: jnp.asarray(x.numpy()), (data, sizes.int(), given, weights))
    found = jax.jit(lambda *x: RULES[f"aten.{name}.data"].function(*x, *how))(*arrays)
    for have, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)


def test_dropout_between_layers_needs_a_key():
    net = to_jax(nn.LSTM(3, 4, num_layers=2, dropout=0.5))
    x = jnp.asarray(draw(5, 2, 3).numpy())
    net(net.params, x)
    with pytest.raises(ConversionError, match="key"):
        net.train(net.params, x)
    one, other = (net.train(net.params, x, key=jax.random.key(i))[0][0] for i in (0, 1))
    assert jnp.any(one != other)
    plain = net(net.params, x)[1][0]
    (_, (hidden, _)), _ = net.train(net.params, x, key=jax.random.key(0))
    np.testing.assert_allclose(hidden[0], plain[0], rtol=1e-6)  # the first layer has none before


CELLS = (draw(2, 3), draw(2, 4), draw(16, 3), draw(16, 4), draw(16), draw(16, seed=1))
CASES = [
    Case("lstm", lambda x, h, *w: torch.lstm_cell(x, (h, h * 2), *w), CELLS),
    Case("lstm no bias", lambda x, h, *w: torch.lstm_cell(x, (h, h * 2), *w), CELLS[:4]),
    Case("gru", torch.gru_cell, (*CELLS[:2], *(w[:12] for w in CELLS[2:]))),
    Case("tanh", torch.rnn_tanh_cell, (*CELLS[:2], *(w[:4] for w in CELLS[2:]))),
    Case("relu", torch.rnn_relu_cell, (*CELLS[:2], *(w[:4] for w in CELLS[2:]))),
]


BATCH = Batch(CASES)


@pytest.mark.xdist_group("recurrent")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cells(case):
    BATCH.check(case)
