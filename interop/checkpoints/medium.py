"""The bytes of a checkpoint: of a file on the disk, which is mapped, or of an open binary file."""

import io
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from interop.checkpoints.errors import CheckpointError

__all__ = ["Medium", "Whole", "file_medium", "is_file", "label_of", "path_medium"]


# Below this many bytes, reading is as fast as mapping.
_SHORT = 2**16


class Medium(Protocol):
    """Positions count from where the checkpoint begins.

    Attributes:
        label: what messages call it: the path, or the kind of the file object.
        size: how many bytes there are.
        file: the same bytes for parsers, at their beginning.
    """

    label: str
    size: int

    @property
    def file(self) -> BinaryIO: ...  # noqa: D102

    def view(self, begin: int, length: int) -> Any:
        """A writable buffer of these bytes, which is no way to write the file."""
        ...


class _Opened:
    """A file object from where it stands to its end; threads may read it at once."""

    def __init__(self, file: Any, label: str) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._start = file.tell()
        self.label = label
        self.size = max(file.seek(0, os.SEEK_END) - self._start, 0)

    @property
    def file(self) -> BinaryIO:
        return io.BufferedReader(_Parsed(self))

    def view(self, begin: int, length: int) -> Any:
        found = bytearray()
        while len(found) < length:
            more = self.read(begin + len(found), length - len(found))
            if not more:
                raise CheckpointError(
                    f"{self.label}: it ends early; it was changed since it was opened: save it "
                    "under another name, or replace it as a whole"
                )
            found += more
        return found

    def read(self, begin: int, length: int) -> bytes:
        """At most ``length`` bytes, none at the end alone."""
        length = min(length, self.size - begin)
        if length <= 0:
            return b""
        with self._lock:
            self._file.seek(self._start + begin)
            return bytes(self._file.read(length))


class _OnDisk(_Opened):
    """Long parts are mapped, each for itself: a whole file may be larger than the memory."""

    def __init__(self, path: Path) -> None:
        file = open(path, "rb")  # noqa: SIM115 (closed with the last that refers to this)
        weakref.finalize(self, file.close)
        super().__init__(file, str(path))

    def view(self, begin: int, length: int) -> Any:
        if length < _SHORT or begin + length > self.size:
            return super().view(begin, length)
        before = begin % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(
            self._file.fileno(), before + length, access=mmap.ACCESS_COPY, offset=begin - before
        )
        return memoryview(mapped)[before:]


class _Parsed(io.RawIOBase):
    """The same bytes to read one after another."""

    def __init__(self, opened: _Opened) -> None:
        self._opened = opened
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._opened.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = self._opened.read(self._at, len(buffer))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


class Whole:
    """An open file to write, which may take a part of the bytes at a time."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        """Write all, however often it takes."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while len(rest):
            written = self._file.write(rest)
            rest = rest[len(rest) if written is None else written :]
        return size

    def flush(self) -> None:
        """Pass on what a buffer holds, if there is one."""
        if hasattr(self._file, "flush"):
            self._file.flush()


def path_medium(path: Path) -> Medium:
    """A file on the disk, opened until the last array of it is gone.

    Raises:
        CheckpointError: it cannot be opened, or is no regular file.
        FileNotFoundError: it is not there.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: expected a file, got a folder or a device")
    return _opened(lambda: _OnDisk(path), str(path))


def file_medium(file: Any) -> Medium:
    """An open file or what reads like one, from where it stands.

    Raises:
        CheckpointError: it gives text, cannot be sought, or is closed.
    """
    label = label_of(file)
    medium = _opened(lambda: _Opened(file, label), label)
    if not isinstance(_opened(lambda: file.read(0), label), bytes):
        raise CheckpointError(f"{label}: expected a binary file, got text: open it with 'rb'")
    if not medium.size:
        raise CheckpointError(
            f"{label}: expected a checkpoint, got no bytes after position {file.tell()}: "
            "file.seek(0) first"
        )
    return medium


def is_file(given: Any) -> bool:
    """Whether it is a file object rather than a path."""
    return not isinstance(given, str | os.PathLike) and any(
        callable(getattr(given, method, None)) for method in ("read", "write")
    )


def label_of(file: Any) -> str:
    """What messages call a file object."""
    name = getattr(file, "name", None)
    return f"<{type(file).__name__}{f' {name}' if isinstance(name, str) else ''}>"


def _opened(make: Callable[[], Any], label: str) -> Any:
    try:
        return make()
    except FileNotFoundError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{label}: cannot be read ({type(error).__name__}: {error}); expected a file that is "
            "open to read, binary and seekable (what is not seekable fits into an io.BytesIO)"
        ) from error
