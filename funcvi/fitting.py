"""Fit: minimise a stochastic loss with any optax optimiser, in one compiled loop.

Knows nothing of distributions: the caller's closure joins a family, an objective and data.
``fit`` drives the compiled loop of ``stepping`` from the host, a chunk of steps at a time, so that
one program serves any number of steps, a progress bar and a continuation.
"""

import inspect
import time
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from funcvi._types import Key, Loss, Params
from funcvi.progress import Progress
from funcvi.static import Static, same_optimizer
from funcvi.status import Status, judge
from funcvi.stepping import CHUNK, State, advance, init

__all__ = ["Fit", "fit"]


@dataclass(frozen=True)
class Fit:
    """The result of :func:`fit`; pass it as ``params`` to continue.

    Attributes:
        params: the fitted params; after a divergence, the last at which the loss was finite.
        losses: array (steps,), one value for each step taken, the skipped ones included.
        status: ``status.name`` is "converged", "out of budget" or "diverged"; prints the reason and
            what to do.
        num_skipped: how many steps were skipped because of a non-finite loss or gradient.
        state: the full state that a continuation starts from.
    """

    params: Params
    losses: np.ndarray
    status: Status
    num_skipped: int
    state: State = field(repr=False)

    def __repr__(self) -> str:
        last = f"{self.losses[-1]:.6g}" if len(self.losses) else "none"
        return f"Fit({len(self.losses)} steps, last loss {last}; {self.status})"


def fit(
    loss: Loss,
    params: Params | Fit,
    optimizer: optax.GradientTransformation,
    *,
    key: Key,
    num_steps: int,
    args: tuple[Any, ...] = (),
    progress: bool | None = None,
    patience: int = 10,
) -> Fit:
    """Minimise ``E[loss(params, key, *args)]`` over params.

    Step ``i`` draws with ``jax.random.fold_in(key, i)``, counted from the very first step: fitting
    1,000 steps and continuing for 1,000 with the same key is fitting 2,000. A step with a
    non-finite loss or gradient leaves the params and the optimiser as they were; ``patience`` of
    them in a row end the fit. A second call with the same loss, an equal optimiser and the same
    shapes does not compile again, whatever ``num_steps`` is.

    Args:
        loss: ``loss(params, key, *args) -> scalar``, traceable by JAX. What it refers to by closure
            is a constant of the compiled program; pass what changes from call to call in ``args``.
        params: a pytree of floating-point arrays, or the :class:`Fit` to continue from.
        optimizer: any optax transformation; value, gradient and ``value_fn`` are passed to those
            that ask for them (``optax.lbfgs``, ``optax.contrib.reduce_on_plateau``).
        key: a key from ``jax.random.key``.
        num_steps: how many steps to take, at least one.
        args: further arguments of the loss (data, temperatures), traced.
        progress: show a progress bar; by default only in a terminal.
        patience: non-finite steps in a row before the fit gives up.

    Returns:
        A :class:`Fit`.

    Raises:
        TypeError, ValueError: an argument is not as described; nothing has run then.

    Example:
        >>> import jax, optax
        >>> import funcvi as fv
        >>> def loss(params, key):
        ...     return (params["x"] - 3.0) ** 2
        >>> result = fv.fit(loss, {"x": 0.0}, optax.adam(0.1), key=jax.random.key(0), num_steps=500)
        >>> round(float(result.params["x"]), 2), result.status.name
        (3.0, 'converged')
    """
    _check_call(loss, optimizer, key, num_steps, patience, args)
    program = Static(loss)
    optimizer = same_optimizer(optimizer)
    before = np.zeros(0, np.float32)
    if isinstance(params, Fit):
        state, before = _resumed(params, optimizer), params.losses
    else:
        state = init(_checked_params(params), optimizer)
    chunks, done = [], 0
    with Progress(num_steps, progress) as bar:
        while done < num_steps:
            count = bar.next_chunk(min(CHUNK, num_steps - done))
            started = time.perf_counter()
            state, losses = advance(program, optimizer, state, key, count, patience, args)
            chunks.append(np.asarray(losses)[:count])  # waits for the chunk
            done += count
            diverged = int(state.run) >= patience
            if diverged:
                taken = int(state.step) - len(before) - (done - count)
                chunks[-1] = chunks[-1][:taken]
                break
            bar.update(count, chunks[-1][-1], time.perf_counter() - started)
    losses = np.concatenate([before, *chunks])
    status = judge(losses, state, patience)
    failed = status.name == "diverged" and int(state.run) >= patience
    if failed:  # go back to where it was well, without the momentum of the bad step
        fresh = init(state.good_params, optimizer)
        state = state._replace(params=fresh.params, optimizer_state=fresh.optimizer_state)
    return Fit(state.params, losses, status, int(state.skipped), state)


def _resumed(result: Fit, optimizer: Any) -> State:
    expected = init.eval_shape(result.params, optimizer).optimizer_state
    structures: list[Any] = [
        jax.tree.structure(state) for state in (expected, result.state.optimizer_state)
    ]
    if structures[0] != structures[1]:
        raise ValueError(
            "this fit was made with another optimizer, whose state does not suit this one: "
            "continue with the same, or start anew from fit.params."
        )
    return result.state._replace(run=jax.device_put(np.int32(0)))


def _checked_params(params: Params) -> Params:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError("params is an empty pytree: there is nothing to fit.")
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        if isinstance(leaf, jax.core.Tracer):
            raise TypeError(
                f"params{name} is traced: fv.fit drives a compiled loop from Python, so call it "
                "outside jit, grad and vmap."
            )
        dtype = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"params{name} must be floating-point, got {dtype}: unconstrained params are real; "
                "write 0.0 for 0, or convert with jnp.asarray(x, float)."
            )
        if not np.isfinite(np.asarray(leaf, np.float64)).all():
            raise ValueError(f"params{name} is not finite: give finite initial values.")
    return jax.tree.map(_strong, params)


def _strong(leaf: Any) -> jax.Array:
    """An array of a definite dtype: a weak one would make the next call another program."""
    if isinstance(leaf, jax.Array) and not leaf.weak_type:
        return leaf
    dtype = jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype)
    return jax.device_put(np.asarray(leaf, dtype))


def _check_call(
    loss: Any, optimizer: Any, key: Any, num_steps: Any, patience: Any, args: Any
) -> None:
    if not callable(loss):
        raise TypeError(f"loss must be a function loss(params, key), got {type(loss).__name__}.")
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {type(args).__name__}: write args=(data,).")
    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(None, None, *args)
        except TypeError:
            takes = "(params, key" + "".join(f", args[{i}]" for i in range(len(args))) + ")"
            raise TypeError(
                f"loss must take {takes}, it takes {signature}: the key is a new one at each step, "
                "for its draws; a loss without draws ignores it."
            ) from None
    if not (
        callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))
    ):
        raise TypeError(
            f"optimizer must be an optax transformation such as optax.adam(1e-2), got "
            f"{type(optimizer).__name__}."
        )
    _check_key(key)
    for name, value in (("num_steps", num_steps), ("patience", patience)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")


def _check_key(key: Any) -> None:
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.shape == ()
    default = jax.config.jax_default_prng_impl  # type: ignore[attr-defined]
    words = 2 if default == "threefry2x32" else 4
    legacy = dtype == jnp.uint32 and key.shape == (words,)
    if not (typed or legacy):
        got = type(key).__name__ if dtype is None else f"{dtype}{list(key.shape)}"
        raise TypeError(f"key must be a single key such as jax.random.key(0), got {got}.")
