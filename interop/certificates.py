"""What a set of named tensors holds, bit by bit, in a form that both sides of the bridge share."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interop.arrays import check_array, host, to_numpy
from interop.dtypes import row_of
from interop.memory import memory
from interop.trees import flatten_names

__all__ = ["Certificate", "Entry", "certificate", "certify"]


@dataclass(frozen=True)
class Entry:
    """One named tensor or array.

    Attributes:
        name: as in ``state_dict``.
        dtype: numpy's name, as "float32" or "bfloat16".
        shape: the shape.
        sha256: of the bytes in C order, little endian; hexadecimal.
        kind: "parameter" or "buffer", or None where that is not known.
        ties: the other names of the same memory, or None where that is not known.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    kind: str | None = None
    ties: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Certificate:
    """Entries in the order of the names; made by :func:`certificate`, printed as a table."""

    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def __str__(self) -> str:
        head = ("name", "dtype", "shape", "sha256", "kind", "ties")
        rows = [head] + [
            (
                e.name,
                e.dtype,
                str(e.shape),
                e.sha256[:16],
                e.kind or "-",
                ", ".join(e.ties) if e.ties else "-",
            )
            for e in self.entries
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def certificate(of: Any) -> Certificate:
    """What a module, a ``state_dict``, or a tree of arrays holds.

    Args:
        of: a torch module (its parameters and the buffers that ``state_dict`` saves), a dict of
            tensors, a nested tree of JAX or numpy arrays or tensors of any shape and dtype that
            both sides have, or a certificate, which is returned as it is.

    Returns:
        A :class:`Certificate`, its entries sorted by name.

    Raises:
        TypeError: a value is neither a dense tensor nor an array.
        ValueError: the names of a nested tree are ambiguous.

    Example:
        >>> import jax.numpy as jnp
        >>> import interop
        >>> print(interop.certificate({"layer": {"bias": jnp.zeros(2)}}))
        name        dtype    shape  sha256            kind  ties
        layer.bias  float32  (2,)   af5570f5a1810b7a  -     -
    """
    if isinstance(of, Certificate):
        return of
    kinds: dict[str, str] = {}
    if isinstance(of, torch.nn.Module):
        kinds = {n: "parameter" for n, _ in of.named_parameters(remove_duplicate=False)}
        kinds |= {n: "buffer" for n, _ in of.named_buffers(remove_duplicate=False)}
        named = {n: t for n, t in of.state_dict(keep_vars=True).items() if n in kinds}
    else:
        named = flatten_names(of)
    ties = _ties(named)
    digests: dict[Any, str] = {}
    entries = []
    for name in sorted(named):
        value = named[name]
        if isinstance(value, torch.nn.Parameter):
            kinds.setdefault(name, "parameter")
        if id(value) not in digests:
            digests[id(value)] = _digest(value, name)
        row = row_of(value.dtype)
        assert row is not None
        entries.append(
            Entry(
                name,
                row.name,
                tuple(value.shape),
                digests[id(value)],
                kinds.get(name),
                ties.get(name),
            )
        )
    return Certificate(tuple(entries))


def certify(left: Any, right: Any) -> Certificate:
    """Check that two sides hold the same names, dtypes, shapes and bits.

    Kinds and ties are compared where both sides know them: modules know both, a dict of tensors
    knows its ties, arrays know neither.

    Args:
        left: what :func:`certificate` takes.
        right: the same.

    Returns:
        The certificate of ``left``.

    Raises:
        ValueError: they differ; the message lists every difference.
        TypeError: a value is neither a dense tensor nor an array.

    Example:
        >>> import torch
        >>> import interop
        >>> module = torch.nn.Linear(2, 1)
        >>> len(interop.certify(module, interop.from_state_dict(module.state_dict())))
        2
    """
    own, other = certificate(left), certificate(right)
    ours, theirs = ({e.name: e for e in side} for side in (own, other))
    differences = [f"'{n}' is on the left alone" for n in ours if n not in theirs]
    differences += [f"'{n}' is on the right alone" for n in theirs if n not in ours]
    for name in (n for n in ours if n in theirs):
        differences += _differences(ours[name], theirs[name])
    if differences:
        raise ValueError(f"the two sides differ ({len(differences)}): " + "; ".join(differences))
    return own


def _differences(one: Entry, other: Entry) -> Iterator[str]:
    pairs: list[tuple[str, Any, Any]] = [
        ("dtype", one.dtype, other.dtype),
        ("shape", one.shape, other.shape),
    ]
    if (one.dtype, one.shape) == (other.dtype, other.shape):
        pairs.append(("sha256", one.sha256[:16], other.sha256[:16]))
    if one.kind is not None and other.kind is not None:
        pairs.append(("kind", one.kind, other.kind))
    if one.ties is not None and other.ties is not None:
        pairs.append(("ties", one.ties, other.ties))
    for what, ours, theirs in pairs:
        if ours != theirs:
            yield f"'{one.name}' has {what} {ours} on the left, {theirs} on the right"


def _ties(named: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """For each tensor the other names of its memory; arrays are left out."""
    groups: dict[Any, list[str]] = {}
    for name, value in named.items():
        if isinstance(value, torch.Tensor):
            groups.setdefault(memory(value) or name, []).append(name)
    return {
        name: tuple(sorted(n for n in group if n != name))
        for group in groups.values()
        for name in group
    }


def _digest(value: Any, name: str) -> str:
    if isinstance(value, torch.Tensor):
        own = to_numpy(value, name)
    else:
        check_array(value, name)
        own = host(value)
    if sys.byteorder == "big":
        own = own.byteswap()
    # The empty view of a dtype of ml_dtypes has no buffer; its bytes as integers do.
    return hashlib.sha256(np.ascontiguousarray(own).reshape(-1).view(np.uint8).data).hexdigest()
