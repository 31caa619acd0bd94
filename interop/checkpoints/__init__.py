"""Checkpoints: .pt, .safetensors and sharded sets to pytrees of arrays, and back."""

from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.reading import Checkpoint, load, open_checkpoint
from interop.checkpoints.writing import save

__all__ = ["Checkpoint", "CheckpointError", "load", "open_checkpoint", "save"]
