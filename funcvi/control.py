"""Loops and branches whose depth changes from call to call, drawn or decided by the data.

Each compiles once, for every depth, and has reverse-mode gradients. Parameters of layers that were
not applied get gradients of zero; :func:`funcvi.only_used` keeps an optimiser from moving them.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from funcvi.runtime_checks import require

__all__ = ["apply_first", "choose", "repeat", "while_loop"]

T = TypeVar("T")
"""A pytree of arrays."""


def while_loop(
    condition: Callable[[T], ArrayLike],
    body: Callable[[T], T],
    initial: T,
    *,
    max_steps: int,
) -> T:
    r"""Applies ``body`` as long as ``condition`` holds, at most ``max_steps`` times.

    As ``jax.lax.while_loop``, but with reverse-mode gradients: steps are recomputed in blocks of
    :math:`\sqrt{n}`, so that memory grows with :math:`\sqrt{n}` (Griewank 1992,
    doi:10.1080/10556789208805505). Steps after the end cost nothing but in the last block.

    Args:
        condition: state -> boolean scalar.
        body: state -> state of the same structure, shapes and dtypes.
        initial: a pytree of arrays; may already violate the condition.
        max_steps: the bound.

    Returns:
        The first state for which the condition fails.

    Raises:
        RuntimeError: the condition still holds after ``max_steps`` steps; under jit, a
            ``JaxRuntimeError`` with the same words.

    Example:
        >>> import funcvi as fv, jax
        >>> double = lambda x: fv.while_loop(lambda x: x < 10, lambda x: 2 * x, x, max_steps=20)
        >>> print(double(1.5), jax.grad(double)(1.5))
        12.0 8.0
    """
    _at_least_one("while_loop: max_steps", max_steps)
    initial = _arrays(initial)
    block = math.isqrt(max_steps - 1) + 1

    def step(state: T, index: jax.Array) -> tuple[T, None]:
        go = (index < max_steps) & jnp.reshape(condition(state), ())
        return lax.cond(go, lambda s: _alike(body(s), s, "while_loop"), lambda s: s, state), None

    @jax.checkpoint
    def steps(state: T, first: jax.Array) -> T:
        return lax.scan(step, state, first + jnp.arange(block))[0]

    def blocks(state: T, first: jax.Array) -> tuple[T, None]:
        go = jnp.reshape(condition(state), ())
        return lax.cond(go, steps, lambda s, _: s, state, first), None

    final, _ = lax.scan(blocks, initial, block * jnp.arange(-(-max_steps // block)))
    return require(
        jnp.logical_not(condition(final)),
        final,
        lambda: RuntimeError(
            f"while_loop: the condition still holds after max_steps={max_steps} steps. Raise "
            "max_steps, or let the body come nearer to the end."
        ),
    )


def repeat(body: Callable[[T], T], times: ArrayLike, initial: T, *, max_times: int) -> T:
    """Applies ``body`` ``times`` times: one shared layer, at a depth that may be drawn inside jit.

    Args:
        body: state -> state of the same structure, shapes and dtypes.
        times: integer scalar, 0 to ``max_times``; may be traced.
        initial: a pytree of arrays.
        max_times: the bound on ``times``.

    Raises:
        ValueError: ``times`` is outside its range; under jit, a ``JaxRuntimeError``.
        TypeError: ``times`` is no integer.

    Example:
        >>> import funcvi as fv
        >>> print(fv.repeat(lambda x: x * 2, 3, 1.0, max_times=5))
        8.0
    """
    _at_least_one("repeat: max_times", max_times)
    last = _index("repeat: times", times, max_times)

    _, final = while_loop(
        lambda state: state[0] < last,
        lambda state: (state[0] + 1, body(state[1])),
        (jnp.zeros_like(last), initial),
        max_steps=max_times,
    )
    return final


def apply_first(layers: Sequence[Callable[[T], T]], depth: ArrayLike, x: T) -> T:
    """Applies the first ``depth`` of distinct ``layers``, each with parameters of its own.

    Args:
        layers: functions state -> state, all of the same structure, shapes and dtypes.
        depth: integer scalar, 0 to ``len(layers)``; may be traced, as when it is drawn inside jit.
        x: a pytree of arrays.

    Raises:
        ValueError: ``depth`` is outside its range (under jit, a ``JaxRuntimeError``), or a layer
            changes a shape: then depth decides the shape, and no compiled program can return it.

    Example:
        >>> import funcvi as fv, jax.numpy as jnp
        >>> print(fv.apply_first([jnp.sin, jnp.cos, jnp.tanh], 0, 1.0))
        1.0
    """
    x = _arrays(x)
    depth = _index("apply_first: depth", depth, len(layers))
    for i, layer in enumerate(layers):
        x = lax.cond(
            depth > i,
            lambda s, layer=layer, i=i: _alike(layer(s), s, f"apply_first: layers[{i}]"),
            lambda s: s,
            x,
        )
    return x


def choose(index: ArrayLike, branches: Sequence[Callable[..., T]], *operands: object) -> T:
    """The result of one branch. As ``jax.lax.switch``, but an index out of range is an error.

    Args:
        index: integer scalar from 0 to ``len(branches) - 1``; may be traced.
        branches: functions of ``operands`` whose results have the same shapes and dtypes.
        *operands: pytrees of arrays.

    Raises:
        ValueError: ``index`` is outside its range (under jit, a ``JaxRuntimeError``), or the
            branches return different shapes: the message has each branch's.

    Example:
        >>> import funcvi as fv, jax.numpy as jnp
        >>> print(fv.choose(1, [jnp.sin, jnp.square], 3.0))
        9.0
    """
    index = _index("choose: index", index, len(branches) - 1)
    operands = _arrays(operands)
    shapes = [jax.eval_shape(branch, *operands) for branch in branches]
    said = [_said(shape) for shape in shapes]
    if len(set(said)) > 1:
        listed = "; ".join(f"branches[{i}] gives {s}" for i, s in enumerate(said))
        raise ValueError(
            f"choose: one compiled program returns one shape, but {listed}. End every branch in a "
            "layer of the same width, pad to the largest, or choose in Python outside jit."
        )
    result: T = lax.switch(index, branches, *operands)
    return result


def _said(shapes: object) -> str:
    leaves, structure = jax.tree.flatten(shapes)
    listed = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
    return listed if jax.tree_util.treedef_is_leaf(structure) else f"{structure} of {listed}"


def _alike(new: T, old: T, what: str) -> T:
    """``new``, if it is of the shapes and dtypes of ``old``."""
    new = _arrays(new)
    if _said(new) != _said(old):
        raise ValueError(
            f"{what} turns {_said(old)} into {_said(new)}: the depth would decide the shape, and "
            "one compiled program returns one shape. Keep the width, or choose in Python outside "
            "jit."
        )
    return new


def _index(what: str, index: ArrayLike, largest: int) -> jax.Array:
    value = jnp.asarray(index)
    if not jnp.issubdtype(value.dtype, jnp.integer) or value.ndim:
        raise TypeError(f"{what}: expected an integer scalar, got {_said(value)}")
    return require(
        (value >= 0) & (value <= largest),
        value,
        lambda: ValueError(f"{what} must be from 0 to {largest}"),
    )


def _at_least_one(what: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be an integer of at least 1, got {value!r}")


def _arrays(tree: T) -> T:
    """Strongly typed arrays, so that a state keeps its dtype."""
    arrays: T = jax.tree.map(lambda x: lax.convert_element_type(x, jnp.result_type(x)), tree)
    return arrays
