"""From a class, a constructor, an instance or a joint of these to the tree that a family walks."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi.constraints import bijection_for
from funcvi.families.parameter import MISSING, Parameter, Recipe
from funcvi.families.recipes import default_bijection, recipe_of, recipes_for
from funcvi.families.slots import Choice, Fixed, Free, JointNode, Node, Tied
from funcvi.joints import is_joint, members_of

__all__ = ["node_of"]


def node_of(of: Any, overrides: Mapping[str, Any]) -> Any:
    """The node for ``of``, with the user's ``overrides`` by name."""
    if hasattr(of, "_root"):  # a Family, nested into another
        return of._root
    if is_joint(of):
        return _joint(of, overrides)
    if isinstance(of, (dist.Distribution, nt.Transform)):
        return _from_instance(of, overrides)
    return _from_constructor(of, overrides)


def _joint(of: Any, overrides: Mapping[str, Any]) -> JointNode:
    items = members_of(of)
    if not items:
        raise ValueError("an empty joint has no parameters: give at least one distribution.")
    _check_names(overrides, [str(k) for k in items], "the joint")
    given: dict[Any, Any] = dict(overrides)
    members = {k: _member(v, given.get(k, given.get(str(k), {}))) for k, v in items.items()}
    kind = dict if isinstance(of, Mapping) else type(of)
    return JointNode(kind, members)


def _member(of: Any, override: Any) -> Any:
    if isinstance(override, Fixed) and override.value is MISSING:
        return Fixed(of)  # the whole member is held
    return node_of(of, override)


def _from_instance(instance: Any, overrides: Mapping[str, Any]) -> Any:
    recipe = recipe_of(instance)
    if recipe is None:  # a transform that we know no parameters of: kept whole
        return Fixed(instance)
    if recipe.transparent and not set(overrides) & set(recipe.parameters):
        overrides = {recipe.transparent: overrides}
    _check_names(overrides, list(recipe.parameters), recipe.name)
    slots = {
        name: _instance_slot(recipe, name, parameter, instance, overrides.get(name, MISSING))
        for name, parameter in recipe.parameters.items()
    }
    return Node(recipe, slots)


def _instance_slot(
    recipe: Recipe, name: str, parameter: Parameter, instance: Any, override: Any
) -> Any:
    if parameter.kind == "nested":
        value = parameter.read(instance)
        if override is MISSING or isinstance(override, Mapping):
            return node_of(value, {} if override is MISSING else override)
        if isinstance(override, Fixed) and override.value is MISSING:
            return Fixed(value)
        return _nested_slot(recipe, name, override)
    held = parameter.held or parameter.kind in ("constant", "static")
    if (override is MISSING and held) or (
        isinstance(override, Fixed) and override.value is MISSING
    ):
        value = _static_or_array(parameter, parameter.read(instance))
        return Fixed(value, _event_dim(parameter), parameter.argument)
    value = parameter.read(instance)
    if parameter.per_instance is not None:
        parameter = replace(parameter, bijection=parameter.per_instance(value))
    slot = _array_slot(recipe, name, parameter, override)
    if isinstance(slot, Free) and isinstance(slot.bijection, nt.Transform):
        return replace(slot, shape=slot.bijection.inverse_shape(np.shape(value)))
    return slot


def _from_constructor(constructor: Any, overrides: Mapping[str, Any]) -> Any:
    if not isinstance(constructor, Hashable):  # recipes are cached by constructor
        raise TypeError(
            "expected a numpyro distribution (class, constructor or instance), "
            f"got {constructor!r}."
        )
    recipes = recipes_for(constructor)
    named = set(overrides)
    fitting = [r for r in recipes if named <= set(r.parameters)]
    if not fitting:
        known = sorted({n for r in recipes for n in r.parameters})
        _check_names(overrides, known, recipes[0].name)
        raise ValueError(
            f"{recipes[0].name} takes {sorted(named)} not together: give one parameterisation."
        )
    options = tuple(
        Node(
            r, {n: _class_slot(r, n, p, overrides.get(n, MISSING)) for n, p in r.parameters.items()}
        )
        for r in fitting
    )
    return options[0] if len(options) == 1 else Choice(options)


def _class_slot(recipe: Recipe, name: str, parameter: Parameter, override: Any) -> Any:
    if parameter.kind == "nested":
        if override is MISSING:
            return Fixed(MISSING)
        return _nested_slot(recipe, name, override)
    if override is MISSING and parameter.kind in ("constant", "static"):
        return Fixed(parameter.default, _event_dim(parameter))
    return _array_slot(recipe, name, parameter, override)


def _nested_slot(recipe: Recipe, name: str, override: Any) -> Any:
    if isinstance(override, Fixed):
        return override
    if isinstance(override, Tied):
        raise ValueError(f"{recipe.name}.{name} is a distribution: tie its parameters one by one.")
    return node_of(override, {})


def _array_slot(recipe: Recipe, name: str, parameter: Parameter, override: Any) -> Any:
    label = f"{recipe.name}.{name}"
    if override is MISSING or (isinstance(override, Free) and override.bijection is None):
        if parameter.kind == "static":
            raise ValueError(f"{label} is no array and cannot be learned: leave it fixed.")
        if parameter.kind == "constant" and not _learnable(parameter):
            raise ValueError(f"{label} has no unconstrained form and cannot be learned: fix it.")
        return Free(default_bijection(parameter), parameter.constraint, parameter.argument)
    if isinstance(override, Free):
        override = override.bijection
    if isinstance(override, constraints.Constraint):
        return Free(bijection_for(override), override)
    if isinstance(override, nt.Transform):
        return Free(override, override.codomain)
    if isinstance(override, Tied):
        return override
    value = override.value if isinstance(override, Fixed) else override
    return Fixed(_static_or_array(parameter, value), _event_dim(parameter))


def _learnable(parameter: Parameter) -> bool:
    constraint = parameter.constraint
    return constraint is not None and not (
        constraints.is_dependent(constraint) or constraint.is_discrete
    )


def _static_or_array(parameter: Parameter, value: Any) -> Any:
    """Python and sparse values stay as they are; numbers and numpy arrays become arrays."""
    if parameter.kind == "static" or value is MISSING or value is None:
        return value
    if isinstance(value, (bool, int, float, jax.Array)):
        return value
    return jnp.asarray(value) if isinstance(value, (np.ndarray, np.generic, list)) else value


def _event_dim(parameter: Parameter) -> int | None:
    constraint = parameter.constraint
    if isinstance(constraint, str):  # depends on siblings, all of them scalars per batch element
        return 0
    if constraint is None or isinstance(constraint, constraints.dependent_property):
        return None
    try:
        return constraint.event_dim
    except NotImplementedError:
        return None


def _check_names(overrides: Mapping[str, Any], known: list[str], where: str) -> None:
    unknown = [str(n) for n in overrides if str(n) not in known]
    if unknown:
        raise ValueError(f"{where} has no parameter {unknown[0]!r}: it has {', '.join(known)}.")
