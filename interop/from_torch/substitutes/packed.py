"""Packed sequences of known lengths, and recurrent layers over them, in terms of dense ones."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from interop._torch import pack, unpack
from interop.errors import ConversionError
from interop.from_torch.sources import own_frame


def _numbers(counts: torch.Tensor) -> list[int]:
    found = counts.tolist()
    if not all(isinstance(n, int) for n in found):
        raise ConversionError(
            f"the lengths of a packed sequence depend on values ({own_frame()}): pass them as "
            "interop.Static(lengths), or as a list"
        )
    return found


def packed(
    input: torch.Tensor, lengths: torch.Tensor, batch_first: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows that are there, time by time, and how many there are at each."""
    rows = input.transpose(0, 1) if batch_first else input
    known = _numbers(lengths)
    if sorted(known, reverse=True) != known or min(known) < 1 or max(known) > len(rows):
        raise ConversionError(
            f"lengths of a packed sequence are {known}, of {len(rows)} steps at most "
            f"({own_frame()}): positive ones, and enforce_sorted=False if they do not decrease"
        )
    sizes = [sum(n > t for n in known) for t in range(max(known))]
    data = torch.cat([rows[t, :size] for t, size in enumerate(sizes)])
    return data, torch.tensor(sizes)


def padded(
    data: torch.Tensor,
    batch_sizes: torch.Tensor,
    batch_first: bool,
    padding_value: float,
    total_length: int = -1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of each time filled up, and lengths."""
    sizes = _numbers(batch_sizes)
    inner = [0, 0] * (data.dim() - 1)
    steps = [
        functional.pad(step, (*inner, 0, sizes[0] - len(step)), value=padding_value)
        for step in data.split(sizes)
    ]
    empty = torch.full_like(steps[0], padding_value)
    steps += [empty] * (total_length - len(sizes))
    lengths = [sum(size > row for size in sizes) for row in range(sizes[0])]
    return torch.stack(steps, 1 if batch_first else 0), torch.tensor(lengths)


def _blocks(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of equal batch sizes: how many steps, and of how many rows."""
    found: list[tuple[int, int]] = []
    for size in sizes:
        steps = found.pop()[0] if found and found[-1][1] == size else 0
        found.append((steps + 1, size))
    return found


def _recurrent(layer: Any) -> Callable[..., Any]:
    """A recurrent layer of torch that takes packed sequences too."""

    def over_packed(
        data: torch.Tensor,
        batch_sizes: torch.Tensor,
        hx: Any,
        params: Sequence[torch.Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
    ) -> Any:
        blocks = _blocks(_numbers(batch_sizes))
        directions = 2 if bidirectional else 1
        each = len(params) // (num_layers * directions)
        several = isinstance(hx, list | tuple)
        first = tuple(hx) if several else (hx,)
        last: list[tuple[torch.Tensor, ...]] = []
        for number in range(num_layers):
            outs = []
            for backwards in (False, True)[:directions]:
                at = len(last)
                weights = list(params[at * each : (at + 1) * each])

                def run(
                    steps: torch.Tensor, state: tuple[Any, ...], weights: Any = weights
                ) -> tuple[Any, ...]:
                    given = state if several else state[0]
                    how = (has_biases, 1, 0.0, train, False, False)
                    return layer(steps, given, weights, *how)

                out, state = _pass(run, data, blocks, [h[at : at + 1] for h in first], backwards)
                outs.append(out)
                last.append(state)
            data = torch.cat(outs, -1)
            if number < num_layers - 1:
                data = functional.dropout(data, dropout, train)
        return (data, *(torch.cat(h) for h in zip(*last, strict=True)))

    def either(*args: Any, **kwargs: Any) -> Any:
        is_packed = len(args) > 3 and isinstance(args[3], list | tuple)
        return (over_packed if is_packed else layer)(*args, **kwargs)

    return either


def _pass(
    run: Callable[..., Any],
    data: torch.Tensor,
    blocks: list[tuple[int, int]],
    first: list[torch.Tensor],
    backwards: bool,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """One layer in one direction. Rows end, or backwards begin, between blocks."""
    parts = data.split([steps * size for steps, size in blocks])
    order = list(zip(parts, blocks, strict=True))
    outs: list[torch.Tensor] = []
    ended: list[list[torch.Tensor]] = []
    count = blocks[-1][1] if backwards else blocks[0][1]
    state = [h[:, :count] for h in first]
    for part, (steps, size) in reversed(order) if backwards else order:
        if backwards:
            begun = state[0].shape[1]
            state = [
                torch.cat([h, h0[:, begun:size]], 1) for h, h0 in zip(state, first, strict=True)
            ]
        else:
            ended.insert(0, [h[:, size:] for h in state])
            state = [h[:, :size] for h in state]
        block = part.reshape(steps, size, *part.shape[1:])
        out, *state = run(block.flip(0) if backwards else block, tuple(state))
        outs.append((out.flip(0) if backwards else out).reshape(steps * size, -1))
    if backwards:
        outs.reverse()
    final = (torch.cat(each, 1) for each in zip(state, *ended, strict=True))
    return torch.cat(outs), tuple(final)


def _is_recurrent(part: torch.nn.Module) -> bool:
    return isinstance(part, torch.nn.RNNBase)


def _with_a_first_state(part: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Given zeros to begin with, for torch makes them of a size that is a tensor."""

    def begun(*args: Any, **kwargs: Any) -> Any:
        alone = len(args) == 1 and kwargs.get("hx") is None
        if not alone or not isinstance(args[0], PackedSequence):
            return forward(*args, **kwargs)
        data, sizes = args[0].data, _numbers(args[0].batch_sizes)
        rows = part.num_layers * (2 if part.bidirectional else 1)
        hidden = data.new_zeros(rows, sizes[0], part.proj_size or part.hidden_size)
        if not isinstance(part, torch.nn.LSTM):
            return forward(args[0], hidden)
        return forward(args[0], (hidden, data.new_zeros(rows, sizes[0], part.hidden_size)))

    return begun


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    pack: packed,
    unpack: padded,
    **{f: _recurrent(f) for f in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)},
}
MODULES: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any], Any]], ...] = (
    (_is_recurrent, _with_a_first_state),
)
