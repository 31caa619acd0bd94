"""What a fit begins with: params as they are given, or another fit."""

import jax
import numpy as np
import optax
from jax.tree_util import PyTreeDef

from funcvi import _jax, programs
from funcvi._types import Params
from funcvi.fitting.optimizers import written
from funcvi.fitting.result import Fit
from funcvi.fitting.steps import Carry, init, select

__all__ = ["first", "resumed"]


def first(params: Params, optimizer: optax.GradientTransformation, state: object) -> Carry:
    """The first carry, compiled."""

    def make(params: Params, state: object) -> Carry:
        return init(params, optimizer, state=state)

    known = written(optimizer)
    if known is None:
        return programs.run(make, params, state)
    carry: Carry = programs.program(("init", known), lambda: jax.jit(make))(params, state)
    return carry


def resumed(fit: Fit, optimizer: optax.GradientTransformation, state: object) -> Carry:
    """What the fit goes on from: after a divergence, the good params and a fresh optimiser."""
    if np.ndim(fit.carry.run):
        raise ValueError(
            f"this is a batch of fits, of shape {np.shape(fit.carry.run)}: continue each of them, "
            "jax.vmap(lambda fit: fv.fit(loss, fit, ...))(fits)."
        )
    expected: PyTreeDef = jax.tree.structure(jax.eval_shape(optimizer.init, fit.params))
    if expected != jax.tree.structure(fit.carry.optimizer_state):
        raise ValueError(
            "this fit was made with another optimizer, whose state does not suit this one: "
            "continue with the same, or start anew from fit.params."
        )
    carry = fit.carry._replace(state=state)
    concrete = _jax.is_concrete(carry)
    if not concrete or int(carry.run) >= fit.patience:
        fresh = init(fit.params, optimizer, state=state)
        again = carry._replace(params=fresh.params, optimizer_state=fresh.optimizer_state)
        carry = again if concrete else select(carry.run >= fit.patience, again, carry)
    return carry._replace(run=jax.device_put(np.int32(0)))
