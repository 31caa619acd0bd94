"""``names=``: which of a checkpoint's names a list of names and patterns means."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from interop.checkpoints.errors import CheckpointError

__all__ = ["select"]


def select(names: Iterable[str] | str, held: Iterable[str], path: Path) -> list[str]:
    """The held names that are listed or match a pattern of fnmatch, in the file's order.

    Raises:
        CheckpointError: a name or pattern matches nothing.
        TypeError: a name is no string.
    """
    held = list(held)
    known = set(held)
    chosen: set[str] = set()
    lost = []
    for name in [names] if isinstance(names, str) else list(names):
        if not isinstance(name, str):
            raise TypeError(f"names: expected strings, got {name!r}")
        # A name that holds signs of patterns itself is taken as it is.
        found = {name} if name in known else {n for n in held if fnmatchcase(n, name)}
        if not found:
            lost.append(repr(name))
        chosen |= found
    if lost:
        some = ", ".join(repr(n) for n in held[:5]) + (", …" if len(held) > 5 else "")
        raise CheckpointError(
            f"{path}: nothing is named {', '.join(lost)}; it holds {len(held)} arrays: {some}. "
            "Give names or patterns such as 'encoder.*'"
        )
    return [n for n in held if n in chosen]
