"""A sharded set: an index.json that says which file holds which name."""

import os
from pathlib import Path

import torch

from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.files import open_file
from interop.checkpoints.json_text import parse
from interop.checkpoints.source import Source, Stored

__all__ = ["SUFFIX", "ShardedSource"]

SUFFIX = ".index.json"
_LONGEST = 100_000_000


class ShardedSource:
    """See :class:`interop.checkpoints.source.Source`. All shards are opened, none is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places = _weight_map(path)
        problems: list[str] = []
        files = {f: _shard(path, f, problems) for f in dict.fromkeys(self._places.values())}
        self._shards: dict[str, Source] = {}
        for name, file in files.items():
            if file is not None:
                try:
                    self._shards[name] = open_file(file)
                except CheckpointError as error:
                    problems.append(str(error))
        for name, file_name in self._places.items():
            if file_name in self._shards and name not in self._shards[file_name].stored:
                problems.append(f"'{file_name}' does not hold '{name}'")
        for file_name, shard in self._shards.items():
            for name in shard.stored:
                place = self._places.get(name)
                if place is None and name in shard.aliases:
                    # The shard alone tells a further name of a tied tensor.
                    self._places[name] = file_name
                elif place != file_name:
                    where = "nowhere" if place is None else f"in '{place}'"
                    problems.append(f"'{file_name}' holds '{name}', which the index has {where}")
        if problems:
            raise CheckpointError(
                f"{path}: the set is not whole: {'; '.join(problems)}. Fetch or save it again"
            )
        self.stored: dict[str, Stored] = {
            name: self._shards[file].stored[name] for name, file in self._places.items()
        }
        self.aliases: dict[str, str] = {}
        for shard in self._shards.values():
            self.aliases.update(shard.aliases)

    def read(self, name: str) -> torch.Tensor:
        """The tensor, from its shard."""
        return self._shards[self._places[name]].read(name)


def _weight_map(path: Path) -> dict[str, str]:
    if os.path.getsize(path) > _LONGEST:
        raise CheckpointError(f"{path}: expected an index of at most {_LONGEST} bytes")
    places = parse(path.read_bytes(), path, "the index").get("weight_map")
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
