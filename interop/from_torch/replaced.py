"""State that forward replaces, ``self.mean = ...``, where it could write: torch.export loses it."""

from typing import Any

import torch

from interop._torch import share_memory, tables_of
from interop.errors import ConversionError

__all__ = ["Replaced"]


class Replaced:
    """Knows the parameters, buffers and parts of a module when its forward begins."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._parts = dict(module.named_modules(remove_duplicate=False))
        self._parameters, self._buffers = _tables(self._parts)

    def write_back(self, results: list[Any]) -> list[Any]:
        """At the end: what took the place of a buffer is written into it.

        Returns:
            The results, those that show what a buffer was as they are now.

        Raises:
            ConversionError: a parameter or a part was replaced, or a buffer by what does not fit.
        """
        parts = dict(self._module.named_modules(remove_duplicate=False))
        for name in parts.keys() | self._parts.keys():
            if not _is_same(parts.get(name), self._parts.get(name)):
                raise ConversionError(f"forward replaces its part '{name}': make it in __init__")
        parameters, buffers = _tables(parts)
        for name, old in self._parameters.items():
            if parameters.get(name) is not old:
                raise ConversionError(
                    f"forward replaces the parameter '{name}', which the next call would not see: "
                    f"write into it ({name}.data.copy_), and call net.stateful"
                )
        written: dict[int, tuple[str, Any]] = {}
        for name, old in self._buffers.items():
            new = buffers.get(name)
            _, other = written.setdefault(id(old), (name, new))
            if other is not new:
                raise ConversionError(
                    f"forward replaces '{name}' but not '{written[id(old)][0]}', the same buffer"
                )
        writes: list[tuple[torch.Tensor, torch.Tensor]] = []
        for old in self._buffers.values():
            name, new = written.pop(id(old), ("", old))
            if new is old:
                continue
            if new is None or new.shape != old.shape or new.dtype != old.dtype:
                found = "nothing" if new is None else f"{new.dtype} {list(new.shape)}"
                raise ConversionError(
                    f"forward replaces the buffer '{name}', {old.dtype} {list(old.shape)}, by "
                    f"{found}: keep its shape and dtype, or pass it and return it"
                )
            writes.append((old, new))
        kept = [x.clone() if any(_show(x, old) for old, _ in writes) else x for x in results]
        fresh = [
            new.clone() if any(_show(new, old) for old, _ in writes) else new for _, new in writes
        ]
        for (old, _), new in zip(writes, fresh, strict=True):
            old.copy_(new)
        return kept


def _is_same(a: torch.nn.Module | None, b: torch.nn.Module | None) -> bool:
    """While torch.export runs, a look at a part may give another stand-in with its attributes."""
    return a is not None and b is not None and vars(a) is vars(b)


def _show(x: Any, old: torch.Tensor) -> bool:
    return isinstance(x, torch.Tensor) and share_memory(x, old)


def _tables(parts: dict[str, torch.nn.Module]) -> tuple[dict[str, Any], dict[str, Any]]:
    parameters: dict[str, Any] = {}
    buffers: dict[str, Any] = {}
    for path, part in parts.items():
        for found, table in zip((parameters, buffers), tables_of(part), strict=False):
            prefix = f"{path}." if path else ""
            found |= {f"{prefix}{n}": x for n, x in table.items() if x is not None}
    return parameters, buffers
