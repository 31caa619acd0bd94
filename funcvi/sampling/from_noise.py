"""Distributions that are a formula of one or two base draws."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi._types import Key
from funcvi.sampling import coefficients, noise
from funcvi.sampling.dtypes import noise_dtype
from funcvi.sampling.polynomials import horner

__all__ = ["SAMPLERS"]

Shape = tuple[int, ...]


def _of(base: Callable[..., Any], formula: Callable[..., Array]) -> Callable[..., Array]:
    def sampler(d: Any, key: Key, shape: Shape) -> Array:
        return formula(d, base(key, shape, noise_dtype(d)))

    return sampler


def _cauchy(key: Key, shape: Shape, dtype: Any) -> Array:
    sign, v = noise.signed_tail(key, shape, dtype)
    if dtype == jnp.float64:
        return sign / jnp.tan(v * (math.pi / 2))
    # cot(pi v / 2), which is tan on the other side of the middle: XLA's tan is slow on CPU.
    t = jnp.minimum(v, 1 - v)
    tangent = t * horner(coefficients.TANGENT, 8 * t * t - 1)
    return sign * jnp.where(v < 0.5, 1 / tangent, tangent)


def _laplace(key: Key, shape: Shape, dtype: Any) -> Array:
    sign, v = noise.signed_tail(key, shape, dtype)
    return -sign * jnp.log(v)


def _logistic(key: Key, shape: Shape, dtype: Any) -> Array:
    sign, v = noise.signed_tail(key, shape, dtype)
    return sign * (jnp.log(2 - v) - jnp.log(v))


def _inside(x: Array) -> Array:
    """Off the ends of the unit interval, where rounding may have put it."""
    info = jnp.finfo(x.dtype)
    return jnp.clip(x, info.tiny, 1 - info.eps)


def _kumaraswamy(d: Any, e: Array) -> Array:
    # 1 - (1 - u)**(1 / b) with u = 1 - exp(-e), without cancellation.
    return _inside(jnp.exp(jnp.log(_one_less_exp(e / d.concentration0)) / d.concentration1))


def _one_less_exp(t: Array) -> Array:
    """1 - exp(-t) for t not negative: XLA's expm1 is slow on CPU."""
    if t.dtype == jnp.float64:
        return -jnp.expm1(-t)
    series = [(-1) ** k / math.factorial(k + 1) for k in range(8)]
    return jnp.where(t < 0.5, t * horner(series, jnp.minimum(t, 0.5)), 1 - jnp.exp(-t))


def _two_exponentials(d: Any, key: Key, shape: Shape) -> Array:
    left, right = noise.exponential(key, (2, *shape), noise_dtype(d))
    return d.loc - d.left_scale * left + d.right_scale * right


SAMPLERS: dict[type, Callable[..., Array]] = {
    dist.Normal: _of(noise.normal, lambda d, z: d.loc + d.scale * z),
    dist.HalfNormal: _of(noise.normal, lambda d, z: d.scale * jnp.abs(z)),
    dist.Cauchy: _of(_cauchy, lambda d, x: d.loc + d.scale * x),
    dist.HalfCauchy: _of(_cauchy, lambda d, x: d.scale * jnp.abs(x)),
    dist.Laplace: _of(_laplace, lambda d, x: d.loc + d.scale * x),
    dist.Logistic: _of(_logistic, lambda d, x: d.loc + d.scale * x),
    dist.Gumbel: _of(noise.exponential, lambda d, e: d.loc - d.scale * jnp.log(e)),
    dist.Exponential: _of(noise.exponential, lambda d, e: e / d.rate),
    dist.Weibull: _of(
        noise.exponential, lambda d, e: d.scale * jnp.exp(jnp.log(e) / d.concentration)
    ),
    dist.Kumaraswamy: _of(noise.exponential, _kumaraswamy),
    dist.Uniform: _of(noise.uniform, lambda d, u: d.low + (d.high - d.low) * u),
    dist.AsymmetricLaplace: _two_exponentials,
}
