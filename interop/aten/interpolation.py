"""Interpolation of images: one axis after the other, with fixed positions and weights."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interop.aten.layers import wide
from interop.aten.registry import Table

rules = Table()

Taps = tuple[np.ndarray, np.ndarray]
"""Positions and weights, one row for each new index."""


def _scale(n: int, size: int, align: bool, factor: float | None, dtype: Any) -> Any:
    """Old steps per new step, in the precision torch has them."""
    if align:
        return dtype((n - 1) / (size - 1)) if size > 1 else dtype(0)
    return dtype(1 / factor) if factor is not None and factor > 0 else dtype(dtype(n) / dtype(size))


def _sources(n: int, size: int, align: bool, factor: float | None, dtype: Any) -> np.ndarray:
    scale = _scale(n, size, align, factor, dtype)
    index = np.arange(size, dtype=dtype)
    return index * scale if align else (index + dtype(0.5)) * scale - dtype(0.5)


def _linear(n: int, size: int, align: bool, factor: float | None, dtype: Any) -> Taps:
    source = np.maximum(_sources(n, size, align, factor, dtype), 0)
    low = np.minimum(source.astype(np.int64), n - 1)
    share = np.clip(source - low, 0, 1)
    return np.stack([low, np.minimum(low + 1, n - 1)], 1), np.stack([1 - share, share], 1)


def _cubic(n: int, size: int, align: bool, factor: float | None, dtype: Any) -> Taps:
    source = _sources(n, size, align, factor, dtype)
    low = np.floor(source).astype(np.int64)
    share = np.clip(source - low, 0, 1)
    weights = np.stack(cubic_weights(share), 1)
    return np.clip(low[:, None] + np.arange(-1, 3), 0, n - 1), weights


def cubic_weights(share: Any, a: float = -0.75) -> list[Any]:
    """The weights of the four neighbours of a point this far behind the second."""

    def near(x: Any) -> Any:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Any) -> Any:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(share + 1), near(share), near(1 - share), far(2 - share)]


def _interpolated(x: jax.Array, taps: Sequence[Taps]) -> jax.Array:
    """The last axes, each by its taps."""
    y = wide(x)
    for number, (positions, weights) in enumerate(taps):
        axis = x.ndim - len(taps) + number
        shape = (-1,) + (1,) * (x.ndim - axis - 1)
        parts = []
        for position, weight in zip(positions.T, weights.T, strict=True):
            parts.append(jnp.take(y, position, axis) * weight.astype(y.dtype).reshape(shape))
        y = sum(parts[1:], parts[0])
    return y.astype(x.dtype)


def _sizes(
    x: jax.Array, axes: int, output_size: Any, factors: Sequence[float | None]
) -> tuple[list[int], list[float | None]]:
    n = x.shape[-axes:]
    if output_size is not None:
        return list(output_size), (list(factors) + [None] * axes)[:axes]
    return [math.floor(m * f) for m, f in zip(n, factors, strict=True) if f is not None], list(
        factors
    )


def _resized(
    x: jax.Array,
    axes: int,
    taps: Callable[..., Taps],
    output_size: Any,
    align: bool,
    factors: Sequence[float | None],
) -> jax.Array:
    sizes, factors = _sizes(x, axes, output_size, factors)
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    found = []
    for n, size, factor in zip(x.shape[-axes:], sizes, factors, strict=True):
        found.append(taps(n, size, align, factor, dtype))
    return _interpolated(x, found)


def _smooth(name: str, axes: int, taps: Callable[..., Taps], overload: str = "default") -> None:
    """The rules of one name: with a size, and with a size or factors."""

    def by_size(x: jax.Array, size: Any, align: bool, *factors: Any, **named: Any) -> jax.Array:
        return _resized(x, axes, taps, size, align, (*factors, *named.values()))

    def by_either(x: jax.Array, size: Any, align: bool, factors: Any = None) -> jax.Array:
        return _resized(x, axes, taps, size, align, factors or [])

    rules(f"aten.{name}.default")(by_size)
    rules(f"aten.{name}.vec")(by_either)


_smooth("upsample_linear1d", 1, _linear)
_smooth("upsample_bilinear2d", 2, _linear)
_smooth("upsample_trilinear3d", 3, _linear)
_smooth("upsample_bicubic2d", 2, _cubic)


def _antialiased(support: float, weigh: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Taps]:
    """Taps of a filter that widens as the image shrinks."""

    def taps(n: int, size: int, align: bool, factor: float | None, dtype: Any) -> Taps:
        scale = float(_scale(n, size, align, factor, dtype))
        reach = support * max(scale, 1)
        centre = scale * (np.arange(size) + 0.5)
        start = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
        stop = np.minimum((centre + reach + 0.5).astype(np.int64), n)
        length = int((stop - start).max())
        positions = start[:, None] + np.arange(length)
        weights = weigh((positions - centre[:, None] + 0.5) / max(scale, 1))
        weights = np.where(positions < stop[:, None], weights, 0)
        return np.minimum(positions, n - 1), weights / weights.sum(1, keepdims=True)

    return taps


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


_smooth("_upsample_bilinear2d_aa", 2, _antialiased(1, _triangle))
_smooth("_upsample_bicubic2d_aa", 2, _antialiased(2, _bicubic))
_smooth("_upsample_lanczos2d_aa", 2, _antialiased(3, _lanczos))


def _nearest(exact: bool) -> Callable[..., np.ndarray]:
    offset = np.float32(0.5 if exact else 0)

    def positions(n: int, size: int, factor: float | None) -> np.ndarray:
        scale = _scale(n, size, False, factor, np.float32)
        index = np.floor((np.arange(size, dtype=np.float32) + offset) * scale)
        return np.minimum(index.astype(np.int64), n - 1)

    return positions


def _picked(name: str, axes: int, exact: bool) -> None:
    positions = _nearest(exact)

    def resized(x: jax.Array, size: Any, factors: Sequence[Any]) -> jax.Array:
        sizes, factors = _sizes(x, axes, size, factors)
        for number in range(axes):
            axis = x.ndim - axes + number
            n, new = x.shape[axis], sizes[number]
            at = positions(n, new, factors[number])
            if new % n == 0 and np.array_equal(at, np.arange(new) // (new // n)):
                x = jnp.repeat(x, new // n, axis)
            else:
                x = jnp.take(x, at, axis)
        return x

    def by_size(x: jax.Array, size: Any, *factors: Any, **named: Any) -> jax.Array:
        return resized(x, size, (*factors, *named.values()))

    def by_either(x: jax.Array, size: Any, factors: Any = None) -> jax.Array:
        return resized(x, size, factors or [])

    rules(f"aten.{name}.default")(by_size)
    rules(f"aten.{name}.vec")(by_either)


for _axes in (1, 2, 3):
    _picked(f"upsample_nearest{_axes}d", _axes, exact=False)
    _picked(f"_upsample_nearest_exact{_axes}d", _axes, exact=True)
