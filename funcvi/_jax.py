"""The private names of JAX that funcvi uses, each with what it must do."""

from collections.abc import Callable, Sequence
from enum import Enum
from types import FunctionType
from typing import TypeVar

import jax
import numpy as np
from jax._src import ad_checkpoint, custom_derivatives, pjit, tree_util
from jax._src.interpreters import batching, partial_eval
from jax._src.lax import lax
from jax.extend.core import Jaxpr, Primitive
from jax.tree_util import PyTreeDef

__all__ = [
    "forget_reductions",
    "forget_traces",
    "frozen",
    "is_concrete",
    "is_elementwise",
    "part_of",
    "read_inputs",
]

# Libraries whose own functions read nothing that changes.
_STEADY = ("jax", "funcvi", "numpyro", "optax")

# Traces that JAX keeps for operations rare enough to be traced anew each time.
_RARE = (
    custom_derivatives._closure_convert_for_avals,  # odeint, custom_root, closure_convert
    lax._trace_composite_to_jaxpr,
)

F = TypeVar("F", bound=Callable[..., object])


def is_concrete(tree: object) -> bool:
    """Whether no leaf is traced: there are values now, not only under a transformation."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def is_elementwise(primitive: Primitive) -> bool:
    """Whether JAX batches it as what acts on each entry alone, of operands of one shape."""
    rule = batching.fancy_primitive_batchers.get(primitive)
    return getattr(rule, "func", None) in (batching.vectorized_batcher, batching.broadcast_batcher)


def frozen(function: F) -> F:
    """Marks a function of funcvi's that reads nothing but its arguments, so its traces hold."""
    function.is_frozen = True  # type: ignore[attr-defined]
    return function


def forget_traces() -> None:
    """Makes JAX trace anew every function that is the user's, or holds one of the user's.

    It keeps the traces of what it is handed (``jax.jit``, ``jax.checkpoint``, ``lax.scan``,
    ``lax.cond``) for as long as the function lives, whatever the function reads by then. Only those
    of functions that the libraries define at import are spared, if no argument is a function of the
    user's: ``lax.fori_loop`` wraps its body in a function of JAX's, and ``jnp.sum`` wraps nothing.
    What has been compiled stays compiled.
    """
    caches = (
        partial_eval.trace_to_jaxpr,
        pjit._infer_params_cached,
        ad_checkpoint._trace_to_jaxpr,
    )
    for reference, _, (arguments, *_), _ in partial_eval.trace_to_jaxpr.cache_keys():
        function = reference()
        if function is None or getattr(function, "is_frozen", False):
            continue
        if not _is_steady(function) or _holds_functions(arguments.tree):
            for cache in caches:
                cache.evict_weakref(function)
    for rare in _RARE:
        rare.cache_clear()


def forget_reductions() -> None:
    """Makes JAX trace anew what ``lax.reduce`` reduces by.

    Not part of :func:`forget_traces`: scatter-add's own addition is kept in the same place, and
    each eager one would compile again.
    """
    lax._reduction_jaxpr.cache_clear()
    lax._variadic_reduction_jaxpr.cache_clear()


def _is_steady(function: object) -> bool:
    """Whether it is a function that a library defines at import."""
    return (
        isinstance(function, FunctionType)
        and (function.__module__ or "").partition(".")[0] in _STEADY
        and "<locals>" not in function.__qualname__
    )


def _holds_functions(tree: PyTreeDef) -> bool:
    """Whether the arguments of a trace hold what may read something that changes."""
    data = tree.node_data()
    if data is None:
        return False
    kind, held = data
    if kind not in (tuple, list, dict, type(None)) and not _is_plain(held):
        return True
    return any(map(_holds_functions, tree.children()))


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if isinstance(value, tree_util.Static):
        return _is_plain(value.val)
    plain = (str, bytes, int, float, complex, type, Enum, np.generic, np.dtype, type(None))
    return isinstance(value, plain) or _is_steady(value)


def read_inputs(jaxpr: Jaxpr, outputs: Sequence[bool]) -> list[bool]:
    """Which inputs the marked outputs depend on."""
    return part_of(jaxpr, outputs)[1]


def part_of(jaxpr: Jaxpr, outputs: Sequence[bool]) -> tuple[Jaxpr, list[bool]]:
    """The part of a jaxpr that computes the marked outputs, and which inputs it reads."""
    part, is_read = partial_eval.dce_jaxpr(jaxpr, list(outputs))
    return part, list(is_read)
