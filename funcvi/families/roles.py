"""What a family does with each constructor argument: learn it, hold it, tie it, or descend into it.

A family is a tree of these roles, and the words that a user overrides them with make them.
"""

from collections.abc import Callable, Container, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi.bijections import LowerBound
from funcvi.constraints import bijection_for, constraint_name
from funcvi.families.signatures import MISSING, Carried, Dependent, Shape, Signature

__all__ = [
    "Choice",
    "Fixed",
    "Learned",
    "Members",
    "Nested",
    "Path",
    "Role",
    "Tied",
    "Tree",
    "fixed",
    "free",
    "learned_names",
    "shared",
    "tied",
]

Path: TypeAlias = tuple[Hashable, ...]


@dataclass(frozen=True)
class Learned:
    """A leaf of the params, mapped through ``bijection``; None asks for the argument's own.

    A template fixes ``batch``, the batch shape that the parameter belongs to, and ``shape``, that
    of the unconstrained leaf: (*batch, *event), or less where it is ``shared``.
    """

    bijection: nt.Transform | Dependent | None = None
    constraint: constraints.Constraint | None = None
    shared: bool = False
    carried: Carried | None = None
    batch: Shape | None = None
    shape: Shape | None = None

    def __str__(self) -> str:
        if self.constraint is not None:
            return constraint_name(self.constraint)
        if isinstance(self.bijection, nt.Transform):
            return constraint_name(self.bijection.codomain)
        return str(self.bijection)

    def at(self, siblings: Container[str], value_of: Callable[[str], object]) -> nt.Transform:
        """The bijection, where the sibling arguments have these constrained values."""
        if isinstance(self.bijection, Dependent):
            name = next(n for n in self.bijection.siblings if n in siblings)
            return LowerBound(self.bijection.edge(value_of(name)))
        assert self.bijection is not None
        return self.bijection


@dataclass(frozen=True)
class Fixed:
    """Held at ``value``; MISSING means the value that the template distribution has.

    ``keyword`` names the constructor argument that takes it, where that is another one.
    """

    value: object = MISSING
    event_dim: int | None = None
    keyword: str | None = None


@dataclass(frozen=True)
class Tied:
    """``function`` of another parameter: a sibling's name, or a dotted path from the top."""

    source: str
    function: Callable[[object], object] | None = None


@dataclass(frozen=True)
class Nested:
    """One constructor, and the role of each of its arguments."""

    signature: Signature
    roles: "Mapping[str, Role]"


@dataclass(frozen=True)
class Choice:
    """The parameterisations of a constructor that was named without an instance."""

    options: tuple[Nested, ...]


@dataclass(frozen=True)
class Members:
    """A dict, tuple or list of independent members."""

    kind: type
    members: "Mapping[Hashable, Tree]"


#: A whole family, or what it has at a nested argument.
Tree: TypeAlias = Nested | Choice | Members | Fixed
Role: TypeAlias = Learned | Tied | Tree


def learned_names(node: Nested) -> list[str]:
    """The keys of this node's params: what is learned here or somewhere below."""
    return [name for name, role in node.roles.items() if has_params(role)]


def has_params(role: Role) -> bool:
    """Whether anything is learned in this role or below it."""
    match role:
        case Nested():
            return any(map(has_params, role.roles.values()))
        case Choice():
            return any(map(has_params, role.options))
        case Members():
            return any(map(has_params, role.members.values()))
        case _:
            return isinstance(role, Learned)


# ---- the words ----------------------------------------------------------------------------------


def free(bijection: nt.Transform | constraints.Constraint | None = None) -> Learned:
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
    if isinstance(bijection, constraints.Constraint):
        return Learned(bijection_for(bijection), bijection)
    return Learned(bijection, None if bijection is None else bijection.codomain)


def shared(bijection: nt.Transform | constraints.Constraint | None = None) -> Learned:
    """Learn one value of this parameter for the whole batch, of the shape that the instance has.

    Without it each element of the batch has its own.

    Args:
        bijection: as for :func:`free`.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> normal = dist.Normal(jnp.zeros(3), 1.0)
        >>> fv.unconstrain(normal)[0]["scale"].shape
        (3,)
        >>> fv.unconstrain(normal, scale=fv.shared())[0]["scale"].size
        1
    """
    return replace(free(bijection), shared=True)


def fixed(value: object = MISSING) -> Fixed:
    """Hold this parameter: at ``value``, or at what the given distribution has.

    Example:
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> params, q = fv.unconstrain(dist.Normal(3.0, 1.0), loc=fv.fixed())
        >>> sorted(params), float(q(params).loc)
        (['scale'], 3.0)
    """
    return Fixed(value)


def tied(source: str, function: Callable[[object], object] | None = None) -> Tied:
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
