"""The bytes of a checkpoint: of a file on the disk, which is mapped, or of an open binary file."""

import io
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from interop.checkpoints.errors import CheckpointError

__all__ = ["Medium", "Whole", "file_medium", "is_file", "label_of", "path_medium"]


class Medium(Protocol):
    """Positions count from where the checkpoint begins.

    Attributes:
        label: what messages call it: the path, or the kind of the file object.
        size: how many bytes there are.
        file: the same bytes for parsers, at their beginning.
    """

    label: str
    size: int
    file: BinaryIO

    def view(self, begin: int, length: int) -> Any:
        """A writable buffer of these bytes, which is no way to write the file."""
        ...


class _Map(mmap.mmap):
    """What zipfile asks of a file."""

    def seekable(self) -> bool:
        return True


class _Mapped:
    def __init__(self, path: Path) -> None:
        self.label = str(path)
        with open(path, "rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            # An empty file cannot be mapped.
            self.file: Any = (
                _Map(file.fileno(), self.size, access=mmap.ACCESS_COPY)
                if self.size
                else io.BytesIO()
            )

    def view(self, begin: int, length: int) -> Any:
        return memoryview(self.file)[begin : begin + length] if self.size else b""


class _Window(io.RawIOBase):
    """A file object from where it stands to its end; threads may read it at once."""

    def __init__(self, file: BinaryIO, label: str) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._start = file.tell()
        self.label = label
        self.size = max(file.seek(0, os.SEEK_END) - self._start, 0)
        self._at = 0
        self.file = io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = self._read(self._at, len(buffer))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def view(self, begin: int, length: int) -> Any:
        found = bytearray()
        while len(found) < length:
            more = self._read(begin + len(found), length - len(found))
            if not more:
                raise CheckpointError(f"{self.label}: it ends early; it was changed since it was "
                                      "opened: give a copy of its own")  # fmt: skip
            found += more
        return found

    def _read(self, begin: int, length: int) -> bytes:
        length = min(length, self.size - begin)
        if length <= 0:
            return b""
        with self._lock:
            self._file.seek(self._start + begin)
            return self._file.read(length)


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
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a file, got a folder or a device")
    return _opened(lambda: _Mapped(path), str(path))


def file_medium(file: Any) -> Medium:
    """An open file or what reads like one, from where it stands.

    Raises:
        CheckpointError: it gives text, cannot be sought, or is closed.
    """
    label = label_of(file)
    medium = _opened(lambda: _Window(file, label), label)
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
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{label}: cannot be read ({error}); expected a file that is open, binary and seekable "
            "(what is not seekable fits into an io.BytesIO)"
        ) from error
