"""``load`` and ``open_checkpoint``: any file or set of files as arrays."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.files import open_file
from interop.checkpoints.index import SUFFIX, ShardedSource
from interop.checkpoints.pickled_file import PickledSource
from interop.checkpoints.selection import select
from interop.checkpoints.source import Source, read_array

__all__ = ["Checkpoint", "load", "open_checkpoint"]

#: As transformers looks for them: a single file before a set that may be older.
_IN_A_FOLDER = (
    "model.safetensors", f"model.safetensors{SUFFIX}", "pytorch_model.bin",
    f"pytorch_model.bin{SUFFIX}",
)  # fmt: skip


class Checkpoint(Mapping[str, jax.Array]):
    """A checkpoint as a read-only mapping; an array is read when it is looked up.

    Made by :func:`open_checkpoint`. The file stays open as long as this lives; a file that is
    replaced meanwhile, as :func:`save` does, is still read as it was.
    """

    def __init__(self, source: Source, downcast: bool) -> None:
        self._source = source
        self._downcast = downcast

    def __getitem__(self, name: str) -> jax.Array:
        """The array of a name, read anew at each access."""
        if name not in self._source.stored:
            raise KeyError(name)
        return read_array(self._source, name, self._downcast)

    def __contains__(self, name: object) -> bool:
        # The one inherited reads the array.
        return name in self._source.stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.stored)

    def __len__(self) -> int:
        return len(self._source.stored)

    def __repr__(self) -> str:
        return f"Checkpoint('{self._source.path}', {len(self)} arrays)"

    @property
    def dtypes(self) -> Mapping[str, np.dtype | str]:
        """Name to dtype in the file, without reading; the file's own word where JAX has none."""
        return MappingProxyType({name: s.dtype for name, s in self._source.stored.items()})

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name to shape, without reading."""
        return MappingProxyType({name: s.shape for name, s in self._source.stored.items()})


def open_checkpoint(path: str | os.PathLike[str], *, downcast: bool = False) -> Checkpoint:
    """A lazy view of a checkpoint: names, dtypes and shapes now, arrays when looked up.

    A nested .pt file has dotted names here, and its numbers and strings are left out.

    Args:
        path: as for :func:`load`.
        downcast: turn 64-bit dtypes into 32-bit ones when read, as in :func:`interop.to_array`.

    Returns:
        A :class:`Checkpoint`.

    Raises:
        CheckpointError: the file is broken, incomplete, or would run code.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> import jax.numpy as jnp
        >>> import interop
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> path = interop.save(folder / "model.safetensors", {"bias": jnp.ones(2)})
        >>> view = interop.open_checkpoint(path)
        >>> view.shapes["bias"], view.dtypes["bias"], view["bias"]
        ((2,), dtype('float32'), Array([1., 1.], dtype=float32))
    """
    return Checkpoint(open_source(path), downcast)


def load(
    path: str | os.PathLike[str],
    *,
    names: Iterable[str] | str | None = None,
    downcast: bool = False,
) -> Any:
    """Read a checkpoint as a pytree of arrays, bit for bit; nothing in it is ever run.

    Args:
        path: a .safetensors file; a file of ``torch.save`` (.pt, .pth, .bin, .ckpt, .tar); the
            index of a sharded set (.index.json); or a folder that holds one of them under its
            usual name (of several the one that transformers reads: safetensors before pickled
            files, a single file before a set).
        names: names, or patterns as of ``fnmatch``, to read only these; the rest of the file is
            not read, except in files of torch before 1.6.
        downcast: turn 64-bit dtypes into 32-bit ones, as in :func:`interop.to_array`.

    Returns:
        What ``torch.save`` was given, with arrays for tensors; for the other formats, and with
        ``names``, a flat dict from names to arrays. Tied names hold one array.

    Raises:
        CheckpointError: the file is broken, incomplete, would run code, or has 64-bit dtypes while
            JAX's x64 mode is off; a name matches nothing.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> import jax.numpy as jnp
        >>> import interop
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> path = interop.save(folder / "run.pt", {"params": {"bias": jnp.ones(2)}, "epoch": 3})
        >>> interop.load(path)
        {'params': {'bias': Array([1., 1.], dtype=float32)}, 'epoch': 3}
        >>> interop.load(path, names="params.*")
        {'params.bias': Array([1., 1.], dtype=float32)}
    """
    source = open_source(path)
    if names is None and isinstance(source, PickledSource):
        return source.tree(downcast)
    chosen = list(source.stored) if names is None else select(names, source.stored, source.path)
    arrays: dict[str, jax.Array] = {}
    for name in chosen:
        holder = source.aliases.get(name, name)
        if holder not in arrays:
            arrays[holder] = read_array(source, holder, downcast)
        arrays[name] = arrays[holder]
    return {name: arrays[name] for name in chosen}


def open_source(path: str | os.PathLike[str]) -> Source:
    """The file, the set, or what a folder holds."""
    path = Path(path)
    if path.is_dir():
        usual = [path / name for name in _IN_A_FOLDER if (path / name).is_file()]
        found = usual[:1] or sorted(path.glob(f"*{SUFFIX}"))
        if len(found) != 1:
            raise CheckpointError(
                f"{path}: expected one of {', '.join(_IN_A_FOLDER)}, or one index, in this folder, "
                f"got {len(found)}; give the file"
            )
        path = found[0]
    elif not path.exists() and path.with_name(path.name + SUFFIX).is_file():
        path = path.with_name(path.name + SUFFIX)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if path.name.endswith(SUFFIX):
        return ShardedSource(path)
    return open_file(path)
