"""Normalisation over batches, layers and groups; statistics are computed wide, as torch does."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.layers import refuse, wide
from interop.aten.registry import Table

rules = Table()


@rules("aten._native_batch_norm_legit_functional.default")
def batch_norm_functional(
    x: jax.Array,
    weight: Any,
    bias: Any,
    running_mean: jax.Array,
    running_var: jax.Array,
    training: bool,
    momentum: float,
    eps: float,
    *,
    result: Any,
) -> tuple[jax.Array, ...]:
    """Also the new running statistics."""
    how = (running_mean, running_var, training, momentum, eps)
    return _batch_norm(x, weight, bias, *how, result)


@rules("aten._batch_norm_with_update_functional.default")
def batch_norm_with_update(
    x: jax.Array,
    weight: Any,
    bias: Any,
    running_mean: jax.Array,
    running_var: jax.Array,
    momentum: float,
    eps: float,
    *,
    result: Any,
) -> tuple[jax.Array, ...]:
    found = _batch_norm(
        x, weight, bias, running_mean, running_var, True, momentum, eps, (*result[:3], *result[4:])
    )
    return (*found[:3], jnp.zeros(result[3].shape, result[3].dtype), *found[3:])


@rules("aten._native_batch_norm_legit.no_stats")
def batch_norm_without_statistics(
    x: jax.Array,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float,
    eps: float,
    *,
    result: Any,
) -> tuple[jax.Array, ...]:
    return _batch_norm(x, weight, bias, None, None, training, momentum, eps, result)


@rules("aten._native_batch_norm_legit_no_training.default")
def batch_norm_evaluated(
    x: jax.Array,
    weight: Any,
    bias: Any,
    running_mean: jax.Array,
    running_var: jax.Array,
    momentum: float,
    eps: float,
    *,
    result: Any,
) -> tuple[jax.Array, ...]:
    return _batch_norm(x, weight, bias, running_mean, running_var, False, momentum, eps, result)


@rules("aten._batch_norm_no_update.default")
def batch_norm_no_update(
    x: jax.Array,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    momentum: float,
    eps: float,
    *,
    result: Any,
) -> tuple[jax.Array, ...]:
    found = _batch_norm(
        x, weight, bias, running_mean, running_var, False, momentum, eps, result[:3]
    )
    return (*found, jnp.zeros(result[3].shape, result[3].dtype))


@rules("aten.native_batch_norm.default")
def native_batch_norm(
    x: jax.Array,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    *,
    result: Any,
) -> tuple[jax.Array, ...]:
    return _batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps, result)


def _batch_norm(
    x: jax.Array,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    result: Sequence[Any],
) -> tuple[jax.Array, ...]:
    """The output, the mean and the inverse deviation used, and the new running statistics.

    Only the output is differentiable in torch. The new running variance is the unbiased one, and
    momentum weights it, not the old one.
    """
    y = wide(x)
    axes = (0, *range(2, x.ndim))
    if training:
        mean, var = _moments(y, axes)
    else:
        mean, var = (jax.lax.stop_gradient(wide(s)) for s in (running_mean, running_var))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    out = (y - mean.reshape(shape)) * jax.lax.rsqrt(var + eps).reshape(shape)
    out = _affine(out, weight, bias, shape).astype(x.dtype)
    saved: list[jax.Array] = [mean.reshape(-1), jax.lax.rsqrt(var + eps).reshape(-1)]
    if not training:
        saved = [
            s if s.shape == r.shape else s[:0] for s, r in zip(saved, result[1:3], strict=True)
        ]
    if len(result) == 5:
        new = [running_mean, running_var]
        if training:
            count = math.prod(x.shape[a] for a in axes)
            unbiased = var * (count / max(count - 1, 1))
            fresh = (mean.reshape(-1), unbiased.reshape(-1))
            new = [(1 - momentum) * wide(r) + momentum * f for r, f in zip(new, fresh, strict=True)]
        saved += new
    kept = (
        jax.lax.stop_gradient(s).astype(r.dtype) for s, r in zip(saved, result[1:], strict=True)
    )
    return out, *kept


def _moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The mean and the biased variance, their axes kept."""
    mean = jnp.mean(x, axes, keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), axes, keepdims=True)


