"""Supports of sites as text, and back."""

from typing import Any

import numpy as np
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint

from funcvi._jax import is_concrete

__all__ = ["described", "support_of"]

# By name: those of no parameters, and the classes of those with some.
_ALL = {name: x for name, x in vars(constraints).items() if name.islower() and name[0] != "_"}
_SINGLE = {name: c for name, c in _ALL.items() if isinstance(c, Constraint)}
_CLASSES = {
    name: c for name, c in _ALL.items() if isinstance(c, type) and issubclass(c, Constraint)
}


def described(support: Any) -> dict[str, Any]:
    """As JSON.

    Raises:
        ValueError: it has no name in ``numpyro.distributions.constraints``, or unknown bounds.
    """
    for name, one in _SINGLE.items():
        if one is support or (type(one) is type(support) and not _parts(support)[0]):
            return {"name": name}
    for name, kind in _CLASSES.items():
        if type(support) is kind:
            leaves, (names, others) = _parts(support)
            if not is_concrete(leaves):
                raise ValueError("its bounds are traced: save outside of jax.jit.")
            held = dict(zip(names, leaves, strict=True)) | dict(others)
            return {"name": name, "of": {n: _plain(x) for n, x in held.items()}}
    raise ValueError(f"{type(support).__name__} is no constraint that numpyro names.")


def support_of(description: dict[str, Any]) -> Constraint:
    """What :func:`described` described."""
    name = description["name"]
    if "of" not in description:
        return _SINGLE[name]
    held = {n: _back(x) for n, x in description["of"].items()}
    return _CLASSES[name](**held)


def _parts(support: Any) -> Any:
    """What it is made of: values, and their names and what else there is."""
    return support.tree_flatten()


def _plain(value: Any) -> Any:
    if isinstance(value, Constraint):
        return described(value)
    array = np.asarray(value)
    return {"dtype": str(array.dtype), "values": array.tolist()}


def _back(value: Any) -> Any:
    if "name" in value:
        return support_of(value)
    array = np.asarray(value["values"], value["dtype"])
    return array.item() if array.ndim == 0 else array
