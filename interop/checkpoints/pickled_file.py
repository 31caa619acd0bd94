"""Files of torch.save, read without running anything in them."""

import math
from typing import Any

import jax
import torch

from interop.arrays import first_line
from interop.checkpoints.allowed import Allowed, class_of, make, members
from interop.checkpoints.archive import Archive
from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.medium import Medium
from interop.checkpoints.source import Refused, Stored, convert
from interop.checkpoints.stream import Stream
from interop.checkpoints.tensors import TensorRecord, describe, subclass_of, view_of
from interop.checkpoints.unpickling import PLAIN, Global, Made, Persistent, unpickle, walk
from interop.dtypes import row_of

__all__ = ["MOST_SHARED", "PickledSource"]

# A few bytes may stand for tensors of any size; more than this beyond the file's own is refused.
_MOST_EXPANDED_BYTES = 2**30
_DEEPEST = 250
#: How many entries a file may have beyond those that it has bytes for.
MOST_SHARED = 100_000


class PickledSource:
    """See :class:`interop.checkpoints.source.Source`; :meth:`tree` gives the nesting as well."""

    def __init__(self, medium: Medium, allowed: Allowed) -> None:
        self.label = medium.label
        self._size = medium.size
        self._allowed = allowed
        self._last: tuple[Any, Any] = (None, b"")
        self._without: set[int] = set()  # ids of containers that hold no tensors
        self._left = 10 * (MOST_SHARED + self._size)
        self.metadata: dict[str, str] = {}
        self._records: dict[int, TensorRecord | str | None] = {}
        self._tensors: dict[str, TensorRecord] = {}
        self.aliases: dict[str, str] = {}
        self._unreadable: dict[str, Refused] = {}
        self._ambiguous: dict[str, Refused] = {}
        zipped = bytes(medium.view(0, min(medium.size, 4))) == b"PK\x03\x04"
        try:
            self._file: Archive | Stream = Archive(medium) if zipped else Stream(medium)
            content = self._file.content
            self._content = unpickle(content) if zipped else content
            self._name()
        except CheckpointError:
            raise
        # Whatever a broken pickle provokes: that it cannot be read is all there is to tell.
        except Exception as error:
            raise CheckpointError(
                f"{self.label}: cannot be read as a file of torch.save ({type(error).__name__}: "
                f"{first_line(error)[:200]!a}); it is truncated, corrupt or of another kind: "
                "fetch or save it again"
            ) from error
        self.stored = {name: _stored(record) for name, record in self._tensors.items()}
        self.refused = {**self._unreadable, **self._ambiguous}

    def read(self, name: str) -> torch.Tensor:
        """The tensor, its checksum compared if the file has one."""
        return self._read(self._tensors[name], name)

    def tree(self, downcast: bool) -> Any:
        """The content with arrays for tensors; dicts, lists, tuples and plain leaves as saved.

        Raises:
            CheckpointError: there is anything else, and its class is not allowed.
        """
        for refused in self._unreadable.values():
            raise CheckpointError(f"{self.label}: {refused.why}")
        arrays: dict[TensorRecord, jax.Array] = {}
        made: dict[int, Any] = {}

        def build(node: Any, name: str) -> Any:
            record = self._record(node)
            if isinstance(record, TensorRecord):
                if record not in arrays:
                    tensor = self._read(record, name)
                    arrays[record] = convert(self.label, name, tensor, downcast)
                return arrays[record]
            if isinstance(node, PLAIN):
                return node
            if id(node) not in made:
                if isinstance(node, dict):
                    made[id(node)] = {k: build(v, _join(name, k)) for k, v in node.items()}
                elif isinstance(node, list | tuple):
                    kind = list if isinstance(node, list) else tuple
                    made[id(node)] = kind(build(v, _join(name, i)) for i, v in enumerate(node))
                else:
                    made[id(node)] = self._make(node, name, lambda inner: build(inner, name))
            return made[id(node)]

        try:
            return build(self._content, "")
        except RecursionError as error:
            raise CheckpointError(
                f"{self.label}: its nesting and that of the call are too deep together: load it "
                "from further out, or by names="
            ) from error

    def _make(self, node: Made, name: str, build: Any) -> Any:
        kind = class_of(node, self._allowed)
        try:
            if kind is None:  # as a key
                raise TypeError(f"it has {_called(node)} in it")
            return make(node, kind, build)
        except CheckpointError:
            raise
        # The class's own code, given what the file holds.
        except Exception as error:
            raise CheckpointError(
                f"{self.label}: '{name}' does not make a {getattr(kind, '__qualname__', 'tree')} "
                f"({type(error).__name__}: {first_line(error)}): give the class that was saved"
            ) from error

    def _read(self, record: TensorRecord, name: str) -> torch.Tensor:
        row = row_of(record.dtype)
        if row is None:
            advice = "is quantised: save .dequantize()" if "q" in record.dtype else (
                f"is {record.dtype}, which JAX has not: cast it in torch, and save it again"
            )  # fmt: skip
            raise CheckpointError(f"{self.label}: '{name}' {advice}")
        stored = row_of(record.storage_dtype)
        held = record.held * (stored.array.itemsize if stored else 1)
        needed = record.reach * row.array.itemsize
        try:
            if needed > held:
                raise ValueError(f"'{name}' reaches beyond its storage")
            last = self._last
            if last[0] != (record.key, held) and needed:
                last = ((record.key, held), self._file.storage(record.key, held, name))
                # Many tensors may be views of one storage.
                self._last = last
            return view_of(record, last[1], self._file.order)
        except CheckpointError:
            raise
        except (ValueError, RuntimeError, OverflowError, OSError) as error:
            raise CheckpointError(
                f"{self.label}: '{name}' cannot be read ({first_line(error)}); the file is "
                "truncated or corrupt: fetch or save it again"
            ) from error

    def _record(self, node: Any) -> TensorRecord | str | None:
        if not isinstance(node, Made):
            return None
        if id(node) not in self._records:
            self._records[id(node)] = describe(node)
        return self._records[id(node)]

    def _name(self) -> None:
        """Name each tensor by its path, and what is refused; depth and size have bounds."""
        first: dict[TensorRecord, str] = {}
        open_nodes: set[int] = set()
        nodes = letters = expanded = 0
        # Shared containers can stand for exponentially many entries; saved ones take bytes each.
        most = MOST_SHARED + self._size

        def visit(node: Any, name: str) -> None:
            nonlocal nodes, letters, expanded
            nodes += 1
            letters += len(name)
            if nodes > most or letters > 500 * most:
                raise CheckpointError(
                    f"{self.label}: it stands for more than {most} entries, or their names are too "
                    "long; expected a tree of tensors: save the state_dict alone"
                )
            record = self._record(node)
            if isinstance(record, TensorRecord):
                self._add(name, record)
                if record in first and record.reach:
                    self.aliases[name] = first[record]
                elif record.reach:
                    first[record] = name
                    row = row_of(record.dtype)
                    expanded += math.prod(record.shape) * (row.array.itemsize if row else 1)
                if expanded > _MOST_EXPANDED_BYTES + 2 * self._size:
                    raise CheckpointError(
                        f"{self.label}: '{name}' is an expanded tensor that would take "
                        f"{expanded} bytes: save it before it is expanded"
                    )
            elif isinstance(node, PLAIN):
                pass
            elif id(node) in open_nodes or len(open_nodes) >= _DEEPEST:
                what = "contains itself" if id(node) in open_nodes else "is nested too deeply"
                why = f"{_quoted(name)} {what}; expected a tree of tensors: save the state_dict"
                self._unreadable[name] = Refused(why, True)
            elif (reason := self._why_not(node, record, _quoted(name))) is not None:
                self._unreadable[name] = Refused(reason, self._holds_tensors(node))
            else:
                open_nodes.add(id(node))
                for key, child in _children(node):
                    visit(child, _join(name, key))
                open_nodes.discard(id(node))

        visit(self._content, "")

    def _add(self, name: str, record: TensorRecord) -> None:
        if name in self._tensors or name in self._ambiguous:
            self._tensors.pop(name, None)
            self._ambiguous[name] = Refused(
                f"two tensors would both be named '{name}': load the whole file, or rename one",
                True,
            )
        else:
            self._tensors[name] = record

    def _why_not(self, node: Any, record: str | None, name: str) -> str | None:
        """Why a node that is no tensor cannot be read, if so."""
        if record is not None:
            return f"{name} {record}"
        if isinstance(node, dict):
            odd = [k for k in node if not isinstance(k, (*PLAIN, tuple))]
            keys = "keys that are no strings or numbers"
            return f"{name} has {keys}: {_called(odd[0])}" if odd else None
        if isinstance(node, list | tuple) or class_of(node, self._allowed) is not None:
            return None
        return (
            f"refused to load {_called(node)} at {name}, since a pickle that loads more than "
            "tensors could run code; nothing ran. Leave it out by names=, pass its class in "
            "allow=, or save module.state_dict() instead of the object"
        )

    def _holds_tensors(self, node: Any) -> bool:
        added = []
        for found in walk(node, self._without):
            added.append(id(found))
            self._left -= 1 + (len(found) if isinstance(found, dict | list | tuple) else 0)
            # What would take too long to search may hold some.
            if self._left < 0 or isinstance(found, Persistent) or self._record(found) is not None:
                self._without.difference_update(added)
                return True
        return False


def _children(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, dict):
        return list(node.items())
    return members(node) if isinstance(node, Made) else list(enumerate(node))


def _called(node: Any) -> str:
    kind = subclass_of(node)
    for _ in range(8):
        node = node.what if isinstance(node, Made) else node
    node = kind or node
    if isinstance(node, Persistent):
        return "a storage without its tensor"
    if isinstance(node, Global):
        return ascii(node.path[:200])
    return f"an object made by {'another' if isinstance(node, Made) else type(node).__name__}"


def _quoted(name: str) -> str:
    return f"'{name[:200]}{'…' if len(name) > 200 else ''}'" if name else "the top"


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _stored(record: TensorRecord) -> Stored:
    row = row_of(record.dtype)
    return Stored(record.dtype if row is None else row.array, record.shape)
