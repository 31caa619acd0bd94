"""Scrambled Sobol' points as normal noise: draws that are spread more evenly than independent ones.

The points are those of Joe and Kuo (2008, doi:10.1137/070709359), as SciPy has them, which comes
with JAX. A random linear scrambling and a digital shift (Matousek 1998, doi:10.1006/jcom.1998.0489)
make each point uniform by itself, so that means stay unbiased, and keep the points spread: for
smooth functions the error falls as ``n**-1.5`` (Owen 1997, doi:10.1214/aos/1031594731), where that
of independent ones falls as ``n**-0.5``.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from funcvi._types import Key
from funcvi.sampling import noise

__all__ = ["MOST_SOBOL", "sobol_normals", "sobol_words"]

#: Coordinates that the points have at most.
MOST_SOBOL = 21_201

_BITS = 32
_U32 = np.uint32


@functools.lru_cache(maxsize=8)
def _points(log2_count: int, size: int) -> np.ndarray:
    """The first points, shape (2**log2_count, size), as fractions of 2**32."""
    from scipy.stats import qmc  # takes seconds to import

    points = qmc.Sobol(size, scramble=False, bits=_BITS).random_base2(log2_count)
    return (points * 2.0**_BITS).astype(_U32)


def sobol_words(key: Key, count: int, size: int) -> Array:
    """The points as fractions of 2**32, scrambled by the key: uint32, shape (count, size).

    Args:
        key: of the scrambling.
        count: a power of two.
        size: coordinates of a point, at most ``MOST_SOBOL``.

    Example:
        >>> import jax
        >>> words = sobol_words(jax.random.key(0), 8, 2)
        >>> sorted(int(word) >> 29 for word in words[:, 0])  # one point in each eighth
        [0, 1, 2, 3, 4, 5, 6, 7]
    """
    log2_count = count.bit_length() - 1
    points = jnp.asarray(_points(log2_count, size))
    masks, shift = noise.words(key, (_BITS, size))
    found = jnp.broadcast_to(shift[0], points.shape)
    for place in range(_BITS):  # from the highest bit, which reads itself and those above it
        own = _U32(1 << (_BITS - 1 - place))
        above = _U32(2**_BITS - 2 ** (_BITS - place))
        parity = lax.population_count(points & (masks[place] & above | own)) & _U32(1)
        found = found ^ (parity << _U32(_BITS - 1 - place))
    return found


def sobol_normals(key: Key, count: int, size: int, dtype: jnp.dtype) -> Array:
    """Standard normal coordinates of the points, shape (count, size)."""
    shape_key, low_key = jax.random.split(key)
    words = sobol_words(shape_key, count, size)
    low, _ = noise.words(low_key, (count, size))
    return noise.normal_of_fraction(words, low, dtype)
