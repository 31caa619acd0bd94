"""Families: pure functions from unconstrained parameters to a distribution, and back."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from funcvi._types import Joint, Params
from funcvi.families.family import Family
from funcvi.families.signatures import Instance
from funcvi.families.tree import tree_of
from funcvi.joints import is_joint, members_of

__all__ = ["Family", "family", "unconstrain"]

#: A class, constructor or instance of numpyro, a family, or a joint of these.
Template: TypeAlias = Callable[..., Instance] | Family | Joint


def family(
    of: Template, overrides: Mapping[str, object] | None = None, /, **parameters: object
) -> Family:
    """The family of a distribution: a function from unconstrained params to it, and back.

    Args:
        of: a class or constructor of ``numpyro.distributions``, an instance (as a template, of any
            nesting), or a dict, tuple or list of these for a joint of independent members.
        overrides: what to do with single parameters, by name; nested mappings for nested
            distributions and for the members of a joint.
        **parameters: the same by keyword. Each is a value (held fixed), ``fv.fixed()``,
            ``fv.free()``, ``fv.shared()``, ``fv.tied(...)``, a numpyro Transform or constraint (its
            own bijection), or a distribution, class or family for a nested argument.

    Returns:
        A :class:`Family`.

    Raises:
        TypeError: ``of`` is not a numpyro distribution.
        ValueError: an override names no parameter.

    Example:
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> q = fv.family(dist.Gamma)
        >>> params = q.inverse(dist.Gamma(2.0, 1.0))
        >>> {name: round(float(u), 4) for name, u in params.items()}
        {'concentration': 0.6931, 'rate': 0.0}
        >>> round(float(q(params).mean), 4)
        2.0
    """
    if isinstance(of, Family):
        if overrides or parameters:
            raise ValueError("this is a family already: give the overrides where it is made.")
        return of
    return Family(tree_of(of, {**(overrides or {}), **parameters}))


def unconstrain(
    distribution: Joint, overrides: Mapping[str, object] | None = None, /, **parameters: object
) -> tuple[Params, Family]:
    """Params and family of a distribution at once, as ``ravel_pytree`` does for a pytree.

    Each element of the batch gets its own parameters (``fv.shared()`` keeps one for all of them).
    What has no meaning to learn stays as the distribution has it: counts, flags, masks, truncation
    bounds, an adjacency matrix. ``fv.free()`` frees it, ``fv.fixed()`` holds more.

    Args:
        distribution: any nesting of numpyro distributions, or a dict, tuple or list of them.
        overrides: as for :func:`family`.
        **parameters: as for :func:`family`.

    Returns:
        ``(params, family)`` with ``family(params)`` equal to ``distribution``.

    Raises:
        TypeError: it is a class: that has no values to start from.
        ValueError: an initial value lies on or next to a boundary of its constraint.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> params, q = fv.unconstrain(dist.Normal(jnp.zeros(3), jnp.ones(3)).to_event(1))
        >>> q(params).event_shape
        (3,)
    """
    for member in members_of(distribution).values() if is_joint(distribution) else [distribution]:
        if isinstance(member, type):
            name = member.__name__
            raise TypeError(
                f"expected a distribution with values, got the class {name}: give an instance, "
                f"{name}(...), or use fv.family({name})."
            )
    q = family(distribution, overrides, **parameters)
    return q.inverse(distribution), q
