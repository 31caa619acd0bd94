"""Which format a file has: by its suffix."""

from pathlib import Path

from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.pickled_file import PickledSource
from interop.checkpoints.source import Source

__all__ = ["PICKLED", "SAFETENSORS", "open_file"]

SAFETENSORS = ".safetensors"
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar")


def open_file(path: Path) -> Source:
    """One file that is no index.

    Raises:
        CheckpointError: another suffix, or the file is broken.
    """
    if path.suffix == SAFETENSORS:
        # The library is needed for this format alone.
        from interop.checkpoints.safetensors_file import SafetensorsSource

        return SafetensorsSource(path)
    if path.suffix in PICKLED:
        return PickledSource(path)
    raise CheckpointError(
        f"{path}: expected a file named {', '.join([SAFETENSORS, *PICKLED])} or an index "
        f"(.index.json), got '{path.suffix}'; rename it to what it is"
    )
