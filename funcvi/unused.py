"""Parameters that a step did not use: neither moved nor aged, as torch does when a grad is None."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from funcvi import _jax

__all__ = ["only_used"]

# States of optax that hold counts, by name: no public name covers all of them in every version.
# A schedule counts every step, as torch's learning-rate schedulers do ...
_CLOCKS = {
    "ConditionallyMaskState",
    "ConditionallyTransformState",
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "ReduceLROnPlateauState",
    "ScaleByScheduleState",
    "WeightDecaySchedule",
}
# ... while moments, and the counts that correct their bias, are of the steps with a gradient.
_MOMENTS = {
    "EmaState",
    "FactoredState",
    "MuonState",
    "ScaleByAdamState",
    "ScaleByAdanState",
    "ScaleByAmsgradState",
    "ScaleByBeliefState",
    "ScaleByLionState",
    "ScaleByNovogradState",
    "ScaleByOptimisticGradientState",
    "ScaleByRStdDevWithCountState",
    "ScaleByRmsWithCountState",
    "ZeroNansState",
}


def only_used(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimiser so that a parameter which a step did not use stays exactly as it is.

    In JAX such a parameter gets a gradient of zero, and an optimiser with momentum or moments still
    moves it, decays its weight and counts the step. torch leaves it alone, its state included,
    when its ``grad`` is None; so does this. Schedules and injected hyperparameters count every
    step, as torch's learning-rate schedulers do. Without the wrapper, optax's plain behaviour
    remains.

    Every leaf has an optimiser state of its own, the count of steps among it; masks and labels
    see the tree of all params, the other leaves as ``optax.MaskedNode()``. So a transformation
    that looks at all leaves at once, as ``optax.clip_by_global_norm`` does, belongs outside:
    ``optax.chain(optax.clip_by_global_norm(1.0), fv.only_used(optax.adam(1e-3)))``.

    Args:
        optimizer: an optax transformation that treats each leaf by itself, and whose counts are
            known to be a schedule's or a moment's. Its update may need ``value``, and no other
            extra argument.

    Returns:
        A transformation whose ``update(grads, state, params, used=...)`` takes a pytree of boolean
        scalars, traced or not: of the structure of ``params``, or a prefix of it.

    Raises:
        TypeError: ``used`` is missing from an update, or is not boolean.
        ValueError: ``used`` is no prefix of the params, or not of scalars; or, from ``init``, the
            optimizer looks at all leaves at once, or has steps or keys for which torch has no
            counterpart (``optax.MultiSteps``, ``optax.add_noise``).

    Example:
        >>> import funcvi as fv, jax.numpy as jnp, optax
        >>> params = {"a": jnp.ones(2), "b": jnp.ones(2)}
        >>> optimizer = fv.only_used(optax.sgd(0.1, momentum=0.9))
        >>> state = optimizer.init(params)
        >>> used = {"a": True, "b": False}
        >>> updates, state = optimizer.update(params, state, params, used=used)
        >>> print(updates["a"], updates["b"])
        [-0.1 -0.1] [0. 0.]
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> Any:
        treedef: Any = jax.tree.structure(params)
        states = [inner.init(one) for one in _one_by_one(params)]
        _check_counts(states[:1])
        _check_leaf_by_leaf(inner, params)
        return treedef.unflatten(states)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        treedef: Any = jax.tree.structure(updates)
        used = _flags(extra.pop("used", None), updates)
        given = [None] * len(used) if params is None else _one_by_one(params)
        moved, aged = [], []
        for one, old, is_used, param in zip(
            _one_by_one(updates), treedef.flatten_up_to(state), used, given, strict=True
        ):
            tree, new = inner.update(one, old, param, **extra)
            (leaf,) = jax.tree.leaves(tree)
            moved.append(jnp.where(is_used, leaf, jnp.zeros_like(leaf)))
            aged.append(_aged(new, old, is_used))
        return treedef.unflatten(moved), treedef.unflatten(aged)

    return optax.GradientTransformationExtraArgs(init, update)


def _one_by_one(tree: Any) -> list[Any]:
    """For each leaf the tree with the others hidden, in optax's way."""
    treedef: Any = jax.tree.structure(tree)
    leaves = jax.tree.leaves(tree)
    hidden = [optax.MaskedNode()] * len(leaves)
    return [
        treedef.unflatten([*hidden[:i], leaf, *hidden[i + 1 :]]) for i, leaf in enumerate(leaves)
    ]


