"""Many steps of one fit: a compiled loop over a chunk of them, and steps taken from the host."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from funcvi import _jax, programs
from funcvi._types import Key, Loss, Params
from funcvi.fitting.steps import Carry, Rest, Step, pure_loss, pure_step, pure_update
from funcvi.loops import slow_in_loops

__all__ = ["CHUNK", "Constants", "Loops", "Traces", "trace", "unread"]

CHUNK = 1000
"""Steps per compiled call at most, and the length of its buffer of losses."""

#: The arrays that the loss and the optimiser close over.
Constants: TypeAlias = tuple[Sequence[jax.Array | np.ndarray], Sequence[jax.Array | np.ndarray]]

Chunk: TypeAlias = Callable[..., tuple[Carry, jax.Array]]
One: TypeAlias = Callable[..., tuple[Carry, jax.Array]]


@dataclass
class Loops:
    """The compiled programs of a loss and an optimiser, for any arrays that they close over.

    Attributes:
        chunk: ``(constants, carry, key, count, patience, args) -> (carry, losses)``, with losses of
            axes (``CHUNK``); it stops after ``patience`` non-finite steps in a row.
        one: ``(constants, carry, key, args) -> (carry, loss)``.
        slow: whether the loss is slow inside of compiled loops.
        unread: names of the params that the loss does not read.
        seconds_per_step: what a step took when it was last run.
    """

    chunk: Chunk
    one: One
    slow: bool
    unread: tuple[str, ...]
    seconds_per_step: float | None = None


@dataclass(frozen=True)
class Traces:
    """A loss and an optimiser as they are at the moment of one call."""

    loss: programs.Traced
    gradient: programs.Traced  # the loss again, or where it has rules of its own, its gradient
    update: programs.Traced

    @property
    def constants(self) -> Constants:
        """The arrays that they close over."""
        return self.gradient.constants, self.update.constants

    def loops(self, params: Params) -> Loops:
        """Their programs: found, or new ones."""
        has_rules = self.loss.has_rules
        value_and_gradient: Callable[..., tuple[tuple[jax.Array, object], Params]]
        value_and_gradient = self.gradient.function
        if not has_rules:
            value_and_gradient = jax.value_and_grad(self.loss.function, 1, has_aux=True)
        make = partial(_loops, value_and_gradient, self.update.function)

        def new() -> Loops:
            slow = slow_in_loops(lambda: self.loss.function.jaxpr)
            chunk, one = make()
            names = unread(self.loss, params)
            return Loops(jax.jit(chunk), jax.jit(one), slow, names)

        return programs.program(("fit", has_rules, self.gradient.key, self.update.key), new)


def trace(loss: Loss, optimizer: optax.GradientTransformation, carry: Carry, rest: Rest) -> Traces:
    """Loss and optimiser as they are now."""
    value_of = pure_loss(loss)
    traced = gradient = programs.trace(value_of, carry.params, *rest)
    if traced.has_rules:  # which only differentiation reads
        gradient = programs.trace(jax.value_and_grad(value_of, has_aux=True), carry.params, *rest)
    update = programs.trace(
        pure_update(optimizer, value_of),
        *(carry.params, carry.optimizer_state, carry.params, traced.shapes[0], rest),
    )
    return Traces(traced, gradient, update)


def unread(traced: programs.Traced, params: Params) -> tuple[str, ...]:
    """Names of the params that the value of a loss does not depend on."""
    jaxpr = traced.function.jaxpr
    read = _jax.read_inputs(jaxpr, [i == 0 for i in range(len(jaxpr.outvars))])
    paths = jax.tree_util.tree_leaves_with_path(params)
    names = [f"params{jax.tree_util.keystr(path)}" for path, _ in paths]
    unread = tuple(name for name, is_read in zip(names, read, strict=False) if not is_read)
    if len(unread) == len(names):
        raise ValueError(
            "the loss does not read its params, so every gradient is zero. What was made of params "
            "outside of the loss is a constant of it:\ncall the family inside, "
            "def loss(params, key): q = family(params); ..."
        )
    return unread


def _loops(
    value_and_gradient: Callable[..., tuple[tuple[jax.Array, object], Params]],
    update: programs.Function,
) -> tuple[Chunk, One]:
    def step(constants: Constants) -> Step:
        of_loss, of_update = constants
        return pure_step(partial(value_and_gradient, of_loss), partial(update, of_update))

    def chunk(
        constants: Constants,
        carry: Carry,
        key: Key,
        count: jax.Array,
        patience: jax.Array,
        args: tuple[object, ...],
    ) -> tuple[Carry, jax.Array]:
        take = step(constants)
        steps = carry.step + lax.iota(jnp.int32, CHUNK)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, steps)
        losses = jnp.full((CHUNK,), jnp.nan, jnp.result_type(float))

        def unfinished(loop: tuple[jax.Array, Carry, jax.Array]) -> jax.Array:
            i, carry, _ = loop
            return (i < count) & (carry.run < patience)

        def body(
            loop: tuple[jax.Array, Carry, jax.Array],
        ) -> tuple[jax.Array, Carry, jax.Array]:
            i, carry, losses = loop
            carry, value = take(carry, keys[i], *args)
            value = value.astype(losses.dtype)
            return i + 1, carry, lax.dynamic_update_index_in_dim(losses, value, i, 0)

        _, carry, losses = lax.while_loop(unfinished, body, (jnp.int32(0), carry, losses))
        return carry, losses

    def one(
        constants: Constants, carry: Carry, key: Key, args: tuple[object, ...]
    ) -> tuple[Carry, jax.Array]:
        return step(constants)(carry, jax.random.fold_in(key, carry.step), *args)

    return chunk, one
