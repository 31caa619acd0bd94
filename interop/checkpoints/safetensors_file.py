"""A .safetensors file: one tensor at a time, mapped from the disk by the safetensors library."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from interop.arrays import first_line
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.header import read_header

__all__ = ["SafetensorsSource"]


class SafetensorsSource:
    """See :class:`interop.checkpoints.source.Source`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        header = read_header(path)
        # The library's own convention: a tied name is noted with the name that holds the tensor.
        self.aliases = {
            alias: name
            for alias, name in header.notes.items()
            if alias != "format" and alias not in header.stored and name in header.stored
        }
        self.stored = {**header.stored, **{a: header.stored[n] for a, n in self.aliases.items()}}
        self._handle: Any = None

    def read(self, name: str) -> torch.Tensor:
        """A view of the mapped file."""
        dtype = self.stored[name].dtype
        if isinstance(dtype, str):
            raise CheckpointError(
                f"{self.path}: '{name}' is {dtype}, which JAX has not; read it by the safetensors "
                "library and unpack it"
            )
        try:
            if self._handle is None:
                self._handle = safe_open(str(self.path), framework="pt", device="cpu")
            return self._handle.get_tensor(self.aliases.get(name, name))
        except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{self.path}: '{name}' cannot be read: {first_line(error)}; fetch or save the "
                "file again"
            ) from error
