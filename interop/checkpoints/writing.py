"""``save``: whole files or none, in the formats that torch and safetensors read."""

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, overload

import torch

from interop.arrays import first_line
from interop.checkpoints.atomic import Staging
from interop.checkpoints.content import flat_tensors, nested_tensors
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.files import PICKLED, SAFETENSORS
from interop.checkpoints.medium import Whole, is_file, label_of
from interop.checkpoints.safetensors_writing import check_tensors, write_safetensors
from interop.checkpoints.sets import index_of, remove_set, shards_of, split, write_set

__all__ = ["save"]

Format = Literal["safetensors", "pt"]


@overload
def save(
    path: str | os.PathLike[str],
    tree: Any,
    *,
    max_shard_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
    downcast: bool = False,
) -> Path: ...
@overload
def save(
    path: BinaryIO,
    tree: Any,
    *,
    metadata: Mapping[str, str] | None = None,
    downcast: bool = False,
    format: Format | None = None,
) -> None: ...
def save(
    path: str | os.PathLike[str] | BinaryIO,
    tree: Any,
    *,
    max_shard_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
    downcast: bool = False,
    format: Format | None = None,
) -> Path | None:
    """Write arrays to a checkpoint, bit for bit and all at once: a crash leaves the old file.

    Args:
        path: a name ending in .safetensors, or .pt, .pth, .bin or .ckpt for ``torch.load``; or an
            open binary file, which is written from where it stands.
        tree: a pytree of JAX or numpy arrays or tensors of any shape. In a .safetensors file, and
            in shards, nesting becomes dotted names, as :func:`interop.flatten_names` gives them
            (:func:`interop.unflatten_names` gives the tree back); a .pt file keeps dicts, lists,
            tuples, numbers and strings. An array under several names is written once and loaded
            under all of them.
        max_shard_bytes: split into files of about this size at most, a single larger array in its
            own, with an index beside them.
        metadata: strings by strings for the notes of .safetensors files, of each shard too.
            ``open_checkpoint(path).metadata`` has them again.
        downcast: write 64-bit dtypes as 32-bit ones, as :func:`interop.to_array` does, so that no
            load has to ask for it.
        format: "safetensors" or "pt", for file objects whose own name does not tell.

    Returns:
        The path to load: ``path`` itself, or that of the index; nothing for a file object.

    Raises:
        CheckpointError: a leaf cannot be written; the format has not its dtype; names are
            ambiguous; another suffix; the disk is full or refuses. What was there is whole then,
            except in a file object.

    Example:
        >>> import pathlib, tempfile
        >>> import jax.numpy as jnp
        >>> import interop
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> params = {"layer": {"weight": jnp.eye(2), "bias": jnp.zeros(2)}}
        >>> interop.save(folder / "model.safetensors", params, max_shard_bytes=16).name
        'model.safetensors.index.json'
        >>> sorted(interop.load(folder))
        ['layer.bias', 'layer.weight']
    """
    target = _Target(path, format)
    if max_shard_bytes is not None and (
        isinstance(max_shard_bytes, bool) or not isinstance(max_shard_bytes, int)
        or max_shard_bytes < 1
    ):  # fmt: skip
        raise CheckpointError(f"max_shard_bytes: expected bytes, got {max_shard_bytes!r}")
    if max_shard_bytes is not None and target.path is None:
        raise CheckpointError(f"{target.label}: max_shard_bytes needs a path, as shards are files")
    if metadata is not None and not target.is_safetensors:
        raise CheckpointError(
            f"{target.label}: metadata belongs to .safetensors files; put it into the tree here"
        )
    notes = dict(metadata or {})
    shards: list[Any]
    if target.is_safetensors or max_shard_bytes is not None:
        tensors = flat_tensors(tree, downcast)
        if target.is_safetensors:
            check_tensors(target.label, tensors, notes)
        shards = list(split(tensors, max_shard_bytes))
    else:
        shards = [nested_tensors(tree, downcast)]

    def write(file: Any, content: Any) -> None:
        if target.is_safetensors:
            write_safetensors(file, target.label, content, notes)
        else:
            torch.save(content, file)

    try:
        return target.write(shards, write)
    except CheckpointError:
        raise
    # A full disk comes out of torch as a RuntimeError.
    except (OSError, RuntimeError, ValueError, TypeError, pickle.PicklingError) as error:
        raise CheckpointError(
            f"{target.label}: not saved ({_reason(error)}); "
            + ("what was there before is whole" if target.path else "the file is incomplete")
        ) from error


class _Target:
    """Where a checkpoint is written, and in which format."""

    def __init__(self, place: Any, format: str | None) -> None:
        if format not in (None, "safetensors", "pt"):
            raise CheckpointError(f"format: expected 'safetensors' or 'pt', got {format!r}")
        self.path: Path | None = None
        if is_file(place):
            self.label = label_of(place)
            self._file = place
            name = getattr(place, "name", None)
            suffix = f".{format}" if format else Path(name).suffix if isinstance(name, str) else ""
            advice = "pass format='safetensors' or format='pt'"
            writable = getattr(place, "writable", None)
            if isinstance(place, io.TextIOBase) or (callable(writable) and not writable()):
                raise CheckpointError(
                    f"{self.label}: expected a binary file that is open to write: open it with 'wb'"
                )
        else:
            self.path = Path(place)
            self.label = str(place)
            suffix = self.path.suffix
            advice = "for a sharded set pass max_shard_bytes as well"
            if format is not None:
                raise CheckpointError(
                    f"{place}: format is for file objects; the suffix of a path says it"
                )
        if suffix not in (SAFETENSORS, *PICKLED):
            raise CheckpointError(
                f"{self.label}: expected a name ending in {', '.join([SAFETENSORS, *PICKLED])}, "
                f"got '{suffix}'; {advice}"
            )
        if self.path is not None and not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path.parent}: no such folder; make it first")
        self.is_safetensors = suffix == SAFETENSORS

    def write(self, shards: list[Any], write: Any) -> Path | None:
        """Write one file, or a set of several."""
        if self.path is None:
            whole = Whole(self._file)
            write(whole, shards[0])
            whole.flush()
            return None
        if len(shards) > 1:
            return write_set(self.path, shards, write)
        self._refuse_foreign_set(self.path)
        old = sorted(shards_of(self.path) or ())
        with Staging(self.path, like=[self.path.parent / file for file in old]) as staging:
            write(staging.file, shards[0])
            staging.flush()
            with staging.locked_folder():
                staging.place()
                remove_set(self.path)
        return self.path

    def _refuse_foreign_set(self, path: Path) -> None:
        """A single file beside the index of a set would leave two checkpoints of one name."""
        if index_of(path).exists() and shards_of(path) is None:
            raise CheckpointError(
                f"{path}: beside it lies {index_of(path).name}, a sharded set that interop.save "
                "did not write: remove that set, or save under another name"
            )


def _reason(error: BaseException) -> str:
    """The system's word, if that is behind it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return first_line(error)
