"""One tensor to one array and back, bit for bit; copies unless sharing is asked for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from interop._torch import FakeTensor
from interop.dtypes import Row, array_dtype, row_of, torch_dtype
from interop.errors import ConversionError

__all__ = ["array_dtype", "to_array", "to_tensor", "torch_dtype"]


def to_array(
    tensor: torch.Tensor, *, share: bool = False, name: str = "tensor", downcast: bool = False
) -> jax.Array:
    """A torch tensor as a JAX array of the same shape, dtype and bits, NaN payloads included.

    Strides, ``requires_grad``, lazy conjugation and the device make no difference.

    Args:
        tensor: shape (*axes), any of the dtypes that both have.
        share: no copy: the array and the tensor are one memory, through DLPack. **Writing into the
            tensor then changes the array**, which JAX takes to be immutable: what was computed or
            compiled from it may or may not see the change. Only dense CPU or CUDA tensors whose
            memory JAX accepts as it is.
        name: what messages call the tensor.
        downcast: turn 64-bit dtypes into 32-bit ones: floating-point values are rounded to the
            nearest, integers have to fit.

    Returns:
        An array of shape (*axes).

    Raises:
        TypeError: ``tensor`` is not a dense tensor with values, or JAX has no such dtype.
        ConversionError: the dtype has 64 bits and JAX's x64 mode is off; a value does not fit
            ``downcast``; the memory cannot be shared.

    Example:
        >>> import torch
        >>> import interop
        >>> interop.to_array(torch.tensor([1.0, -0.0], dtype=torch.bfloat16))
        Array([1, -0], dtype=bfloat16)
    """
    row = check_tensor(tensor, name)
    if downcast and row.narrow is not None:
        if share:
            raise ConversionError(
                f"'{name}': share=True and downcast=True exclude each other: {row.name} becomes "
                f"{row.narrow} in new memory; drop one of the two"
            )
        tensor = narrow(tensor.detach(), name)
    elif row.narrow is not None and not jax.config.read("jax_enable_x64"):
        raise ConversionError(
            f"'{name}' is {row.name}, which JAX holds in x64 mode only: enable it by "
            f"jax.config.update('jax_enable_x64', True), or pass downcast=True for {row.narrow}"
        )
    # Under a trace the constants are still concrete arrays.
    with jax.ensure_compile_time_eval():
        if share:
            return _shared_array(tensor, name)
        return jnp.asarray(to_numpy(tensor, name))


def to_tensor(array: Any, *, share: bool = False, name: str = "array") -> torch.Tensor:
    """A JAX or numpy array as a torch tensor of the same shape, dtype and bits.

    Args:
        array: shape (*axes), any of the dtypes that both have, in any byte order.
        share: no copy: the tensor is a view of the array's memory, through DLPack. **Writing into
            the tensor then changes the array**, which JAX takes to be immutable.
        name: what messages call the array.

    Returns:
        A tensor of shape (*axes), on the CPU unless shared.

    Raises:
        TypeError: ``array`` is neither a JAX nor a numpy array, is traced, or torch has no such
            dtype.
        ConversionError: the array was donated or deleted, lies partly in another process, or
            cannot be shared.

    Example:
        >>> import jax.numpy as jnp
        >>> import interop
        >>> interop.to_tensor(jnp.arange(3.0))
        tensor([0., 1., 2.])
    """
    row = check_array(array, name)
    if share:
        try:
            return torch.utils.dlpack.from_dlpack(array)
        except Exception as error:
            raise ConversionError(
                f"'{name}' ({row.name}, shape {np.shape(array)}) cannot be shared with torch: "
                f"{first_line(error)}; share=False copies it"
            ) from error
    return numpy_to_tensor(host(array), row)


def check_tensor(tensor: Any, name: str) -> Row:
    """The row of a tensor's dtype; raises TypeError unless it is a dense tensor with values."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"'{name}': expected a torch.Tensor, got {type(tensor).__name__}")
    if isinstance(tensor, FakeTensor) or tensor.device.type == "meta":
        raise TypeError(
            f"'{name}' is on the meta device, so it has a shape and no values: load or make it on "
            "the CPU"
        )
    if tensor.is_quantized:
        raise TypeError(f"'{name}' is quantised ({tensor.dtype}): pass .dequantize()")
    if tensor.is_nested:
        raise TypeError(f"'{name}' is nested: pass .to_padded_tensor(...), or one tensor for each")
    if tensor.layout != torch.strided:
        raise TypeError(f"'{name}' has the layout {tensor.layout}: pass .to_dense()")
    row = row_of(tensor.dtype)
    if row is None:
        raise TypeError(
            f"'{name}' is {tensor.dtype}, which JAX has not; cast it in torch first, for example "
            f"by .to(torch.{'complex64' if tensor.is_complex() else 'float32'})"
        )
    return row


