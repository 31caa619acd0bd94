"""What ``save`` is given, as tensors on the CPU; one array under several names as one tensor."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch

from interop.arrays import check_tensor, narrow, to_tensor
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.pickled_file import MOST_SHARED
from interop.memory import memory
from interop.trees import flatten_names

__all__ = ["Tensors", "flat_tensors", "nested_tensors"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


# Readers and writers of pickles call themselves at each level.
_DEEPEST = 200
_LONGEST_INTEGER = 8 * 255 - 1  # bits, one more is the sign


class Tensors:
    """Converts leaves; what is one array or one memory before is one tensor after."""

    def __init__(self, downcast: bool) -> None:
        self._downcast = downcast
        self._made: dict[Any, torch.Tensor] = {}
        self._dtypes: dict[int, torch.dtype] = {}
        # An id means an object only while that object lives.
        self._alive: list[Any] = []

    def __call__(self, leaf: Any, name: str) -> torch.Tensor:
        """A contiguous tensor of its own storage, or what came if it is one."""
        shared = memory(leaf) if isinstance(leaf, torch.Tensor) else None
        key = shared or id(leaf)
        if key not in self._made:
            self._alive.append(leaf)
            made = _tensor(leaf, name)
            made = narrow(made, name) if self._downcast else made
            # torch.save takes one memory under one dtype alone.
            if self._dtypes.setdefault(made.untyped_storage().data_ptr(), made.dtype) != made.dtype:
                made = made.clone()
            self._made[key] = made
        return self._made[key]


def flat_tensors(tree: Any, downcast: bool) -> dict[str, torch.Tensor]:
    """Dotted names to tensors.

    Raises:
        CheckpointError: names are ambiguous, or a leaf is no array that torch has.
    """
    tensors = Tensors(downcast)
    try:
        return {name: tensors(leaf, name) for name, leaf in flatten_names(tree).items()}
    except RecursionError as error:
        raise CheckpointError("cannot save: the tree is nested too deeply") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot save: {error}. Files of named tensors hold arrays alone; a .pt file in one "
            "piece holds numbers, strings and nesting too"
        ) from error


def nested_tensors(tree: Any, downcast: bool) -> Any:
    """The same nesting with tensors for arrays, of what ``torch.load(weights_only=True)`` reads.

    Raises:
        CheckpointError: a container or leaf of another kind, or more than 200 levels.
    """
    tensors = Tensors(downcast)
    open_nodes: set[int] = set()
    # One container in several places stays one: its places may be exponentially many. Each is kept,
    # as an id means an object only while that object lives.
    made: dict[int, tuple[Any, Any, int]] = {}
    places = visited = 0

    def convert(node: Any, name: str) -> Any:
        nonlocal places, visited
        places += 1
        visited += 1
        if isinstance(node, jax.Array | np.ndarray | np.generic | torch.Tensor):
            return tensors(node, name)
        if type(node) in _PLAIN:
            return _plain(node, f"'{name}'")
        if id(node) in open_nodes:
            raise TypeError(f"'{name}' contains itself")
        if len(open_nodes) == _DEEPEST:
            raise TypeError(
                f"'{name[:80]}…' lies {_DEEPEST} levels deep, beyond which readers of pickles "
                "may fail: save interop.flatten_names(tree)"
            )
        if id(node) in made:
            places += made[id(node)][2]
        else:
            start = places
            open_nodes.add(id(node))
            content = container(node, name)
            open_nodes.discard(id(node))
            made[id(node)] = (node, content, places - start)
        return made[id(node)][1]

    def container(node: Any, name: str) -> Any:
        if isinstance(node, Mapping):
            return {_key(k, name): convert(v, _join(name, k)) for k, v in node.items()}
        if type(node) in (list, tuple):
            return type(node)(convert(v, _join(name, i)) for i, v in enumerate(node))
        # Subclasses of numbers and strings, as of an enumeration, are pickled by their class.
        advice = "its value" if isinstance(node, _PLAIN) else "interop.flatten_names(tree)"
        raise TypeError(
            f"'{name}' is a {type(node).__name__}; expected arrays, numbers and strings in dicts, "
            f"lists and tuples: save {advice}"
        )

    try:
        content = convert(tree, "")
        if places > MOST_SHARED + visited:
            raise ValueError(f"containers in several places: the tree stands for {places} entries")
        return content
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot save: {error}") from error


def _tensor(leaf: Any, name: str) -> torch.Tensor:
    if not isinstance(leaf, torch.Tensor):
        return to_tensor(leaf, name=name)
    check_tensor(leaf, name)
    tensor = leaf.detach().resolve_conj().resolve_neg().cpu().contiguous()
    # torch.save would write the whole storage under a view.
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _plain(value: Any, what: str) -> Any:
    """The value; torch.load's ``weights_only`` knows no pickle of some."""
    if value == b"" and isinstance(value, bytes):
        raise TypeError(f"{what} is empty bytes, which torch.load refuses: save '' or None")
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER:
        raise TypeError(f"{what} is an integer of more than 255 bytes, which torch.load refuses")
    return value


def _key(key: Any, name: str) -> Any:
    if type(key) not in (str, int):
        raise TypeError(f"'{name}' has the key {key!r}; expected strings or integers")
    return _plain(key, f"a key of '{name}'")


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
