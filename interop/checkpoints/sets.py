"""Sharded sets on the disk: each save has file names of its own; the index makes them count."""

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from interop.checkpoints.atomic import Staging
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.index import SUFFIX

__all__ = ["index_of", "remove_set", "shards_of", "split", "write_set"]

# In the index: a set without it was written by others, and its files are left alone.
_SIGNATURE = "interop.save"


def write_set(
    path: Path,
    shards: list[dict[str, torch.Tensor]],
    write: Callable[[object, dict[str, torch.Tensor]], None],
) -> Path:
    """Write the shards and then the index; remove what they replace; gives the index's path."""
    # A reader that has the old index never meets a new shard under an old name.
    generation = secrets.token_hex(8)
    total = len(shards)
    files = [
        f"{path.stem}-{generation}-{i:05}-of-{total:05}{path.suffix}" for i in range(1, total + 1)
    ]
    size = sum(_size(t) for shard in shards for t in {id(t): t for t in shard.values()}.values())
    content = {
        "metadata": {"total_size": size, "saved_by": _SIGNATURE},
        "weight_map": {n: file for file, shard in zip(files, shards, strict=True) for n in shard},
    }
    with Staging(index_of(path), like=[path]) as staging:
        for file, shard in zip(files, shards, strict=True):
            with staging.other(path.parent / file) as opened:
                write(opened, shard)
        staging.file.write(json.dumps(content, indent=2).encode())
        staging.flush()
        with staging.locked_folder():
            stale, foreign = _replaced(path)
            staging.place()
            _remove(path, {path.name})
            _remove_shards(path, stale, foreign)
    return index_of(path)


def remove_set(path: Path) -> None:
    """Remove the set of this name if :func:`write_set` wrote it, now that a file replaces it."""
    stale, foreign = _replaced(path)
    if not foreign:
        _remove(path, {index_of(path).name})
    _remove_shards(path, stale, foreign)


def index_of(path: Path) -> Path:
    """Where the index of a set of this name lies."""
    return path.with_name(path.name + SUFFIX)


def shards_of(path: Path) -> set[str] | None:
    """The shards of the set of this name if :func:`write_set` wrote it, else None."""
    own = re.compile(_name_of_a_shard(path, "(-[0-9a-f]{16})?", "(-[0-9a-f]{8})?"))
    try:
        content = json.loads(index_of(path).read_text(encoding="utf-8"))
        if content["metadata"]["saved_by"] != _SIGNATURE:
            return None
        return {f for f in content["weight_map"].values() if own.fullmatch(f)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def split(
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


def _replaced(path: Path) -> tuple[set[str], set[str]]:
    """The shards of the set that is there now: those that we wrote, and those of others."""
    own = shards_of(path)
    return (set(), _listed(index_of(path))) if own is None else (own, set())


def _remove_shards(path: Path, stale: set[str], foreign: set[str]) -> None:
    """Remove replaced shards, and those of killed writers, unless an index still lists them."""
    orphan = re.compile(_name_of_a_shard(path, "-[0-9a-f]{16}"))
    found = {f.name for f in path.parent.iterdir() if orphan.fullmatch(f.name)}
    listed = foreign.union(*map(_listed, path.parent.glob(f"*{SUFFIX}")))
    _remove(path, stale.union(found).difference(listed))


def _name_of_a_shard(path: Path, generation: str, older: str = "") -> str:
    # The count at the end is how other tools tell shards.
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    return rf"{stem}{generation}-\d{{5}}-of-\d{{5}}{older}{suffix}"


def _remove(path: Path, files: set[str]) -> None:
    for file in files:
        try:
            (path.parent / file).unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"{path}: saved, but what it replaces is still there ({error}): remove "
                f"{path.parent / file}"
            ) from error


def _listed(index: Path) -> set[str]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {f for f in places.values() if isinstance(f, str)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return set()


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
