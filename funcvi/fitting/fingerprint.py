"""Whether a continuation minimises the same function: a hash of the loss and its data.

Of traced data it is traced too, by the same arithmetic, so that a batch of fits is continued as
each of them would be.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from funcvi import _jax, programs

__all__ = ["fingerprint"]

_MOST = 1 << 24  # words of an array that are hashed: 64 MB; of a larger one, evenly spaced
_MASK = 0xFFFFFFFF

Words: TypeAlias = jax.Array | np.ndarray


def fingerprint(traced: programs.Traced, args: tuple[object, ...]) -> Words:
    """Four words: two of the program, two of the arrays that it is given."""
    program = hash(traced.key)
    words: list[Words] = [np.array([program & _MASK, program >> 32 & _MASK], np.uint32)]
    leaves = jax.tree.leaves((traced.constants, args))
    for multiplier in (0x9E3779B1, 0x85EBCA77):  # odd: no single change is lost
        total: Words = np.zeros(1, np.uint32)
        for leaf in leaves:
            total = total * np.uint32(0xC2B2AE3D) + _sum(_words(leaf), multiplier)
        words.append(total)
    return (np if _jax.is_concrete(words) else jnp).concatenate(words)


def _sum(words: Words, multiplier: int) -> Words:
    places = np.arange(1, 2 * words.size, 2, dtype=np.uint32) * np.uint32(multiplier)
    return ((words ^ words >> np.uint32(15)) * places).sum(dtype=np.uint32, keepdims=True)


def _words(leaf: object) -> Words:
    """The bits of an array as 32-bit words."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if _jax.is_concrete(leaf):
        leaf = np.asarray(leaf)
        leaf = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)
    assert isinstance(leaf, (jax.Array, np.ndarray))
    array = leaf.reshape(-1)[:: 1 + leaf.size // _MOST]
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        array = (np if _jax.is_concrete(array) else jnp).concatenate([array.real, array.imag])
    if array.dtype.itemsize < 4:
        array = array.astype(jnp.float32)
    return array.view(jnp.uint32)
