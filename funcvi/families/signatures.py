"""What a signature is: one parameterisation of one constructor, argument by argument."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final, TypeAlias

import numpy.typing as npt
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi._numpyro import first_stored

__all__ = [
    "MISSING",
    "Argument",
    "Carried",
    "Dependent",
    "Instance",
    "Kind",
    "Missing",
    "Shape",
    "Signature",
    "dotted",
    "shape_of",
]

Shape: TypeAlias = tuple[int, ...]
Instance: TypeAlias = dist.Distribution | nt.Transform


class Missing(enum.Enum):
    """The type of :data:`MISSING`."""

    MISSING = "missing"


#: Stands for a value that nobody gave.
MISSING: Final = Missing.MISSING


class Kind(enum.Enum):
    """What becomes of an argument unless the user says otherwise."""

    LEARNED = "learned"
    HELD = "held"  # learned from a class; held where an instance gives its value
    CONSTANT = "constant"  # an array that is held
    STATIC = "static"  # no array: a count, a function, a flag
    NESTED = "nested"  # a distribution, a transform, or a list of them


@dataclass(frozen=True)
class Dependent:
    """A lower bound that depends on a sibling argument: the one of ``siblings`` that there is."""

    siblings: tuple[str, ...]
    edge: Callable[[Any], Array | float]  # of the sibling's value
    words: str

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Carried:
    """A matrix that is learned as its factor, so that nothing is factorised at every step.

    ``keyword`` is the constructor argument that takes the factor, ``attribute`` where an instance
    keeps it, and ``nearest`` gives a valid matrix close to one that is not.
    """

    keyword: str
    attribute: str
    nearest: Callable[[npt.NDArray], npt.NDArray]


@dataclass(frozen=True)
class Argument:
    """One constructor argument.

    ``attribute`` is where an instance keeps it: a dotted path, or a function of the instance.
    ``inner_axes`` are the batch axes that a nested distribution has beyond those of its parent.
    ``from_value`` gives a bijection that depends on the first value (on its sign).
    """

    kind: Kind = Kind.LEARNED
    constraint: constraints.Constraint | None = None
    bijection: nt.Transform | Dependent | None = None
    attribute: str | Callable[[Instance], object] = ""
    default: object = MISSING
    carried: Carried | None = None
    batched: bool = True  # whether numpyro takes a batch of it
    inner_axes: Callable[[dist.Distribution], Shape] | None = None
    from_value: Callable[[npt.ArrayLike], nt.Transform] | None = None

    def factor(self, instance: Instance) -> object:
        """What the constructor is given: a covariance's factor, else the argument itself."""
        if self.carried is None:
            return self.read(instance)
        return dotted(instance, self.carried.attribute)

    def read(self, instance: Instance) -> object:
        """What ``instance`` was made with."""
        if not isinstance(self.attribute, str):
            return self.attribute(instance)
        try:
            return dotted(instance, self.attribute)
        except AttributeError:
            if self.default is not MISSING:
                return self.default
            raise TypeError(
                f"{type(instance).__name__} does not keep its argument {self.attribute!r}, so it "
                f"cannot be rebuilt: store it as self.{self.attribute} in the constructor."
            ) from None


def shape_of(value: object) -> Shape:
    """The shape of an array; that of a number is ()."""
    return tuple(getattr(value, "shape", ()))


def dotted(instance: object, path: str) -> object:
    """The attribute at a dotted path; the instance itself for the empty one."""
    return reduce(getattr, path.split("."), instance) if path else instance


@dataclass(frozen=True)
class Signature:
    """One parameterisation of one constructor.

    Instances are of type ``kind``, over a base of type ``base`` where one is named. ``given`` is
    the alternative among ``alternatives`` that this signature takes; the part of the instance that
    is of type ``holder`` stores it.
    """

    name: str
    build: Callable[..., Instance]
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    kind: type | None = None
    base: type | None = None
    given: str | None = None
    alternatives: Mapping[str, str] = field(default_factory=dict)  # by the name it is stored under
    holder: type | None = None
    transparent: str | None = None  # its params are those of this nested argument

    def fits(self, instance: object) -> bool:
        """Whether the constructor makes such instances, by this parameterisation or another."""
        return type(instance) is self.kind and (
            self.base is None or isinstance(getattr(instance, "base_dist", None), self.base)
        )

    def matches(self, instance: object) -> bool:
        """Whether the instance was made by this parameterisation."""
        if not self.fits(instance) or self.holder is None:
            return self.fits(instance)
        while not isinstance(instance, self.holder):
            instance = dotted(instance, "base_dist")
        stored = first_stored(instance, self.alternatives)
        return stored is not None and self.alternatives[stored] == self.given
