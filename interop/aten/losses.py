"""Losses, with torch's gradients at kinks."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy

from interop.aten.dtypes import cast
from interop.aten.layers import MEAN, SUM, magnitude, reduced, wide
from interop.aten.registry import Table

rules = Table()


def _pair(x: Any, y: Any, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Both in the dtype of the outcome, 16-bit floats wide."""
    return wide(cast(x, dtype)), wide(cast(y, dtype))


@rules("aten.mse_loss.default")
def mse_loss(x: jax.Array, y: jax.Array, reduction: int = MEAN, *, result: Any) -> jax.Array:
    x, y = _pair(x, y, result.dtype)
    return reduced(jnp.square(x - y), reduction).astype(result.dtype)


@rules("aten.l1_loss.default")
def l1_loss(x: jax.Array, y: jax.Array, reduction: int = MEAN, *, result: Any) -> jax.Array:
    x, y = _pair(x, y, result.dtype)
    return reduced(magnitude(x - y), reduction).astype(result.dtype)


@rules("aten.smooth_l1_loss.default")
def smooth_l1_loss(
    x: jax.Array, y: jax.Array, reduction: int = MEAN, beta: float = 1, *, result: Any
) -> jax.Array:
    x, y = _pair(x, y, result.dtype)
    far = magnitude(x - y)
    if beta > 0:
        far = jnp.where(far < beta, 0.5 * jnp.square(x - y) / beta, far - 0.5 * beta)
    return reduced(far, reduction).astype(result.dtype)


@rules("aten.huber_loss.default")
def huber_loss(
    x: jax.Array, y: jax.Array, reduction: int = MEAN, delta: float = 1, *, result: Any
) -> jax.Array:
    x, y = _pair(x, y, result.dtype)
    far = magnitude(x - y)
    losses = jnp.where(far <= delta, 0.5 * jnp.square(x - y), delta * (far - 0.5 * delta))
    return reduced(losses, reduction).astype(result.dtype)


@rules("aten.nll_loss.default", "aten.nll_loss2d.default", "aten.nll_loss_nd.default")
def nll_loss(
    x: jax.Array, target: jax.Array, weight: Any = None, reduction: int = MEAN, ignored: int = -100
) -> jax.Array:
    return _nll(wide(x), target, wide(weight), reduction, ignored)[0].astype(x.dtype)


@rules("aten.nll_loss_forward.default", "aten.nll_loss2d_forward.default")
def nll_loss_forward(
    x: jax.Array, target: jax.Array, weight: Any, reduction: int, ignored: int, *, result: Any
) -> tuple[jax.Array, jax.Array]:
    loss, total = _nll(wide(x), target, wide(weight), reduction, ignored)
    total = jnp.zeros_like(total) if reduction == 0 else jax.lax.stop_gradient(total)
    return loss.astype(x.dtype), total.astype(result[1].dtype)


def _nll(
    x: jax.Array, target: jax.Array, weight: Any, reduction: int, ignored: int
) -> tuple[jax.Array, jax.Array]:
    """The loss and the weights' sum; a mean is over the weights of the targets that count."""
    axis = 0 if x.ndim == 1 else 1
    counts, safe = _counted(target, ignored)
    picked = jnp.take_along_axis(x, jnp.expand_dims(safe, axis), axis).squeeze(axis)
    weights = jnp.ones((), x.dtype) if weight is None else weight[safe]
    weights = jnp.where(counts, weights, 0)
    losses = jnp.where(counts, -picked * weights, 0)
    total = jnp.sum(weights)
    if reduction == MEAN:
        return jnp.sum(losses) / total, total
    return reduced(losses, reduction), total


def _counted(target: jax.Array, ignored: int) -> tuple[jax.Array, jax.Array]:
    counts = target != ignored
    return counts, jnp.where(counts, target, 0)


@rules("aten.cross_entropy_loss.default")
def cross_entropy_loss(
    x: jax.Array,
    target: jax.Array,
    weight: Any = None,
    reduction: int = MEAN,
    ignored: int = -100,
    smoothing: float = 0,
) -> jax.Array:
    """Of classes, or of probabilities, which have the shape of the input."""
    axis = 0 if x.ndim == 1 else 1
    classes = x.shape[axis]
    weight = wide(weight)
    log_p = jax.nn.log_softmax(wide(x), axis)
    scaled = log_p
    if weight is not None:
        scaled = log_p * jnp.expand_dims(weight, tuple(range(1, x.ndim - axis)))
    if x.shape == target.shape:
        share = wide(target) * (1 - smoothing) + smoothing / classes
        losses = -jnp.sum(scaled * share, axis)
        if reduction == MEAN:
            return (jnp.sum(losses) / losses.size).astype(x.dtype)
        return reduced(losses, reduction).astype(x.dtype)
    loss, total = _nll(log_p, target, weight, reduction, ignored)
    if smoothing:
        counts, _ = _counted(target, ignored)
        even = jnp.where(counts, -jnp.sum(scaled, axis), 0)
        even = jnp.sum(even) / total if reduction == MEAN else reduced(even, reduction)
        loss = (1 - smoothing) * loss + smoothing / classes * even
    return loss.astype(x.dtype)


