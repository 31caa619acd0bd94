"""From a class, a constructor, an instance or a joint of these to the tree that a family walks."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi.families.batches import Context, batch_of, below, for_members, in_batch
from funcvi.families.family import Family
from funcvi.families.lookup import default_bijection, signature_of, signatures_of
from funcvi.families.roles import (
    Choice,
    Fixed,
    Learned,
    Members,
    Nested,
    Role,
    Tied,
    Tree,
    free,
)
from funcvi.families.signatures import MISSING, Argument, Instance, Kind, Signature
from funcvi.joints import is_joint, members_of
from funcvi.wrong_kinds import instead_of_a_distribution

__all__ = ["tree_of"]

Overrides: TypeAlias = Mapping[str, object]


def tree_of(of: object, overrides: object = MISSING, context: Context = None) -> Tree:
    """The tree of ``of``, with the user's ``overrides`` by name."""
    overrides = {} if overrides is MISSING else overrides
    if _is_held_as_it_is(overrides):
        return Fixed(of)  # the whole of it is held
    if not isinstance(overrides, Mapping):
        raise TypeError(f"expected overrides by name, a dict, got {type(overrides).__name__}.")
    if isinstance(of, Family):
        return of.tree
    if is_joint(of):
        return _joint(of, overrides, context)
    if isinstance(of, (dist.Distribution, nt.Transform)):
        return _from_instance(of, overrides, context)
    return _from_constructor(of, overrides)


def _joint(of: object, overrides: Overrides, context: Context) -> Members:
    items = members_of(of)
    if not items:
        raise ValueError("an empty joint has no parameters: give at least one distribution.")
    _check_names(overrides, [str(k) for k in items], "the joint")
    contexts = for_members(of, context)
    by_key: dict[Hashable, object] = dict(overrides.items())
    members = {
        k: tree_of(v, by_key.get(k, by_key.get(str(k), MISSING)), contexts[k])
        for k, v in items.items()
    }
    return Members(dict if isinstance(of, Mapping) else type(of), members)


def _from_instance(instance: Instance, overrides: Overrides, context: Context) -> Tree:
    signature = signature_of(instance)
    if signature is None:  # a transform that we know no parameters of: kept whole
        return Fixed(instance)
    if signature.transparent and not set(overrides) & set(signature.arguments):
        overrides = {signature.transparent: overrides}
    _check_names(overrides, list(signature.arguments), signature.name)
    roles = {
        name: _instance_role(signature, name, instance, overrides.get(name, MISSING), context)
        for name in signature.arguments
    }
    return Nested(signature, roles)


def _instance_role(
    signature: Signature, name: str, instance: Instance, override: object, context: Context
) -> Role:
    argument = signature.arguments[name]
    if argument.kind is Kind.NESTED:
        child = argument.read(instance)
        if override is MISSING or isinstance(override, Mapping) or _is_held_as_it_is(override):
            return tree_of(child, override, below(instance, argument, context))
        return _nested_role(signature, name, override)
    held = argument.kind is not Kind.LEARNED and override is MISSING
    if held or _is_held_as_it_is(override):
        keyword = argument.carried.keyword if argument.carried else None
        value = _static_or_array(argument, argument.factor(instance))
        return Fixed(value, _event_dim(argument), keyword)
    if argument.from_value is not None:
        value = jnp.asarray(argument.read(instance))
        value = in_batch(value, 0, argument, instance, context, name)
        argument = replace(argument, bijection=argument.from_value(value))
    role = _array_role(signature, name, argument, override)
    if not isinstance(role, Learned):
        return role
    value = jnp.asarray(argument.factor(instance) if role.carried else argument.read(instance))
    if not role.shared:
        value = in_batch(value, _event_dim_of(role), argument, instance, context, name)
    shape = tuple(value.shape)
    if isinstance(role.bijection, nt.Transform):
        shape = tuple(role.bijection.inverse_shape(shape))
    return replace(role, shape=shape, batch=batch_of(instance, context))


