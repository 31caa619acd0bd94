"""Fourier transforms: torch's three primitives, on which its others are built."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.registry import Table

rules = Table()


def _scale(x: jax.Array, sizes: list[int], normalization: int) -> jax.Array:
    """By nothing, by the root of the count, or by the count."""
    count = math.prod(sizes)
    if normalization == 0:
        return x
    return x / (math.sqrt(count) if normalization == 1 else count)


def _complex(x: jax.Array, dims: Any, forward: bool) -> jax.Array:
    """Without normalisation in either direction."""
    count = math.prod(x.shape[d] for d in dims)
    for d in dims:
        x = jnp.fft.fft(x, axis=d) if forward else jnp.fft.ifft(x, axis=d)
    return x if forward else x * count


@rules("aten._fft_c2c.default")
def complex_to_complex(x: Any, dim: Any, normalization: int, forward: bool) -> jax.Array:
    return _scale(_complex(x, dim, forward), [x.shape[d] for d in dim], normalization)


@rules("aten._fft_r2c.default")
def real_to_complex(x: Any, dim: Any, normalization: int, onesided: bool) -> jax.Array:
    sizes = [x.shape[d] for d in dim]
    *others, last = dim
    y = jnp.fft.rfft(x, axis=last) if onesided else jnp.fft.fft(x, axis=last)
    return _scale(_complex(y, others, True), sizes, normalization)


@rules("aten._fft_c2r.default")
def complex_to_real(x: Any, dim: Any, normalization: int, last_dim_size: int) -> jax.Array:
    *others, last = dim
    y = _complex(x, others, False)
    y = jnp.fft.irfft(y, n=last_dim_size, axis=last) * last_dim_size
    return _scale(y, [*(x.shape[d] for d in others), last_dim_size], normalization)
