"""What torch.save wrote before version 1.6: pickles one after another, then the storages."""

from typing import Any

from interop.checkpoints.medium import Medium
from interop.checkpoints.tensors import storage_itemsize
from interop.checkpoints.unpickling import Made, Persistent, unpickle, walk

__all__ = ["Stream"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


class Stream:
    """As :class:`interop.checkpoints.archive.Archive`; this format has no checksums.

    Attributes:
        content: the unpickled records.
    """

    order = "little"  # torch swaps the bytes as it writes them

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        file = medium.file
        file.seek(0)
        first = unpickle(file)
        if first != _MAGIC:
            if isinstance(first, Made):
                # A pickle alone: let the caller tell what it asks for.
                self.content: Any = first
                return
            raise ValueError("a pickle alone is no file of torch.save")
        if unpickle(file) != _PROTOCOL:
            raise ValueError("it is of a protocol that torch never wrote")
        unpickle(file)  # the sizes of C's integers
        self.content = unpickle(file)
        self._spans: dict[str, tuple[int, int]] = {}
        self._place(unpickle(file), file.tell())

    def _place(self, keys: Any, at: int) -> None:
        """Find the storages, which lie one after another."""
        found = (n.pid for n in walk(self.content, set()) if isinstance(n, Persistent))
        sizes = {str(pid[2]): storage_itemsize(pid) for pid in found if len(pid) > 2}
        for key in keys:
            if at + 8 > self._medium.size:
                raise ValueError(f"it ends before the storage {key!r}")
            count = int.from_bytes(bytes(self._medium.view(at, 8)), "little")
            length = count * sizes[str(key)]
            self._spans[str(key)] = (at + 8, length)
            at += 8 + length
            if at > self._medium.size:
                raise ValueError(f"the storage {key!r} claims {count} elements")

    def storage(self, key: str, length: int, name: str) -> Any:
        """The bytes of a storage, of which a tensor called ``name`` needs ``length``."""
        begin, size = self._spans.get(key, (0, -1))
        if length > size:
            raise ValueError(f"'{name}' claims {length} bytes of a storage of {size}")
        return self._medium.view(begin, size)
