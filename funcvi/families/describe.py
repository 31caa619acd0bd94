"""How a family prints: one line for each parameter, its constraint, and what becomes of it."""

from collections.abc import Hashable
from math import prod

import numpy as np
from numpyro.distributions import transforms as nt

from funcvi.families.roles import Choice, Fixed, Learned, Members, Nested, Role, Tied, Tree
from funcvi.families.signatures import MISSING, shape_of
from funcvi.runtime_checks import concrete

__all__ = ["describe"]


def describe(tree: Tree) -> str:
    """The text of ``repr(family)``."""
    return "\n".join([f"Family of {_title(tree)}", *_lines(tree, "  ")])


def _title(role: Role) -> str:
    match role:
        case Members():
            return f"a joint of {len(role.members)}"
        case Choice():
            return role.options[0].signature.name
        case Nested(signature, roles) if signature.transparent is not None:
            return f"{signature.name}({_title(roles[signature.transparent])})"
        case Nested(signature):
            return signature.name
        case _:
            return _role(role)


def _lines(role: Role, indent: str) -> list[str]:
    match role:
        case Members():
            return [line for k, m in role.members.items() for line in _entry(k, m, indent)]
        case Choice():
            options = (_lines(option, indent + "  ") for option in role.options)
            return [line for option in options for line in (f"{indent}one of:", *option)]
        case Nested(signature, roles):
            return [
                line
                for name, inner in roles.items()
                for line in (
                    _lines(inner, indent)
                    if signature.transparent == name
                    else _entry(name, inner, indent)
                )
            ]
        case _:
            return []


def _entry(name: Hashable, role: Role, indent: str) -> list[str]:
    if isinstance(role, (Nested, Choice, Members)):
        return [f"{indent}{name}: {_title(role)}", *_lines(role, indent + "  ")]
    if isinstance(role, Fixed) and role.value is None:
        return []
    return [f"{indent}{name}: {_role(role)}"]


def _role(role: Role) -> str:
    match role:
        case Learned():
            shape = f", shape {role.shape}" if role.shape else ""
            return f"{role}, free{_by(role)}{shape}{_shared(role)}"
        case Tied():
            through = " through a function" if role.function is not None else ""
            return f"tied to {role.source}{through}"
        case Fixed() if role.value is MISSING:
            return "fixed, value still to be given"
        case Fixed():
            return f"fixed at {_value(role.value)}"
        case _:
            return _title(role)


def _by(role: Learned) -> str:
    bijection = role.bijection
    while isinstance(bijection, nt.IndependentTransform):
        bijection = bijection.base_transform
    if not isinstance(bijection, nt.Transform) or isinstance(bijection, nt.IdentityTransform):
        return ""  # it depends on a sibling, and the constraint says so
    name = type(bijection).__name__.removesuffix("Transform").lower()
    floor = concrete(getattr(bijection, "floor", 0.0))
    if floor is None or floor.ndim or not floor:
        return f" by {name}"
    return f" by {name} with floor {float(floor):g}"


def _shared(role: Learned) -> str:
    if not role.shared or role.batch is None or role.shape is None:
        return ", shared" if role.shared else ""
    bijection = role.bijection
    event_dim = bijection.domain.event_dim if isinstance(bijection, nt.Transform) else 0
    return f", shared by {prod(role.batch) // prod(role.shape[: len(role.shape) - event_dim])}"


def _value(value: object) -> str:
    if isinstance(value, (bool, int, float, str, tuple)):
        return str(value)
    if not hasattr(value, "ndim"):
        return type(value).__name__.removesuffix("Transform")
    array = concrete(value)
    if array is None:
        return f"a traced array of shape {shape_of(value)}"
    if array.ndim == 0:
        return f"{array.item():g}" if np.isrealobj(array) else str(array.item())
    if array.size > 8:
        return f"an array of shape {array.shape}"
    return " ".join(np.array2string(array, precision=4, separator=", ").split())
