"""The one table of dtypes: torch's, JAX's (numpy's), and how safetensors files spell them."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch

__all__ = ["ROWS", "Row", "array_dtype", "row_of", "row_of_code", "torch_dtype"]


class Row(NamedTuple):
    """One dtype in every spelling.

    Attributes:
        name: numpy's name, used in messages and certificates.
        torch: torch's dtype.
        array: the dtype of numpy and JAX.
        carrier: a torch dtype of the same width that numpy knows too; bits travel as this.
        code: safetensors' spelling, or None where the format has none.
        narrow: the 32-bit (per part) counterpart of a 64-bit dtype, else None.
    """

    name: str
    torch: torch.dtype
    array: np.dtype
    carrier: torch.dtype
    code: str | None
    narrow: str | None


def _row(name: str, code: str | None, carrier: torch.dtype, narrow: str | None = None) -> Row:
    array = np.dtype(np.bool_) if name == "bool" else np.dtype(getattr(jnp, name))
    return Row(name, getattr(torch, name), array, carrier, code, narrow)


ROWS: tuple[Row, ...] = (
    _row("bool", "BOOL", torch.bool),
    _row("uint8", "U8", torch.uint8),
    _row("uint16", "U16", torch.uint16),
    _row("uint32", "U32", torch.uint32),
    _row("uint64", "U64", torch.uint64, narrow="uint32"),
    _row("int8", "I8", torch.int8),
    _row("int16", "I16", torch.int16),
    _row("int32", "I32", torch.int32),
    _row("int64", "I64", torch.int64, narrow="int32"),
    _row("float16", "F16", torch.int16),
    _row("bfloat16", "BF16", torch.int16),
    _row("float32", "F32", torch.int32),
    _row("float64", "F64", torch.int64, narrow="float32"),
    _row("complex64", "C64", torch.complex64),
    _row("complex128", None, torch.complex128, narrow="complex64"),
    _row("float8_e4m3fn", "F8_E4M3", torch.uint8),
    _row("float8_e4m3fnuz", "F8_E4M3FNUZ", torch.uint8),
    _row("float8_e5m2", "F8_E5M2", torch.uint8),
    _row("float8_e5m2fnuz", "F8_E5M2FNUZ", torch.uint8),
    _row("float8_e8m0fnu", "F8_E8M0", torch.uint8),
)

_BY_KEY: dict[Any, Row] = {
    **{row.torch: row for row in ROWS},
    **{row.array: row for row in ROWS},
    **{row.name: row for row in ROWS},
}
_BY_CODE = {row.code: row for row in ROWS if row.code is not None}


def row_of(dtype: Any) -> Row | None:
    """The row of a torch dtype, of a numpy dtype (in any byte order) or of a name, or None."""
    if isinstance(dtype, np.dtype):
        dtype = dtype.newbyteorder("=") if dtype.byteorder in "<>" else dtype
    return _BY_KEY.get(dtype)


def row_of_code(code: str) -> Row | None:
    """The row of a safetensors spelling, or None."""
    return _BY_CODE.get(code)


def array_dtype(dtype: torch.dtype) -> np.dtype:
    """The numpy (JAX) dtype with the same bits as a torch dtype.

    Raises:
        TypeError: ``dtype`` is no torch dtype, or JAX has no such dtype.

    Example:
        >>> import torch
        >>> from interop.arrays import array_dtype
        >>> array_dtype(torch.bfloat16)
        dtype(bfloat16)
    """
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"expected a torch dtype, got {dtype!r}")
    row = row_of(dtype)
    if row is None:
        raise TypeError(f"{dtype} has no counterpart in JAX; those which have are {_names()}")
    return row.array


def torch_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype with the same bits as a numpy or JAX dtype, or what ``np.dtype`` accepts.

    Raises:
        TypeError: torch has no such dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from interop.arrays import torch_dtype
        >>> torch_dtype(jnp.float8_e5m2)
        torch.float8_e5m2
    """
    row = None if isinstance(dtype, torch.dtype) else row_of(_numpy_dtype(dtype))
    if row is None:
        raise TypeError(f"{dtype} has no counterpart in torch; those which have are {_names()}")
    return row.torch


def _numpy_dtype(dtype: Any) -> Any:
    try:
        return np.dtype(dtype)
    except TypeError:
        return None  # a dtype of JAX alone, as that of a key


def _names() -> str:
    return ", ".join(row.name for row in ROWS)
