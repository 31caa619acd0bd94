"""What :func:`fit` is given, checked before anything runs."""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from funcvi import _jax
from funcvi._checks import check_count, check_key, signature_of, takes
from funcvi._types import Key, Loss, Params

__all__ = ["check_call", "checked_params", "checked_state", "strong"]


def check_call(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    key: Key,
    args: tuple[object, ...],
    with_state: bool,
    counts: dict[str, int],
    loop: str | None,
    callback: Callable[..., object] | None,
    progress: bool | None,
    tolerance: float | None,
) -> None:
    """Raises TypeError or ValueError for the first argument that is not as ``fit`` describes it."""
    _check_loss(loss, args, with_state)
    _check_optimizer(optimizer)
    check_key(key, "fv.fit(..., key=key)")
    for name, value in counts.items():
        check_count(value, name)
    if loop not in (None, "compiled", "host"):
        raise ValueError(f'loop must be "compiled", "host" or None, got {loop!r}.')
    if callback is not None and not takes(callback, 0, 0.0, None):
        known = signature_of(callback)
        got = f"one that takes {known}" if known else type(callback).__name__
        raise TypeError(f"callback must be a function callback(steps, loss, params), got {got}.")
    if progress not in (None, True, False):
        raise TypeError(f"progress must be True, False or None, got {progress!r}.")
    if tolerance is not None and not (isinstance(tolerance, (int, float)) and tolerance > 0):
        raise ValueError(f"tolerance must be a positive number of nats, got {tolerance!r}.")


def checked_params(params: Params) -> Params:
    """The params as arrays of definite dtypes."""
    if callable(getattr(params, "init", None)):
        raise TypeError(
            f"params must be a pytree of arrays, got {type(params).__name__}: start from its init, "
            "guide.init(jax.random.key(0))."
        )
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError("params is an empty pytree: there is nothing to fit.")
    for path, leaf in leaves:
        name = f"params{jax.tree_util.keystr(path)}"
        _check_leaf(name, leaf)
        dtype = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{name} must be floating-point, got {dtype}: unconstrained params are real; "
                "write 0.0 for 0, or convert with jnp.asarray(x, float)."
            )
        if _jax.is_concrete(leaf) and not np.isfinite(np.asarray(leaf, np.float64)).all():
            raise ValueError(f"{name} is not finite: give finite initial values.")
    return jax.tree.map(strong, params)


def checked_state(state: object) -> object:
    """The state as arrays of definite dtypes."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        _check_leaf(f"state{jax.tree_util.keystr(path)}", leaf)
    return jax.tree.map(strong, state)


def strong(leaf: jax.Array | np.ndarray | float) -> jax.Array:
    """An array of a definite dtype: a weak one would not survive a loop."""
    if isinstance(leaf, jax.Array) and not getattr(leaf, "weak_type", False):
        return leaf
    if isinstance(leaf, jax.Array) and not _jax.is_concrete(leaf):
        return jax.lax.convert_element_type(leaf, leaf.dtype)
    array = np.asarray(leaf)
    return jax.device_put(array.astype(jax.dtypes.canonicalize_dtype(array.dtype)))


def _check_leaf(name: str, leaf: object) -> None:
    kind = type(leaf)
    if kind.__module__.partition(".")[0] == "torch":
        raise TypeError(
            f"{name} is a torch tensor: convert it, jnp.asarray(tensor.detach().numpy()); a whole "
            "module by interop.to_jax."
        )
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
        return
    if name.startswith("params"):
        raise TypeError(
            f"{name} must be floating-point, got {kind.__name__}: leave out what is not learned; "
            "of an equinox module, params, static = eqx.partition(module, eqx.is_inexact_array),\n"
            "and in the loss, eqx.combine(params, static)."
        )
    raise TypeError(
        f"{name} must be an array or a number, got {kind.__name__}: what is neither goes into the "
        "loss's closure."
    )


def _check_loss(loss: Loss, args: tuple[object, ...], with_state: bool) -> None:
    if hasattr(loss, "init") and hasattr(loss, "target"):
        raise TypeError("loss is a guide: wrap it, fv.negative_elbo(guide).")
    if not callable(loss):
        raise TypeError(f"loss must be a function loss(params, key), got {type(loss).__name__}.")
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {type(args).__name__}: write args=(data,).")
    for i, arg in enumerate(args):
        for path, leaf in jax.tree_util.tree_leaves_with_path(arg):
            _check_leaf(f"args[{i}]{jax.tree_util.keystr(path)}", leaf)
    state = {"state": None} if with_state else {}
    if not takes(loss, None, None, *args, **state):
        wanted = "(params, key" + "".join(f", args[{i}]" for i in range(len(args)))
        wanted += ", state=)" if with_state else ")"
        hint = "the key is a new one at each step, for its draws; a loss without draws ignores it."
        if not with_state and takes(loss, None, None, *args, state=None):
            hint = "it takes a state: pass the first one as state=."
        elif more := _more(loss, 2 + len(args), state):
            hint = f"pass what else it takes, {more}, by args=(...,)."
        raise TypeError(f"loss must take {wanted}, it takes {inspect.signature(loss)}: {hint}")
    signature = signature_of(loss)
    names = [*signature.parameters][:2] if signature else []
    if names in (["key", "params"], ["rng", "params"], ["rng_key", "params"]):
        raise TypeError(f"loss must take (params, key), in this order, it takes {tuple(names)}.")


def _more(loss: Loss, count: int, keywords: dict[str, None]) -> str:
    """The names of the positional arguments after ``count``, where with these it can be called."""
    signature = signature_of(loss)
    if signature is None:
        return ""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [n for n, p in signature.parameters.items() if p.kind in kinds and n not in keywords]
    return ", ".join(names[count:]) if takes(loss, *names, **keywords) else ""


def _check_optimizer(optimizer: object) -> None:
    if hasattr(optimizer, "get_params") and hasattr(optimizer, "eval_and_update"):
        raise TypeError(
            "optimizer is one of numpyro.optim, got "
            f"{type(optimizer).__name__}: give the optax transformation that it stands for, such "
            "as optax.adam(1e-2)."
        )
    if callable(optimizer) and getattr(optimizer, "__module__", "").startswith("optax"):
        name = f"optax.{getattr(optimizer, '__name__', 'adam')}"
        raise TypeError(
            f"optimizer must be an optax transformation, got the function {name}: call it, "
            f"{name}(1e-2)."
        )
    if not (
        callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))
    ):
        raise TypeError(
            f"optimizer must be an optax transformation such as optax.adam(1e-2), got "
            f"{type(optimizer).__name__}."
        )
