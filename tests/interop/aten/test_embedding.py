import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as f

from interop import to_jax
from tests.interop.aten.layer_cases import Batch, Case, draw

W = draw(6, 3)
TIED = draw(6, 3).round()
ROWS = torch.tensor([[1, 4, 4], [0, 5, 1]])
FLAT, OFFSETS = torch.tensor([1, 4, 4, 0, 5, 1, 2]), torch.tensor([0, 3, 3, 4])
SAMPLE = draw(7, seed=5)


def _bag(mode, **how):
    return lambda w: f.embedding_bag(FLAT, w, OFFSETS, mode=mode, **how)


CASES = [
    Case("plain", lambda w: f.embedding(ROWS, w), (W,)),
    Case("padding", lambda w: f.embedding(ROWS, w, padding_idx=4), (W,)),
    Case("padding from the end", lambda w: f.embedding(ROWS, w, padding_idx=-2), (W,)),
    Case("by frequency", lambda w: f.embedding(ROWS, w, scale_grad_by_freq=True), (W,)),
    Case("one-hot", lambda w: f.one_hot(ROWS, 6).to(w.dtype) @ w, (W,)),
    *(Case(f"bag {mode}", _bag(mode), (TIED,)) for mode in ("sum", "mean", "max")),
    Case("bag padding from the end", _bag("sum", padding_idx=-2), (TIED,)),
    *(Case(f"bag padding {m}", _bag(m, padding_idx=4), (TIED,)) for m in ("sum", "mean", "max")),
    Case(
        "bag last offset",
        lambda w: f.embedding_bag(
            FLAT, w, torch.tensor([0, 3, 3, 7]), mode="sum", include_last_offset=True
        ),
        (W,),
    ),
    Case("bag rows", lambda w: f.embedding_bag(ROWS, w, mode="mean"), (W,)),
    Case(
        "bag weights",
        lambda w, s: f.embedding_bag(FLAT, w, OFFSETS, mode="sum", per_sample_weights=s),
        (W, SAMPLE),
    ),
]


BATCH = Batch(CASES)


@pytest.mark.xdist_group("embedding")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_torch(case):
    BATCH.check(case)


@pytest.mark.parametrize("norm_type", [2.0, 1.0])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_long_rows_are_shortened_and_their_gradient_is_not(kind, norm_type):
    module = kind(6, 3, max_norm=0.8, norm_type=norm_type)
    net = to_jax(module)

    def total(params):
        found = net(params, jnp.asarray(ROWS.numpy(), jnp.int32))
        return jnp.sum(found * jnp.arange(found.size).reshape(found.shape)), found

    slopes, found = jax.grad(total, has_aux=True)(net.params)
    expected = module(ROWS)
    (expected * torch.arange(expected.numel()).view(expected.shape)).sum().backward()
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(slopes["weight"], module.weight.grad, rtol=1e-5)


def test_sparse_gradients_are_dense():
    module = nn.Embedding(6, 3, sparse=True)
    net = to_jax(module)
    slope = jax.grad(lambda p: net(p, jnp.asarray(ROWS.numpy(), jnp.int32)).sum())(net.params)
    module(ROWS).sum().backward()
    np.testing.assert_allclose(slope["weight"], module.weight.grad.to_dense(), rtol=1e-6)
