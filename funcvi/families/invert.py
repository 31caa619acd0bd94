"""Distributions to params: each argument, read off the instance, through its bijection."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcvi.families.evaluate import Evaluation, _at, _dotted, has_params, resolve_bijection
from funcvi.families.interior import check_interior, shown
from funcvi.families.parameter import MISSING
from funcvi.families.recipes import recipe_of
from funcvi.families.slots import Choice, Fixed, Free, JointNode, Node, Tied
from funcvi.families.tables import ALTERNATIVES, KEPT_AS
from funcvi.joints import is_joint, joint_like, members_of

__all__ = ["invert"]


def invert(root: Any, distribution: Any) -> Any:
    """The params at which the tree ``root`` gives ``distribution``."""
    far_ties: list[tuple[Node, str, Any, tuple[Any, ...]]] = []
    params = _invert(root, distribution, (), far_ties)
    if far_ties:
        run = Evaluation(root, params)
        for node, name, values, path in far_ties:
            _check_far_tie(run, node, name, values, path)
    return params


def _invert(node: Any, instance: Any, path: tuple[Any, ...], far_ties: list[Any]) -> Any:
    if isinstance(node, Fixed):
        return {}
    if isinstance(node, JointNode):
        return _invert_joint(node, instance, path, far_ties)
    if isinstance(node, Choice):
        node = _choose(node, instance, path)
    recipe = node.recipe
    if not _same_kind(node, instance):
        raise TypeError(
            f"this family{_at(path)} is of {recipe.name}, got {_kind_name(instance)}: "
            "use fv.unconstrain(distribution) for a family of its own."
        )
    values = _Read(node, instance)
    params: dict[str, Any] = {}
    for name, slot in node.slots.items():
        where = path if recipe.transparent == name else (*path, name)
        if isinstance(slot, Free):
            params[name] = unconstrained(values[name], slot, values, where, values.given(name))
        elif isinstance(slot, Fixed):
            _check_held(recipe, name, slot, values, where)
        elif isinstance(slot, Tied) and slot.source in node.slots:
            _check_tied(name, slot, values, where)
        elif isinstance(slot, Tied):
            far_ties.append((node, name, values, where))
        elif has_params(slot):
            params[name] = _invert(slot, recipe.parameters[name].read(instance), where, far_ties)
            if recipe.transparent == name:
                return params[name]
    return params


def _invert_joint(node: JointNode, joint: Any, path: tuple[Any, ...], far_ties: list[Any]) -> Any:
    if not is_joint(joint):
        raise TypeError(
            f"this family{_at(path)} is a joint of {len(node.members)}, got {_kind_name(joint)}."
        )
    items = members_of(joint)
    if set(items) != set(node.members):
        raise ValueError(
            f"the joint{_at(path)} must have members {sorted(map(str, node.members))}; "
            f"got {sorted(map(str, items))}."
        )
    members = {k: _invert(m, items[k], (*path, k), far_ties) for k, m in node.members.items()}
    return joint_like(node.kind, members)


def _choose(node: Choice, instance: Any, path: tuple[Any, ...]) -> Node:
    for option in node.options:
        if _same_kind(option, instance) and option.recipe.matches(instance):
            return option
    raise TypeError(
        f"this family{_at(path)} is of {node.options[0].recipe.name}, got {_kind_name(instance)}."
    )


def _same_kind(node: Node, instance: Any) -> bool:
    build = node.recipe.build
    if isinstance(build, type):
        return type(instance) is build
    own = recipe_of(instance) if not is_joint(instance) else None
    return (own is not None and own.name == node.recipe.name) or (
        own is not None and own.build is not build and node.recipe.matches(instance)
    )


def _kind_name(instance: Any) -> str:
    return type(instance).__name__


class _Read(Mapping[str, Any]):
    """The constrained values of an instance, by parameter name or constructor argument."""

    def __init__(self, node: Node, instance: Any) -> None:
        self._node, self._instance = node, instance

    def __getitem__(self, name: str) -> Any:
        parameters = self._node.recipe.parameters
        slots = self._node.slots
        if name not in parameters:
            name = next(n for n, s in slots.items() if getattr(s, "argument", None) == name)
        parameter = parameters[name]
        if parameter.argument is not None and getattr(slots[name], "argument", None) is None:
            return getattr(self._instance, name)  # the user's own bijection: the matrix itself
        return parameter.read(self._instance)

    def factor(self, name: str) -> Any:
        return self._node.recipe.parameters[name].read(self._instance)

    def given(self, name: str) -> Any:
        """The matrix itself, of a parameter that is carried as its factor; else None."""
        build = self._node.recipe.build
        if self._node.slots[name].argument is None or build not in ALTERNATIVES:
            return None
        holder = ALTERNATIVES[build][1](self._instance)
        return getattr(holder, KEPT_AS.get(name, name))

    def __iter__(self) -> Any:
        return iter(self._node.slots)

    def __len__(self) -> int:
        return len(self._node.slots)


def unconstrained(
    value: Any, slot: Free, values: Mapping[str, Any], path: tuple[Any, ...], given: Any = None
) -> Any:
    """``value`` through the inverse bijection, refusing what lies on or next to a boundary.

    ``given`` is what the user wrote, where ``value`` is a factor of that.
    """
    if not isinstance(value, jax.core.Tracer):
        array = np.asarray(value)
        if array.dtype == object or np.iscomplexobj(array):
            raise TypeError(f"{_dotted(path)} must be a real array, got {type(value).__name__}.")
    dtype = jnp.result_type(value, jnp.result_type(float))
    x = jnp.asarray(value, dtype)
    bijection = resolve_bijection(slot, values)
    u = jnp.asarray(bijection.inv(x), dtype)
    if not isinstance(u, jax.core.Tracer):
        check_interior(value if given is None else given, u, bijection, slot, _dotted(path))
    if slot.shape is not None and u.shape[u.ndim - len(slot.shape) :] != slot.shape:
        raise ValueError(f"{_dotted(path)} must have shape (*batch, *{slot.shape}), got {u.shape}.")
    return u


def _check_held(recipe: Any, name: str, slot: Fixed, values: _Read, path: tuple[Any, ...]) -> None:
    parameter = recipe.parameters[name]
    actual = values[name]
    if slot.value is MISSING:
        if parameter.kind in ("static", "constant", "nested"):
            raise ValueError(
                f"{recipe.name}.{name} = {actual!r} would be lost: this family does not know it. "
                f"Use fv.unconstrain(distribution), or fv.family({recipe.name}, {name}=...)."
            )
        return
    if not _agree(actual, slot.value):
        raise ValueError(
            f"{_dotted(path)} is held at {_brief(slot.value)} in this family, but the distribution "
            f"has {_brief(actual)}: free it, or hold that value."
        )


def _check_tied(name: str, slot: Tied, values: _Read, path: tuple[Any, ...]) -> None:
    expected = values[slot.source]
    if slot.function is not None:
        expected = slot.function(expected)
    _check_follows(slot, values[name], expected, path)


def _check_far_tie(
    run: Evaluation, node: Node, name: str, values: _Read, path: tuple[Any, ...]
) -> None:
    """The source is elsewhere in the tree: it is what the params found for it make of it."""
    slot = node.slots[name]
    argument, expected = run.tied_to(node, slot, path)
    is_factor = slot.function is None and argument == node.recipe.parameters[name].argument
    _check_follows(slot, values.factor(name) if is_factor else values[name], expected, path)


def _check_follows(slot: Tied, actual: Any, expected: Any, path: tuple[Any, ...]) -> None:
    if not _agree(actual, expected, 1e-4):
        raise ValueError(
            f"{_dotted(path)} is tied to {slot.source!r} and would be {_brief(expected)}, but the "
            f"distribution has {_brief(actual)}."
        )


def _agree(actual: Any, expected: Any, tolerance: float = 1e-6) -> bool:
    if actual is expected:
        return True
    kinds: list[Any] = [jax.tree.structure(tree) for tree in (actual, expected)]
    if kinds[0] != kinds[1]:
        return False
    a, b = jax.tree.leaves(actual), jax.tree.leaves(expected)
    return all(_agree_leaf(x, y, tolerance) for x, y in zip(a, b, strict=True))


def _agree_leaf(actual: Any, expected: Any, tolerance: float) -> bool:
    if actual is expected or any(isinstance(x, jax.core.Tracer) for x in (actual, expected)):
        return True
    try:
        a, b = np.asarray(actual), np.asarray(expected)
        if a.dtype.kind in "biufc" and b.dtype.kind in "biufc":
            return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))
        return bool(actual == expected)
    except (TypeError, ValueError):  # a sparse matrix, or shapes that do not broadcast
        return type(actual) is type(expected) and np.shape(actual) == np.shape(expected)


def _brief(value: Any) -> str:
    try:
        return shown(value)
    except (TypeError, ValueError):
        return repr(value)
