"""Fourier transforms: torch's three primitives, on which its others are built; windows."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


@rules("aten.fft_fftfreq.default")
def frequencies(n: int, spacing: float = 1.0, *, result: Any, **_: Any) -> jax.Array:
    return jnp.asarray(np.fft.fftfreq(n, spacing), result.dtype)


@rules("aten.fft_rfftfreq.default")
def positive_frequencies(n: int, spacing: float = 1.0, *, result: Any, **_: Any) -> jax.Array:
    return jnp.asarray(np.fft.rfftfreq(n, spacing), result.dtype)


# ---- windows: constants, so computed once in double precision -----------------------------------


def _positions(length: int, periodic: bool) -> np.ndarray:
    """From 0 at the first entry to 1 at the last, or beyond it by one if periodic."""
    return np.arange(length) / max(length - (not periodic), 1)


def _cosines(length: int, periodic: bool, *weights: float) -> np.ndarray:
    if length == 1:
        return np.ones(1)
    angle = 2 * np.pi * _positions(length, periodic)
    return np.asarray(sum(w * np.cos(i * angle) for i, w in enumerate(weights)))


@rules("aten.hann_window.default", "aten.hann_window.periodic")
def hann(length: int, periodic: bool = True, *, result: Any, **_: Any) -> jax.Array:
    return jnp.asarray(_cosines(length, periodic, 0.5, -0.5), result.dtype)


@rules(
    "aten.hamming_window.default",
    "aten.hamming_window.periodic",
    "aten.hamming_window.periodic_alpha",
    "aten.hamming_window.periodic_alpha_beta",
)
def hamming(
    length: int,
    periodic: bool = True,
    alpha: float = 0.54,
    beta: float = 0.46,
    *,
    result: Any,
    **_: Any,
) -> jax.Array:
    return jnp.asarray(_cosines(length, periodic, alpha, -beta), result.dtype)


@rules("aten.blackman_window.default", "aten.blackman_window.periodic")
def blackman(length: int, periodic: bool = True, *, result: Any, **_: Any) -> jax.Array:
    return jnp.asarray(_cosines(length, periodic, 0.42, -0.5, 0.08), result.dtype)


@rules("aten.bartlett_window.default", "aten.bartlett_window.periodic")
def bartlett(length: int, periodic: bool = True, *, result: Any, **_: Any) -> jax.Array:
    found = np.ones(1) if length == 1 else 1 - abs(2 * _positions(length, periodic) - 1)
    return jnp.asarray(found, result.dtype)


@rules("aten.kaiser_window.default", "aten.kaiser_window.periodic", "aten.kaiser_window.beta")
def kaiser(
    length: int, periodic: bool = True, beta: float = 12.0, *, result: Any, **_: Any
) -> jax.Array:
    if length == 1:
        return jnp.ones(1, result.dtype)
    inside = np.maximum(0, 1 - (2 * _positions(length, periodic) - 1) ** 2)
    return jnp.asarray(np.i0(beta * np.sqrt(inside)) / np.i0(beta), result.dtype)
