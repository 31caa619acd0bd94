"""What a family does with each constructor argument: learn it, hold it, tie it, or descend into it.

A family is a tree of nodes. These are its node types and the words a user overrides them with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from funcvi.families.parameter import MISSING, Recipe

__all__ = ["Choice", "Fixed", "Free", "JointNode", "Node", "Tied", "fixed", "free", "tied"]


@dataclass(frozen=True)
class Free:
    """Learned: a leaf of the params, mapped through ``bijection``.

    ``bijection`` is a Transform or a function of the sibling values that gives one; None asks for
    the constraint's own. ``shape`` is that of the unconstrained leaf, where a template fixed it.
    """

    bijection: Any = None
    constraint: Any = None
    argument: str | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Fixed:
    """Held at ``value``; MISSING means the value that the template distribution has.

    ``argument`` names the constructor argument that takes it, where that is another one.
    """

    value: Any = MISSING
    event_dim: int | None = None
    argument: str | None = None


@dataclass(frozen=True)
class Tied:
    """``function`` of another parameter: a sibling's name, or a dotted path from the top."""

    source: str
    function: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Node:
    """One constructor and what becomes of each of its arguments."""

    recipe: Recipe
    slots: Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """The parameterisations of a constructor that was named without an instance."""

    options: tuple[Node, ...]


@dataclass(frozen=True)
class JointNode:
    """A dict, tuple or list of independent members."""

    kind: type
    members: Mapping[Any, Any]


def free(bijection: Any = None) -> Free:
    """Learn this parameter, also where it would be held by default (a truncation bound, say).

    Args:
        bijection: a numpyro Transform or constraint; by default the one for its constraint.

    Example:
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> params, q = fv.unconstrain(dist.TruncatedNormal(low=0.5), low=fv.free())
        >>> sorted(params)
        ['base_dist', 'low']
    """
    return Free(bijection)


def fixed(value: Any = MISSING) -> Fixed:
    """Hold this parameter: at ``value``, or at what the given distribution has.

    Example:
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> params, q = fv.unconstrain(dist.Normal(3.0, 1.0), loc=fv.fixed())
        >>> sorted(params), float(q(params).loc)
        (['scale'], 3.0)
    """
    return Fixed(value)


def tied(source: str, function: Callable[[Any], Any] | None = None) -> Tied:
    """Make this parameter follow another one.

    Args:
        source: a sibling parameter's name, or a dotted path from the top of the family
            (``"a.scale"`` in a joint with a member ``a``).
        function: applied to the source's constrained value; the identity by default.

    Example:
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> q = fv.family(dist.Beta, concentration0=fv.tied("concentration1"))
        >>> float(q({"concentration1": 0.7}).mean)
        0.5
    """
    return Tied(source, function)
