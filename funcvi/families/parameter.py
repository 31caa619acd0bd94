"""What is known of one constructor: its arguments, and how to read them off an instance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MISSING", "Parameter", "Recipe"]


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"


#: Stands for a value that nobody gave.
MISSING: Any = _Missing()


@dataclass(frozen=True)
class Parameter:
    """One constructor argument.

    ``bijection`` is a Transform, or a function of the sibling values for a constraint that depends
    on them (``high`` must exceed ``low``). ``argument`` names the constructor argument that takes
    the value, where that is not the parameter's own name: a covariance is carried as its Cholesky
    factor, so nothing is factorised again at every step.
    """

    kind: str  # "free", "constant" (an array, fixed unless freed), "static" or "nested"
    constraint: Any = None
    bijection: Any = None
    argument: str | None = None
    read: Any = None  # from an instance, the value
    default: Any = MISSING
    held: bool = False  # free to learn, but fixed where an instance gives its value
    per_instance: Callable[[Any], Any] | None = None  # a bijection that depends on the first value


@dataclass(frozen=True)
class Recipe:
    """One parameterisation of one constructor."""

    name: str
    build: Callable[..., Any]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    matches: Callable[[Any], bool] = lambda instance: True
    transparent: str | None = None  # its params are those of this nested argument
