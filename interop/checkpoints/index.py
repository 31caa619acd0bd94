"""A sharded set: an index.json that says which file holds which name."""

import os
from pathlib import Path

import torch

from interop.checkpoints.allowed import Allowed
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.files import open_file
from interop.checkpoints.json_text import parse
from interop.checkpoints.source import Refused, Source, Stored

__all__ = ["SUFFIX", "SetChanged", "ShardedSource"]

SUFFIX = ".index.json"
_LONGEST = 100_000_000


class SetChanged(CheckpointError):
    """The index was replaced while its shards were opened."""


class ShardedSource:
    """See :class:`interop.checkpoints.source.Source`. All shards are opened, none is read."""

    def __init__(self, path: Path, allowed: Allowed) -> None:
        self.label = str(path)
        before = _state(path)
        self._places = _weight_map(path)
        self._shards: dict[str, Source] = {}
        problems = self._open(path, allowed)
        if _state(path) != before:
            # Opened shards stay readable, but they may be of two sets.
            raise SetChanged(
                f"{path}: the set was replaced by another save again and again while it was "
                "opened: load it once the saving is over"
            )
        if problems:
            raise CheckpointError(
                f"{path}: the set is not whole: {'; '.join(problems)}. Fetch or save it again"
            )
        self.stored: dict[str, Stored] = {
            name: self._shards[file].stored[name] for name, file in self._places.items()
        }
        shards = list(self._shards.values())
        self.aliases: dict[str, str] = {}
        self.refused: dict[str, Refused] = {}
        for file, shard in self._shards.items():
            # Of what several shards hold, the index chooses.
            own = {n for n, place in self._places.items() if place == file}
            self.aliases |= {a: n for a, n in shard.aliases.items() if a in own and n in own}
            self.refused |= {n: r for n, r in shard.refused.items() if n not in self._places}
        notes = shards[0].metadata.items() if shards else ()
        self.metadata = {n: v for n, v in notes if all(s.metadata.get(n) == v for s in shards)}

    def read(self, name: str) -> torch.Tensor:
        """The tensor, from its shard."""
        return self._shards[self._places[name]].read(name)

    def _open(self, path: Path, allowed: Allowed) -> list[str]:
        """Open all shards; gives what is wrong. Tensors that the index does not list stay out."""
        problems: list[str] = []
        files = {f: _shard(path, f, problems) for f in dict.fromkeys(self._places.values())}
        for name, file in files.items():
            if file is not None:
                try:
                    self._shards[name] = open_file(file, allowed)
                except (CheckpointError, FileNotFoundError) as error:
                    problems.append(str(error))
        for name, file_name in self._places.items():
            shard = self._shards.get(file_name)
            if shard is not None and name in shard.refused:
                problems.append(f"'{file_name}': {shard.refused[name].why}")
            elif shard is not None and name not in shard.stored:
                problems.append(f"'{file_name}' does not hold '{name}'")
        for file_name, shard in self._shards.items():
            for alias, name in shard.aliases.items():
                if self._places.get(name) == file_name:
                    # The shard alone tells a further name of a tied tensor.
                    self._places.setdefault(alias, file_name)
        return problems


def _state(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _weight_map(path: Path) -> dict[str, str]:
    if os.path.getsize(path) > _LONGEST:
        raise CheckpointError(f"{path}: expected an index of at most {_LONGEST} bytes")
    places = parse(path.read_bytes(), str(path), "the index").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(f, str) for f in places.values()):
        raise CheckpointError(
            f"{path}: expected 'weight_map', names to file names; give the index of a sharded set"
        )
    return places


def _shard(index: Path, name: str, problems: list[str]) -> Path | None:
    """The file of a shard, only in the index's folder."""
    try:
        path = (index.parent / name).resolve()
        # Caches keep files elsewhere and link each of them, the index too: its real folder counts.
        folders = {index.parent.resolve(), index.resolve().parent}
        if os.path.isabs(name) or not any(path.is_relative_to(f) for f in folders):
            problems.append(f"'{name}' lies outside the index's folder, which is refused")
        elif path.suffix == ".json" or not path.is_file():
            problems.append(f"'{name}' is missing")
        else:
            # As linked: the target of a link may have another suffix.
            return index.parent / name
    except (OSError, ValueError, RuntimeError) as error:
        problems.append(f"{name!r} is no file name ({error})")
    return None
