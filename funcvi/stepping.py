"""Steps of an optimiser: one of them, and many in one compiled loop."""

import inspect
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from funcvi._types import Key, Loss, Params
from funcvi.loops import slow_in_loops

__all__ = ["CHUNK", "State", "advance", "init", "step"]

CHUNK = 1000
"""Steps per compiled call, and the length of its buffer of losses."""


class State(NamedTuple):
    """All that a step changes: a pytree of arrays."""

    params: Params
    good_params: Params  # where the loss and its gradient were last finite
    optimizer_state: Any
    step: jax.Array
    skipped: jax.Array  # steps with a non-finite loss or gradient, in all
    run: jax.Array  # and in a row, up to now


@partial(jax.jit, static_argnames="optimizer")
def init(params: Params, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step."""
    zero = jnp.zeros((), jnp.int32)
    state = State(params, params, optimizer.init(params), zero, zero, zero)
    # Weak types would not survive the loop, and a continuation would compile again.
    return jax.tree.map(lambda x: lax.convert_element_type(x, x.dtype), state)


def advance(
    program: Any,
    optimizer: optax.GradientTransformation,
    state: State,
    key: Key,
    count: int,
    patience: int,
    args: tuple[Any, ...],
) -> tuple[State, Any]:
    """Take ``count`` steps (at most a chunk): the state, and the losses, of at least ``count``.

    In one compiled loop, but for losses that are slow inside of loops: those by one call a step.
    """
    given = (program, optimizer, state, key, count, patience, args)
    if slow_in_loops(lambda: in_a_loop.trace(*given).jaxpr.jaxpr):
        return _one_by_one(*given)
    return in_a_loop(*given)


@partial(jax.jit, static_argnames=("program", "optimizer"))
def in_a_loop(
    program: Any,
    optimizer: optax.GradientTransformation,
    state: State,
    key: Key,
    count: int,
    patience: int,
    args: tuple[Any, ...],
) -> tuple[State, jax.Array]:
    """Take ``count`` steps (at most a chunk); the state, and the losses in a fixed-size buffer."""
    take = step(program.function, optimizer, args)
    steps = state.step + lax.iota(jnp.int32, CHUNK)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, steps)
    losses = jnp.full((CHUNK,), jnp.nan, jnp.result_type(float))

    def unfinished(carry: Any) -> jax.Array:
        i, state, _ = carry
        return (i < count) & (state.run < patience)

    def body(carry: Any) -> Any:
        i, state, losses = carry
        state, value = take(state, keys[i])
        value = value.astype(losses.dtype)
        return i + 1, state, lax.dynamic_update_index_in_dim(losses, value, i, 0)

    _, state, losses = lax.while_loop(unfinished, body, (jnp.int32(0), state, losses))
    return state, losses


def _one_by_one(
    program: Any,
    optimizer: optax.GradientTransformation,
    state: State,
    key: Key,
    count: int,
    patience: int,
    args: tuple[Any, ...],
) -> tuple[State, np.ndarray]:
    losses = np.full(count, np.nan, jnp.result_type(float))
    for i in range(count):
        state, losses[i] = one(program, optimizer, state, key, args)
        if int(state.run) >= patience:
            break
    return state, losses


@partial(jax.jit, static_argnames=("program", "optimizer"))
def one(
    program: Any,
    optimizer: optax.GradientTransformation,
    state: State,
    key: Key,
    args: tuple[Any, ...],
) -> tuple[State, jax.Array]:
    take = step(program.function, optimizer, args)
    return take(state, jax.random.fold_in(key, state.step))


def step(
    loss: Loss, optimizer: optax.GradientTransformation, args: tuple[Any, ...] = ()
) -> Callable[[State, Key], tuple[State, jax.Array]]:
    """One pure step: ``(state, key) -> (state, loss)``."""
    update = _accepting(optimizer.update)

    def take(state: State, key: Key) -> tuple[State, jax.Array]:
        def value_fn(params: Params) -> jax.Array:
            return _scalar(loss(params, key, *args))

        value, gradient = jax.value_and_grad(value_fn)(state.params)
        updates, optimizer_state = update(
            gradient,
            state.optimizer_state,
            state.params,
            value=value,
            grad=gradient,
            value_fn=value_fn,
        )
        params = optax.apply_updates(state.params, updates)
        evaluated = _all_finite((value, gradient))
        good = evaluated & _all_finite(params)

        def keep(new: Any, old: Any, when: jax.Array = good) -> Any:
            # lax, not jnp: traced for every fit, and jnp.where takes ten times as long to trace.
            return jax.tree.map(lambda a, b: lax.select(when, a, b), new, old)

        skipped = (~good).astype(jnp.int32)
        after = State(
            keep(params, state.params),
            keep(state.params, state.good_params, evaluated),
            keep(optimizer_state, state.optimizer_state),
            state.step + 1,
            state.skipped + skipped,
            (state.run + 1) * skipped,
        )
        return after, value

    return take


def _accepting(update: Callable[..., Any]) -> Callable[..., Any]:
    """An optimiser's update, given those extra arguments that it takes."""
    parameters = inspect.signature(update).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return update
    return lambda *args, **extra: update(*args, **{n: extra[n] for n in extra if n in parameters})


def _all_finite(tree: Any) -> jax.Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return reduce(lax.bitwise_and, [jnp.all(lax.is_finite(x)) for x in leaves])


def _scalar(value: Any) -> jax.Array:
    value = jnp.asarray(value) if isinstance(value, (int, float)) else value
    if not isinstance(value, jax.Array):
        raise TypeError(
            f"loss must return a scalar array, got {type(value).__name__}: return the loss alone."
        )
    if value.shape != ():
        raise ValueError(
            f"loss must return a scalar, got shape {value.shape}: end it with .mean() or .sum()."
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"loss must return a float, got {value.dtype}: it has no gradient.")
    return value
