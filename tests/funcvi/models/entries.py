"""What an entry of the catalogue of models is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Entry", "Refusal", "entry"]


@dataclass(frozen=True, eq=False)
class Entry:
    """A model at small data, all of it numpy's: the dtype is chosen where it runs.

    Attributes:
        log_density: the log joint density of constrained values, where numpyro's own is no oracle;
            ``note`` says why.
    """

    name: str
    model: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    log_density: Callable[[Mapping[str, Any]], Any] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        assert (self.log_density is None) == (not self.note)


@dataclass(frozen=True)
class Refusal:
    """A model that is no target, and what the refusal says."""

    name: str
    model: Callable[..., Any]
    message: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def entry(model: Callable[..., Any], *args: Any, name: str | None = None, **kwargs: Any) -> Entry:
    """An entry by the model's own name."""
    return Entry(name or model.__name__.replace("_", " "), model, args, kwargs)
