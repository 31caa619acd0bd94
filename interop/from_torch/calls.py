"""A call of a module as torch.export sees it: tensors in, tensors out."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from interop.from_torch.lowering import Exported, Left
from interop.from_torch.replaced import Replaced
from interop.from_torch.structures import Structure, flatten

__all__ = ["Flat", "is_tensor"]


def is_tensor(value: Any) -> bool:
    """What torch.export makes a node of."""
    return isinstance(value, torch.Tensor | torch.SymInt | torch.SymFloat | torch.SymBool)


class Flat:
    """Calls a module with inputs of a structure, and keeps that of what it returns and leaves.

    Args:
        structure: of ``(args, kwargs)``.
    """

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._outputs: Structure | None = None
        self._left: Left | None = None

    def __call__(self, module: torch.nn.Module, *tensors: Any) -> tuple[Any, ...]:
        """The results, then what forward has put into containers among its inputs."""
        args, kwargs = self._structure.build(tensors)
        before, was = flatten((args, kwargs), is_tensor)
        state = Replaced(module)
        results, self._outputs = flatten(module(*args, **kwargs), is_tensor)
        after, now = flatten((args, kwargs), is_tensor)
        self._left = None
        given = {id(x): i for i, x in enumerate(tensors)}
        if now != was or [*map(id, before)] != [*map(id, after)]:
            returned = {id(x): i for i, x in enumerate(results)}
            new = [x for x in after if id(x) not in given]
            lost = any(id(x) not in returned for x in new)
            places = [_place(x, given, results) for x in after]
            self._left = Left(now, tuple(places), lost)
        return tuple(state.write_back(results))

    def described(self, exported: Exported) -> Exported:
        """The program with the structures of its results."""
        assert self._outputs is not None
        count = self._outputs.count
        build = partial(self._outputs.build_pytree, outputs=True)
        return replace(exported, result=lambda leaves: build(leaves[:count]), left=self._left)


def _place(x: Any, given: dict[int, int], results: list[Any]) -> int:
    """Where it is; what is nowhere becomes a result."""
    if id(x) in given:
        return given[id(x)]
    for i, result in enumerate(results):
        if result is x:
            return -1 - i
    results.append(x)
    return -len(results)


def left_by(left: Left, inputs: Sequence[Any], results: Sequence[Any]) -> Any:
    """``(args, kwargs)`` as forward leaves them."""
    found = [inputs[p] if p >= 0 else results[-1 - p] for p in left.places]
    return left.structure.build_pytree(found, outputs=False)
