"""Attention: masks of every form, grouped heads; and torch's fused layers for evaluation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.activations import gelu, masked_softmax, relu
from interop.aten.layers import needed, refuse, wide
from interop.aten.normalization import layer_norm
from interop.aten.registry import Table

rules = Table()


@rules("aten.scaled_dot_product_attention.default")
def scaled_dot_product_attention(
    query: jax.Array,
    keys: jax.Array,
    value: jax.Array,
    mask: Any = None,
    dropout: float = 0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    key: Any = None,
) -> jax.Array:
    """A row that the mask leaves nothing attends to nothing: zero."""
    weights, value = _weights(query, keys, value, mask, is_causal, scale, enable_gqa)
    if dropout:
        kept = jax.random.bernoulli(needed(key), 1 - dropout, weights.shape)
        weights = jnp.where(kept, weights / (1 - dropout), 0) if dropout < 1 else 0 * weights
    return jnp.matmul(weights, wide(value)).astype(query.dtype)


@rules("aten._scaled_dot_product_attention_math.default")
def attention_and_weights(
    query: jax.Array,
    keys: jax.Array,
    value: jax.Array,
    mask: Any = None,
    dropout: float = 0,
    is_causal: bool = False,
    dropout_mask: Any = None,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[jax.Array, jax.Array]:
    refuse(dropout > 0, "dropout in attention that also gives its weights")
    weights, value = _weights(query, keys, value, mask, is_causal, scale, enable_gqa)
    out = jnp.matmul(weights, wide(value)).astype(query.dtype)
    return out, weights.astype(query.dtype)


@rules("aten._scaled_dot_product_flash_attention_for_cpu.default")
def flash_attention(
    query: jax.Array,
    keys: jax.Array,
    value: jax.Array,
    dropout: float = 0,
    is_causal: bool = False,
    *,
    attn_mask: Any = None,
    scale: float | None = None,
    result: Any,
) -> tuple[jax.Array, jax.Array]:
    refuse(dropout > 0, "dropout in flash attention")
    scores, value = _scores(query, keys, value, attn_mask, is_causal, scale, False)
    total = jax.lax.stop_gradient(jax.nn.logsumexp(scores, -1))
    out = jnp.matmul(_softmax(scores, attn_mask, is_causal), wide(value))
    return out.astype(query.dtype), total.reshape(result[1].shape).astype(result[1].dtype)


def _weights(
    query: jax.Array,
    keys: jax.Array,
    value: jax.Array,
    mask: Any,
    is_causal: bool,
    scale: float | None,
    grouped: bool,
) -> tuple[jax.Array, jax.Array]:
    scores, value = _scores(query, keys, value, mask, is_causal, scale, grouped)
    return _softmax(scores, mask, is_causal), value


def _scores(
    query: jax.Array,
    keys: jax.Array,
    value: jax.Array,
    mask: Any,
    is_causal: bool,
    scale: float | None,
    grouped: bool,
) -> tuple[jax.Array, jax.Array]:
    """What is to become weights, and the values, repeated where several heads share them."""
    if grouped:
        heads = query.shape[-3]
        keys = jnp.repeat(keys, heads // keys.shape[-3], -3)
        value = jnp.repeat(value, heads // value.shape[-3], -3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = jnp.matmul(wide(query) * scale, jnp.swapaxes(wide(keys), -1, -2))
    if is_causal:
        scores = jnp.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, -jnp.inf)
    if mask is None:
        return scores, value
    if mask.dtype == bool:
        return jnp.where(mask, scores, -jnp.inf), value
    return scores + wide(mask), value


def _softmax(scores: jax.Array, mask: Any, is_causal: bool) -> jax.Array:
    if mask is None and not is_causal:
        return jax.nn.softmax(scores, -1)
    return masked_softmax(scores, -1)


@rules("aten._native_multi_head_attention.default")
def native_multi_head_attention(
    query: jax.Array,
    keys: jax.Array,
    value: jax.Array,
    size: int,
    heads: int,
    qkv_weight: jax.Array,
    qkv_bias: jax.Array,
    weight: jax.Array,
    bias: jax.Array,
    mask: Any = None,
    need_weights: bool = True,
    average: bool = True,
    mask_type: int | None = None,
    *,
    result: Any,
) -> tuple[jax.Array, jax.Array]:
    """The fused layer; its mask is of what to leave out, and any number but 0 leaves out."""
    parts = []
    for number, x in enumerate((query, keys, value)):
        own = slice(number * size, (number + 1) * size)
        y = jnp.matmul(x, qkv_weight[own].T) + qkv_bias[own]
        y = y.reshape(*y.shape[:2], heads, size // heads)
        parts.append(jnp.swapaxes(y, 1, 2))
    if mask is not None:
        mask = mask == 0
        if mask_type == 1:  # of keys
            mask = mask[:, None, None, :]
        elif mask.ndim == 3:
            mask = mask[:, None]
    weights, attended = _weights(parts[0], parts[1], parts[2], mask, False, None, False)
    out = jnp.swapaxes(jnp.matmul(weights, wide(attended)).astype(query.dtype), 1, 2)
    out = jnp.matmul(out.reshape(query.shape), weight.T) + bias
    if not need_weights:
        return out, jnp.zeros(result[1].shape, result[1].dtype)
    weights = jnp.mean(weights, 1) if average else weights
    return out, weights.astype(result[1].dtype)


@rules("aten._transformer_encoder_layer_fwd.default")
def transformer_encoder_layer(
    x: jax.Array,
    size: int,
    heads: int,
    qkv_weight: jax.Array,
    qkv_bias: jax.Array,
    weight: jax.Array,
    bias: jax.Array,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: jax.Array,
    norm_bias_1: jax.Array,
    norm_weight_2: jax.Array,
    norm_bias_2: jax.Array,
    weight_1: jax.Array,
    bias_1: jax.Array,
    weight_2: jax.Array,
    bias_2: jax.Array,
    mask: Any = None,
    mask_type: int | None = None,
    *,
    result: Any,
) -> jax.Array:
    """The fused layer: attention and a two-layer network, each added to its input."""

    def attend(x: jax.Array) -> jax.Array:
        how = (size, heads, qkv_weight, qkv_bias, weight, bias, mask, False, True, mask_type)
        return native_multi_head_attention(x, x, x, *how, result=(result, result))[0]

    def feed(x: jax.Array) -> jax.Array:
        x = jnp.matmul(x, weight_1.T) + bias_1
        return jnp.matmul(gelu(x) if use_gelu else relu(x), weight_2.T) + bias_2

    def norm_1(x: jax.Array) -> jax.Array:
        return layer_norm(x, (size,), norm_weight_1, norm_bias_1, eps)

    def norm_2(x: jax.Array) -> jax.Array:
        return layer_norm(x, (size,), norm_weight_2, norm_bias_2, eps)

    if norm_first:
        x = x + attend(norm_1(x))
        return x + feed(norm_2(x))
    x = norm_1(x + attend(x))
    return norm_2(x + feed(x))
