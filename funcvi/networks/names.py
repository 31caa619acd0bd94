"""Weights by name: dotted paths of a pytree, and patterns over them."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import jax
import jax.numpy as jnp
import numpy as np

from funcvi._types import Params

__all__ = ["dotted", "flatten", "matching"]


def dotted(path: tuple[jax.tree_util.KeyEntry, ...]) -> str:
    """The name of a leaf: the keys on its path, joined by dots."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def flatten(params: Params) -> tuple[dict[str, jax.Array], jax.tree_util.PyTreeDef]:
    """The leaves by dotted name, and the structure of the pytree.

    Raises:
        TypeError: a leaf is no array of floating-point numbers.
        ValueError: two leaves have one name.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    named: dict[str, jax.Array] = {}
    for path, leaf in paths:
        name = dotted(path)
        if name in named:
            raise ValueError(f"bayesian: two weights have the dotted name '{name}'; rename one")
        if not isinstance(leaf, float | int | np.ndarray | np.generic | jax.Array):
            raise TypeError(
                f"bayesian: weight '{name}' is of type {type(leaf).__name__}; weights must be "
                "floating-point arrays. Separate the arrays first, as by eqx.partition(model, "
                "eqx.is_inexact_array), and combine them inside the function."
            )
        named[name] = jnp.asarray(leaf)
        if not jnp.issubdtype(named[name].dtype, jnp.floating):
            raise TypeError(
                f"bayesian: weight '{name}' is {named[name].dtype}; weights must be floating-point "
                "arrays. Close over what is not a weight, or pass it as an input."
            )
    return named, structure


def matching(patterns: Iterable[str], names: Sequence[str], what: str) -> dict[str, str]:
    """For each name the first pattern that matches it; a pattern that matches none is an error.

    Raises:
        ValueError: with the pattern, and names that there are.
    """
    first: dict[str, str] = {}
    for pattern in patterns:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
            raise ValueError(f"{what}: no weight's name matches '{pattern}'; the names are {shown}")
        for name in matched:
            first.setdefault(name, pattern)
    return first
