"""What of a module is covered, told before converting."""

from dataclasses import dataclass
from typing import Any

import jax
import torch

from interop.arrays import to_tensor
from interop.aten import RULES
from interop.errors import ConversionError
from interop.from_torch.lowering import Types
from interop.from_torch.program import walk
from interop.from_torch.snapshot import Snapshot
from interop.from_torch.structures import flatten, is_array


@dataclass(frozen=True)
class Operation:
    """One operation of a module.

    Attributes:
        name: as torch prints it.
        count: how often it stands in the graph.
        covered: whether there is a rule.
        sources: the lines it came from, each once.
    """

    name: str
    count: int
    covered: bool
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Every operation of a module at given inputs; printed, a table.

    Attributes:
        operations: those with no rule first.
        obstacle: why the module cannot be exported at all, or None.
    """

    module: str
    mode: str
    operations: tuple[Operation, ...]
    obstacle: str | None = None

    @property
    def covered(self) -> bool:
        """Whether ``to_jax`` will do."""
        return self.obstacle is None and all(o.covered for o in self.operations)

    @property
    def missing(self) -> tuple[Operation, ...]:
        """The operations with no rule."""
        return tuple(o for o in self.operations if not o.covered)

    def __str__(self) -> str:
        if self.obstacle is not None:
            return f"{self.module} ({self.mode}) cannot be converted: {self.obstacle}"
        without = len(self.missing)
        verdict = "all covered" if self.covered else f"{without} not covered"
        lines = [f"{self.module} ({self.mode}): {len(self.operations)} operations, {verdict}"]
        width = max((len(o.name) for o in self.operations), default=0)
        for o in self.operations:
            mark = "yes" if o.covered else "NO "
            shown = o.sources[:1] if o.covered else o.sources
            lines.append(f"  {mark}  {o.name:<{width}}  {o.count:>4}  {shown[0] if shown else ''}")
            lines.extend(" " * (width + 13) + source for source in shown[1:])
        return "\n".join(lines)


def report(
    module: torch.nn.Module,
    *inputs: Any,
    training: bool = False,
    downcast: bool = True,
    **kwargs: Any,
) -> Report:
    """Every operation that ``module`` does with these inputs, and whether ``to_jax`` covers it.

    Args:
        module: any ``torch.nn.Module``; it is exported, not run, and not changed.
        *inputs: torch tensors or arrays, and Python constants, as ``forward`` takes them.
        training: in training mode, else in evaluation mode.
        downcast: as for :func:`interop.to_jax`; by default 64-bit values are no obstacle here.
        **kwargs: keyword arguments of ``forward``.

    Example:
        >>> import torch, interop
        >>> print(interop.report(torch.nn.Linear(3, 2), torch.ones(5, 3)))  # doctest: +ELLIPSIS
        Linear (evaluation): 1 operations, all covered
          yes  aten.linear.default     1  ...
    """
    mode = "training" if training else "evaluation"
    name = type(module).__name__
    types = Types(x64=False, downcast=True) if downcast else Types(x64=_x64(), downcast=False)
    try:
        leaves, structure = flatten((inputs, kwargs), is_array)
        examples = [x if isinstance(x, torch.Tensor) else to_tensor(x) for x in leaves]
        exported = Snapshot(module).export(training, structure, examples, RULES, types)
    except ConversionError as error:
        return Report(name, mode, (), str(error))
    found: dict[str, list[str]] = {}
    for step in walk(exported.program):
        found.setdefault(step.operation, []).append(step.source)
    operations = [
        Operation(n, len(s), n in RULES, tuple(dict.fromkeys(s))) for n, s in found.items()
    ]
    return Report(name, mode, tuple(sorted(operations, key=lambda o: (o.covered, o.name))))


def _x64() -> bool:
    return bool(jax.config.read("jax_enable_x64"))
