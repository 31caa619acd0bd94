"""The zip archive that torch.save writes: its directory and checksums, before torch reads it."""

import os
import sys
import zipfile
import zlib
from pathlib import Path

import torch

from interop.checkpoints.errors import CheckpointError

__all__ = ["Archive"]


class Archive:
    """A checked directory; :meth:`verify` compares what torch mapped with the checksums.

    Attributes:
        native: whether the tensors have this machine's byte order, so that they can be mapped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._verified: set[tuple[int, int]] = set()
        try:
            with zipfile.ZipFile(path) as file:
                self._sums = self._directory(file)
                order = self._small_entries(file)
                self.native = order == sys.byteorder
                damaged = None if self.native else file.testzip()
        # A broken directory raises whatever its parser meets first.
        except (
            zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError,
            NotImplementedError, OverflowError, IndexError, AssertionError,
        ) as error:  # fmt: skip
            if isinstance(error, CheckpointError):
                raise
            raise self._broken(f"{error}") from error
        if damaged is not None:
            raise self._broken(f"the checksum of '{damaged}' does not fit")

    def verify(self, tensor: torch.Tensor, name: str) -> None:
        """Compare the checksum of the storage under a tensor with the archive's, once for each."""
        storage = tensor.untyped_storage()
        at = (storage.data_ptr(), storage.nbytes())
        if not self.native or at[1] == 0 or at in self._verified:
            return
        flat = torch.empty(0, dtype=torch.uint8).set_(storage)
        if (at[1], zlib.crc32(flat.numpy().data)) not in self._sums:
            raise self._broken(
                f"the checksum of '{name}' does not fit (or it was saved after "
                "torch.serialization.set_crc32_options(False), which leaves none)"
            )
        self._verified.add(at)

    def _directory(self, file: zipfile.ZipFile) -> set[tuple[int, int]]:
        """Sizes and checksums of the storages; no entry is compressed or beyond the file."""
        size = os.path.getsize(self.path)
        names = file.namelist()
        if len(set(names)) != len(names):
            raise self._broken("its directory lists a name twice")
        taken = 0
        sums = set()
        for entry in file.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise CheckpointError(
                    f"{self.path}: '{entry.filename}' is compressed or encrypted, which torch.save "
                    "never does: unpack it and save it again by torch.save"
                )
            # Reads the entry's own header, which has to bear the same name.
            file.open(entry).close()
            taken += entry.file_size
            if entry.file_size != entry.compress_size or taken > size:
                raise self._broken(f"'{entry.filename}' claims {entry.file_size} bytes")
            sums.add((entry.file_size, entry.CRC))
        return sums

    def _small_entries(self, file: zipfile.ZipFile) -> str:
        """Read, and so check, all that is not a tensor; gives the byte order."""
        names = file.namelist()
        pickles = [n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{self.path}: expected one data.pkl, as torch.save writes it, got {len(pickles)} "
                f"among {len(names)} entries: give a file of torch.save"
            )
        prefix = pickles[0].removesuffix("data.pkl")
        if f"{prefix}constants.pkl" in names:
            raise CheckpointError(
                f"{self.path}: this is a TorchScript archive, which holds code: save the "
                "state_dict of torch.jit.load(path) by torch.save"
            )
        for name in names:
            if not name.startswith(f"{prefix}data/"):
                file.read(name)
        order = f"{prefix}byteorder"
        return file.read(order).decode("ascii", "replace") if order in names else "little"

    def _broken(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: {what}; the archive is truncated or corrupt: fetch or save it again"
        )
