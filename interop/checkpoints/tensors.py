"""Tensors as files of torch.save describe them: which storage, which part of it."""

from typing import Any, NamedTuple

import torch

from interop.checkpoints.unpickling import Global, Made, Persistent
from interop.dtypes import row_of

__all__ = ["TensorRecord", "describe", "storage_itemsize", "subclass_of", "view_of"]

_STORAGES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool", "ComplexFloat": "complex64", "ComplexDouble": "complex128",
    "Untyped": "uint8", "QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32",
}  # fmt: skip
_UTILS = "torch._utils._rebuild_"
_PARAMETERS = (
    f"{_UTILS}parameter", f"{_UTILS}parameter_with_state", "torch.nn.parameter.Parameter",
    f"{_UTILS}device_tensor_from_cpu_tensor",
)  # fmt: skip
_PLAIN_TYPES = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter",
                "torch.nn.parameter.Buffer")  # fmt: skip
_OF_A_CLASS = "torch._tensor._rebuild_from_type_v2"
_NOT_DENSE = {
    f"{_UTILS}sparse_tensor": "has a sparse layout: save .to_dense()",
    f"{_UTILS}meta_tensor_no_storage": "is on the meta device, so it has a shape and no values",
    f"{_UTILS}qtensor": "is quantised: save .dequantize()",
    f"{_UTILS}nested_tensor": "is nested: save .to_padded_tensor(...), or one tensor for each",
}


class TensorRecord(NamedTuple):
    """A tensor before it is read; equal records are one tensor.

    Attributes:
        key: the storage's name in the file.
        held: the number of elements of the storage, in its own dtype.
        storage_dtype: torch's name of that dtype.
        dtype: torch's name of the tensor's dtype.
        start, shape, strides: which elements of the storage, counted in ``dtype``.
        lazy: whether it is conjugated, and whether it is negated, when read.
    """

    key: str
    held: int
    storage_dtype: str
    dtype: str
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    lazy: tuple[bool, bool]

    @property
    def reach(self) -> int:
        """How many elements the storage has to have."""
        if 0 in self.shape:
            return 0
        pairs = zip(self.shape, self.strides, strict=True)
        return self.start + 1 + sum((n - 1) * s for n, s in pairs)


def describe(node: Made) -> TensorRecord | str | None:
    """The tensor that a record stands for, or why it cannot be read, or None: it is no tensor.

    Raises:
        ValueError: it lies about itself.
    """
    for _ in range(4):  # a parameter of a subclass of ... is not nested deeper
        path = node.what.path if isinstance(node.what, Global) else ""
        if path in _NOT_DENSE:
            return _NOT_DENSE[path]
        args = node.args
        if path in _PARAMETERS and args and isinstance(args[0], Made):
            if path.endswith("cpu_tensor") and _dtype(args[1]) != getattr(
                describe(args[0]), "dtype", None
            ):
                return "was saved on a device whose dtypes differ: save .cpu() of it"
            node = args[0]
        elif path == _OF_A_CLASS and len(args) == 4:
            function, kind, inner, _ = args
            if not isinstance(kind, Global) or kind.path not in _PLAIN_TYPES:
                return None
            node = Made(function, inner)
        elif path in (f"{_UTILS}tensor", f"{_UTILS}tensor_v2", f"{_UTILS}tensor_v3"):
            return _record(args, path.endswith("v3"))
        else:
            return None
    return None


def subclass_of(node: Any) -> Global | None:
    """The class of a tensor of a class of its own."""
    what = node.what if isinstance(node, Made) else None
    if isinstance(what, Global) and what.path == _OF_A_CLASS and len(node.args) == 4:
        return node.args[1] if isinstance(node.args[1], Global) else None
    return None


def storage_itemsize(pid: Any) -> int:
    """The bytes of one element of the storage that a pickle leaves to its file."""
    dtype = _storage_dtype(pid[1]) or ""
    row = row_of(dtype)
    return row.array.itemsize if row is not None else 4 if dtype == "qint32" else 1


def view_of(record: TensorRecord, storage: Any, order: str) -> torch.Tensor:
    """The tensor on the bytes of its storage, which were written in the byte order ``order``."""
    row = row_of(record.dtype)
    assert row is not None
    if not record.reach:
        return torch.empty(record.shape, dtype=row.torch)
    flat = torch.frombuffer(storage, dtype=torch.uint8)
    if flat.data_ptr() % row.array.itemsize:
        flat = flat.clone()
    width = row.array.itemsize // (2 if row.array.kind == "c" else 1)
    if order != "little" and width > 1:
        flat = flat.view(-1, width).flip(1).reshape(-1)
    flat = flat[: flat.numel() // row.array.itemsize * row.array.itemsize]
    tensor = flat.view(row.torch).as_strided(record.shape, record.strides, record.start)
    conjugated, negated = record.lazy
    tensor = tensor.conj().resolve_conj() if conjugated else tensor
    return -tensor if negated else tensor


def _record(args: Any, untyped: bool) -> TensorRecord:
    storage, start, shape, strides = args[:4]
    if not isinstance(storage, Persistent) or type(storage.pid) is not tuple:
        raise ValueError("a tensor has no storage")
    kind, storage_type, key, _, held, *view = storage.pid
    storage_dtype = _storage_dtype(storage_type)
    if kind != "storage" or storage_dtype is None or not _counts((held,)):
        raise ValueError("a storage is not described as torch.save does")
    if not _counts((start, *shape, *strides)) or len(shape) != len(strides):
        raise ValueError(f"a tensor has the shape {shape!r} and the strides {strides!r}"[:200])
    if view and view[0] is not None:
        _, offset, held_by_view = view[0]
        if not _counts((offset, held_by_view)) or offset + held_by_view > held:
            raise ValueError("a storage views more than there is")
        start += offset
    dtype = _dtype(args[6]) if untyped else storage_dtype
    notes = (args[7:] if untyped else args[6:])[:1]
    told = notes[0] if notes and isinstance(notes[0], dict) else {}
    return TensorRecord(
        key if type(key) is str else str(key), held, storage_dtype, dtype, start, tuple(shape),
        tuple(strides), (bool(told.get("conj")), bool(told.get("neg"))),
    )  # fmt: skip


def _storage_dtype(kind: Any) -> str | None:
    if not isinstance(kind, Global) or kind.module.partition(".")[0] != "torch":
        return None
    return _STORAGES.get(kind.name.removesuffix("Storage"))


def _dtype(kind: Any) -> str:
    if not isinstance(kind, Global) or kind.module != "torch":
        raise ValueError("a tensor has no dtype")
    return kind.name


def _counts(numbers: Any) -> bool:
    return all(type(n) is int and 0 <= n < 2**63 for n in numbers)
