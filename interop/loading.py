"""Arrays back into a torch module, in place: everything is checked before anything is written."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from interop.arrays import check_array, host, numpy_to_tensor
from interop.dtypes import Row, row_of
from interop.memory import first_names, overlaps
from interop.trees import flatten_names

__all__ = ["load_into"]

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)

# What JAX without x64 holds in 32 bits goes back into 64 without a loss.
_WIDENING = {
    ("int32", "int64"), ("uint32", "uint64"), ("float32", "float64"), ("complex64", "complex128"),
}  # fmt: skip


def load_into(
    module: ModuleT,
    params: Any,
    buffers: Mapping[str, Any] | None = None,
    *,
    strict: bool = True,
) -> ModuleT:
    """Write arrays into a module's parameters and buffers, in place and bit for bit.

    A tied tensor may be given under any of its names, or under several with equal bits. An array
    of 32 bits may go into a tensor of 64 (int32 to int64, float32 to float64, complex64 to
    complex128), which holds every value exactly; every other difference of dtype is an error.

    Args:
        module: any torch module; its tensors stay the same objects, on their devices.
        params: a dict of JAX or numpy arrays named as in ``state_dict``, or a nested tree of them.
            It may hold buffers as well, as a whole ``state_dict`` does.
        buffers: arrays of the buffers by name. If given, all that ``state_dict`` has are expected.
        strict: expect every parameter; False writes what is given and leaves the rest.

    Returns:
        The module itself.

    Raises:
        ValueError: names are missing, unknown or given twice, or shapes or dtypes differ; one
            error lists them all, and nothing is written.
        TypeError: a leaf is no array.

    Example:
        >>> import jax.numpy as jnp
        >>> import torch
        >>> import interop
        >>> layer = torch.nn.Linear(2, 1)
        >>> params = {"weight": jnp.ones((1, 2)), "bias": jnp.zeros(1)}
        >>> interop.load_into(layer, params)(torch.tensor([2.0, 3.0]))
        tensor([5.], grad_fn=<ViewBackward0>)
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(module).__name__}")
    tensors = _tensors(module)
    first = first_names(tensors)
    given: dict[str, Any] = flatten_names(params)
    problems: dict[str, list[str]] = {}

    def problem(kind: str, what: str) -> None:
        problems.setdefault(kind, []).append(what)

    for name, value in flatten_names(buffers or {}).items():
        if name in given:
            problem("given in params and in buffers", f"'{name}'")
        given[name] = value
    writes: dict[str, tuple[str, Any, Row]] = {}
    for name, value in given.items():
        if name not in tensors:
            problem("unexpected", f"'{name}'")
            continue
        row = check_array(value, name)
        wrong = _mismatch(tensors[name], np.shape(value), row)
        if wrong:
            problem("mismatched", f"'{name}' {wrong}")
        elif first[name] not in writes:
            writes[first[name]] = (name, value, row)
        elif not _same_bits(value, writes[first[name]][1]):
            problem(
                "tied in the module, different here",
                f"'{writes[first[name]][0]}' and '{name}' (pass one of them)",
            )
    if strict:
        needed = [n for n, _ in module.named_parameters(remove_duplicate=False)]
        if buffers is not None:
            saved = set(module.state_dict(keep_vars=True))
            needed += [n for n, _ in module.named_buffers(remove_duplicate=False) if n in saved]
        covered = {first[name] for name in given if name in tensors}
        for name in dict.fromkeys(first[n] for n in tensors if n in set(needed)):
            if name not in covered:
                problem("missing", f"'{name}'")
    for one, other in overlaps({n: tensors[n] for n in writes}):
        problem("overlapping in memory without being one tensor", f"'{one}' and '{other}'")
    if problems:
        lines = [f"{kind}: {', '.join(what)}" for kind, what in problems.items()]
        raise ValueError(
            f"these arrays do not fit {type(module).__name__}; nothing was written. "
            + "; ".join(lines)
            + ("" if "missing" not in problems else ". strict=False allows missing names")
        )
    with torch.no_grad():
        for name, (_, value, row) in writes.items():
            tensors[name].copy_(numpy_to_tensor(host(value), row))
    return module


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer under every name: ``state_dict``'s order, then those not saved."""
    held: dict[str, torch.Tensor] = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    saved = [n for n in module.state_dict(keep_vars=True) if n in held]
    return {n: held[n] for n in dict.fromkeys([*saved, *held])}


def _mismatch(tensor: torch.Tensor, shape: tuple[int, ...], given: Row) -> str | None:
    if torch.nn.parameter.is_lazy(tensor):
        return "has no shape yet: call the module once"
    if tensor.device.type == "meta":
        return "is on the meta device: call module.to_empty(device='cpu')"
    if tensor.is_inference():
        return "was made in inference mode, so it cannot be written: make the module outside it"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return "is not a dense tensor"
    if any(n > 1 and s == 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True)):
        return "is an expanded view, whose elements share memory: clone it in the module"
    own = row_of(tensor.dtype)
    name = str(tensor.dtype).removeprefix("torch.") if own is None else own.name
    same = own is given or (given.name, name) in _WIDENING
    if tuple(tensor.shape) == tuple(shape) and same:
        return None
    return f"is {name} {tuple(tensor.shape)}, got {given.name} {tuple(shape)}"


def _same_bits(one: Any, other: Any) -> bool:
    if one is other:
        return True
    one, other = host(one), host(other)
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()
