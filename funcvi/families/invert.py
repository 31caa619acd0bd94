"""Distributions to params: each argument, read off the instance, through its bijection."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from funcvi._types import Joint, Params
from funcvi.families.batches import Context, below, for_members, in_batch
from funcvi.families.evaluate import Evaluation, dotted_path, place
from funcvi.families.interior import check_interior, shown
from funcvi.families.roles import (
    Choice,
    Fixed,
    Learned,
    Members,
    Nested,
    Path,
    Tied,
    Tree,
    has_params,
)
from funcvi.families.signatures import MISSING, Argument, Instance, Kind, shape_of
from funcvi.joints import is_joint, joint_like, members_of
from funcvi.runtime_checks import concrete

__all__ = ["invert"]


#: Of a tie to a parameter elsewhere in the tree, whose value is known when all params are.
FarCheck: TypeAlias = Callable[[Evaluation], None]


def invert(tree: Tree, distribution: Joint) -> Params:
    """The params at which ``tree`` gives ``distribution``."""
    far_ties: list[FarCheck] = []
    params = _invert(tree, distribution, (), None, far_ties)
    run = Evaluation(tree, params)
    for check in far_ties:
        check(run)
    return params


def _invert(
    tree: Tree, instance: object, path: Path, context: Context, far_ties: list[FarCheck]
) -> Params:
    if isinstance(tree, Fixed):
        return {}
    if isinstance(tree, Members):
        return _invert_joint(tree, instance, path, context, far_ties)
    node = _fitting(tree, instance, path)
    signature = node.signature
    params: dict[str, Params] = {}
    for name, role in node.roles.items():
        argument = signature.arguments[name]
        is_transparent = signature.transparent == name
        where = path if is_transparent else (*path, name)
        match role:
            case Learned():
                params[name] = _unconstrained(role, node, name, instance, where, context)
            case Fixed():
                _check_held(node, name, role, _value(node, name, instance), where)
            case Tied() if role.source in node.roles:
                source = _value(node, role.source, instance)
                expected = source if role.function is None else role.function(source)
                _check_follows(role, _value(node, name, instance), expected, where)
            case Tied():
                far_ties.append(
                    partial(_check_far_tie, role, argument, node, instance, where, context)
                )
            case _ if has_params(role):
                child = argument.read(instance)
                inner = _invert(role, child, where, below(instance, argument, context), far_ties)
                if is_transparent:
                    return inner
                params[name] = inner
    return params


def _invert_joint(
    tree: Members, joint: object, path: Path, context: Context, far_ties: list[FarCheck]
) -> Params:
    if not is_joint(joint):
        raise TypeError(
            f"this family{place(path)} is a joint of {len(tree.members)}, "
            f"got {type(joint).__name__}."
        )
    items = members_of(joint)
    if set(items) != set(tree.members):
        raise ValueError(
            f"the joint{place(path)} must have members {sorted(map(str, tree.members))}; "
            f"got {sorted(map(str, items))}."
        )
    contexts = for_members(joint, context)
    params = {
        key: _invert(member, items[key], (*path, key), contexts[key], far_ties)
        for key, member in tree.members.items()
    }
    return joint_like(tree.kind, params)


def _fitting(tree: Nested | Choice, instance: object, path: Path) -> Nested:
    """The option that the instance was made by, or else one that can make it."""
    options = tree.options if isinstance(tree, Choice) else (tree,)
    exact = [o for o in options if o.signature.matches(instance)]
    fitting = exact or [o for o in options if o.signature.fits(instance)]
    if fitting:
        return fitting[0]
    raise TypeError(
        f"this family{place(path)} is of {options[0].signature.name}, "
        f"got {type(instance).__name__}: use fv.unconstrain(distribution) for a family of its own."
    )


def _value(node: Nested, name: str, instance: Instance) -> object:
    """The constrained value of a parameter, or its factor where the role takes that."""
    role, argument = node.roles[name], node.signature.arguments[name]
    keeps_factor = (isinstance(role, Learned) and role.carried is not None) or (
        isinstance(role, Fixed) and role.keyword is not None
    )
    return argument.factor(instance) if keeps_factor else argument.read(instance)


def _unconstrained(
    role: Learned, node: Nested, name: str, instance: Instance, path: Path, context: Context
) -> jax.Array:
    """A value through the inverse bijection; what lies on or next to a boundary is refused."""
    label, value = dotted_path(path), _value(node, name, instance)
    dtype = jnp.result_type(value, jnp.result_type(float))
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{label} must be a real array, got {type(value).__name__}.")
    x = jnp.asarray(value, dtype)
    argument = node.signature.arguments[name]
    bijection = role.at(node.roles, lambda sibling: _value(node, sibling, instance))
    event_dim = bijection.codomain.event_dim
    if not role.shared:
        x = in_batch(x, event_dim, argument, instance, context, label)
    elif role.batch is not None and role.shape is not None:
        # Without the axes that the family puts between leading ones and the value's own.
        missing = len(role.batch) - (len(role.shape) - bijection.domain.event_dim)
        extra = x.ndim - event_dim - len(role.batch)
        if missing > 0 and extra >= 0:
            if set(x.shape[extra : extra + missing]) != {1}:
                raise ValueError(f"{label} is shared, but the distribution has several values.")
            x = x.reshape(x.shape[:extra] + x.shape[extra + missing :])
    u = jnp.asarray(bijection.inv(x), dtype)
    as_written = argument.read(instance) if role.carried else x
    check_interior(as_written, u, bijection, role, label)
    if u.ndim > x.ndim + bijection.domain.event_dim - bijection.codomain.event_dim or (
        role.shared and np.size(u) > np.prod(bijection.inverse_shape(x.shape))
    ):
        raise ValueError(
            f"{label} is shared, but its constraint ({role}) differs within the batch: share "
            "what it depends on too."
        )
    if role.shape is not None and u.shape[max(u.ndim - len(role.shape), 0) :] != role.shape:
        raise ValueError(f"{label} must have shape (*batch, *{role.shape}), got {u.shape}.")
    return u


def _check_held(node: Nested, name: str, role: Fixed, actual: object, path: Path) -> None:
    constructor = node.signature.name
    if role.value is MISSING:
        if node.signature.arguments[name].kind in (Kind.STATIC, Kind.CONSTANT, Kind.NESTED):
            raise ValueError(
                f"{constructor}.{name} = {actual!r} would be lost: this family does not know it. "
                f"Use fv.unconstrain(distribution), or fv.family({constructor}, {name}=...)."
            )
    elif not _agree(actual, role.value):
        raise ValueError(
            f"{dotted_path(path)} is held at {_brief(role.value)} in this family, but the "
            f"distribution has {_brief(actual)}: free it, or hold that value."
        )


def _check_far_tie(
    role: Tied,
    argument: Argument,
    node: Nested,
    instance: Instance,
    path: Path,
    context: Context,
    run: Evaluation,
) -> None:
    """The source is elsewhere in the tree: it is what the params found for it make of it."""
    keyword, expected, _ = run.tied(node, None, role, path)
    is_factor = argument.carried is not None and keyword == argument.carried.keyword
    actual = argument.factor(instance) if is_factor else argument.read(instance)
    _check_follows(role, actual, expected, path)
    event_dim = 2 if argument.carried else getattr(argument.constraint, "event_dim", 0)
    label = dotted_path(path)
    full = in_batch(jnp.asarray(actual), event_dim, argument, instance, context, label).shape
    if np.broadcast_shapes(shape_of(expected), full) != full:
        raise ValueError(
            f"{label} has shape {full} with its batch and is tied to {role.source!r} of shape "
            f"{shape_of(expected)}: share that one by {role.source.split('.')[-1]}=fv.shared()."
        )


def _check_follows(role: Tied, actual: object, expected: object, path: Path) -> None:
    if not _agree(actual, expected, 1e-4):
        raise ValueError(
            f"{dotted_path(path)} is tied to {role.source!r} and would be {_brief(expected)}, but "
            f"the distribution has {_brief(actual)}."
        )


def _agree(actual: object, expected: object, tolerance: float = 1e-6) -> bool:
    if actual is expected:
        return True
    structures: list[object] = [jax.tree.structure(tree) for tree in (actual, expected)]
    leaves = jax.tree.leaves(actual), jax.tree.leaves(expected)
    return structures[0] == structures[1] and all(map(partial(_agree_leaf, tolerance), *leaves))


def _agree_leaf(tolerance: float, actual: object, expected: object) -> bool:
    a, b = concrete(actual), concrete(expected)
    if actual is expected or a is None or b is None:
        return True
    if a.dtype.kind in "biufc" and b.dtype.kind in "biufc":
        try:
            return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))
        except ValueError:  # shapes that do not broadcast
            return False
    same = actual == expected
    if isinstance(same, bool):
        return same
    return type(actual) is type(expected) and shape_of(actual) == shape_of(expected)  # sparse


def _brief(value: object) -> str:
    try:
        return shown(value)
    except (TypeError, ValueError):
        return repr(value)
