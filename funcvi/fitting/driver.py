"""Fit: minimise a stochastic loss with any optax optimiser, in one compiled loop.

Knows nothing of distributions: the caller's closure joins a family, an objective and data.
``fit`` drives the compiled loop of ``loops`` from the host, a chunk of steps at a time, so that one
program serves any number of steps, a progress bar, a callback and a continuation.
"""

from contextlib import suppress

import jax
import jax.numpy as jnp
import numpy as np
import optax

from funcvi import _jax
from funcvi._types import Key, Loss, Params
from funcvi.fitting.ahead import guess, remember
from funcvi.fitting.checks import check_call, checked_params, checked_state
from funcvi.fitting.fingerprint import fingerprint
from funcvi.fitting.loops import trace
from funcvi.fitting.result import Fit, moved
from funcvi.fitting.run import Callback, Run, drive
from funcvi.fitting.starts import first, resumed
from funcvi.fitting.steps import Carry, scan, select, step

__all__ = ["fit"]


def fit(
    loss: Loss,
    params: Params | Fit,
    optimizer: optax.GradientTransformation,
    *,
    key: Key,
    num_steps: int,
    args: tuple[object, ...] = (),
    state: object = None,
    progress: bool | None = None,
    patience: int = 10,
    tolerance: float | None = None,
    loop: str | None = None,
    callback: Callback | None = None,
) -> Fit:
    """Minimise ``E[loss(params, key, *args)]`` over params.

    Step ``i`` draws with ``jax.random.fold_in(key, i)``, counted from the very first step: fitting
    1,000 steps and continuing for 1,000 with the same key is fitting 2,000. A step with a
    non-finite loss or gradient leaves params, optimiser and state as they were; ``patience`` of
    them in a row end the fit.

    Loss and optimiser are traced at every call, so nothing that they read can be stale; the
    compiled program is found by what they compute, so the same loss and optimiser written anew,
    other data of the same shapes and any ``num_steps`` compile nothing.

    It may be called under ``jax.vmap``, over keys, params, args, or hyperparameters that the
    optimiser closes over: a batch of fits, each with its own status. So too under ``jax.jit`` and
    ``jax.grad``. The fit is then one ``jax.lax.scan``, without bar and callback.

    Ctrl-C is answered within about half a second, or one step: the fit so far is returned, with the
    status "interrupted". An exception raised on the way (by ``callback``, by a loss that calls
    Python) is raised again with the fit so far as its attribute ``fit``.

    Args:
        loss: ``loss(params, key, *args) -> scalar``, traceable by JAX. With ``state``:
            ``loss(params, key, *args, state=state) -> (scalar, state)``.
        params: a pytree of floating-point arrays, or the :class:`Fit` to continue from.
        optimizer: any optax transformation; value, gradient and ``value_fn`` are passed to those
            that ask for them (``optax.lbfgs``, ``optax.contrib.reduce_on_plateau``).
        key: a key from ``jax.random.key``.
        num_steps: how many steps to take, at least one.
        args: further arguments of the loss (data, temperatures), traced.
        state: a pytree of arrays that the loss carries from step to step and that is not
            differentiated: BatchNorm's statistics, a moving baseline. A continuation goes on from
            the fit's own.
        progress: show a progress bar; by default only in a terminal.
        patience: non-finite steps in a row before the fit gives up.
        tolerance: nats that as many steps again may still gain in a fit that is "converged"; by
            default a hundredth of what the loss has fallen, at least 0.001 and at most 0.1.
        loop: "compiled" for one compiled loop of many steps, "host" for a compiled step called from
            Python; by default "compiled", but "host" for a loss that convolves, on CPU, where XLA
            has no fast convolutions inside loops.
        callback: ``callback(steps, loss, params)`` about twice a second, with the steps taken from
            the very first, the mean loss since the last call, and the params; True ends the fit.

    Returns:
        A :class:`Fit`.

    Raises:
        TypeError, ValueError: an argument is not as described, or no gradient of the loss reaches
            its params; nothing has run then.

    Example:
        >>> import jax, optax
        >>> import funcvi as fv
        >>> def loss(params, key):
        ...     return (params["x"] - 3.0) ** 2
        >>> result = fv.fit(loss, {"x": 0.0}, optax.adam(0.1), key=jax.random.key(0), num_steps=500)
        >>> print(result.params["x"].round(2), result.status)
        3.0 converged
    """
    before = params if isinstance(params, Fit) else None
    state = before.state if state is None and before else state
    counts = {"num_steps": num_steps, "patience": patience}
    has_state = state is not None
    check_call(loss, optimizer, key, args, has_state, counts, loop, callback, progress, tolerance)
    state = checked_state(state)
    # A callback may change those in place that it was made with.
    args = jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, args)
    rest = (key, state, args)
    losses: np.ndarray | jax.Array
    has_moved: bool | np.ndarray | jax.Array
    if before is None:
        start = checked_params(params)
        carry = first(start, optimizer, state)
        losses, has_moved = np.zeros(0, jnp.result_type(float)), False
    else:
        start = before.params
        carry = resumed(before, optimizer, state)
        losses, has_moved = before.losses, before.moved
    run, last = None, None
    if loop != "host" and _jax.is_concrete((carry, rest)):
        last = guess(loss, carry, rest)
    if last is not None and last.repeated and not last.loops.slow:
        run = Run(last.loops, "compiled", last.constants, carry, key, args, patience)
        with suppress(Exception):  # it is raised again below, with the fit so far
            run.begin(num_steps)
    traces = trace(loss, optimizer, carry, rest)
    concrete = _jax.is_concrete((carry, rest, traces.constants))
    loops = traces.loops(start, rest) if concrete else None
    reads = loops.reads if loops else traces.reads(start, rest)
    mark = fingerprint(traces.loss, args)
    taken = judged_from = carry.step
    if before is not None:
        same = (mark == before.fingerprint).all()
        judged_from = (np if concrete else jnp).where(same, before.judged_from, taken)

    def result(carry: Carry, new: np.ndarray | jax.Array, ran: str, ended: str | None) -> Fit:
        # What goes to and fro may end where it began: its last step tells.
        changed = moved(start, carry.params) | moved(carry.good_params, carry.params) | has_moved
        if loops is not None:
            params = carry.good_params if int(carry.run) >= patience else carry.params
            joined: np.ndarray | jax.Array = np.concatenate([losses[: int(taken)], new])
        else:
            params = select(carry.run >= patience, carry.good_params, carry.params)
            joined = jnp.concatenate([losses, jnp.full_like(new, jnp.nan)])
            joined = jax.lax.dynamic_update_slice(joined, new, (taken,))
        return Fit(params, joined, carry.state, carry, changed, judged_from, mark, *reads, ran,
                   patience, tolerance, ended)  # fmt: skip

    if loops is None:
        if callback is not None or loop == "host":
            raise ValueError(
                "under jax.jit, vmap and grad a fit is one compiled scan: leave out callback and "
                'loop="host".'
            )
        take = step(loss, optimizer)
        end, values = scan(take, carry, key, num_steps, *args, patience=patience)
        return result(end, values, "compiled", None)
    kind = loop or ("host" if loops.slow else "compiled")
    if run is None or last is None or not last.holds(traces):
        run = Run(loops, kind, traces.constants, carry, key, args, patience)
    remember(loss, carry, rest, traces, loops, last)
    try:
        ended = drive(run, num_steps, progress, callback)
    except KeyboardInterrupt:
        ended = "by Ctrl-C"
    except Exception as error:
        error.fit = result(run.carry, run.losses, run.kind, "by an error")  # type: ignore[attr-defined]
        error.add_note(f"The fit so far ({run.taken} steps) is the attribute fit of this error.")
        raise
    if ended is not None:
        ended += f", after {run.taken} of {num_steps} steps: continue with fv.fit(loss, fit, ...)."
    return result(run.carry, run.losses, run.kind, ended)
