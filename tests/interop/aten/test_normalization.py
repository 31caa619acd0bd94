import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as f

from interop import to_jax
from tests.interop.aten.layer_cases import Batch, Case, draw

X, X4 = draw(4, 6, 5), draw(2, 6, 3, 4)
W, B, M, V = draw(6), draw(6, seed=1), draw(6, seed=2).detach(), draw(6, seed=3).exp()
FLAT = torch.ones(3, 6)


def _evaluated(x, w, b, m, v):
    return f.batch_norm(x, m.detach(), v.detach(), w, b)


CASES = [
    Case("batch trained", lambda x, w, b: f.batch_norm(x, None, None, w, b, True), (X, W, B)),
    Case("batch evaluated", _evaluated, (X4, W, B, M, V)),
    Case("batch constant", lambda x: f.batch_norm(x, None, None, training=True), (FLAT,)),
    Case("batch no bias", lambda x, w: f.batch_norm(x, None, None, w, None, True), (X4, W)),
    Case("instance", lambda x, w, b: f.instance_norm(x, weight=w, bias=b), (X, W, B)),
    Case(
        "instance evaluated",
        lambda x, m, v: f.instance_norm(x, m.detach(), v.detach(), use_input_stats=False),
        (X, M, V),
    ),
    Case("layer", lambda x, w, b: f.layer_norm(x, (5,), w, b), (X, draw(5), draw(5, seed=4))),
    Case("layer two axes", lambda x, w: f.layer_norm(x, (6, 5), w), (X, draw(6, 5))),
    Case("layer constant", lambda x: f.layer_norm(x, (6,)), (FLAT,)),
    Case("group", lambda x, w, b: f.group_norm(x, 3, w, b), (X4, W, B)),
    Case("group alone", lambda x: f.group_norm(x, 2), (X,)),
    Case(
        "group moments", lambda x: torch.native_group_norm(x, None, None, 2, 6, 12, 2, 1e-5), (X4,)
    ),
    Case("group flat", lambda x, w: f.group_norm(x, 2, w), (draw(3, 6), W)),
    Case("rms", lambda x, w: f.rms_norm(x, (5,), w), (X, draw(5))),
    Case("rms eps", lambda x: f.rms_norm(x, (6, 5), eps=0.1), (X,)),
    Case("local response", lambda x: f.local_response_norm(x, 3, 0.1), (X4,)),
    Case("normalize", lambda x: f.normalize(x, dim=1), (X,)),
]


BATCH = Batch(CASES)


@pytest.mark.xdist_group("normalization")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_torch(case):
    BATCH.check(case)


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm1d(6),
        nn.BatchNorm1d(6, momentum=0.7, affine=False),
        nn.BatchNorm1d(6, momentum=None),
        nn.BatchNorm1d(6, track_running_stats=False),
        nn.InstanceNorm1d(6, track_running_stats=True, affine=True),
        nn.InstanceNorm1d(6, track_running_stats=True, momentum=None),
        nn.Sequential(nn.BatchNorm1d(6, momentum=None), nn.BatchNorm1d(6, momentum=None)),
    ],
    ids=str,
)
def test_running_statistics_follow_torch_over_several_calls(module):
    net = to_jax(module)
    module.train()
    buffers = net.buffers
    for seed in range(3):
        x = draw(4, 6, 5, seed=seed) * 3 + 1
        found, buffers = net.train(net.params, jnp.asarray(x.numpy()), buffers=buffers)
        np.testing.assert_allclose(found, module(x).detach(), rtol=1e-5, atol=1e-5)
        for name, want in module.named_buffers():
            np.testing.assert_allclose(buffers[name], want, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "module", [nn.BatchNorm1d(6), nn.LayerNorm(5), nn.RMSNorm(5), nn.GroupNorm(2, 6)], ids=str
)
def test_bfloat16(module):
    module = module.to(torch.bfloat16).train()
    net = to_jax(module)
    found, _ = net.train(net.params, jnp.asarray(X.numpy(), jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    expected = module(X.bfloat16()).detach().float()
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=1e-2, atol=1e-2)
