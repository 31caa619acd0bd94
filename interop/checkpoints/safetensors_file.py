"""A .safetensors file: one tensor at a time, out of the bytes that its header gives."""

import sys

import torch

from interop.arrays import first_line
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.header import read_header
from interop.checkpoints.medium import Medium
from interop.checkpoints.source import Refused
from interop.dtypes import row_of

__all__ = ["SafetensorsSource"]


class SafetensorsSource:
    """See :class:`interop.checkpoints.source.Source`."""

    def __init__(self, medium: Medium) -> None:
        self.label = medium.label
        self._medium = medium
        header = read_header(medium)
        self._spans = header.spans
        # The library's own convention: a tied name is noted with the name that holds the tensor.
        self.aliases = {
            alias: name
            for alias, name in header.notes.items()
            if alias != "format" and alias not in header.stored and name in header.stored
        }
        self.metadata = {n: note for n, note in header.notes.items() if n not in self.aliases}
        self.stored = {**header.stored, **{a: header.stored[n] for a, n in self.aliases.items()}}
        self.refused: dict[str, Refused] = {}

    def read(self, name: str) -> torch.Tensor:
        """A view of the mapped file."""
        dtype, shape = self.stored[name]
        row = None if isinstance(dtype, str) else row_of(dtype)
        if row is None:
            raise CheckpointError(
                f"{self.label}: '{name}' is {dtype}, which JAX has not; read it by the safetensors "
                "library and unpack it"
            )
        begin, end = self._spans[self.aliases.get(name, name)]
        try:
            if begin == end:
                return torch.empty(shape, dtype=row.torch)
            flat = torch.frombuffer(self._medium.view(begin, end - begin), dtype=torch.uint8)
            if flat.data_ptr() % row.array.itemsize:
                flat = flat.clone()
            width = row.array.itemsize // (2 if row.array.kind == "c" else 1)
            if sys.byteorder != "little" and width > 1:
                flat = flat.view(-1, width).flip(1).reshape(-1)
            return flat.view(row.torch).reshape(shape)
        except CheckpointError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.label}: '{name}' cannot be read ({first_line(error)}); fetch or save it "
                "again"
            ) from error
