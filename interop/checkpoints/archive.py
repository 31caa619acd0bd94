"""The zip archive that torch.save writes: its directory, its checksums, its storages."""

import struct
import zipfile
import zlib
from typing import Any

from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.medium import Medium

__all__ = ["Archive"]

#: What other archives of torch hold, and what to do with each.
_OTHER_KINDS = (
    ("constants.pkl", "a TorchScript archive, which holds code: save the state_dict of "
                      "torch.jit.load(path) by torch.save"),
    ("archive_format", "an archive of torch.export: save the state_dict of torch.export.load(path) "
                       "by torch.save"),
    ("extern_modules", "an archive of torch.package, which holds code: save a state_dict by "
                       "torch.save"),
)  # fmt: skip


class Archive:
    """A checked directory; :meth:`storage` gives the bytes of one storage, checked too.

    Attributes:
        content: the pickle.
        order: the byte order of the tensors, "little" or "big".
    """

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._verified: set[str] = set()
        try:
            with zipfile.ZipFile(medium.file) as file:
                self._refuse_other_kinds(file)
                self._spans = self._directory(file)
                self._prefix, self.content, self.order = self._small_entries(file)
        # A broken directory raises whatever its parser meets first.
        except (
            zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError,
            NotImplementedError, OverflowError, IndexError, AssertionError, struct.error,
        ) as error:  # fmt: skip
            if isinstance(error, CheckpointError):
                raise
            raise self._broken(f"{error}") from error

    def storage(self, key: str, length: int, name: str) -> Any:
        """The bytes of a storage, of which a tensor called ``name`` needs ``length``."""
        entry = f"{self._prefix}data/{key}"
        begin, size, checksum = self._spans.get(entry, (0, -1, 0))
        if length > size:
            raise self._broken(f"'{name}' claims {length} bytes of '{entry}', which has {size}")
        held = self._medium.view(begin, size)
        if entry not in self._verified:
            if zlib.crc32(held) != checksum:
                raise self._broken(f"the checksum of '{name}' does not fit")
            self._verified.add(entry)
        return held

    def _refuse_other_kinds(self, file: zipfile.ZipFile) -> None:
        """Before anything that such archives have and files of torch.save have not."""
        ends = {name.rpartition("/")[2] for name in file.namelist()}
        for end, what in _OTHER_KINDS:
            if end in ends:
                raise CheckpointError(f"{self._medium.label}: this is {what}")
        entries = [entry for entry in file.infolist() if entry.file_size]
        if entries and not any(entry.CRC for entry in entries):
            raise CheckpointError(
                f"{self._medium.label}: it was saved after torch.serialization."
                "set_crc32_options(False), so it has no checksums to tell whether it is whole: "
                "read it by torch.load, and save it again with checksums"
            )

    def _directory(self, file: zipfile.ZipFile) -> dict[str, tuple[int, int, int]]:
        """Begin, size and checksum of each entry; none is compressed or beyond the file."""
        names = file.namelist()
        if len(set(names)) != len(names):
            raise self._broken("its directory lists a name twice")
        taken = 0
        spans = {}
        for entry in file.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise CheckpointError(
                    f"{self._medium.label}: '{entry.filename}' is compressed or encrypted, which "
                    "torch.save never does: unpack it and save it again by torch.save"
                )
            # Reads the entry's own header, which has to bear the same name.
            file.open(entry).close()
            taken += entry.file_size
            header = bytes(self._medium.view(entry.header_offset, 30))
            begin = entry.header_offset + 30 + sum(struct.unpack_from("<HH", header, 26))
            beyond = begin + entry.file_size > self._medium.size
            if entry.file_size != entry.compress_size or taken > self._medium.size or beyond:
                raise self._broken(f"'{entry.filename}' claims {entry.file_size} bytes")
            spans[entry.filename] = (begin, entry.file_size, entry.CRC)
        return spans

    def _small_entries(self, file: zipfile.ZipFile) -> tuple[str, bytes, str]:
        """Read, and so check, all that is not a tensor: prefix, pickle and byte order."""
        names = file.namelist()
        pickles = [n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{self._medium.label}: expected one data.pkl, as torch.save writes it, got "
                f"{len(pickles)} among {len(names)} entries: give a file of torch.save"
            )
        prefix = pickles[0].removesuffix("data.pkl")
        read = {n: file.read(n) for n in names if not n.startswith(f"{prefix}data/")}
        order = read.get(f"{prefix}byteorder", b"little").decode("ascii", "replace")
        if order not in ("little", "big"):
            raise self._broken(f"its byte order is {order[:20]!r}")
        return prefix, read[pickles[0]], order

    def _broken(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._medium.label}: {what}; the archive is truncated or corrupt: fetch or save it "
            "again"
        )
