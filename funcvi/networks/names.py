"""Weights by name: dotted paths of a pytree, and patterns over them."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["flatten", "matching", "unflatten"]


def flatten(params: Any) -> tuple[dict[str, Any], Any]:
    """The leaves by dotted name, and the structure that :func:`unflatten` takes."""
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="."): jnp.asarray(leaf)
        for path, leaf in paths
    }
    if len(named) != len(paths):
        raise ValueError("params: two leaves have the same dotted name; rename one")
    return named, structure


def unflatten(structure: Any, names: Sequence[str], named: Mapping[str, Any]) -> Any:
    """The pytree with the leaves ``named``, in the order of ``names``."""
    return jax.tree.unflatten(structure, [named[name] for name in names])


def matching(patterns: Iterable[str], names: Sequence[str], what: str) -> dict[str, str]:
    """For each name the first pattern that matches it; a pattern that matches none is an error.

    Raises:
        ValueError: with the pattern, and names that there are.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
            raise ValueError(f"{what}: no weight's name matches '{pattern}'; there are {shown}")
        for name in matched:
            found.setdefault(name, pattern)
    return found
