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
    for multiplier in (0x9E3779B1, 0x7FEB352D):  # odd: no two places are the same
        total: Words = np.full(1, multiplier, np.uint32)
        for leaf in leaves:
            total = _mixed(total) + _sum(_words(leaf), multiplier)
        words.append(total)
    return (np if _jax.is_concrete(words) else jnp).concatenate(words)


def _sum(words: Words, multiplier: int) -> Words:
    """Each word mixed with its place before the sum: what is linear in them lets changes cancel."""
    places = np.arange(1, 1 + words.size, dtype=np.uint32) * np.uint32(multiplier)
    return _mixed(words ^ places).sum(dtype=np.uint32, keepdims=True)


def _mixed(x: Words) -> Words:
    """A bijection of 32 bits, each of which turns half of the others: MurmurHash3's finalizer."""
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ x >> np.uint32(shift)) * np.uint32(multiplier)
    return x ^ x >> np.uint32(16)


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
