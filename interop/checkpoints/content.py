"""What ``save`` is given, as tensors on the CPU; one array under several names as one tensor."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch

from interop.arrays import check_tensor, to_tensor
from interop.checkpoints.errors import CheckpointError
from interop.memory import memory
from interop.trees import flatten_names

__all__ = ["Tensors", "flat_tensors", "nested_tensors"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Tensors:
    """Converts leaves; what is one array or one memory before is one tensor after."""

    def __init__(self) -> None:
        self._made: dict[Any, torch.Tensor] = {}
        # An id means an object only while that object lives.
        self._alive: list[Any] = []

    def __call__(self, leaf: Any, name: str) -> torch.Tensor:
        """A contiguous tensor of its own storage, or what came if it is one."""
        shared = memory(leaf) if isinstance(leaf, torch.Tensor) else None
        key = shared or id(leaf)
        if key not in self._made:
            self._alive.append(leaf)
            self._made[key] = _tensor(leaf, name)
        return self._made[key]


def flat_tensors(tree: Any) -> dict[str, torch.Tensor]:
    """Dotted names to tensors.

    Raises:
        CheckpointError: names are ambiguous, or a leaf is no array that torch has.
    """
    tensors = Tensors()
    try:
        return {name: tensors(leaf, name) for name, leaf in flatten_names(tree).items()}
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot save: {error}. Files of named tensors hold arrays alone; a .pt file in one "
            "piece holds numbers, strings and nesting too"
        ) from error


def nested_tensors(tree: Any) -> Any:
    """The same nesting with tensors for arrays, of what ``torch.load(weights_only=True)`` reads.

    Raises:
        CheckpointError: a container or leaf of another kind.
    """
    tensors = Tensors()
    open_nodes: set[int] = set()

    def convert(node: Any, name: str) -> Any:
        if isinstance(node, jax.Array | np.ndarray | np.generic | torch.Tensor):
            return tensors(node, name)
        if isinstance(node, _PLAIN):
            return node
        if id(node) in open_nodes:
            raise TypeError(f"'{name}' contains itself")
        open_nodes.add(id(node))
        try:
            if isinstance(node, Mapping):
                return {_key(k, name): convert(v, _join(name, k)) for k, v in node.items()}
            if type(node) in (list, tuple):
                return type(node)(convert(v, _join(name, i)) for i, v in enumerate(node))
        finally:
            open_nodes.discard(id(node))
        raise TypeError(
            f"'{name}' is a {type(node).__name__}; expected arrays, numbers and strings in dicts, "
            "lists and tuples: save interop.flatten_names(tree)"
        )

    try:
        return convert(tree, "")
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"cannot save: {error}") from error


def _tensor(leaf: Any, name: str) -> torch.Tensor:
    if not isinstance(leaf, torch.Tensor):
        return to_tensor(leaf, name=name)
    check_tensor(leaf, name)
    tensor = leaf.detach().resolve_conj().resolve_neg().cpu().contiguous()
    # torch.save would write the whole storage under a view.
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _key(key: Any, name: str) -> Any:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise TypeError(f"'{name}' has the key {key!r}; expected strings or integers")
    return key


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
