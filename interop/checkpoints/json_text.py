"""JSON of files that may be broken: every failure is a CheckpointError."""

import json
from typing import Any

from interop.checkpoints.errors import CheckpointError

__all__ = ["parse"]


def parse(raw: bytes, path: str, what: str) -> dict[str, Any]:
    """A JSON object without repeated keys and without numbers that JSON has not."""
    try:
        found = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: {what} is not JSON ({error}); the file is corrupt, fetch or save it again"
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path}: {what}: expected a JSON object, got {type(found).__name__}; the file is "
            "corrupt, fetch or save it again"
        )
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
        raise ValueError(f"key {twice!r} occurs twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")
