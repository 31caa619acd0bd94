"""``load`` and ``open_checkpoint``: any file or set of files as arrays."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import jax
import numpy as np

from interop.checkpoints.allowed import Allowed, allowed_classes
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.files import open_file, open_medium
from interop.checkpoints.index import SUFFIX, SetChanged, ShardedSource
from interop.checkpoints.medium import file_medium, is_file
from interop.checkpoints.pickled_file import PickledSource
from interop.checkpoints.selection import select
from interop.checkpoints.source import Source, read_array

__all__ = ["Checkpoint", "load", "open_checkpoint"]

#: As transformers looks for them: a single file before a set that may be older.
_IN_A_FOLDER = (
    "model.safetensors", f"model.safetensors{SUFFIX}", "pytorch_model.bin",
    f"pytorch_model.bin{SUFFIX}",
)  # fmt: skip
# How often a set is opened anew that is replaced meanwhile.
_ATTEMPTS = 3

Place = str | os.PathLike[str] | BinaryIO
"""Where a checkpoint lies: a path, or an open binary file."""


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
        if name in self._source.refused:
            raise CheckpointError(f"{self._source.label}: {self._source.refused[name].why}")
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
        refused = f", {len(self.refused)} refused" if self.refused else ""
        return f"Checkpoint('{self._source.label}', {len(self)} arrays{refused})"

    @property
    def dtypes(self) -> Mapping[str, np.dtype | str]:
        """Name to dtype in the file, without reading; the file's own word where JAX has none."""
        return MappingProxyType({name: s.dtype for name, s in self._source.stored.items()})

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name to shape, without reading."""
        return MappingProxyType({name: s.shape for name, s in self._source.stored.items()})

    @property
    def metadata(self) -> Mapping[str, str]:
        """The notes of a .safetensors file, or those that all shards of a set share."""
        return MappingProxyType(dict(self._source.metadata))

    @property
    def refused(self) -> Mapping[str, str]:
        """What a pickled file holds and this does not: name to the reason, a sentence."""
        return MappingProxyType({name: r.why for name, r in self._source.refused.items()})


def open_checkpoint(
    path: Place,
    *,
    downcast: bool = False,
    allow: Iterable[type] | Mapping[str, type] = (),
) -> Checkpoint:
    """A lazy view of a checkpoint: names, dtypes and shapes now, arrays when looked up.

    A nested .pt file has dotted names here, and its numbers and strings are left out. What else it
    holds is told by ``refused``, and does not keep the tensors beside it from being read.

    Args:
        path: as for :func:`load`. A file object has to stay open, and as it is.
        downcast: turn 64-bit dtypes into 32-bit ones when read, as in :func:`interop.to_array`.
        allow: classes of objects whose tensors are wanted, as for :func:`load`.

    Returns:
        A :class:`Checkpoint`.

    Raises:
        CheckpointError: the file is broken or incomplete, or has nothing but what is refused.
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
    source = open_source(path, allowed_classes(allow))
    if source.refused and not source.stored:
        raise CheckpointError(f"{source.label}: {next(iter(source.refused.values())).why}")
    return Checkpoint(source, downcast)


def load(
    path: Place,
    *,
    names: Iterable[str] | str | None = None,
    downcast: bool = False,
    allow: Iterable[type] | Mapping[str, type] = (),
) -> Any:
    """Read a checkpoint as a pytree of arrays, bit for bit; nothing in it is ever run.

    Args:
        path: a .safetensors file; a file of ``torch.save`` (.pt, .pth, .bin, .ckpt, .tar); the
            index of a sharded set (.index.json); or a folder that holds one of them under its
            usual name (of several the one that transformers reads: safetensors before pickled
            files, a single file before a set); or a binary, seekable file object, read from where
            it stands.
        names: names, or patterns as of ``fnmatch``, to read only these; the rest of the file is
            not read. What a pickle holds besides tensors does not matter then, unless a name or
            pattern means it or, as far as can be told, a tensor inside it.
        downcast: turn 64-bit dtypes into 32-bit ones, as in :func:`interop.to_array`.
        allow: classes of which a pickle may make objects, with what lies in the file: their own
            code runs, and no other. Nothing is ever imported by a name in a file; for a class that
            was saved under another name pass ``{"module.Name": Class}``.

    Returns:
        What ``torch.save`` was given, with arrays for tensors; for the other formats, and with
        ``names``, a flat dict from names to arrays. Tied names hold one array.

    Raises:
        CheckpointError: the file is broken, incomplete, or has 64-bit dtypes while JAX's x64 mode
            is off; what is asked for would run code of a class that is not allowed; a name matches
            nothing; a set was replaced again and again while it was opened.
        FileNotFoundError: there is no such file.
        TypeError: ``allow`` has something else than classes.

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
    source = open_source(path, allowed_classes(allow))
    if names is None and isinstance(source, PickledSource):
        return source.tree(downcast)
    chosen = list(source.stored) if names is None else select(names, source)
    arrays: dict[str, jax.Array] = {}
    for name in chosen:
        holder = source.aliases.get(name, name)
        if holder not in arrays:
            arrays[holder] = read_array(source, holder, downcast)
        arrays[name] = arrays[holder]
    return {name: arrays[name] for name in chosen}


def open_source(place: Place, allowed: Allowed) -> Source:
    """The file object, the file, the set, or what a folder holds."""
    if not isinstance(place, str | os.PathLike):
        if not is_file(place):
            raise TypeError(
                f"expected a path or an open binary file, got {type(place).__name__}"
                + ("; open it: with file as f" if hasattr(place, "__enter__") else "")
            )
        return open_medium(file_medium(place), allowed)
    for _ in range(_ATTEMPTS - 1):
        try:
            return _open_path(Path(place), allowed)
        except (SetChanged, FileNotFoundError):
            # A save may have put a set in the place of a single file, or the other way round.
            continue
    return _open_path(Path(place), allowed)


def _open_path(path: Path, allowed: Allowed) -> Source:
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
        return ShardedSource(path, allowed)
    return open_file(path, allowed)
