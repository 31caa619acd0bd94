"""Recurrent layers as scans: several layers, both directions, projections, packed sequences."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.activations import relu
from interop.aten.layers import needed
from interop.aten.registry import Table

rules = Table()

State = tuple[jax.Array, ...]
Cell = Callable[[jax.Array, State, Sequence[Any]], State]
"""The next state from the input's share of the gates, the state, and the recurrent parameters."""


def _linear(x: jax.Array, weight: jax.Array, bias: Any = None) -> jax.Array:
    y = jnp.matmul(x, weight.T)
    return y if bias is None else y + bias


def _lstm(gates: jax.Array, state: State, parameters: Sequence[Any]) -> State:
    hidden, memory = state
    weight, bias, projection = parameters
    gates = gates + _linear(hidden, weight, bias)
    write, keep, new, read = jnp.split(gates, 4, -1)
    memory = jax.nn.sigmoid(keep) * memory + jax.nn.sigmoid(write) * jnp.tanh(new)
    hidden = jax.nn.sigmoid(read) * jnp.tanh(memory)
    return hidden if projection is None else _linear(hidden, projection), memory


def _gru(gates: jax.Array, state: State, parameters: Sequence[Any]) -> State:
    (hidden,) = state
    weight, bias, _ = parameters
    reset, update, new = jnp.split(gates, 3, -1)
    own_reset, own_update, own_new = jnp.split(_linear(hidden, weight, bias), 3, -1)
    update = jax.nn.sigmoid(update + own_update)
    new = jnp.tanh(new + jax.nn.sigmoid(reset + own_reset) * own_new)
    return (new + update * (hidden - new),)


def _simple(activation: Callable[[jax.Array], jax.Array]) -> Cell:
    def cell(gates: jax.Array, state: State, parameters: Sequence[Any]) -> State:
        weight, bias, _ = parameters
        return (activation(gates + _linear(state[0], weight, bias)),)

    return cell


def _layers(
    cell: Cell,
    x: jax.Array,
    initial: State,
    parameters: Sequence[jax.Array],
    has_biases: bool,
    count: int,
    dropout: float,
    bidirectional: bool,
    valid: jax.Array | None,
    key: Any,
) -> tuple[jax.Array, State]:
    """Outputs (time, batch, features) and last states; ``valid`` (time, batch) freezes a state."""
    directions = 2 if bidirectional else 1
    each = len(parameters) // (count * directions)
    lasts: list[State] = []
    for layer in range(count):
        if layer and dropout:
            draw = jax.random.fold_in(needed(key), layer)
            kept = jax.random.bernoulli(draw, 1 - dropout, x.shape)
            x = jnp.where(kept, x / (1 - dropout), 0) if dropout < 1 else jnp.zeros_like(x)
        outputs = []
        for direction in range(directions):
            at = layer * directions + direction
            own = parameters[at * each : (at + 1) * each]
            y, last = _scan(
                cell, x, tuple(s[at] for s in initial), own, has_biases, direction == 1, valid
            )
            outputs.append(y)
            lasts.append(last)
        x = jnp.concatenate(outputs, -1) if bidirectional else outputs[0]
    return x, tuple(jnp.stack(parts) for parts in zip(*lasts, strict=True))


def _scan(
    cell: Cell,
    x: jax.Array,
    initial: State,
    own: Sequence[jax.Array],
    has_biases: bool,
    backwards: bool,
    valid: jax.Array | None,
) -> tuple[jax.Array, State]:
    input_weight, weight, *rest = own
    input_bias, bias = rest[:2] if has_biases else (None, None)
    more = rest[2:] if has_biases else rest
    recurrent = (weight, bias, more[0] if more else None)
    gates = _linear(x, input_weight, input_bias)

    def step(state: State, moment: Any) -> tuple[State, jax.Array]:
        gate, going = moment
        new = cell(gate, state, recurrent)
        if going is not None:
            new = tuple(jnp.where(going[:, None], n, s) for n, s in zip(new, state, strict=True))
        return new, new[0]

    last, outputs = jax.lax.scan(step, initial, (gates, valid), reverse=backwards)
    return outputs, last


def _padded(
    cell: Cell,
    x: jax.Array,
    initial: State,
    parameters: Sequence[jax.Array],
    has_biases: bool,
    count: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    key: Any,
) -> tuple[jax.Array, ...]:
    x = jnp.swapaxes(x, 0, 1) if batch_first else x
    dropout = dropout if train else 0.0
    outputs, last = _layers(
        cell, x, initial, parameters, has_biases, count, dropout, bidirectional, None, key
    )
    return jnp.swapaxes(outputs, 0, 1) if batch_first else outputs, *last


def _packed(
    cell: Cell,
    data: jax.Array,
    batch_sizes: jax.Array,
    initial: State,
    parameters: Sequence[jax.Array],
    has_biases: bool,
    count: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    *,
    key: Any,
) -> tuple[jax.Array, ...]:
    """Sequences of falling lengths, their moments one after the other: unpacked, run, packed."""
    batch = initial[0].shape[1]
    starts = jnp.cumsum(batch_sizes) - batch_sizes
    valid = jnp.arange(batch) < batch_sizes[:, None]
    places = jnp.where(valid, starts[:, None] + jnp.arange(batch), 0)
    dropout = dropout if train else 0.0
    outputs, last = _layers(
        cell,
        data[places],
        initial,
        parameters,
        has_biases,
        count,
        dropout,
        bidirectional,
        valid,
        key,
    )
    row = jnp.arange(data.shape[0])
    moment = jnp.searchsorted(starts + batch_sizes, row, side="right")
    return outputs[moment, row - starts[moment]], *last


@rules("aten.lstm.input")
def lstm(x: jax.Array, state: Any, *how: Any, key: Any = None) -> tuple[jax.Array, ...]:
    return _padded(_lstm, x, tuple(state), *how, key=key)


@rules("aten.lstm.data")
def lstm_packed(
    x: jax.Array, sizes: jax.Array, state: Any, *how: Any, key: Any = None
) -> tuple[jax.Array, ...]:
    return _packed(_lstm, x, sizes, tuple(state), *how, key=key)


@rules("aten.lstm_cell.default")
def lstm_cell(
    x: jax.Array,
    state: Sequence[jax.Array],
    input_weight: jax.Array,
    weight: jax.Array,
    input_bias: Any = None,
    bias: Any = None,
) -> State:
    return _lstm(_linear(x, input_weight, input_bias), tuple(state), (weight, bias, None))


def _register(name: str, cell: Cell) -> None:
    """The rules of a layer that has one state."""

    def padded(x: jax.Array, state: jax.Array, *how: Any, key: Any = None) -> Any:
        return _padded(cell, x, (state,), *how, key=key)

    def packed(x: jax.Array, sizes: jax.Array, state: jax.Array, *how: Any, key: Any = None) -> Any:
        return _packed(cell, x, sizes, (state,), *how, key=key)

    def once(
        x: jax.Array,
        state: jax.Array,
        input_weight: jax.Array,
        weight: jax.Array,
        input_bias: Any = None,
        bias: Any = None,
    ) -> jax.Array:
        return cell(_linear(x, input_weight, input_bias), (state,), (weight, bias, None))[0]

    rules(f"aten.{name}.input")(padded)
    rules(f"aten.{name}.data")(packed)
    rules(f"aten.{name}_cell.default")(once)


_register("gru", _gru)
_register("rnn_tanh", _simple(jnp.tanh))
_register("rnn_relu", _simple(relu))
