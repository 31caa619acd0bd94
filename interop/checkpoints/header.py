"""The header of a .safetensors file, checked against the file before anything is read.

Layout: 8 bytes little endian, the length of the header; the header, JSON; the bytes of the tensors,
without gaps.
"""

import math
from typing import Any, NamedTuple

from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.json_text import parse
from interop.checkpoints.medium import Medium
from interop.checkpoints.source import Stored
from interop.dtypes import row_of_code

__all__ = ["LONGEST", "Header", "read_header"]

# The library's own limit.
LONGEST = 100_000_000
_MOST_AXES = 64
# Widths in bits of what the format has and JAX or torch have not.
_OTHER_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


class Header(NamedTuple):
    """Names with dtype and shape, and with begin and end, in the order of the file; its notes."""

    stored: dict[str, Stored]
    spans: dict[str, tuple[int, int]]
    notes: dict[str, str]


def read_header(medium: Medium) -> Header:
    """Read and check the header.

    Raises:
        CheckpointError: the length, the JSON, a dtype, a shape or the offsets do not fit the file.
    """
    path, size = medium.label, medium.size
    if size < 8:
        raise _broken(path, f"expected 8 bytes of header length, got {size}")
    length = int.from_bytes(bytes(medium.view(0, 8)), "little")
    if length > min(size - 8, LONGEST):
        raise _broken(
            path, f"its header claims {length} bytes, the file has {size - 8} after the length"
        )
    raw = bytes(medium.view(8, length))
    table = parse(raw, path, "the header")
    notes = table.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(v, str) for v in notes.values()):
        raise _broken(path, "'__metadata__' has to map strings to strings")
    stored: dict[str, Stored] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in table.items():
        dtype, shape, begin, end = _entry(path, name, entry)
        stored[name] = Stored(dtype, shape)
        spans.append((begin, end, name))
    spans.sort()
    _check_spans(path, spans, size - 8 - length)
    at = 8 + length
    return Header(
        {name: stored[name] for _, _, name in spans},
        {name: (at + begin, at + end) for begin, end, name in spans},
        notes,
    )


def _entry(path: str, name: str, entry: Any) -> tuple[Any, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(
            path, f"'{name}': expected dtype, shape and data_offsets, got {_short(entry)}"
        )
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    row = row_of_code(code) if isinstance(code, str) else None
    if row is not None:
        bits = 8 * row.array.itemsize
    elif isinstance(code, str) and code in _OTHER_BITS:
        bits = _OTHER_BITS[code]
    else:
        raise _broken(path, f"'{name}' has the dtype {_short(code)}, which the format has not")
    if not _counts(shape) or len(shape) > _MOST_AXES:
        raise _broken(path, f"'{name}' has the shape {_short(shape)}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(path, f"'{name}' has the data_offsets {_short(offsets)}")
    begin, end = offsets
    needed = math.prod(shape) * bits
    if needed != 8 * (end - begin):
        raise _broken(
            path, f"'{name}', {code} {_short(shape)}, takes {needed} bits; its data_offsets give "
            f"{8 * (end - begin)}",
        )  # fmt: skip
    return (code if row is None else row.array), tuple(shape), begin, end


def _check_spans(path: str, spans: list[tuple[int, int, str]], held: int) -> None:
    at, before = 0, "the header"
    for begin, end, name in spans:
        if begin != at:
            what = "overlaps" if begin < at else "leaves a gap after"
            raise _broken(path, f"'{name}' (bytes {begin} to {end}) {what} {before}")
        at, before = end, f"'{name}'"
    if at != held:
        raise _broken(path, f"its tensors take {at} bytes, the file holds {held}")


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**63 for n in value
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _broken(path: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {what}; the file is truncated, corrupt or no .safetensors file: fetch or save it "
        "again"
    )
