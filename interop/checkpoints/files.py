"""Which format a file has: by the suffix of a path, by the first bytes of a file object."""

from pathlib import Path

from interop.checkpoints.allowed import Allowed
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.medium import Medium, path_medium
from interop.checkpoints.pickled_file import PickledSource
from interop.checkpoints.safetensors_file import SafetensorsSource
from interop.checkpoints.source import Source

__all__ = ["PICKLED", "SAFETENSORS", "open_file", "open_medium"]

SAFETENSORS = ".safetensors"
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar")


def open_file(path: Path, allowed: Allowed) -> Source:
    """One file that is no index.

    Raises:
        CheckpointError: another suffix, or the file is broken.
    """
    if path.suffix == SAFETENSORS:
        return SafetensorsSource(path_medium(path))
    if path.suffix in PICKLED:
        return PickledSource(path_medium(path), allowed)
    raise CheckpointError(
        f"{path}: expected a file named {', '.join([SAFETENSORS, *PICKLED])} or an index "
        f"(.index.json), got '{path.suffix}'; rename it to what it is"
    )


def open_medium(medium: Medium, allowed: Allowed) -> Source:
    """A file object: a header of JSON tells .safetensors, everything else is of torch.save."""
    if bytes(medium.view(0, min(medium.size, 9)))[8:] == b"{":
        return SafetensorsSource(medium)
    return PickledSource(medium, allowed)
