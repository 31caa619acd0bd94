"""How a family prints: one line for each parameter, its constraint, and what becomes of it."""

from typing import Any

import jax
import numpy as np

from funcvi.constraints import constraint_name
from funcvi.families.parameter import MISSING
from funcvi.families.slots import Choice, Fixed, Free, JointNode, Node, Tied

__all__ = ["describe"]


def describe(root: Any) -> str:
    """The text of ``repr(family)``."""
    lines = [f"Family of {_title(root)}", *_lines(root, ())]
    return "\n".join(lines)


def _title(node: Any) -> str:
    if isinstance(node, JointNode):
        return f"a joint of {len(node.members)}"
    if isinstance(node, Choice):
        return node.options[0].recipe.name
    if not isinstance(node, Node):
        return repr(node)
    if node.recipe.transparent is not None:
        return f"{node.recipe.name}({_title(node.slots[node.recipe.transparent])})"
    return node.recipe.name


def _lines(node: Any, path: tuple[Any, ...]) -> list[str]:
    depth = "  " * (len(path) + 1)
    if isinstance(node, JointNode):
        lines = []
        for key, member in node.members.items():
            lines += _nested(str(key), member, path, depth)
        return lines
    if isinstance(node, Choice):
        lines = []
        for option in node.options:
            lines += [f"{depth}one of:", *_lines(option, (*path, ""))]
        return lines
    lines = []
    for name, slot in node.slots.items():
        if node.recipe.transparent == name:
            lines += _lines(slot, path)
        elif isinstance(slot, (Node, Choice, JointNode)):
            lines += _nested(name, slot, path, depth)
        elif not (isinstance(slot, Fixed) and slot.value is None):
            lines.append(f"{depth}{name}: {_slot(slot)}")
    return lines


def _nested(name: str, node: Any, path: tuple[Any, ...], depth: str) -> list[str]:
    if isinstance(node, Fixed):
        return [f"{depth}{name}: {_slot(node)}"]
    return [f"{depth}{name}: {_title(node)}", *_lines(node, (*path, name))]


def _slot(slot: Any) -> str:
    if isinstance(slot, Free):
        shape = f", shape {slot.shape}" if slot.shape else ""
        return f"{constraint_name(slot.constraint)}, free{_by(slot.bijection)}{shape}"
    if isinstance(slot, Tied):
        through = " through a function" if slot.function is not None else ""
        return f"tied to {slot.source}{through}"
    if slot.value is MISSING:
        return "fixed, value still to be given"
    return f"fixed at {_value(slot.value)}"


def _by(bijection: Any) -> str:
    if not hasattr(bijection, "domain"):
        return ""  # depends on a sibling: the constraint says it
    while hasattr(bijection, "base_transform"):
        bijection = bijection.base_transform
    name = type(bijection).__name__.removesuffix("Transform").lower()
    floor = getattr(bijection, "floor", 0.0)
    if name in ("identity",):
        return ""
    return f" by {name}" + (
        f" with floor {float(floor):g}" if np.ndim(floor) == 0 and floor else ""
    )


def _value(value: Any) -> str:
    if isinstance(value, jax.core.Tracer):
        return f"a traced array of shape {value.shape}"
    if isinstance(value, (jax.Array, np.ndarray)):
        if value.ndim == 0:
            return f"{value.item():g}" if np.isrealobj(value) else str(value.item())
        if value.size > 8:
            return f"an array of shape {value.shape}"
        return " ".join(np.array2string(np.asarray(value), precision=4, separator=", ").split())
    if isinstance(value, (bool, int, float, str, tuple)):
        return str(value)
    return type(value).__name__.removesuffix("Transform")
