"""Joints: dicts, tuples and lists of independent members, walked and rebuilt in one place."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax

from funcvi._types import Key

__all__ = ["is_joint", "joint_like", "keys_of", "map_members", "members_of"]


def is_joint(value: object) -> bool:
    """Whether this is a joint: a dict, tuple or list (a NamedTuple counts as a tuple)."""
    return isinstance(value, (Mapping, tuple, list))


def members_of(joint: Any) -> dict[Hashable, Any]:
    """Members by key; those of a tuple or list by position."""
    return dict(joint) if isinstance(joint, Mapping) else dict(enumerate(joint))


def keys_of(joint: Any, key: Key) -> dict[Hashable, Key]:
    """A key for each member.

    A dict's are handed out by sorted name: jit and vmap sort the dicts that pass through them, and
    the same joint must be drawn by the same keys on both sides.
    """
    names = sorted(joint) if type(joint) is dict else list(members_of(joint))
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))


def map_members(function: Callable[[Any, Key], Any], joint: Any, key: Key) -> Any:
    """The joint of ``function(member, its key)``."""
    keys = keys_of(joint, key)
    each = {name: function(x, keys[name]) for name, x in members_of(joint).items()}
    return joint_like(type(joint), each)


def joint_like(kind: Any, members: Mapping[Hashable, Any]) -> Any:
    """A joint of this kind with these members, in this order."""
    if issubclass(kind, Mapping):
        return dict(members)
    return kind(*members.values()) if hasattr(kind, "_fields") else kind(members.values())