def _affine(x: jax.Array, weight: Any, bias: Any, shape: tuple[int, ...]) -> jax.Array:
    if weight is not None:
        x = x * wide(weight).reshape(shape)
    return x if bias is None else x + wide(bias).reshape(shape)


@rules("aten.instance_norm.default")
def instance_norm(
    x: jax.Array,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> jax.Array:
    refuse(
        use_input_stats and running_mean is not None,
        "would change running statistics unseen: use nn.InstanceNorm or F.instance_norm",
    )
    y = wide(x)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    if use_input_stats:
        mean, var = _moments(y, tuple(range(2, x.ndim)))
    else:
        mean, var = (
            jax.lax.stop_gradient(wide(s)).reshape(shape) for s in (running_mean, running_var)
        )
    out = (y - mean) * jax.lax.rsqrt(var + eps)
    return _affine(out, weight, bias, shape).astype(x.dtype)


@rules("aten.native_layer_norm.default")
def native_layer_norm(
    x: jax.Array, shape: Sequence[int], weight: Any, bias: Any, eps: float, *, result: Any
) -> tuple[jax.Array, ...]:
    y = wide(x)
    mean, var = _moments(y, tuple(range(x.ndim - len(shape), x.ndim)))
    scale = jax.lax.rsqrt(var + eps)
    out = _affine((y - mean) * scale, weight, bias, tuple(shape)).astype(x.dtype)
    stopped = (jax.lax.stop_gradient(s) for s in (mean, scale))
    return out, *(
        s.reshape(r.shape).astype(r.dtype) for s, r in zip(stopped, result[1:], strict=True)
    )


@rules("aten.layer_norm.default")
def layer_norm(
    x: jax.Array,
    shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> jax.Array:
    y = wide(x)
    mean, var = _moments(y, tuple(range(x.ndim - len(shape), x.ndim)))
    out = (y - mean) * jax.lax.rsqrt(var + eps)
    return _affine(out, weight, bias, tuple(shape)).astype(x.dtype)


@rules("aten.rms_norm.default")
def rms_norm(
    x: jax.Array, shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> jax.Array:
    return _rms_norm(x, shape, weight, eps)[0]


@rules("aten._fused_rms_norm.default")
def fused_rms_norm(
    x: jax.Array, shape: Sequence[int], weight: Any, eps: float | None, *, result: Any
) -> tuple[jax.Array, jax.Array]:
    out, scale = _rms_norm(x, shape, weight, eps)
    return out, jax.lax.stop_gradient(scale).reshape(result[1].shape).astype(result[1].dtype)


def _rms_norm(
    x: jax.Array, shape: Sequence[int], weight: Any, eps: float | None
) -> tuple[jax.Array, jax.Array]:
    y = wide(x)
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    eps = float(jnp.finfo(y.dtype).eps) if eps is None else eps
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(y), axes, keepdims=True) + eps)
    return _affine(y * scale, weight, None, tuple(shape)).astype(x.dtype), scale


@rules("aten.group_norm.default")
def group_norm(
    x: jax.Array, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> jax.Array:
    return _group_norm(x, groups, weight, bias, eps)[0]


@rules("aten.native_group_norm.default")
def native_group_norm(
    x: jax.Array,
    weight: Any,
    bias: Any,
    batch: int,
    channels: int,
    inner: int,
    groups: int,
    eps: float,
    *,
    result: Any,
) -> tuple[jax.Array, ...]:
    out, *saved = _group_norm(x.reshape(batch, channels, inner), groups, weight, bias, eps)
    kept = (s.reshape(r.shape).astype(r.dtype) for s, r in zip(saved, result[1:], strict=True))
    return out.reshape(x.shape), *kept


def _group_norm(
    x: jax.Array, groups: int, weight: Any, bias: Any, eps: float
) -> tuple[jax.Array, ...]:
    parts = wide(x).reshape(x.shape[0], groups, int(np.prod(x.shape[1:])) // groups)
    mean, var = _moments(parts, (2,))
    scale = jax.lax.rsqrt(var + eps)
    out = ((parts - mean) * scale).reshape(x.shape)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return _affine(out, weight, bias, shape).astype(x.dtype), mean, scale