@rules("torch_nn._linear_cross_entropy_batch_chunked.default")
def linear_cross_entropy(
    x: jax.Array,
    linear_weight: jax.Array,
    target: jax.Array,
    bias: Any,
    weight: Any,
    reduction: str,
    ignored: int,
    smoothing: float,
    *_: Any,
    result: Any,
) -> tuple[jax.Array, ...]:
    """The loss alone: its gradients, which torch computes beside it, are JAX's own."""
    logits = _logits(x, linear_weight, bias)
    number = {"mean": MEAN, "sum": SUM}[reduction]
    loss = cross_entropy_loss(logits, target, weight, number, ignored, smoothing)
    return loss.astype(result[0].dtype), *(jnp.zeros(r.shape, r.dtype) for r in result[1:])


@rules("torch_nn._linear_cross_entropy_batch_chunked_no_reduction.default")
def linear_cross_entropy_each(
    x: jax.Array,
    linear_weight: jax.Array,
    target: jax.Array,
    bias: Any,
    weight: Any,
    ignored: int,
    *_: Any,
    result: Any,
) -> jax.Array:
    logits = _logits(x, linear_weight, bias)
    return cross_entropy_loss(logits, target, weight, 0, ignored).astype(result.dtype)


def _logits(x: jax.Array, weight: jax.Array, bias: Any) -> jax.Array:
    logits = wide(x) @ wide(weight).T
    return logits if bias is None else logits + wide(bias)


@rules("aten.binary_cross_entropy.default")
def binary_cross_entropy(
    x: jax.Array, target: jax.Array, weight: Any = None, reduction: int = MEAN
) -> jax.Array:
    losses = _bernoulli(wide(x), wide(target))
    losses = losses if weight is None else losses * wide(weight)
    return reduced(losses, reduction).astype(x.dtype)


@jax.custom_jvp
def _bernoulli(p: jax.Array, target: jax.Array) -> jax.Array:
    """Logarithms no less than -100."""
    positive, negative = jnp.maximum(jnp.log(p), -100), jnp.maximum(jnp.log1p(-p), -100)
    return (target - 1) * negative - target * positive


@_bernoulli.defjvp
def _bernoulli_slope(values: Any, slopes: Any) -> tuple[jax.Array, jax.Array]:
    """torch's: finite at 0 and 1, and not that of the bounded logarithms."""
    (p, target), (by_p, by_target) = values, slopes
    slope = by_p * (p - target) / jnp.maximum((1 - p) * p, 1e-12)
    return _bernoulli(p, target), slope + by_target * (jnp.log1p(-p) - jnp.log(p))


@rules("aten.binary_cross_entropy_with_logits.default")
def binary_cross_entropy_with_logits(
    x: jax.Array,
    target: jax.Array,
    weight: Any = None,
    positive_weight: Any = None,
    reduction: int = MEAN,
    *,
    result: Any,
) -> jax.Array:
    z, t = wide(x), wide(target)
    log_sigmoid = jax.nn.log_sigmoid(z)
    if positive_weight is not None:
        log_sigmoid = log_sigmoid * (1 + (wide(positive_weight) - 1) * t)
    losses = (1 - t) * z - log_sigmoid
    losses = losses if weight is None else losses * wide(weight)
    return reduced(losses, reduction).astype(result.dtype)


@rules("aten.kl_div.default")
def kl_div(
    x: jax.Array,
    target: jax.Array,
    reduction: int = MEAN,
    log_target: bool = False,
    *,
    result: Any,
) -> jax.Array:
    x, t = _pair(x, target, result.dtype)
    losses = jnp.exp(t) * (t - x) if log_target else xlogy(t, t) - t * x
    return reduced(losses, reduction).astype(result.dtype)


@rules("aten.soft_margin_loss.default")
def soft_margin_loss(
    x: jax.Array, target: jax.Array, reduction: int = MEAN, *, result: Any
) -> jax.Array:
    losses = jnp.log1p(jnp.exp(-wide(target) * wide(x)))
    return reduced(losses, reduction).astype(result.dtype)


