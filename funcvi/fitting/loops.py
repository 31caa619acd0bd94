"""Many steps of one fit: a compiled loop over a chunk of them, and steps taken from the host."""

from collections.abc import Callable, Hashable
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
from funcvi.fitting.optimizers import evaluates, written
from funcvi.fitting.reads import Reads, reads
from funcvi.fitting.steps import Carry, Rest, Step, pure_loss, pure_step, pure_update
from funcvi.loops import slow_in_loops

__all__ = ["CHUNK", "Constants", "Loops", "Traces", "trace"]

CHUNK = 5000
"""Steps per compiled call at most, and the length of its buffer of losses."""

#: The arrays that loss, gradient and optimiser close over.
Constants: TypeAlias = tuple[tuple[jax.Array | np.ndarray, ...], ...]

Compiled: TypeAlias = Callable[..., tuple[Carry, jax.Array]]
_Loop: TypeAlias = tuple[jax.Array, Carry, jax.Array]


@dataclass
class Loops:
    """The compiled programs of a loss and an optimiser, for any arrays that they close over.

    Attributes:
        chunk: ``(constants, carry, key, count, patience, args) -> (carry, losses)``, with losses of
            axes (``CHUNK``); it stops after ``patience`` non-finite steps in a row.
        one: ``(constants, carry, key, args) -> (carry, loss)``.
        slow: whether the loss is slow inside compiled loops.
        reads: which params the loss learns, and whether it draws.
        seconds_per_step: what a step took when it was last run.
    """

    chunk: Compiled
    one: Compiled
    slow: bool
    reads: Reads
    seconds_per_step: float | None = None


@dataclass(frozen=True)
class Traces:
    """A loss and an optimiser as they are at the moment of one call."""

    loss: programs.Traced
    gradient: programs.Traced | None  # where the loss has rules of its own for it
    update: programs.Traced | None  # where the optimiser must be traced to be known
    optimizer: optax.GradientTransformation

    @property
    def parts(self) -> tuple[programs.Traced | None, ...]:
        """What was traced."""
        return self.loss, self.gradient, self.update

    @property
    def constants(self) -> Constants:
        """The arrays that they close over."""
        return tuple(part.constants if part else () for part in self.parts)

    @property
    def key(self) -> Hashable:
        """Equal only for those that do the same."""
        known = None if self.update else written(self.optimizer)
        return "fit", tuple(part and part.key for part in self.parts), known

    def loops(self, params: Params, rest: Rest) -> Loops:
        """Their programs: found, or new ones."""

        def new() -> Loops:
            functions = [part.function if part else None for part in self.parts]
            chunk, one = _loops(functions, self.optimizer)
            slow = slow_in_loops(lambda: self.loss.function.jaxpr)
            return Loops(jax.jit(chunk), jax.jit(one), slow, self.reads(params, rest))

        return programs.program(self.key, new)

    def reads(self, params: Params, rest: Rest) -> Reads:
        """What the loss reads; by tracing its gradient where that is not traced yet."""
        gradient = self.gradient or programs.value_and_grad(self.loss, params, *rest)
        return reads(self.loss, gradient, params)


def trace(loss: Loss, optimizer: optax.GradientTransformation, carry: Carry, rest: Rest) -> Traces:
    """Loss and optimiser as they are now."""
    value_of, gradient, update = pure_loss(loss), None, None
    traced, known = programs.trace(value_of, carry.params, *rest), written(optimizer)
    if traced.rules:  # which only differentiation reads
        gradient = programs.value_and_grad(traced, carry.params, *rest)
    if known is None or (traced.rules and evaluates(known)):
        update = programs.trace(
            pure_update(optimizer, value_of),
            *(carry.params, carry.optimizer_state, carry.params, traced.shapes[0], rest),
        )
    return Traces(traced, gradient, update, optimizer)


def _loops(
    parts: list[programs.Function | None], optimizer: optax.GradientTransformation
) -> tuple[Compiled, Compiled]:
    def step(constants: Constants) -> Step:
        value_of, gradient, update = (
            part and partial(part, held) for part, held in zip(parts, constants, strict=True)
        )
        assert value_of is not None
        if gradient is None:
            value_and_grad = jax.value_and_grad(value_of, has_aux=True)
        else:
            value_and_grad = partial(gradient, constants[0])
        return pure_step(value_and_grad, update or pure_update(optimizer, value_of))

    @_jax.frozen
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

        def unfinished(loop: _Loop) -> jax.Array:
            i, carry, _ = loop
            return (i < count) & (carry.run < patience)

        def body(loop: _Loop) -> _Loop:
            i, carry, losses = loop
            carry, value = take(carry, keys[i], *args)
            value = value.astype(losses.dtype)
            return i + 1, carry, lax.dynamic_update_index_in_dim(losses, value, i, 0)

        _, carry, losses = lax.while_loop(unfinished, body, (jnp.int32(0), carry, losses))
        return carry, losses

    @_jax.frozen
    def one(
        constants: Constants, carry: Carry, key: Key, args: tuple[object, ...]
    ) -> tuple[Carry, jax.Array]:
        return step(constants)(carry, jax.random.fold_in(key, carry.step), *args)

    return chunk, one