def _flags(used: Any, updates: Any) -> list[jax.Array]:
    """One boolean scalar for each leaf."""
    if used is None:
        raise TypeError(
            "only_used: update needs used=, a pytree of booleans that says which params the "
            "step used"
        )
    try:
        flags = jax.tree.map(jnp.asarray, jax.tree.leaves(jax.tree.broadcast(used, updates)))
    except ValueError as error:
        raise ValueError(
            f"only_used: used must be a prefix of the params, got {jax.tree.structure(used)} "
            f"for {jax.tree.structure(updates)}"
        ) from error
    for flag in flags:
        if flag.dtype != bool:
            raise TypeError(f"only_used: used must hold booleans, got {jax.typeof(flag)}")
        if flag.ndim:
            raise ValueError(
                f"only_used: used must hold scalars, one for each leaf or prefix of the params, "
                f"got {jax.typeof(flag)}; jnp.any(used) says whether any part was used"
            )
    return flags


def _kind(state: Any) -> str:
    return type(state).__name__ if type(state).__module__.startswith("optax.") else ""


def _is_clock(state: Any) -> bool:
    return _kind(state) in _CLOCKS


def _aged(new: Any, old: Any, is_used: jax.Array) -> Any:
    """The state after a step: moments only if it was used, clocks in any case."""

    def choose(new: Any, old: Any) -> Any:
        if not _is_clock(new):
            return jnp.where(is_used, new, old)
        if hasattr(new, "inner_state"):
            return new._replace(inner_state=_aged(new.inner_state, old.inner_state, is_used))
        return new

    return jax.tree.map(choose, new, old, is_leaf=_is_clock)


def _check_counts(state: Any) -> None:
    """Raises if there are integers, booleans or keys that may be of every step or of the used."""
    for name, leaf in _unknown(state, "the state"):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise ValueError(
                f"only_used: {name} holds {jax.typeof(leaf)}, and whether a step that does not use "
                "a parameter changes it is not known.\nPut that transformation outside: "
                "optax.chain(..., fv.only_used(...))."
            )


def _unknown(state: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The arrays that no known state of optax holds, each with the innermost state's name."""
    if _kind(state) in _MOMENTS or (_is_clock(state) and not hasattr(state, "inner_state")):
        return
    if _is_clock(state):
        state = state.inner_state
    elif jax.tree.all(jax.tree.map(lambda x: x is state, state)) and jax.tree.leaves(state):
        yield name, jnp.asarray(state)
        return
    if hasattr(state, "_fields"):
        name = type(state).__name__
    for part in jax.tree.leaves(state, is_leaf=lambda x: x is not state):
        yield from _unknown(part, name)


def _check_leaf_by_leaf(inner: optax.GradientTransformationExtraArgs, params: Any) -> None:
    """Raises if one leaf's update reads another leaf, in the same step or through the state."""
    count = len(jax.tree.leaves(params))

    def two_steps(first: Any, second: Any) -> list[Any]:
        value = jnp.zeros(())
        _, state = inner.update(first, inner.init(first), first, value=value)
        updates, _ = inner.update(second, state, second, value=value)
        return jax.tree.leaves(updates)

    jaxpr = jax.make_jaxpr(two_steps)(params, params).jaxpr
    leaves = np.arange(count)
    for bit in range(max(count - 1, 0).bit_length()):  # any two leaves differ in some bit
        for side in (0, 1):
            group = (leaves >> bit) % 2 == side
            is_read = np.reshape(_jax.read_inputs(jaxpr, list(group)), (2, count))
            if is_read[:, ~group].any():
                raise ValueError(
                    "only_used: the optimizer looks at several leaves at once, so what is not used "
                    "would be left out or counted.\nPut that part outside: "
                    "optax.chain(optax.clip_by_global_norm(1.0), fv.only_used(optax.adam(1e-3)))."
                )
