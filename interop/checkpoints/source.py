"""What every format gives: names with dtypes and shapes, and one tensor at a time."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import jax
import numpy as np
import torch

from interop.arrays import first_line, to_array
from interop.checkpoints.errors import CheckpointError

__all__ = ["Refused", "Source", "Stored", "read_array"]


class Stored(NamedTuple):
    """What is known of an array without reading it.

    Attributes:
        dtype: numpy's dtype, or the file's own spelling where JAX has no such dtype.
        shape: the shape.
    """

    dtype: np.dtype | str
    shape: tuple[int, ...]


class Refused(NamedTuple):
    """What a file holds and is not read.

    Attributes:
        why: a sentence for a message.
        holds_tensors: whether tensors lie in it.
    """

    why: str
    holds_tensors: bool


class Source(Protocol):
    """One file, or one set of files.

    Attributes:
        label: where it lies, for messages.
        stored: every name in the file's order.
        aliases: further names of one tensor, each with the name that holds it; also in ``stored``.
        refused: what is not read, by name.
        metadata: the file's own notes.
    """

    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def stored(self) -> Mapping[str, Stored]: ...  # noqa: D102
    @property
    def aliases(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def refused(self) -> Mapping[str, Refused]: ...  # noqa: D102
    @property
    def metadata(self) -> Mapping[str, str]: ...  # noqa: D102

    def read(self, name: str) -> torch.Tensor:
        """The tensor of a name, checked as far as the format allows; may be a view of the file."""
        ...


def read_array(source: Source, name: str, downcast: bool) -> jax.Array:
    """One array, every failure told as a :class:`CheckpointError` with the file in it."""
    return convert(source.label, name, source.read(name), downcast)


def convert(label: str, name: str, tensor: torch.Tensor, downcast: bool) -> jax.Array:
    """A tensor of a file as an array; the copy leaves nothing that refers to the file."""
    try:
        return to_array(tensor, name=name, downcast=downcast)
    except (TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{label}: {first_line(error)}") from error
