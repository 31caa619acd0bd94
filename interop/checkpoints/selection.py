"""``names=``: which of a checkpoint's names a list of names and patterns means."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.source import Source

__all__ = ["select"]


def select(names: Iterable[str] | str, source: Source) -> list[str]:
    """The held names that are listed or match a pattern of fnmatch, in the file's order.

    Raises:
        CheckpointError: a name or pattern matches nothing; or it names what is refused, lies in
            it, or may match a tensor that lies in it.
        TypeError: a name is no string.
    """
    held = list(source.stored)
    known = set(held)
    chosen: set[str] = set()
    lost = []
    for name in [names] if isinstance(names, str) else list(names):
        if not isinstance(name, str):
            raise TypeError(f"names: expected strings, got {name!r}")
        # A name that holds signs of patterns itself is taken as it is.
        found = {name} if name in known else {n for n in held if fnmatchcase(n, name)}
        for of, refused in source.refused.items():
            if name not in known and _means(name, of, refused.holds_tensors):
                raise CheckpointError(
                    f"{source.label}: names={name!r} asks for what is not read: {refused.why}"
                )
        if not found:
            lost.append(repr(name))
        chosen |= found
    if lost:
        some = ", ".join(repr(n) for n in held[:5]) + (", …" if len(held) > 5 else "")
        raise CheckpointError(
            f"{source.label}: nothing is named {', '.join(lost)}; it holds {len(held)} arrays: "
            f"{some}. Give names or patterns such as 'encoder.*'"
        )
    return [n for n in held if n in chosen]


def _means(name: str, refused: str, holds_tensors: bool) -> bool:
    """Whether a name or pattern means what is refused, or may mean a tensor in it."""
    inside = f"{refused}." if refused else ""
    if name == refused or name.startswith(inside):
        return True
    if not holds_tensors:
        return False
    head = name[: min((name.find(sign) for sign in "*?[" if sign in name), default=len(name))]
    return head != name and inside.startswith(head)
