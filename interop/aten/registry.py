"""A rule is a function of JAX values for one torch operation; each file of rules has a table."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

INJECTED = frozenset({"result", "key", "body"})
"""Keyword-only arguments that the interpreter gives to a rule which names them.

``result``: what torch says of the outcome, with ``shape`` and ``dtype``, or a tuple of such;
``key``: a fresh JAX key, asked for only where it has no default; ``body(program, *inputs,
index=0)``: runs an argument that is a program.
"""


@dataclass(frozen=True)
class Rule:
    """A function and what it asks the interpreter for."""

    function: Callable[..., Any]
    asks: frozenset[str]


Rules = Mapping[str, Rule]


class Table(dict[str, Rule]):
    """The rules of one file, by operation name: ``@rules("aten.add.Tensor")``."""

    def __call__(self, *operations: str) -> Callable[[Function], Function]:
        """Decorates the rule of ``operations``, written as torch prints them."""

        def add(function: Function) -> Function:
            keywords = inspect.signature(function).parameters.values()
            asks = {p.name for p in keywords if p.kind is p.KEYWORD_ONLY} & INJECTED
            for operation in operations:
                if operation in self:
                    raise ValueError(f"{operation} has two rules")
                self[operation] = Rule(function, frozenset(asks))
            return function

        return add


def merge(tables: Iterable[Table]) -> Rules:
    """One table of all."""
    merged: dict[str, Rule] = {}
    for table in tables:
        twice = merged.keys() & table.keys()
        if twice:
            raise ValueError(f"two rules for {', '.join(sorted(twice))}")
        merged.update(table)
    return merged
