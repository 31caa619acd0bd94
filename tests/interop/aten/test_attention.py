import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as f

from interop import to_jax
from tests.interop.aten.layer_cases import Batch, Case, Wrapped, draw

Q, K, V = draw(2, 4, 5, 6), draw(2, 4, 7, 6, seed=1), draw(2, 4, 7, 3, seed=2)
SEEN = draw(2, 1, 5, 7, seed=3) > -0.5
SOME = SEEN.clone()
SOME[0, 0, 2] = False  # a row that sees nothing
attend = f.scaled_dot_product_attention

CASES = [
    Case("plain", attend, (Q, K, V)),
    Case("causal", lambda q, k, v: attend(q, k, v, is_causal=True), (Q, K, V)),
    Case("causal tall", lambda q, k, v: attend(k, q, q, is_causal=True), (Q, K, V)),
    Case("boolean mask", lambda q, k, v: attend(q, k, v, SEEN), (Q, K, V)),
    Case("a row of nothing", lambda q, k, v: attend(q, k, v, SOME), (Q, K, V)),
    Case("added mask", lambda q, k, v, m: attend(q, k, v, m), (Q, K, V, draw(4, 5, 7))),
    Case(
        "added mask of nothing",
        lambda q, k, v: attend(
            q, k, v, torch.zeros_like(q[:, :, :, :1]).masked_fill(~SOME, -torch.inf)
        ),
        (Q, K, V),
    ),
    Case("flat mask", lambda q, k, v: attend(q, k, v, SEEN[0, 0]), (Q, K, V)),
    Case("scale", lambda q, k, v: attend(q, k, v, scale=0.3), (Q, K, V)),
    Case(
        "grouped heads",
        lambda q, k, v: attend(q, k[:, ::2], v[:, ::2], enable_gqa=True),
        (Q, K, V),
    ),
    Case("three axes", lambda q, k, v: attend(q[0], k[0], v[0]), (Q, K, V)),
    Case("two axes", lambda q, k, v: attend(q[0, 0], k[0, 0], v[0, 0]), (Q, K, V)),
]


BATCH = Batch(CASES)


@pytest.mark.xdist_group("attention")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_torch(case):
    BATCH.check(case)


def test_bfloat16():
    found = to_jax(Wrapped(attend))({}, *(jnp.asarray(x.numpy(), jnp.bfloat16) for x in (Q, K, V)))
    expected = attend(Q.bfloat16(), K.bfloat16(), V.bfloat16()).float()
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=2e-2, atol=2e-2)


def test_dropout_scales_what_it_keeps():
    net = to_jax(Wrapped(lambda q, k, v: attend(q, k, v, dropout_p=0.3)))
    arrays = [jnp.asarray(x.numpy()) for x in (Q, K, V)]
    keys = jax.random.split(jax.random.key(0), 3000)
    mean = jax.vmap(lambda key: net({}, *arrays, key=key))(keys).mean(0)
    np.testing.assert_allclose(mean, attend(Q, K, V), atol=0.08)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_fused_layers_of_frozen_modules(norm_first, activation):
    """Exported under no_grad, torch takes its fused operations, which have rules."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, batch_first=True, norm_first=norm_first, activation=activation
    )
    layer.requires_grad_(False).eval()
    x = draw(2, 5, 8)
    hidden = torch.tensor([[False] * 5, [False, False, False, True, True]])
    for kwargs in ({}, {"src_key_padding_mask": hidden}):
        expected = layer(x, **kwargs)
        net = to_jax(layer)
        given = {n: jnp.asarray(v.numpy()) for n, v in kwargs.items()}
        found = net(net.params, jnp.asarray(x.numpy()), **given)
        seen = ~hidden if kwargs else torch.ones(2, 5, dtype=torch.bool)
        np.testing.assert_allclose(found[seen.numpy()], expected[seen], rtol=1e-4, atol=1e-5)


def _fused(x, w, b, o, c, mask, kind):
    return torch._native_multi_head_attention(
        x, x, x, 8, 2, w, b, o, c, mask, need_weights=True, mask_type=kind
    )


@pytest.mark.parametrize(
    ("mask", "kind"),
    [(None, None), (draw(5, 5) > 0.7, 0), (draw(2, 5) > 0.7, 1)],
    ids=["none", "of pairs", "of keys"],
)
def test_fused_attention(mask, kind):
    inputs = (draw(2, 5, 8), draw(24, 8), draw(24), draw(8, 8), draw(8))
    with torch.no_grad():
        expected = _fused(*inputs, mask, kind)
    found = to_jax(Wrapped(lambda *x: _fused(*x, mask, kind)))(
        {}, *(jnp.asarray(x.numpy()) for x in inputs)
    )
    for have, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("causal", [None, True, False])
def test_whether_a_mask_is_causal_is_not_guessed(causal):
    torch.manual_seed(0)
    module = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True).eval()
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    how = {"tgt_mask": mask, "src_mask": mask, "tgt_is_causal": causal, "src_is_causal": causal}
    x, y = draw(2, 5, 8), draw(2, 5, 8, seed=1)
    expected = module(x, y, **how)
    how.update({n: jnp.asarray(v.numpy()) for n, v in how.items() if isinstance(v, torch.Tensor)})
    net = to_jax(module)
    found = net(net.params, jnp.asarray(x.numpy()), jnp.asarray(y.numpy()), **how)
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-5)
