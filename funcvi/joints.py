"""Joints: dicts, tuples and lists of independent members, walked and rebuilt in one place."""

from collections.abc import Mapping
from typing import Any

__all__ = ["is_joint", "joint_like", "members_of"]


def is_joint(value: Any) -> bool:
    """Whether this is a joint: a dict, tuple or list (a NamedTuple counts as a tuple)."""
    return isinstance(value, (Mapping, tuple, list))


def members_of(joint: Any) -> dict[Any, Any]:
    """Members by key; those of a tuple or list by position."""
    return dict(joint) if isinstance(joint, Mapping) else dict(enumerate(joint))


def joint_like(kind: Any, members: Mapping[Any, Any]) -> Any:
    """A joint of this kind with these members, in this order."""
    if issubclass(kind, Mapping):
        return dict(members)
    return kind(*members.values()) if hasattr(kind, "_fields") else kind(members.values())
