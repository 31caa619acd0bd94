"""Parameters that a step did not use: neither moved nor aged, as torch does when a grad is None."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

__all__ = ["only_used"]


def only_used(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimiser so that a parameter which a step did not use stays exactly as it is.

    In JAX such a parameter gets a gradient of zero, and an optimiser with momentum or moments still
    moves it, decays its weight and counts the step. torch leaves it alone, its state included,
    when its ``grad`` is None; so does this. Without the wrapper, optax's plain behaviour remains.

    Every leaf has an optimiser state of its own, the count of steps among it. So a transformation
    that looks at all leaves at once, as ``optax.clip_by_global_norm`` does, belongs outside:
    ``optax.chain(optax.clip_by_global_norm(1.0), fv.only_used(optax.adam(1e-3)))``.

    Args:
        optimizer: any optax transformation.

    Returns:
        A transformation whose ``update(grads, state, params, used=...)`` takes a pytree of
        booleans, traced or not: of the structure of ``params``, or a prefix of it.

    Raises:
        TypeError: ``used`` is missing from an update.
        ValueError: ``used`` is no prefix of the params.

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
        return jax.tree.map(inner.init, params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        if "used" not in extra:
            raise TypeError(
                "only_used: update needs used=, a pytree of booleans that says which params the "
                "step used"
            )
        used = extra.pop("used")
        try:
            used = jax.tree.broadcast(used, updates)
        except ValueError as error:
            raise ValueError(
                f"only_used: used must be a prefix of the params, got {jax.tree.structure(used)} "
                f"for {jax.tree.structure(updates)}"
            ) from error

        def one(leaf: Any, state: Any, used: Any, param: Any) -> Any:
            moved, aged = inner.update(leaf, state, param, **extra)
            keep = jnp.asarray(used)
            return (
                jnp.where(keep, moved, jnp.zeros_like(moved)),
                jax.tree.map(lambda new, old: jnp.where(keep, new, old), aged, state),
            )

        given = jax.tree.map(lambda _: None, updates) if params is None else params
        pairs = jax.tree.map(one, updates, state, used, given)
        moved, aged = (jax.tree.map(lambda _, pair, i=i: pair[i], updates, pairs) for i in (0, 1))
        return moved, aged

    return optax.GradientTransformationExtraArgs(init, update)
