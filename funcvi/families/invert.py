"""Distributions to params: read each argument off the instance and take it through its bijection."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import transforms as nt

from funcvi.bijections import constraint_name
from funcvi.families.evaluate import _at, _dotted, has_params, resolve_bijection
from funcvi.families.nodes import is_joint
from funcvi.families.parameter import MISSING
from funcvi.families.recipes import recipe_of
from funcvi.families.slots import Choice, Fixed, Free, JointNode, Node, Tied
from funcvi.transforms import CovarianceFactor, Exp, LowerBound, Ordered, Softplus, UpperBound

__all__ = ["invert"]

_LIMIT = 80.0  # the largest |u| at which every bijection is finite in float32


def invert(root: Any, distribution: Any) -> Any:
    """The params at which the tree ``root`` gives ``distribution``."""
    return _invert(root, distribution, ())


def _invert(node: Any, instance: Any, path: tuple[Any, ...]) -> Any:
    if isinstance(node, Fixed):
        return {}
    if isinstance(node, JointNode):
        return _invert_joint(node, instance, path)
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
            params[name] = unconstrained(values[name], slot, values, where)
        elif isinstance(slot, Fixed):
            _check_held(recipe, name, slot, values, where)
        elif isinstance(slot, Tied):
            _check_tied(name, slot, values, where)
        elif has_params(slot):
            params[name] = _invert(slot, recipe.parameters[name].read(instance), where)
            if recipe.transparent == name:
                return params[name]
    return params


def _invert_joint(node: JointNode, joint: Any, path: tuple[Any, ...]) -> Any:
    if not is_joint(joint):
        raise TypeError(
            f"this family{_at(path)} is a joint of {len(node.members)}, got {_kind_name(joint)}."
        )
    items = dict(joint) if isinstance(joint, Mapping) else dict(enumerate(joint))
    if set(items) != set(node.members):
        raise ValueError(
            f"the joint{_at(path)} must have members {sorted(map(str, node.members))}; "
            f"got {sorted(map(str, items))}."
        )
    members = {k: _invert(m, items[k], (*path, k)) for k, m in node.members.items()}
    if node.kind is dict:
        return members
    is_named = hasattr(node.kind, "_fields")
    return node.kind(*members.values()) if is_named else node.kind(members.values())


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

    def __iter__(self) -> Any:
        return iter(self._node.slots)

    def __len__(self) -> int:
        return len(self._node.slots)


def unconstrained(value: Any, slot: Free, values: Mapping[str, Any], path: tuple[Any, ...]) -> Any:
    """``value`` through the inverse bijection, refusing what lies on or next to a boundary."""
    if not isinstance(value, jax.core.Tracer):
        given = np.asarray(value)
        if given.dtype == object or np.iscomplexobj(given):
            raise TypeError(f"{_dotted(path)} must be a real array, got {type(value).__name__}.")
    dtype = jnp.result_type(value, jnp.result_type(float))
    x = jnp.asarray(value, dtype)
    bijection = resolve_bijection(slot, values)
    u = jnp.asarray(bijection.inv(x), dtype)
    if not isinstance(u, jax.core.Tracer):
        _check_interior(value, u, bijection, slot, path)
    if slot.shape is not None and u.shape[u.ndim - len(slot.shape) :] != slot.shape:
        raise ValueError(f"{_dotted(path)} must have shape (*batch, *{slot.shape}), got {u.shape}.")
    return u


def _check_interior(value: Any, u: Any, bijection: Any, slot: Free, path: tuple[Any, ...]) -> None:
    if np.isnan(np.asarray(value, float)).any():
        raise ValueError(f"{_dotted(path)} is NaN: give a finite initial value.")
    if _is_interior(u, bijection):
        return
    what = constraint_name(slot.constraint if slot.constraint is not None else bijection.codomain)
    works = _nearby(value, u, bijection)
    raise ValueError(
        f"{_dotted(path)} = {_shown(value)} lies on, next to or outside the boundary of its "
        f"constraint ({what}), where the unconstrained value is not finite.\n"
        f"A value that works: {_shown(works)}."
    )


def _is_interior(u: Any, bijection: Any) -> bool:
    u = np.asarray(u)
    return bool(np.isfinite(u).all() and (np.abs(_log_scaled(u, bijection)) <= _LIMIT).all())


def _log_scaled(u: np.ndarray, bijection: Any) -> np.ndarray:
    """The coordinates of ``u`` that go through exp or a sigmoid; the others may be any size."""
    while isinstance(bijection, nt.IndependentTransform):
        bijection = bijection.base_transform
    if isinstance(bijection, nt.ComposeTransform):
        bijection = bijection.parts[0]
    if isinstance(bijection, Softplus):
        return np.minimum(u, 0)
    if isinstance(bijection, (CovarianceFactor, nt.LowerCholeskyTransform)):
        n = CovarianceFactor._size(u.shape[-1])
        return u[..., -n:]
    if isinstance(bijection, Ordered) and type(bijection) is Ordered:
        return u[..., 1:]
    if isinstance(bijection, nt.IdentityTransform) or getattr(
        bijection.codomain, "base_constraint", bijection.codomain
    ) in (nt.constraints.real, nt.constraints.circular):
        return np.zeros(1)
    return u


def _nearby(value: Any, u: Any, bijection: Any) -> Any:
    """A value close to ``value`` that does work; at worst, the image of zero."""
    value = np.asarray(value, float)
    for candidate in _candidates(value, bijection):
        try:
            x = jnp.asarray(candidate, u.dtype)
            if np.isfinite(candidate).all() and _is_interior(bijection.inv(x), bijection):
                return np.asarray(x)
        except (TypeError, ValueError):
            continue
    return np.asarray(bijection(jnp.zeros_like(u)))


def _candidates(value: np.ndarray, bijection: Any) -> Any:
    while isinstance(bijection, nt.IndependentTransform):
        bijection = bijection.base_transform
    name = constraint_name(bijection.codomain)
    if isinstance(bijection, (Exp, Softplus, LowerBound)):
        bound = np.asarray(getattr(bijection, "floor", getattr(bijection, "bound", 0.0)))
        yield np.maximum(value, bound + 1e-3 * np.maximum(1, np.abs(bound)))
    elif isinstance(bijection, UpperBound):
        bound = np.asarray(bijection.bound)
        yield np.minimum(value, bound - 1e-3 * np.maximum(1, np.abs(bound)))
    elif "interval" in name:
        low, high = (
            np.asarray(getattr(bijection.codomain, f"{s}_bound")) for s in ("lower", "upper")
        )
        margin = 1e-3 * (high - low)
        yield np.clip(value, low + margin, high - margin)
    elif name == "simplex":
        raised = np.maximum(value, 1e-3)
        yield raised / raised.sum(-1, keepdims=True)
    elif "ordered" in name:
        gaps = 1e-3 * np.maximum(1, np.abs(value).max(-1, keepdims=True))
        spread = np.sort(value, -1) + gaps * np.arange(value.shape[-1])
        yield (
            spread
            if "positive" not in name
            else np.maximum(spread, gaps * (1 + np.arange(value.shape[-1])))
        )
    elif value.ndim >= 2:
        eye = np.eye(value.shape[-1])
        size = np.maximum(np.abs(np.nan_to_num(value)).max(), 1.0)
        yield np.nan_to_num(value) + 1e-3 * size * eye


def _shown(value: Any) -> str:
    value = np.asarray(value, float)
    if value.ndim == 0:
        return f"{float(value):.6g}"
    text = np.array2string(value, precision=4, threshold=12, edgeitems=2, separator=", ")
    return " ".join(text.split())


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
    if slot.source not in values._node.slots:
        return  # tied across the tree: not seen from here; what the source has is what it becomes
    expected = values[slot.source]
    if slot.function is not None:
        expected = slot.function(expected)
    if not _agree(values[name], expected, 1e-4):
        raise ValueError(
            f"{_dotted(path)} is tied to {slot.source!r} and would be {_brief(expected)}, but the "
            f"distribution has {_brief(values[name])}."
        )


def _agree(actual: Any, expected: Any, tolerance: float = 1e-6) -> bool:
    if actual is expected:
        return True
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((actual, expected))):
        return True
    try:
        a, b = np.asarray(actual), np.asarray(expected)
        if a.dtype != object and b.dtype != object:
            return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))
    except (TypeError, ValueError):
        pass
    return type(actual) is type(expected)


def _brief(value: Any) -> str:
    try:
        return _shown(value)
    except (TypeError, ValueError):
        return repr(value)
