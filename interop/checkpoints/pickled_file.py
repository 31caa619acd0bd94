"""Files of torch.save: read by torch with ``weights_only=True``, so that nothing in them runs."""

import os
import re
from pathlib import Path
from typing import Any

import jax
import torch

from interop.checkpoints.archive import Archive
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.source import Stored, convert
from interop.dtypes import row_of
from interop.memory import memory

__all__ = ["PickledSource"]

# CVE-2026-24747: before, a pickle could write outside its tensors despite weights_only.
_LEAST_TORCH = (2, 10)
# A few bytes may stand for an expanded tensor of any size; more than this is refused.
_MOST_EXPANDED_BYTES = 2**30
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_GLOBAL = re.compile(
    r"GLOBAL (.{1,200}?)(?: was not| whose|$)|reduce for unrecognized function (.{1,200})"
)


class PickledSource:
    """See :class:`interop.checkpoints.source.Source`; :meth:`tree` gives the nesting as well."""

    def __init__(self, path: Path, torch_version: str = torch.__version__) -> None:
        self.path = path
        refuse_old(torch_version)
        with open(path, "rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        self._archive = Archive(path) if zipped else None
        mapped = self._archive is not None and self._archive.native
        self._content = _load(path, mapped)
        self._tensors: dict[str, torch.Tensor] = {}
        self.aliases: dict[str, str] = {}
        self._name()
        self.stored = {name: _stored(tensor) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> torch.Tensor:
        """The tensor, its checksum compared if the file has one."""
        tensor = self._tensors[name]
        if self._archive is not None and memory(tensor) is not None:
            self._archive.verify(tensor, name)
        return tensor

    def tree(self, downcast: bool) -> Any:
        """The content with arrays for tensors; dicts, lists, tuples and plain leaves as saved."""
        arrays: dict[Any, jax.Array] = {}
        made: dict[int, Any] = {}

        def build(node: Any, name: str) -> Any:
            if isinstance(node, torch.Tensor):
                key = memory(node) or name
                if key not in arrays:
                    arrays[key] = convert(self.path, name, self.read(name), downcast)
                return arrays[key]
            if id(node) not in made:
                if isinstance(node, dict):
                    made[id(node)] = {k: build(v, _join(name, k)) for k, v in node.items()}
                elif isinstance(node, list | tuple):
                    kind = list if isinstance(node, list) else tuple
                    made[id(node)] = kind(build(v, _join(name, i)) for i, v in enumerate(node))
                elif isinstance(node, _PLAIN):
                    return node
                else:
                    raise CheckpointError(
                        f"{self.path}: '{name}' is a {type(node).__name__}; expected tensors, "
                        "numbers and strings in dicts, lists and tuples: leave it out by names=, "
                        "or save the state_dict alone"
                    )
            return made[id(node)]

        return build(self._content, "")

    def _name(self) -> None:
        """Name each tensor by its path; cycles, depth and size have bounds."""
        first: dict[Any, str] = {}
        open_nodes: set[int] = set()
        nodes = expanded = 0
        # Shared containers can stand for exponentially many entries; saved ones take bytes each.
        most = 1000 + os.path.getsize(self.path)

        def visit(node: Any, name: str) -> None:
            nonlocal nodes, expanded
            nodes += 1
            if id(node) in open_nodes or nodes > most:
                raise CheckpointError(
                    f"{self.path}: '{name}' contains itself, or more than {most} entries; "
                    "expected a tree of tensors: save the state_dict alone"
                )
            if isinstance(node, torch.Tensor):
                if name in self._tensors:
                    raise CheckpointError(
                        f"{self.path}: two tensors would both be named '{name}': rename one"
                    )
                self._tensors[name] = node
                shared = memory(node)
                if shared is not None:
                    if shared in first:
                        self.aliases[name] = first[shared]
                    first.setdefault(shared, name)
                    size = node.numel() * node.element_size()
                    expanded += size if size > node.untyped_storage().nbytes() else 0
                if expanded > _MOST_EXPANDED_BYTES:
                    raise CheckpointError(
                        f"{self.path}: '{name}' is an expanded tensor that would take {size} "
                        "bytes: save it before it is expanded"
                    )
            elif isinstance(node, dict | list | tuple):
                open_nodes.add(id(node))
                pairs = node.items() if isinstance(node, dict) else enumerate(node)
                for key, child in pairs:
                    visit(child, _join(name, key))
                open_nodes.discard(id(node))

        try:
            visit(self._content, "")
        except RecursionError as error:
            raise CheckpointError(
                f"{self.path}: containers are nested too deeply; expected a tree of tensors: save "
                "the state_dict alone"
            ) from error


def refuse_old(torch_version: str) -> None:
    """Refuse versions of torch whose ``weights_only`` can be bypassed."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", torch_version)[:2])
    if numbers < _LEAST_TORCH:
        raise CheckpointError(
            f"expected torch 2.10 or newer, got {torch_version}, whose torch.load is unsafe even "
            "with weights_only=True (CVE-2026-24747): pip install -U torch"
        )


def _load(path: Path, mapped: bool) -> Any:
    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    # Whatever a broken pickle provokes: that it does not unpickle is all there is to tell.
    except Exception as error:
        raise CheckpointError(f"{path}: {_why(error)}") from error


def _why(error: Exception) -> str:
    # Around what happened torch puts advice, which tells how to run the code.
    text = str(error).rpartition("WeightsUnpickler error:")[2]
    text = text.partition("\n\nCheck the documentation")[0].strip()
    what = ascii(text.rpartition("\n\n")[2].split("\n")[0][:200].rstrip("."))
    refused = _GLOBAL.search(text)
    if refused:
        which = ascii(refused.group(1) or refused.group(2))
        return (
            f"refused to load {which}, since a pickle that loads more than tensors could run code; "
            "nothing ran. Save module.state_dict() instead of the object"
        )
    return (
        f"torch cannot read it as tensors ({type(error).__name__}: {what}); the file is "
        "truncated, corrupt or of another kind: fetch or save it again"
    )


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _stored(tensor: torch.Tensor) -> Stored:
    row = row_of(tensor.dtype)
    dtype = str(tensor.dtype).removeprefix("torch.") if row is None else row.array
    return Stored(dtype, tuple(tensor.shape))
