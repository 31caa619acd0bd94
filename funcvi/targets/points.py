"""Point parameters of a model (``numpyro.param``): learned beside its latents, without a prior."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from funcvi._jax import is_concrete, read_inputs
from funcvi.constraints import bijection_for, constraint_name
from funcvi.targets.record import Target
from funcvi.targets.replay import Message

__all__ = ["with_points"]

Points = Mapping[str, Any]


def with_points(sites: Mapping[str, Message], at_values: Callable[[Points], Target]) -> Target:
    """The target that learns the values of param sites.

    Those that the log density does not read are left as they are: a network whose weights have all
    got priors, say.

    Args:
        sites: the param sites of a trace, by name.
        at_values: the target at constrained values of these.
    """
    bijections = {
        name: bijection_for(site["kwargs"].get("constraint", constraints.real))
        for name, site in sites.items()
    }

    def inverse(name: str, value: Any) -> Any:
        inv = bijections[name].inv
        return jax.tree.map(lambda x: inv(jnp.asarray(x, jnp.result_type(float))), value)

    start = {name: inverse(name, site["value"]) for name, site in sites.items()}

    for name, site in sites.items():
        again = jax.tree.map(bijections[name], start[name])
        if is_concrete((again, site["value"])) and not all(
            np.allclose(a, b, rtol=1e-3, atol=1e-5)
            for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(site["value"]), strict=True)
        ):
            support = constraint_name(site["kwargs"].get("constraint", constraints.real))
            raise ValueError(
                f"param site {name!r} starts at {site['value']}, which is not inside its "
                f"constraint, {support}."
            )

    def values(points: Points) -> dict[str, Any]:
        return {name: jax.tree.map(bijections[name], points[name]) for name in points}

    def at(points: Points) -> Target:
        _check(points, start)
        given = values({**start, **points})
        return dataclasses.replace(at_values(given), given=given)

    here = at(start)
    read = _read(at, start, here)
    if not read:
        return here
    return dataclasses.replace(
        here, points={name: start[name] for name in read}, at=at, point_values=values
    )


def _read(at: Callable[[Points], Target], start: Points, here: Target) -> list[str]:
    """The names of those that the log density depends on."""
    z = {name: jnp.zeros(shape) for name, shape in here.shapes.items()}
    closed = jax.make_jaxpr(lambda points: at(points).log_density(z, jax.random.key(0)))(start)
    flags = jax.tree.unflatten(jax.tree.structure(start), read_inputs(closed.jaxpr, [True]))
    return [name for name in start if any(jax.tree.leaves(flags[name]))]


def _check(points: Points, start: Points) -> None:
    for name, value in points.items():
        if name not in start:
            raise ValueError(f"{name!r} is no param site of the model, which has {list(start)}.")
        shapes, expected = (jax.tree.map(jnp.shape, x) for x in (value, start[name]))
        if shapes != expected:
            raise ValueError(
                f"param site {name!r} has the shapes {expected}, got {shapes}: jax.vmap over more."
            )
