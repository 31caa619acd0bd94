"""Transformers, which guess in Python whether a mask is causal."""

from collections.abc import Callable
from typing import Any

import torch


def _guesses_causality(part: torch.nn.Module) -> bool:
    return isinstance(part, torch.nn.TransformerEncoder | torch.nn.TransformerDecoder)


def _without_guess(part: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Whether a mask is causal is a hint, which changes no value: not looked for."""
    name = "is_causal" if isinstance(part, torch.nn.TransformerEncoder) else "tgt_is_causal"
    place = 3 if name == "is_causal" else 6

    def unguessed(*args: Any, **kwargs: Any) -> Any:
        if len(args) > place:
            return forward(*args, **kwargs)
        if kwargs.get(name) is None:
            kwargs[name] = False
        return forward(*args, **kwargs)

    return unguessed


MODULES: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any], Any]], ...] = (
    (_guesses_causality, _without_guess),
)
