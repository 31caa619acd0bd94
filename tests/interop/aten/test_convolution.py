import warnings

import pytest
import torch
from torch.nn import functional as f

from tests.interop.aten.layer_cases import Batch, Case, draw

X1, X2, X3 = draw(2, 4, 7), draw(2, 4, 6, 5), draw(1, 4, 4, 5, 3)
FORWARD, BACKWARD = (
    {1: f.conv1d, 2: f.conv2d, 3: f.conv3d},
    {1: f.conv_transpose1d, 2: f.conv_transpose2d, 3: f.conv_transpose3d},
)
INPUTS = {1: X1, 2: X2, 3: X3}


def _forward(axes, groups=1, kernel=(3, 2, 2), bias=True, **how):
    weight = draw(8, 4 // groups, *kernel[:axes], seed=1)
    inputs = (INPUTS[axes], weight, draw(8, seed=2) if bias else None)
    name = f"conv{axes}d groups {groups} {how} {bias}"
    return Case(name, lambda *x: FORWARD[axes](*x, groups=groups, **how), inputs[: 2 + bias])


def _backward(axes, groups=1, kernel=(3, 2, 2), bias=True, **how):
    weight = draw(4, 6 // groups if 6 % groups == 0 else 2, *kernel[:axes], seed=1)
    inputs = (INPUTS[axes], weight, draw(weight.shape[1] * groups, seed=2))
    name = f"conv_transpose{axes}d groups {groups} {how} {bias}"
    return Case(name, lambda *x: BACKWARD[axes](*x, groups=groups, **how), inputs[: 2 + bias])


def _same_even(x, w):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of a copy
        return f.conv1d(x, w, padding="same")


CASES = [
    *(_forward(axes, groups) for axes in (1, 2, 3) for groups in (1, 2, 4)),
    *(_backward(axes, groups) for axes in (1, 2, 3) for groups in (1, 2, 4)),
    _forward(1, stride=2, padding=3, dilation=2, bias=False),
    _forward(2, 2, stride=(1, 2), padding=(2, 0), dilation=(1, 2)),
    _forward(3, stride=2, padding=1),
    *(_forward(axes, padding="same", kernel=(5, 3, 1)) for axes in (1, 2, 3)),
    _forward(2, padding="same", dilation=(3, 2), kernel=(3, 5)),
    Case("same, even kernel", _same_even, (X1, draw(8, 4, 4))),
    _forward(2, padding="valid"),
    _backward(1, stride=3, padding=1, output_padding=2, bias=False),
    _backward(1, 2, stride=1, dilation=3, output_padding=2),
    _backward(2, 2, stride=(2, 3), padding=(1, 2), output_padding=(1, 0), dilation=(1, 2)),
    _backward(3, 4, stride=2, padding=1, output_padding=(1, 0, 1)),
    Case("without batch", lambda x, w: f.conv2d(x, w, padding=1), (X2[0], draw(3, 4, 2, 2))),
    Case("transposed without batch", lambda x, w: f.conv_transpose1d(x, w), (X1[0], draw(4, 3, 2))),
    Case("no batch at all", lambda x, w: f.conv1d(x, w), (draw(0, 4, 7), draw(3, 4, 2))),
]


BATCH = Batch(CASES)


@pytest.mark.few(4)
@pytest.mark.xdist_group("convolution")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_torch(case):
    BATCH.check(case)


def test_bfloat16_accumulates_wide():
    import jax.numpy as jnp
    import numpy as np

    from interop import to_jax

    layer = torch.nn.Conv1d(64, 4, 9).to(torch.bfloat16)
    x = draw(1, 64, 20)
    net = to_jax(layer)
    found = net(net.params, jnp.asarray(x.numpy(), jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    expected = layer(x.bfloat16()).detach().float()
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=2e-2, atol=2e-2)
