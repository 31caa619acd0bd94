"""A target from a log density and the supports of its arguments."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from funcvi._types import Key
from funcvi.constraints import bijection_for, constraint_name
from funcvi.targets.record import Shape, Sites, Target, check_shapes, log_det_of

__all__ = ["Support", "from_log_density"]

Support: TypeAlias = constraints.Constraint | tuple[constraints.Constraint, Shape]


def from_log_density(
    log_density: Callable[[Sites], ArrayLike], supports: Mapping[str, Support]
) -> Target:
    """The target of a log density of constrained values."""
    if not supports:
        raise ValueError("supports is empty: name each argument of the log density.")
    pairs = {name: _constraint_and_shape(name, support) for name, support in supports.items()}
    bijections = {name: bijection_for(constraint) for name, (constraint, _) in pairs.items()}
    value_shapes = {name: shape for name, (_, shape) in pairs.items()}
    shapes = {name: tuple(b.inverse_shape(value_shapes[name])) for name, b in bijections.items()}

    def constrain(z: Sites) -> Sites:
        check_shapes(z, shapes)
        return {name: b(z[name]) for name, b in bijections.items()}

    def unconstrain(values: Mapping[str, ArrayLike]) -> Sites:
        check_shapes(values, value_shapes)
        return {name: b.inv(jnp.asarray(values[name])) for name, b in bijections.items()}

    def log_det(z: Sites) -> Array:
        x = constrain(z)
        return sum((log_det_of(b, z[n], x[n]) for n, b in bijections.items()), jnp.zeros(()))

    def density(z: Sites, key: Key | None = None, /) -> Array:
        values = constrain(z)
        try:
            total = log_density(values)
        except KeyError as error:
            if error.args[0] in values:
                raise
            raise ValueError(
                f"the log density reads the site {error.args[0]!r}, and supports has "
                f"{list(values)}: name all of its sites there."
            ) from error
        if not isinstance(total, (bool, int, float)) and not hasattr(total, "dtype"):
            raise TypeError(
                f"the log density must return a scalar array, got {type(total).__name__}."
            )
        if jnp.shape(total) != ():
            raise ValueError(
                f"the log density must return a scalar, got shape {jnp.shape(total)}: sum it."
            )
        return jnp.asarray(total) + log_det(z)

    names = {name: constraint_name(constraint) for name, (constraint, _) in pairs.items()}
    return Target(
        shapes,
        value_shapes,
        names,
        density,
        log_det,
        constrain,
        unconstrain,
        constraints={name: constraint for name, (constraint, _) in pairs.items()},
    )


def _constraint_and_shape(name: str, support: Support) -> tuple[constraints.Constraint, Shape]:
    constraint, shape = (
        support if isinstance(support, tuple) and len(support) == 2 else (support, ())
    )
    if not isinstance(constraint, constraints.Constraint) or not isinstance(shape, tuple):
        raise TypeError(
            f"supports[{name!r}] must be a constraint or (constraint, shape) with a tuple for a "
            f"shape, got {support!r}."
        )
    if constraints.is_dependent(constraint) or constraint.is_discrete:
        raise TypeError(
            f"supports[{name!r}] is {constraint_name(constraint)}: give a continuous constraint "
            "with known bounds."
        )
    if len(shape) < constraint.event_dim:
        raise ValueError(
            f"supports[{name!r}] is {constraint_name(constraint)}, of {constraint.event_dim} event "
            f"dimension(s), but its shape is {shape}: write (constraint, shape)."
        )
    return constraint, shape