def check_array(array: Any, name: str) -> Row:
    """The row of an array's dtype; raises unless it is a JAX or numpy array with values."""
    if isinstance(array, jax.core.Tracer):
        raise TypeError(f"'{name}' is traced and has no values yet: convert it outside jit")
    if not isinstance(array, jax.Array | np.ndarray | np.generic):
        raise TypeError(f"'{name}': expected a JAX or numpy array, got {type(array).__name__}")
    if isinstance(array, jax.Array):
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            raise TypeError(f"'{name}' is a key of random numbers: pass jax.random.key_data(key)")
        if array.is_deleted():
            raise ConversionError(f"'{name}' was donated or deleted: keep a copy of it before that")
        if not array.is_fully_addressable:
            raise ConversionError(
                f"'{name}' lies partly in other processes: gather it first, by "
                "jax.experimental.multihost_utils.process_allgather"
            )
    row = row_of(array.dtype)
    if row is None:
        raise TypeError(
            f"'{name}' is {array.dtype}, which torch has not; cast it first, by .astype(...)"
        )
    return row


def to_numpy(tensor: torch.Tensor, name: str) -> np.ndarray:
    """A copy in C order; no x64 rules, so numpy holds any dtype of the table."""
    row = check_tensor(tensor, name)
    try:
        dense = tensor.detach().resolve_conj().resolve_neg().cpu()
        # A clone is new memory, which the array may keep as its own.
        dense = dense.clone(memory_format=torch.contiguous_format)
        return dense.view(row.carrier).numpy().view(row.array)
    except RuntimeError as error:
        raise TypeError(f"'{name}' has no values to copy: {first_line(error)}") from error


def host(array: Any) -> np.ndarray:
    """An array on the host in C order and the machine's byte order; a view where it can be."""
    own = np.asarray(array)
    return np.asarray(own, dtype=own.dtype.newbyteorder("="), order="C")


def numpy_to_tensor(own: np.ndarray, row: Row) -> torch.Tensor:
    """A copy of a numpy array as a tensor."""
    # numpy writes bits of its own dtypes only, so those of ml_dtypes travel as integers.
    carrier = row_of(row.carrier)
    assert carrier is not None
    copy = np.array(own, copy=True, order="C", subok=False)
    return torch.from_numpy(copy.view(carrier.array)).view(row.torch)


def first_line(error: BaseException) -> str:
    """The first line of a message, for a quotation in ours."""
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else type(error).__name__


def narrow(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """A tensor of 64 bits in 32, of others itself; raises ConversionError if values do not fit."""
    row = check_tensor(tensor, name)
    if row.narrow is None:
        return tensor
    target = row_of(row.narrow)
    assert target is not None
    small = tensor.to(target.torch)
    if row.array.kind in "iu":
        fits = bool((small.to(row.torch) == tensor).all())
    else:
        fits = bool((torch.isfinite(small) | ~torch.isfinite(tensor)).all())
    if not fits:
        raise ConversionError(
            f"'{name}' has {row.name} values that do not fit {row.narrow}, so downcast=True would "
            "lose them: use jax.config.update('jax_enable_x64', True)"
        )
    return small


def _shared_array(tensor: torch.Tensor, name: str) -> jax.Array:
    try:
        if tensor.is_conj() or tensor.is_neg():
            raise ConversionError("it is conjugated or negated lazily")
        return jax.dlpack.from_dlpack(tensor.detach(), copy=False)
    except Exception as error:
        raise ConversionError(
            f"'{name}' ({tensor.dtype}, shape {tuple(tensor.shape)}, strides {tensor.stride()}) "
            f"cannot be shared with JAX: {first_line(error)}; share=False copies it"
        ) from error
