"""Which tensors are one, and which overlap: told by their memory."""

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["first_names", "memory", "overlaps"]


def memory(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """What two tensors share if they are one: a key, or None for a tensor without memory."""
    if torch.nn.parameter.is_lazy(tensor) or tensor.layout != torch.strided or tensor.is_nested:
        return None
    if tensor.device.type == "meta" or not all(isinstance(n, int) and n for n in tensor.shape):
        return None  # symbolic sizes are those of tracers
    lazy = (tensor.is_conj(), tensor.is_neg())
    return (
        str(tensor.device), tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride(),
        lazy,
    )  # fmt: skip


def first_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Each name to the first name of the same tensor.

    Example:
        >>> w = torch.ones(2)
        >>> first_names({"a": w, "b": torch.ones(2), "c": w})
        {'a': 'a', 'b': 'b', 'c': 'a'}
    """
    seen: dict[Any, str] = {}
    first = {}
    for name, tensor in tensors.items():
        key = memory(tensor)
        first[name] = name if key is None else seen.setdefault(key, name)
    return first


def overlaps(tensors: Mapping[str, torch.Tensor]) -> list[tuple[str, str]]:
    """Pairs of different views whose memory overlaps, so that writing one changes the other.

    Example:
        >>> w = torch.ones(3)
        >>> overlaps({"a": w[:2], "b": w[1:], "c": torch.ones(2)})
        [('a', 'b')]
    """
    spans = []
    for name, tensor in tensors.items():
        if memory(tensor) is not None:
            reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
            start = tensor.data_ptr()
            end = start + (reach + 1) * tensor.element_size()
            spans.append((str(tensor.device), start, end, name))
    pairs: list[tuple[str, str]] = []
    furthest: tuple[str, int, int, str] | None = None
    for span in sorted(spans):
        if furthest is not None and furthest[0] == span[0] and span[1] < furthest[2]:
            pairs.append((furthest[3], span[3]))
        if furthest is None or furthest[0] != span[0] or span[2] > furthest[2]:
            furthest = span
    return pairs
