"""``save``: whole files or none, in the formats that torch and safetensors read."""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from interop.arrays import first_line
from interop.checkpoints.atomic import replacing
from interop.checkpoints.content import flat_tensors, nested_tensors
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.files import PICKLED, SAFETENSORS
from interop.checkpoints.index import SUFFIX
from interop.dtypes import row_of

__all__ = ["save"]

# In the index: a set without it was written by others, and its files are left alone.
_SIGNATURE = "interop.save"


def save(path: str | os.PathLike[str], tree: Any, *, max_shard_bytes: int | None = None) -> Path:
    """Write arrays to a checkpoint, bit for bit and all at once: a crash leaves the old file.

    Args:
        path: a name ending in .safetensors, or .pt, .pth, .bin or .ckpt for ``torch.load``.
        tree: a pytree of JAX or numpy arrays or tensors of any shape. In a .safetensors file, and
            in shards, nesting becomes dotted names, as :func:`interop.flatten_names` gives them;
            a .pt file keeps dicts, lists, tuples, numbers and strings. An array under several
            names is written once and loaded under all of them.
        max_shard_bytes: split into files of about this size at most, a single larger array in its
            own, with an index beside them.

    Returns:
        The path to load: ``path`` itself, or that of the index.

    Raises:
        CheckpointError: a leaf cannot be written; the format has not its dtype; names are
            ambiguous; another suffix.

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
    path = Path(path)
    if path.suffix not in (SAFETENSORS, *PICKLED):
        raise CheckpointError(
            f"{path}: expected a name ending in {', '.join([SAFETENSORS, *PICKLED])}, got "
            f"'{path.suffix}'; for a sharded set pass max_shard_bytes as well"
        )
    if max_shard_bytes is not None and (
        isinstance(max_shard_bytes, bool) or not isinstance(max_shard_bytes, int)
        or max_shard_bytes < 1
    ):  # fmt: skip
        raise CheckpointError(f"max_shard_bytes: expected bytes, got {max_shard_bytes!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder; make it first")
    if path.suffix != SAFETENSORS and max_shard_bytes is None:
        content = nested_tensors(tree)
        _refuse_foreign_set(path)
        _write_pickle(path, content)
        _forget_set(path)
        return path
    tensors = flat_tensors(tree)
    if path.suffix == SAFETENSORS:
        _check_safetensors(path, tensors)
    shards = list(_split(tensors, max_shard_bytes))
    if len(shards) == 1:
        _refuse_foreign_set(path)
        _write(path, shards[0])
        _forget_set(path)
        return path
    return _write_shards(path, shards)


def _write_shards(path: Path, shards: list[dict[str, torch.Tensor]]) -> Path:
    """Shards first, under names that no older set uses; the index makes them the checkpoint."""
    total = len(shards)
    files = [f"{path.stem}-{i:05}-of-{total:05}{path.suffix}" for i in range(1, total + 1)]
    if any((path.parent / file).exists() for file in files):
        token = secrets.token_hex(4)
        files = [f"{Path(file).stem}-{token}{path.suffix}" for file in files]
    for file, shard in zip(files, shards, strict=True):
        _write(path.parent / file, shard)
    size = sum(_size(t) for shard in shards for t in {id(t): t for t in shard.values()}.values())
    content = {
        "metadata": {"total_size": size, "saved_by": _SIGNATURE},
        "weight_map": {n: file for file, shard in zip(files, shards, strict=True) for n in shard},
    }
    stale = _own_set(path) or set()
    with replacing(_index(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
    path.unlink(missing_ok=True)
    for file in stale.difference(files):
        (path.parent / file).unlink(missing_ok=True)
    return _index(path)


def _index(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _refuse_foreign_set(path: Path) -> None:
    """A single file beside the index of a set would leave two checkpoints of one name."""
    if _index(path).exists() and _own_set(path) is None:
        raise CheckpointError(
            f"{path}: beside it lies {_index(path).name}, a sharded set that interop.save did not "
            "write: remove that set, or save under another name"
        )


def _forget_set(path: Path) -> None:
    """Remove an older sharded set of this name, so that nothing loads it in place of the file."""
    stale = _own_set(path)
    if stale is not None:
        _index(path).unlink()
        for file in stale:
            (path.parent / file).unlink(missing_ok=True)


def _own_set(path: Path) -> set[str] | None:
    """The shards of the set of this name if :func:`save` wrote it, else None."""
    own = re.compile(
        rf"{re.escape(path.stem)}-\d{{5}}-of-\d{{5}}(-[0-9a-f]{{8}})?{re.escape(path.suffix)}"
    )
    try:
        content = json.loads(_index(path).read_text(encoding="utf-8"))
        if content["metadata"]["saved_by"] != _SIGNATURE:
            return None
        return {f for f in content["weight_map"].values() if own.fullmatch(f)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def _split(
    tensors: Mapping[str, torch.Tensor], most: int | None
) -> Iterator[dict[str, torch.Tensor]]:
    """Consecutive names up to ``most`` bytes; names of one tensor stay together."""
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    shard: dict[str, torch.Tensor] = {}
    filled = 0
    for group in names.values():
        size = _size(tensors[group[0]])
        if shard and most is not None and filled + size > most:
            yield shard
            shard, filled = {}, 0
        shard.update({name: tensors[name] for name in group})
        filled += size
    yield shard


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    if path.suffix == SAFETENSORS:
        _write_safetensors(path, tensors)
    else:
        _write_pickle(path, dict(tensors))


def _write_pickle(path: Path, content: Any) -> None:
    # Into an open file: given a path, torch puts the temporary name into the archive.
    with replacing(path) as temporary, open(temporary, "xb") as file:
        torch.save(content, file)


def _write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    # The library is needed for this format alone.
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    holders: dict[int, str] = {}
    notes = {"format": "pt"}
    for name, tensor in tensors.items():
        holder = holders.setdefault(id(tensor), name)
        if holder != name:
            # The library's own convention for tied weights.
            notes[name] = holder
    with replacing(path) as temporary:
        try:
            save_file({name: tensors[name] for name in holders.values()}, str(temporary), notes)
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{path}: the safetensors library refuses it ({first_line(error)}): update it, or "
                "save a .pt file"
            ) from error


def _check_safetensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        row = row_of(tensor.dtype)
        if row is None or row.code is None:
            raise CheckpointError(
                f"{path}: '{name}' is {str(tensor.dtype).removeprefix('torch.')}, which the "
                "safetensors format has not: save a .pt file, or its real and imaginary parts"
            )
    if "__metadata__" in tensors or ("format" in tensors and _tied(tensors, "format")):
        raise CheckpointError(
            f"{path}: the names '__metadata__' and a tied 'format' are the format's own: rename it"
        )


def _tied(tensors: Mapping[str, torch.Tensor], name: str) -> bool:
    return sum(tensor is tensors[name] for tensor in tensors.values()) > 1