def _is_held_as_it_is(override: object) -> bool:
    return isinstance(override, Fixed) and override.value is MISSING


def _event_dim_of(role: Learned) -> int:
    """How many axes of the constrained value are event axes."""
    return role.bijection.codomain.event_dim if isinstance(role.bijection, nt.Transform) else 0


def _from_constructor(constructor: object, overrides: Overrides) -> Tree:
    if not (isinstance(constructor, Hashable) and callable(constructor)):
        expected = "expected a numpyro distribution (class, constructor or instance)"
        if type(constructor).__module__.partition(".")[0] == "torch":
            raise TypeError(f"{expected}, {instead_of_a_distribution(constructor)}.")
        raise TypeError(f"{expected}, got {constructor!r}.")
    signatures = signatures_of(constructor)
    named = set(overrides)
    fitting = [s for s in signatures if named <= set(s.arguments)]
    if not fitting:
        known = sorted({n for s in signatures for n in s.arguments})
        _check_names(overrides, known, signatures[0].name)
        raise ValueError(
            f"{signatures[0].name} takes {sorted(named)} not together: give one parameterisation."
        )
    options = tuple(
        Nested(s, {n: _class_role(s, n, overrides.get(n, MISSING)) for n in s.arguments})
        for s in fitting
    )
    return options[0] if len(options) == 1 else Choice(options)


def _class_role(signature: Signature, name: str, override: object) -> Role:
    argument = signature.arguments[name]
    if argument.kind is Kind.NESTED:
        return Fixed() if override is MISSING else _nested_role(signature, name, override)
    if override is MISSING and argument.kind in (Kind.CONSTANT, Kind.STATIC):
        return Fixed(argument.default, _event_dim(argument))
    return _array_role(signature, name, argument, override)


def _nested_role(signature: Signature, name: str, override: object) -> Role:
    if isinstance(override, Fixed):
        return override
    if isinstance(override, Tied):
        raise ValueError(
            f"{signature.name}.{name} is a distribution: tie its parameters one by one."
        )
    return tree_of(override)


def _array_role(signature: Signature, name: str, argument: Argument, override: object) -> Role:
    label = f"{signature.name}.{name}"
    if override is MISSING:
        override = free()
    if isinstance(override, (constraints.Constraint, nt.Transform)):
        override = free(override)
    if isinstance(override, Learned):
        if override.bijection is not None:
            return override
        if argument.kind is Kind.STATIC:
            raise ValueError(f"{label} is no array and cannot be learned: leave it fixed.")
        if argument.kind is Kind.CONSTANT and not _learnable(argument):
            raise ValueError(f"{label} has no unconstrained form and cannot be learned: fix it.")
        return replace(
            override,
            bijection=default_bijection(argument),
            constraint=argument.constraint,
            carried=argument.carried,
        )
    if isinstance(override, Tied):
        return override
    value = override.value if isinstance(override, Fixed) else override
    return Fixed(_static_or_array(argument, value), _event_dim(argument))


def _learnable(argument: Argument) -> bool:
    constraint = argument.constraint
    return constraint is not None and not (
        constraints.is_dependent(constraint) or constraint.is_discrete
    )


def _static_or_array(argument: Argument, value: object) -> object:
    """Python and sparse values stay as they are; numpy's numbers and arrays become JAX's."""
    if argument.kind is Kind.STATIC or not isinstance(value, (np.ndarray, np.generic, list)):
        return value
    return jnp.asarray(value)


def _event_dim(argument: Argument) -> int | None:
    if argument.constraint is None and argument.bijection is not None:
        return 0  # it depends on siblings or on a first value, elementwise
    constraint = argument.constraint
    if constraint is None or isinstance(constraint, constraints.dependent_property):
        return None
    try:
        return constraint.event_dim
    except NotImplementedError:
        return None


def _check_names(overrides: Overrides, known: list[str], where: str) -> None:
    unknown = [str(n) for n in overrides if str(n) not in known]
    if unknown:
        raise ValueError(f"{where} has no parameter {unknown[0]!r}: it has {', '.join(known)}.")
