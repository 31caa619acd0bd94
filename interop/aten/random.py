"""Random numbers: the same laws as torch's, from a JAX key."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import random as draw

from interop.aten.dtypes import cast
from interop.aten.layers import needed
from interop.aten.registry import Table

rules = Table()


def _scaled(x: jax.Array, keep: jax.Array, p: float) -> jax.Array:
    return jnp.where(keep, x / (1 - p), 0).astype(x.dtype) if p < 1 else jnp.zeros_like(x)


@rules("aten.native_dropout.default")
def native_dropout(x: Any, p: float, train: bool | None, *, key: Any = None) -> Any:
    if train is False or p == 0:
        return x, jnp.ones(x.shape, bool)
    keep = draw.bernoulli(needed(key), 1 - p, x.shape)
    return _scaled(x, keep, p), keep


@rules("aten.dropout.default")
def dropout(x: Any, p: float, train: bool, *, key: Any = None) -> jax.Array:
    return native_dropout(x, p, train, key=key)[0]


@rules("aten.bernoulli.default")
def bernoulli(x: Any, *, result: Any, key: Any) -> jax.Array:
    return draw.bernoulli(key, x).astype(result.dtype)


@rules("aten.bernoulli.p", "aten.bernoulli.Tensor")
def bernoulli_like(x: Any, p: Any = 0.5, *, result: Any, key: Any) -> jax.Array:
    return draw.bernoulli(key, p, x.shape).astype(result.dtype)


@rules("aten.rand.default", "aten.rand_like.default")
def rand(*_: Any, result: Any, key: Any, **__: Any) -> jax.Array:
    if result.dtype == jnp.float32:  # on torch's grid: zero is half as likely as in JAX
        return (draw.bits(key, result.shape, jnp.uint32) >> 8).astype(jnp.float32) * 2.0**-24
    return draw.uniform(key, result.shape, result.dtype)


@rules("aten.randn.default", "aten.randn_like.default")
def randn(*_: Any, result: Any, key: Any, **__: Any) -> jax.Array:
    return draw.normal(key, result.shape, result.dtype)


@rules("aten.randint.default", "aten.randint_like.default")
def randint(*bounds: Any, result: Any, key: Any, **__: Any) -> jax.Array:
    """``high, size`` or ``like, high``."""
    high = bounds[1] if isinstance(bounds[0], jax.Array) else bounds[0]
    return draw.randint(key, result.shape, 0, high).astype(result.dtype)


@rules("aten.randint.low", "aten.randint_like.low_dtype")
def randint_between(*bounds: Any, result: Any, key: Any, **__: Any) -> jax.Array:
    """``low, high, size`` or ``like, low, high``."""
    low, high = bounds[1:3] if isinstance(bounds[0], jax.Array) else bounds[:2]
    return draw.randint(key, result.shape, low, high).astype(result.dtype)


@rules("aten.randperm.default")
def randperm(n: int, *, result: Any, key: Any, **_: Any) -> jax.Array:
    return draw.permutation(key, n).astype(result.dtype)


@rules("aten.uniform.default")
def uniform(x: Any, low: float = 0.0, high: float = 1.0, *, key: Any) -> jax.Array:
    return draw.uniform(key, x.shape, x.dtype, low, high)


@rules("aten.normal_functional.default")
def normal_like(x: Any, mean: float = 0.0, std: float = 1.0, *, key: Any) -> jax.Array:
    return mean + std * draw.normal(key, x.shape, x.dtype)


@rules(
    "aten.normal.Tensor_Tensor",
    "aten.normal.Tensor_float",
    "aten.normal.float_Tensor",
    "aten.normal.float_float",
)
def normal(mean: Any, std: Any = 1.0, *_: Any, result: Any, key: Any, **__: Any) -> jax.Array:
    """torch takes the numbers drawn to be constant."""
    noise = draw.normal(key, result.shape, result.dtype)
    drawn = cast(mean, result.dtype) + cast(std, result.dtype) * noise
    return jax.lax.stop_gradient(drawn)


@rules("aten.exponential.default")
def exponential(x: Any, rate: float = 1.0, *, key: Any) -> jax.Array:
    return draw.exponential(key, x.shape, x.dtype) / rate


@rules("aten.geometric.default")
def geometric(x: Any, p: float, *, key: Any) -> jax.Array:
    return draw.geometric(key, p, x.shape).astype(x.dtype)


@rules("aten.cauchy.default")
def cauchy(x: Any, median: float = 0.0, scale: float = 1.0, *, key: Any) -> jax.Array:
    return median + scale * draw.cauchy(key, x.shape, x.dtype)


@rules("aten.log_normal.default")
def log_normal(x: Any, mean: float = 1.0, std: float = 2.0, *, key: Any) -> jax.Array:
    return jnp.exp(mean + std * draw.normal(key, x.shape, x.dtype))


@rules("aten.poisson.default")
def poisson(rate: Any, *, key: Any) -> jax.Array:
    return draw.poisson(key, rate).astype(rate.dtype)


@rules("aten.binomial.default")
def binomial(count: Any, p: Any, *, key: Any) -> jax.Array:
    return draw.binomial(key, count, p).astype(p.dtype)


@rules("aten._standard_gamma.default")
def standard_gamma(concentration: Any, *, key: Any) -> jax.Array:
    return draw.gamma(key, concentration, dtype=concentration.dtype)


@rules("aten._sample_dirichlet.default")
def sample_dirichlet(concentration: Any, *, key: Any) -> jax.Array:
    return draw.dirichlet(key, concentration, dtype=concentration.dtype)


@rules("aten.multinomial.default")
def multinomial(
    weights: Any, count: int, replacement: bool = False, *, result: Any, key: Any
) -> jax.Array:
    logits = jnp.log(weights)
    if replacement:
        drawn = draw.categorical(key, logits[..., None, :], shape=result.shape)
        return drawn.astype(result.dtype)
    # The largest of logits with Gumbel noise are draws without replacement (arXiv:1903.06059).
    noisy = logits + draw.gumbel(key, logits.shape, logits.dtype)
    return jax.lax.top_k(noisy, count)[1].astype(result.dtype)
