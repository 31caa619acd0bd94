"""The .safetensors format: a header of JSON, then the bytes of the tensors without gaps."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import torch

from interop.checkpoints.errors import CheckpointError
from interop.checkpoints.header import LONGEST
from interop.dtypes import row_of

__all__ = ["check_tensors", "write_safetensors"]

_OWN_NAME = "__metadata__"


def check_tensors(
    label: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Refuse what the format cannot hold, and what could be read as something else."""
    first: dict[int, str] = {}
    for name, tensor in tensors.items():
        row = row_of(tensor.dtype)
        if row is None or row.code is None:
            raise CheckpointError(
                f"{label}: '{name}' is {str(tensor.dtype).removeprefix('torch.')}, which the "
                "safetensors format has not: save a .pt file, or its real and imaginary parts"
            )
        tied = first.setdefault(id(tensor), name) != name
        if name == _OWN_NAME or (tied and name in (*metadata, "format")):
            raise CheckpointError(
                f"{label}: the name '{name}' is taken by the format's notes: rename the array"
                + (", or the metadata of that name" if name in metadata else "")
            )
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise CheckpointError(
                f"{label}: metadata: expected strings by strings, got {key!r}: {text!r}"
            )
        # The format's convention: such an entry makes a further name of the tensor.
        if key != "format" and key not in tensors and text in tensors:
            raise CheckpointError(
                f"{label}: metadata {key!r}: {text!r} would be read as a tie to the array of that "
                "name: word it differently"
            )


def write_safetensors(
    file: Any, label: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors of a memory of their own; one under several names is written once.

    Raises:
        CheckpointError: the header would be longer than readers take, or is no Unicode.
    """
    holders: dict[int, str] = {}
    notes = {"format": "pt", **metadata}
    for name, tensor in tensors.items():
        holder = holders.setdefault(id(tensor), name)
        if holder != name:
            # The library's own convention for tied weights.
            notes[name] = holder
    header: dict[str, Any] = {_OWN_NAME: notes}
    at = 0
    # Wide dtypes first: then every tensor begins at a multiple of its width.
    names = sorted(holders.values(), key=lambda n: -tensors[n].element_size())
    for name in names:
        tensor = tensors[name]
        row = row_of(tensor.dtype)
        assert row is not None
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": row.code, "shape": list(tensor.shape), "data_offsets": [at, end]
        }  # fmt: skip
        at = end
    try:
        raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"{label}: a name or metadata is no valid Unicode ({error.reason}), which the "
            "safetensors format needs: rename it, or save a .pt file"
        ) from error
    raw += b" " * (-len(raw) % 8)
    if len(raw) > LONGEST:
        raise CheckpointError(
            f"{label}: its names and metadata take {len(raw)} bytes, readers of the format take "
            f"{LONGEST}: pass max_shard_bytes, or shorten the metadata"
        )
    file.write(len(raw).to_bytes(8, "little") + raw)
    for name in names:
        file.write(_bytes_of(tensors[name]))


def _bytes_of(tensor: torch.Tensor) -> Any:
    row = row_of(tensor.dtype)
    assert row is not None
    # Of its strides, a contiguous tensor of one element or none may tell anything.
    flat = tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)
    width = row.array.itemsize // (2 if row.array.kind == "c" else 1)
    if sys.byteorder != "little" and width > 1:
        flat = flat.view(-1, width).flip(1).reshape(-1)
    return flat.numpy()