@rules("aten.multi_margin_loss.default")
def multi_margin_loss(
    x: jax.Array,
    target: jax.Array,
    power: Any = 1,
    margin: float = 1,
    weight: Any = None,
    reduction: int = MEAN,
) -> jax.Array:
    """Hinges, without gradient at the kink, of each class but the target."""
    rows = wide(x).reshape(-1, x.shape[-1])
    classes = rows.shape[1]
    at = target.reshape(-1, 1)
    hinge = margin - jnp.take_along_axis(rows, at, 1) + rows
    hinge = jnp.where((hinge > 0) & (jnp.arange(classes) != at), hinge, 0)
    hinge = jnp.square(hinge) if power == 2 else hinge
    hinge = hinge if weight is None else hinge * wide(weight)[at]
    losses = jnp.sum(hinge, 1) / classes
    return reduced(losses.reshape(target.shape), reduction).astype(x.dtype)


@rules("aten.multilabel_margin_loss.default")
def multilabel_margin_loss(
    x: jax.Array, target: jax.Array, reduction: int = MEAN, *, result: Any
) -> jax.Array:
    return _multilabel_margin(x, target, reduction)[0].reshape(result.shape)


@rules("aten.multilabel_margin_loss_forward.default")
def multilabel_margin_loss_forward(
    x: jax.Array, target: jax.Array, reduction: int, *, result: Any
) -> tuple[jax.Array, jax.Array]:
    loss, is_target = _multilabel_margin(x, target, reduction)
    loss = loss.reshape(result[0].shape)
    return loss, is_target.reshape(result[1].shape).astype(result[1].dtype)


def _multilabel_margin(
    x: jax.Array, target: jax.Array, reduction: int
) -> tuple[jax.Array, jax.Array]:
    """Each listed class against each class not listed; the list ends at the first -1."""
    rows = wide(x).reshape(-1, x.shape[-1] if x.ndim else 1)
    labels = target.reshape(rows.shape)
    listed = jnp.cumprod((labels >= 0).astype(np.int32), 1) > 0
    classes = rows.shape[1]
    hot = listed[..., None] & (labels[..., None] == jnp.arange(classes))
    is_target = hot.any(1)
    picked = jnp.take_along_axis(rows, jnp.where(listed, labels, 0), 1)
    hinge = 1 - picked[:, :, None] + rows[:, None, :]
    counts = listed[:, :, None] & ~is_target[:, None, :] & (hinge > 0)
    losses = jnp.sum(jnp.where(counts, hinge, 0), (1, 2)) / classes
    return reduced(losses, reduction).astype(x.dtype), is_target


def _hinge(x: jax.Array) -> jax.Array:
    """With slope 1 at the kink, as torch's clamp."""
    return jnp.where(x >= 0, x, jnp.where(x != x, x, 0))


@rules("aten.hinge_embedding_loss.default")
def hinge_embedding_loss(
    x: jax.Array, target: jax.Array, margin: float = 1, reduction: int = MEAN, *, result: Any
) -> jax.Array:
    y = wide(x)
    losses = jnp.where(target != 1, _hinge(margin - y), 0) + jnp.where(target != -1, y, 0)
    return reduced(losses, reduction).astype(result.dtype)


@rules("aten.margin_ranking_loss.default")
def margin_ranking_loss(
    x: jax.Array,
    y: jax.Array,
    target: jax.Array,
    margin: float = 0,
    reduction: int = MEAN,
    *,
    result: Any,
) -> jax.Array:
    losses = _hinge(margin - wide(target) * (wide(x) - wide(y)))
    return reduced(losses, reduction).astype(result.dtype)


@rules("aten.cosine_embedding_loss.default")
def cosine_embedding_loss(
    x: jax.Array,
    y: jax.Array,
    target: jax.Array,
    margin: float = 0,
    reduction: int = MEAN,
    *,
    result: Any,
) -> jax.Array:
    x, y = wide(x), wide(y)
    squares = (jnp.sum(x * x, -1) + 1e-12) * (jnp.sum(y * y, -1) + 1e-12)
    cosine = jnp.sum(x * y, -1) / jnp.sqrt(squares)
    losses = jnp.where(target == 1, 1 - cosine, 0)
    losses = losses + jnp.where(target == -1, _hinge(cosine - margin), 0)
    return reduced(losses, reduction).astype(result.dtype)


@rules("aten.poisson_nll_loss.default")
def poisson_nll_loss(
    x: jax.Array,
    target: jax.Array,
    log_input: bool,
    full: bool,
    eps: float,
    reduction: int,
    *,
    result: Any,
) -> jax.Array:
    y, t = wide(x), wide(target)
    losses = jnp.exp(y) - t * y if log_input else y - t * jnp.log(y + eps)
    if full:
        stirling = t * jnp.log(t) - t + 0.5 * jnp.log(2 * math.pi * t)
        losses = losses + jnp.where(t > 1, stirling, 0)  # a gradient of nan for t < 0, as torch's
    return reduced(losses, reduction).astype(result.dtype)
