"""More draws than memory holds."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

from funcvi._types import Joint, Key
from funcvi.sampling.draw import sample

__all__ = ["sample_in_chunks"]


def sample_in_chunks(
    d: Joint, key: Key, num_samples: int, *, chunk_size: int = 1_000_000
) -> Iterator[Any]:
    """Yields ``num_samples`` independent draws in chunks, each compiled the same way.

    Memory holds one chunk at a time, unless the caller keeps them.

    Args:
        d: a distribution, a joint, or a posterior, as in ``fv.sample``.
        key: a key; chunk i is drawn with ``jax.random.fold_in(key, i)``.
        num_samples: how many in all.
        chunk_size: how many at a time; the last chunk may be shorter.

    Yields:
        What ``fv.sample(d, key, (chunk_size,))`` returns.

    Raises:
        ValueError: a size that is not positive.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> d, key = dist.Gamma(2.0, 1.0), jax.random.key(0)
        >>> [x.shape for x in sample_in_chunks(d, key, 2500, chunk_size=1000)]
        [(1000,), (1000,), (500,)]
    """
    if num_samples < 1 or chunk_size < 1:
        raise ValueError(
            f"num_samples and chunk_size must be positive, got {num_samples} and {chunk_size}."
        )
    return _chunks(d, key, num_samples, min(chunk_size, num_samples))


def _chunks(d: Joint, key: Key, num_samples: int, size: int) -> Iterator[Any]:
    for i, start in enumerate(range(0, num_samples, size)):
        chunk = _chunk(d, jax.random.fold_in(key, i), size)
        kept = min(size, num_samples - start)
        yield chunk if kept == size else jax.tree.map(lambda x, n=kept: x[:n], chunk)


@partial(jax.jit, static_argnums=2)
def _chunk(d: Joint, key: Key, size: int) -> Any:
    return sample(d, key, (size,))
