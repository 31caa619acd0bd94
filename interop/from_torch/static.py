"""Inputs whose values are part of a program."""

from typing import Any

import jax
import numpy as np
import torch

__all__ = ["Static"]


class Static:
    """An input whose values are part of the program, so that ``forward`` may decide on them.

    Sizes of images, lengths, masks: what ``forward`` turns into Python numbers. Each other value
    is another program.

    Args:
        array: shape (*axes), numbers or bools, a numpy array or what makes one. int32 arrays of JAX
            stand for int64 without x64, as all inputs do.

    Example:
        >>> import torch, jax.numpy as jnp, interop
        >>> class Split(torch.nn.Module):
        ...     def forward(self, x, lengths):
        ...         return [part.sum() for part in x.split(lengths.tolist())]
        >>> net = interop.to_jax(Split())
        >>> [float(s) for s in net({}, jnp.arange(5.0), interop.Static([2, 3]))]
        [1.0, 9.0]
    """

    def __init__(self, array: Any) -> None:
        values = np.array(array)
        narrow = isinstance(array, jax.Array) and not jax.config.read("jax_enable_x64")
        if narrow and values.dtype == np.int32:
            values = values.astype(np.int64)
        self._values = values
        self._key = (values.dtype, values.shape, values.tobytes())
        self.tensor = torch.from_numpy(values.copy())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype)

    def __repr__(self) -> str:
        return f"Static({self._values.tolist()})"


jax.tree_util.register_static(Static)
