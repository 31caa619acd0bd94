"""The one error of checkpoints."""

__all__ = ["CheckpointError"]


class CheckpointError(ValueError):
    """A file that cannot be read or written faithfully: which, what was expected, what to do."""
