"""What a loss reads: which params its derivative reaches, and whether it draws."""

from typing import TypeAlias

import jax
import numpy as np
from jax.extend.core import Jaxpr

from funcvi import _jax, programs
from funcvi._types import Params

__all__ = ["Reads", "reads"]


#: Names of the params that a loss does not read, or only through what has no derivative; whether
#: its value depends on the key.
Reads: TypeAlias = tuple[tuple[str, ...], bool]


def reads(loss: programs.Traced, gradient: programs.Traced, params: Params) -> Reads:
    """From the traces of ``(params, key, state, args) -> value`` and of its value and gradient.

    Raises:
        ValueError: no gradient reaches any of the params.
    """
    jaxpr = loss.function.jaxpr
    is_read = _jax.read_inputs(jaxpr, [i == 0 for i in range(len(jaxpr.outvars))])
    paths = jax.tree_util.tree_leaves_with_path(params)
    names = [f"params{jax.tree_util.keystr(path)}" for path, _ in paths]
    if not any(is_read[: len(names)]):
        raise ValueError(
            "the loss does not read its params, so every gradient is zero. What was made of params "
            "outside the loss is a constant of it:\ncall the family inside, "
            "def loss(params, key): q = family(params); ..."
        )
    first = len(gradient.function.jaxpr.outvars) - len(names)
    zero = [_is_zero(gradient.function.jaxpr, first + i) for i in range(len(names))]
    if all(zero):
        raise ValueError(
            "every gradient of the loss is zero: it reads its params only through what has no "
            "derivative\n(jax.lax.stop_gradient, rounding, comparison, integers). Let one path "
            "from params to the loss be differentiable."
        )
    unread = tuple(name for name, is_zero in zip(names, zero, strict=True) if is_zero)
    return unread, is_read[len(names)]


def _is_zero(jaxpr: Jaxpr, output: int) -> bool:
    """Whether an output is zero whatever the inputs are."""
    needed = [i == output for i in range(len(jaxpr.outvars))]
    part, is_read = _jax.part_of(jaxpr, needed)
    if any(is_read) or part.constvars:
        return False
    (value,) = jax.core.eval_jaxpr(part, ())
    return bool(_jax.is_concrete(value) and not np.asarray(value).any())
