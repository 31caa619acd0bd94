"""Activations, with torch's gradients at kinks; 16-bit floats are computed wide."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.dtypes import cast
from interop.aten.layers import needed, refuse, wide, widely
from interop.aten.registry import Table

rules = Table()


@rules("aten.relu.default")
def relu(x: jax.Array) -> jax.Array:
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


@rules("aten.hardtanh.default")
def hardtanh(x: jax.Array, low: float = -1, high: float = 1) -> jax.Array:
    """No gradient at a bound."""
    fixed = jax.lax.stop_gradient(jnp.clip(x, cast(low, x.dtype), cast(high, x.dtype)))
    return jnp.where((x <= low) | (x >= high), fixed, x)


@rules("aten.relu6.default")
def relu6(x: jax.Array) -> jax.Array:
    return hardtanh(x, 0, 6)


@rules("aten.leaky_relu.default")
def leaky_relu(x: jax.Array, slope: float = 0.01) -> jax.Array:
    return jnp.where(x > 0, x, x * cast(slope, x.dtype))


@rules("aten.prelu.default", "aten._prelu_kernel.default")
def prelu(x: jax.Array, weight: jax.Array) -> jax.Array:
    """One slope, or one for each index of axis 1."""
    if weight.ndim != x.ndim and weight.ndim > 0:
        count = weight.shape[0]
        weight = weight.reshape(() if x.ndim < 2 else (count,) + (1,) * (x.ndim - 2))
    return jnp.where(x > 0, x, weight * x)


@rules("aten.rrelu_with_noise_functional.default")
def rrelu_with_noise(
    x: jax.Array,
    noise: jax.Array,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    *_: Any,
    key: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Random slopes, which are the second outcome; 1 where the input is positive."""
    if not training:
        return leaky_relu(x, (lower + upper) / 2), noise
    drawn = jax.random.uniform(needed(key), x.shape, wide(x).dtype, lower, upper).astype(x.dtype)
    slopes = jnp.where(x <= 0, drawn, 1)
    return x * slopes, slopes


@rules("aten.rrelu.default")
def rrelu(
    x: jax.Array,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    *_: Any,
    key: Any = None,
) -> jax.Array:
    return rrelu_with_noise(x, jnp.ones_like(x), lower, upper, training, key=key)[0]


@rules("aten.elu.default")
def elu(x: jax.Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> jax.Array:
    def of(x: jax.Array) -> jax.Array:
        negative = jnp.where(x > 0, 0, x)  # expm1 would overflow where it is not taken
        return jnp.where(x > 0, scale * x, scale * alpha * jnp.expm1(input_scale * negative))

    return widely(of)(x)


@rules("aten.celu.default")
def celu(x: jax.Array, alpha: float = 1) -> jax.Array:
    return elu(x, alpha, 1, 1 / alpha)


@rules("aten.selu.default")
def selu(x: jax.Array) -> jax.Array:
    return elu(x, 1.6732632423543772, 1.0507009873554805)


@rules("aten.gelu.default")
def gelu(x: jax.Array, approximate: str = "none") -> jax.Array:
    refuse(approximate not in ("none", "tanh"), f"gelu with approximate={approximate!r}")
    if approximate == "tanh":
        slope = math.sqrt(2 / math.pi)
        return widely(lambda x: 0.5 * x * (1 + jnp.tanh(slope * (x + 0.044715 * x * x * x))))(x)
    return widely(lambda x: 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5))))(x)


@rules("aten.silu.default")
def silu(x: jax.Array) -> jax.Array:
    return widely(lambda x: x * jax.nn.sigmoid(x))(x)


@rules("aten.mish.default")
def mish(x: jax.Array) -> jax.Array:
    return widely(lambda x: x * jnp.tanh(jax.nn.softplus(x)))(x)


@rules("aten.softplus.default")
def softplus(x: jax.Array, beta: float = 1, threshold: float = 20) -> jax.Array:
    def of(x: jax.Array) -> jax.Array:
        linear = x * beta > threshold
        small = jnp.where(linear, 0, x * beta)
        return jnp.where(linear, x, jnp.log1p(jnp.exp(small)) / beta)

    return widely(of)(x)


@rules("aten.log_sigmoid.default")
def log_sigmoid(x: jax.Array) -> jax.Array:
    return widely(jax.nn.log_sigmoid)(x)


@rules("aten.log_sigmoid_forward.default")
def log_sigmoid_forward(x: jax.Array, *, result: Any) -> tuple[jax.Array, jax.Array]:
    """The second outcome is torch's scratch."""
    return log_sigmoid(x), jnp.zeros(result[1].shape, result[1].dtype)


@rules("aten.hardshrink.default")
def hardshrink(x: jax.Array, bound: float = 0.5) -> jax.Array:
    return jnp.where((x >= -bound) & (x <= bound), jnp.zeros((), x.dtype), x)


@rules("aten.softshrink.default")
def softshrink(x: jax.Array, bound: float = 0.5) -> jax.Array:
    step = cast(bound, x.dtype)
    inside = jnp.where(x != x, x, jnp.zeros((), x.dtype))
    return jnp.where(x > bound, x - step, jnp.where(x < -bound, x + step, inside))


@rules("aten.hardsigmoid.default")
def hardsigmoid(x: jax.Array) -> jax.Array:
    return widely(lambda x: hardtanh(x + 3, 0, 6) / 6)(x)


@rules("aten.hardswish.default")
def hardswish(x: jax.Array) -> jax.Array:
    """Slope 0 at -3, and 1 at 3."""

    def of(x: jax.Array) -> jax.Array:
        middle = x * (x + 3) / 6
        return jnp.where(x <= -3, jnp.zeros_like(x), jnp.where(x >= 3, x, middle))

    return widely(of)(x)


@rules("aten.threshold.default")
def threshold(x: jax.Array, bound: float, value: float) -> jax.Array:
    return jnp.where(x <= bound, cast(value, x.dtype), x)


@rules("aten.glu.default")
def glu(x: jax.Array, dim: int = -1) -> jax.Array:
    values, gates = jnp.split(wide(x), 2, dim)
    return (values * jax.nn.sigmoid(gates)).astype(x.dtype)


@rules("aten.softmax.int", "aten._softmax.default")
def softmax(x: jax.Array, dim: int, *_: Any, result: Any) -> jax.Array:
    return _along(jax.nn.softmax, wide(cast(x, result.dtype)), dim).astype(result.dtype)


@rules("aten.log_softmax.int", "aten._log_softmax.default")
def log_softmax(x: jax.Array, dim: int, *_: Any, result: Any) -> jax.Array:
    return _along(jax.nn.log_softmax, wide(cast(x, result.dtype)), dim).astype(result.dtype)


@rules("aten._safe_softmax.default")
def safe_softmax(x: jax.Array, dim: int, *_: Any, result: Any) -> jax.Array:
    return _along(masked_softmax, wide(cast(x, result.dtype)), dim).astype(result.dtype)


def masked_softmax(x: jax.Array, axis: int) -> jax.Array:
    """Zero, with zero gradient, along an axis that is -inf everywhere."""
    nothing = jnp.all(x == -np.inf, axis, keepdims=True)
    return jnp.where(nothing, 0, jax.nn.softmax(jnp.where(nothing, 0, x), axis))


def _along(function: Any, x: jax.Array, dim: int) -> jax.Array:
    if x.ndim == 0:
        return function(x[None], axis=0)[0]
    return function(x, axis=dim)
