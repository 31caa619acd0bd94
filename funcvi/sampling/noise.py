"""Random bits and base noise: one hash and a few dozen operations an element, all elementwise.

``jax.random`` hashes in the same way, but on CPU in a loop over whole arrays, and spends a hash on
32 bits. Here XLA fuses the hash with whatever is made of its two words.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from funcvi._types import Key
from funcvi.sampling import coefficients
from funcvi.sampling.polynomials import horner

__all__ = [
    "exponential",
    "fractions",
    "normal",
    "normal_and_exponential",
    "normal_of_fraction",
    "normal_ratio",
    "signed_tail",
    "split",
    "uniform",
    "words",
]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_U32 = np.uint32


def words(key: Key, shape: tuple[int, ...], stream: int = 0) -> tuple[Array, Array]:
    """Two independent uint32 arrays of ``shape``; another ``stream`` (0 to 3) gives two others.

    Threefry-2x32 with 20 rounds (Salmon et al. 2011, doi:10.1145/2063384.2063405) of each element's
    index; with a key of another kind, the bits that it gives itself.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if str(jax.random.key_impl(key)) != "threefry2x32":
        both = jax.random.bits(jax.random.fold_in(key, stream), (2, *shape), jnp.uint32)
        return both[0], both[1]
    high, low = _index(shape)
    data = jax.random.key_data(key)
    return _threefry(data[0], data[1], low, high * _U32(4) + _U32(stream))


def split(key: Key, count: int) -> Key:
    """The keys of ``jax.random.split(key, count)``, bit for bit, of axes (key).

    As with :func:`words`, XLA fuses them with their readers; JAX's own are a loop inside the loop.
    """
    is_key = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not (is_key and str(jax.random.key_impl(key)) == "threefry2x32" and _is_partitionable()):
        return jax.random.split(key, count)
    high, low = _index((count,))
    data = jax.random.key_data(key)
    both = jnp.stack(_threefry(data[0], data[1], high, low), axis=-1)
    return jax.random.wrap_key_data(both, impl="threefry2x32")


def uniform(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """In the open interval (0, 1), evenly spaced by 2**-23 (float64: 2**-52)."""
    first, second = words(key, shape)
    if dtype == jnp.float64:
        return _unit(first, second)
    return ((first >> _U32(9)).astype(jnp.float32) + 0.5).astype(jnp.float32) * 2.0**-23


def signed_tail(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> tuple[Array, Array]:
    """A sign, and v in (0, 1): the point whose tail on that side has probability v / 2.

    v is fine where it is small, down to 2**-32, so both tails of what is made of it are.
    """
    return _signed_tail(*words(key, shape), dtype)


def fractions(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> tuple[Array, Array]:
    """u and 1 - u for u uniform on (0, 1), each accurate where it is small.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> u, rest = fractions(jax.random.key(0), (3,), jnp.float32)
        >>> bool(jnp.allclose(u + rest, 1))
        True
    """
    sign, v = signed_tail(key, shape, dtype)
    return jnp.where(sign < 0, v / 2, 1 - v / 2), jnp.where(sign < 0, 1 - v / 2, v / 2)


def normal(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Standard normal draws, by inversion, with tails down to 2**-33 (|z| of 6.3)."""
    return _normal(*signed_tail(key, shape, dtype))


def normal_of_fraction(high: Array, low: Array, dtype: jnp.dtype) -> Array:
    """Where a standard normal has the distribution function ``(high + low / 2**32) / 2**32``.

    It rises with ``high``, and both tails are fine; float32 has no use for ``low``.
    """
    is_above = high >> _U32(31) == 1
    folded = high ^ jnp.where(is_above, _U32(0xFFFFFFFF), _U32(0x80000000))
    sign, v = _signed_tail(folded, low, dtype)
    if dtype == jnp.float64:
        rest = jnp.where(is_above, ~low, low)
        v = _unit((folded << _U32(1)) | (rest >> _U32(31)), rest << _U32(1))
    return _normal(sign, v)


def exponential(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Standard exponential draws, positive."""
    return _exponential(*words(key, shape), dtype)


def normal_and_exponential(
    key: Key, shape: tuple[int, ...], dtype: jnp.dtype
) -> tuple[Array, Array]:
    """One of each; in float32 both from one hash."""
    first, second = words(key, shape)
    z = _normal(*_signed_tail(first, second, dtype))
    if dtype == jnp.float64:
        return z, _exponential(*words(key, shape, stream=1), dtype)
    return z, _exponential(second, first, dtype)


def _exponential(first: Array, second: Array, dtype: jnp.dtype) -> Array:
    if dtype == jnp.float64:
        return -jnp.log(_unit(first, second))
    # Rounded to float32 the largest is 1 itself: kept below it.
    u = jnp.minimum(_from_31_bits(first >> _U32(1)), np.float32(1 - 2**-24))
    return -jnp.log(u)


def _signed_tail(first: Array, second: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    one = jnp.asarray(1.0, dtype)
    sign = jnp.where((first >> _U32(31)) == 0, one, -one)
    if dtype == jnp.float64:
        return sign, _unit(first << _U32(1), second)
    v = jnp.minimum(_from_31_bits(first & _U32(0x7FFFFFFF)), np.float32(1 - 2**-24))
    return sign, v


@jax.jit
def _normal(sign: Array, v: Array) -> Array:
    if v.dtype == jnp.float64:
        return -sign * jax.scipy.special.ndtri(v / 2)
    return sign * (1 - v) * normal_ratio(v)


def normal_ratio(v: Array) -> Array:
    """``z / (1 - v)`` in float32, where a standard normal exceeds z in size with probability v."""
    w = -jnp.log(v * (2 - v))
    return horner(coefficients.NORMAL, w / (w + 10) * np.float32(2 * 32 / 22) - 1)


def _from_31_bits(bits: Array) -> Array:
    """Through int32, which converts faster than uint32."""
    signed = lax.bitcast_convert_type(bits, jnp.int32)
    return (signed.astype(jnp.float32) + 0.5) * np.float32(2.0**-31)


def _unit(first: Array, second: Array) -> Array:
    """float64 in (0, 1) from the highest 52 of 64 bits; with 53 the last would round to one."""
    both = (first.astype(jnp.uint64) << np.uint64(32)) | second.astype(jnp.uint64)
    return ((both >> np.uint64(12)).astype(jnp.float64) + 0.5) * 2.0**-52


def _index(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The index of each element as two words; the high one is the first axis of a huge array."""
    axes = range(len(shape))
    high: Array = jnp.zeros(shape, jnp.uint32)
    if math.prod(shape) >= 2**32:
        high = lax.broadcasted_iota(jnp.uint32, shape, 0)
        axes = range(1, len(shape))
        if math.prod(shape[1:]) >= 2**32 or shape[0] >= 2**30:
            raise ValueError(f"a draw of shape {shape} is too large: draw it in chunks.")
    low: Array = jnp.zeros(shape, jnp.uint32)
    for axis in axes:
        stride = math.prod(shape[axis + 1 :])
        low = low + lax.broadcasted_iota(jnp.uint32, shape, axis) * _U32(stride)
    return high, low


def _is_partitionable() -> bool:
    return bool(jax.config.jax_threefry_partitionable)  # type: ignore[attr-defined]


@jax.jit  # traced once: it is half of what tracing a loss takes
def _threefry(first: Array, second: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    keys = (first, second, first ^ second ^ _U32(0x1BD11BDA))
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = ((x1 << _U32(distance)) | (x1 >> _U32(32 - distance))) ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + _U32(group + 1)
    return x0, x1
