"""Files that appear whole or not at all, beside other writers and after killed ones."""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

__all__ = ["Staging"]

_INDEX = ".index.json"


class Staging:
    """Files that are written beside their places, and put there together.

    A context: left without :meth:`place`, nothing has changed. What killed writers of the same
    target left is removed at its beginning; living ones hold a lock on their first file.

    Args:
        target: the file that makes the others count: the file itself, or an index.
        like: existing files besides the target, of which the first gives the new ones its access
            rights and owner; without any they are what ``open`` gives.
    """

    def __init__(self, target: Path, like: Iterable[Path] = ()) -> None:
        # A link stays a link: what it leads to is replaced.
        self._target = Path(os.path.realpath(target))
        self._like = next((p.stat() for p in (self._target, *like) if p.is_file()), None)
        self._token = secrets.token_hex(8)
        self._others: list[tuple[Path, Path]] = []

    def __enter__(self) -> "Staging":
        with self.locked_folder():
            self._remove_leftovers()
            self.file = self._create(self._temporary())
            _lock(self.file)
        return self

    def __exit__(self, *_: object) -> None:
        # What is still in its buffer has no place to go to.
        with contextlib.suppress(OSError):
            self.file.close()
        for temporary in (*(t for t, _ in self._others), self._temporary()):
            with contextlib.suppress(OSError):
                temporary.unlink()

    @contextlib.contextmanager
    def other(self, path: Path) -> Iterator[BinaryIO]:
        """A file that gets its place before the target does."""
        temporary = path.with_name(self._temporary(f".{len(self._others):05}").name)
        self._others.append((temporary, path))
        with self._create(temporary) as file:
            yield file
            _flush(file)

    @contextlib.contextmanager
    def locked_folder(self) -> Iterator[None]:
        """No other writer makes temporary files or puts any in place meanwhile."""
        if fcntl is None:
            yield
            return
        folder = os.open(self._target.parent, os.O_RDONLY)
        try:
            # Some network file systems have no locks; there, leftovers stay.
            with contextlib.suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            with contextlib.suppress(OSError):
                os.fsync(folder)
        finally:
            os.close(folder)

    def place(self) -> None:
        """Put all in place, inside :meth:`locked_folder`."""
        placed = []
        try:
            for temporary, path in self._others:
                os.replace(temporary, path)
                placed.append(path)
            self.file.close()
            os.replace(self._temporary(), self._target)
        except BaseException:
            for path in placed:
                path.unlink(missing_ok=True)
            raise

    def flush(self) -> None:
        """Wait until the disk has the target's file."""
        _flush(self.file)

    def _temporary(self, number: str = "") -> Path:
        return self._target.with_name(f".{self._target.name}.{self._token}{number}.tmp")

    def _create(self, path: Path) -> BinaryIO:
        file = open(path, "xb")  # noqa: SIM115 (closed at the end of the context)
        if self._like is not None and os.name == "posix":
            owner = (self._like.st_uid, self._like.st_gid)
            try:
                made = os.fstat(file.fileno())
                if owner != (made.st_uid, made.st_gid):
                    with contextlib.suppress(PermissionError):
                        os.fchown(file.fileno(), *owner)
                # Some file systems have one mode for all files, and no other may be set.
                if os.fstat(file.fileno()).st_mode != self._like.st_mode:
                    os.fchmod(file.fileno(), stat.S_IMODE(self._like.st_mode))
            except BaseException:
                file.close()
                path.unlink()
                raise
        return file

    def _remove_leftovers(self) -> None:
        # Of a set as of a single file: one of them may be in the place of the other.
        name, index = re.escape(self._target.name.removesuffix(_INDEX)), re.escape(_INDEX)
        pattern = re.compile(rf"\.{name}({index})?\.([0-9a-f]{{16}})(\.\d{{5}})?\.tmp")
        groups: dict[str, list[Path]] = {}
        for path in self._target.parent.iterdir():
            found = pattern.fullmatch(path.name)
            if found:
                groups.setdefault(found[2], []).append(path)
        for paths in groups.values():
            # The shortest name is the first file of its writer.
            _remove_if_dead(sorted(paths, key=lambda p: len(p.name)))


def _lock(file: BinaryIO) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_if_dead(paths: list[Path]) -> None:
    """Remove the files of one writer, of which it holds the first open and locked."""
    with contextlib.suppress(OSError), open(paths[0], "rb") as first:
        if fcntl is not None:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        first.close()
        for path in paths:
            path.unlink()


def _flush(file: Any) -> None:
    """Wait until the disk has it."""
    file.flush()
    os.fsync(file.fileno())
