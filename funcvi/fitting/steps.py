"""Steps of an optimiser, as pure functions: the first carry, one step, and a scan of them."""

import inspect
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import PyTreeDef

from funcvi._types import Key, Loss, Params
from funcvi.fitting.checks import strong

__all__ = ["Carry", "Rest", "Step", "init", "pure_loss", "pure_step", "pure_update", "scan", "step"]

T = TypeVar("T")

#: What a loss takes beside its params: key, state, args.
Rest: TypeAlias = tuple[Key, object, tuple[object, ...]]

#: ``(params, key, state, args) -> (value, state)``.
PureLoss: TypeAlias = Callable[..., tuple[jax.Array, object]]

#: ``(gradient, optimizer_state, params, value, rest) -> (updates, optimizer_state)``.
PureUpdate: TypeAlias = Callable[..., tuple[Params, optax.OptState]]


class Carry(NamedTuple):
    """All that a step changes: a pytree of arrays."""

    params: Params
    good_params: Params  # where the loss and its gradient were last finite
    optimizer_state: optax.OptState
    state: object  # what the loss carries beside its params
    step: jax.Array
    skipped: jax.Array  # steps with a non-finite loss or gradient, in all
    run: jax.Array  # and in a row, up to now


#: ``(carry, key, *args) -> (carry, loss)``; the key is this step's own.
Step: TypeAlias = Callable[..., tuple[Carry, jax.Array]]


def init(params: Params, optimizer: optax.GradientTransformation, *, state: object = None) -> Carry:
    """The carry before the first step.

    Args:
        params: a pytree of floating-point arrays.
        optimizer: any optax transformation.
        state: what the loss carries beside its params, or None.

    Example:
        >>> import jax, optax
        >>> from funcvi import fitting
        >>> optimizer = optax.sgd(0.25)
        >>> take = fitting.step(lambda params, key: (params - 3.0) ** 2, optimizer)
        >>> carry, loss = take(fitting.init(0.0, optimizer), jax.random.key(0))
        >>> print(carry.params, loss)
        1.5 9.0
    """
    zero = jnp.zeros((), jnp.int32)
    carry = Carry(params, params, optimizer.init(params), state, zero, zero, zero)
    return jax.tree.map(strong, carry)


def step(loss: Loss, optimizer: optax.GradientTransformation) -> Step:
    """One step of the optimiser: ``(carry, key, *args) -> (carry, loss)``.

    A step whose loss, gradient or new params are not finite changes nothing but the counts of such
    steps: params, optimiser and state stay as they were.

    Args:
        loss: ``loss(params, key, *args) -> scalar``; where the carry has a state,
            ``loss(params, key, *args, state=state) -> (scalar, state)``.
        optimizer: any optax transformation; value, gradient and ``value_fn`` are passed to those
            that ask for them.

    Raises:
        TypeError, ValueError: the loss returns something else.

    Example:
        >>> import jax, optax
        >>> from funcvi import fitting
        >>> optimizer = optax.sgd(0.5)
        >>> take = fitting.step(lambda params, key: (params - 3.0) ** 2, optimizer)
        >>> carry, loss = take(fitting.init(0.0, optimizer), jax.random.key(0))
        >>> print(carry.params, loss)
        3.0 9.0
    """
    value_of = pure_loss(loss)
    return pure_step(jax.value_and_grad(value_of, has_aux=True), pure_update(optimizer, value_of))


def scan(
    take: Step, carry: Carry, key: Key, num_steps: int, *args: object, patience: int = 10
) -> tuple[Carry, jax.Array]:
    """``num_steps`` steps from this carry: the last carry, and the losses, of axes (step).

    Step ``i`` draws with ``jax.random.fold_in(key, i)``, counted from the very first step. After
    ``patience`` non-finite steps in a row nothing moves any more, and the losses are NaN. To be
    jitted, vmapped or differentiated by the caller.

    Example:
        >>> import jax, optax
        >>> from funcvi import fitting
        >>> optimizer = optax.adam(0.1)
        >>> take = fitting.step(lambda params, key: (params - 3.0) ** 2, optimizer)
        >>> carry, losses = fitting.scan(
        ...     take, fitting.init(0.0, optimizer), jax.random.key(0), 500)
        >>> print(round(float(carry.params), 3), losses.shape)
        3.0 (500,)
    """

    def body(carry: Carry, _: None) -> tuple[Carry, jax.Array]:
        after, value = take(carry, jax.random.fold_in(key, carry.step), *args)
        going = carry.run < patience
        value = value.astype(jnp.result_type(float))
        return select(going, after, carry), lax.select(going, value, jnp.full_like(value, jnp.nan))

    return lax.scan(body, carry, None, length=num_steps)


# ---- what a step is made of ----------------------------------------------------------------------


def pure_step(
    value_and_gradient: Callable[..., tuple[tuple[jax.Array, object], Params]], update: PureUpdate
) -> Step:
    """A step, from the value and gradient of a pure loss and the pure update of an optimiser."""

    def take(carry: Carry, key: Key, *args: object) -> tuple[Carry, jax.Array]:
        rest: Rest = (key, carry.state, args)
        (value, state), gradient = value_and_gradient(carry.params, *rest)
        updates, optimizer_state = update(
            gradient, carry.optimizer_state, carry.params, value, rest
        )
        params = optax.apply_updates(carry.params, updates)
        evaluated = _all_finite((value, gradient))
        # A huge gradient, squared, would end all learning: what was finite must stay so.
        state_of_optimizer = _where_finite(carry.optimizer_state, optimizer_state)
        good = _all_finite((value, gradient, params, state_of_optimizer))
        skipped = (~good).astype(jnp.int32)
        after = Carry(
            select(good, params, carry.params),
            select(evaluated, carry.params, carry.good_params),
            select(good, optimizer_state, carry.optimizer_state),
            select(good, state, carry.state),
            carry.step + 1,
            carry.skipped + skipped,
            (carry.run + 1) * skipped,
        )
        return after, value

    return take


def pure_loss(loss: Loss) -> PureLoss:
    """The loss as ``(params, key, state, args) -> (value, state)``; without a state, None."""

    def value_of(
        params: Params, key: Key, state: object, args: tuple[object, ...]
    ) -> tuple[jax.Array, object]:
        if state is None:
            return _scalar(loss(params, key, *args)), None
        result = loss(params, key, *args, state=state)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(
                f"loss must return (value, state) where fv.fit is given a state, got "
                f"{type(result).__name__}."
            )
        value, after = result
        return _scalar(value), _checked_state(state, after)

    return value_of


def pure_update(optimizer: optax.GradientTransformation, value_of: PureLoss) -> PureUpdate:
    """The optimiser's update, given those extra arguments that it takes."""
    update: Callable[..., tuple[Params, optax.OptState]] = optimizer.update
    parameters = inspect.signature(update).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def call(
        gradient: Params,
        optimizer_state: optax.OptState,
        params: Params,
        value: jax.Array,
        rest: Rest,
    ) -> tuple[Params, optax.OptState]:
        extra = {
            "value": value,
            "grad": gradient,
            "value_fn": lambda params: value_of(params, *rest)[0],
        }
        if not takes_all:
            extra = {name: extra[name] for name in extra if name in parameters}
        return update(gradient, optimizer_state, params, **extra)

    return call


def select(when: jax.Array, new: T, old: T) -> T:
    """One tree or the other. ``lax``: ``jnp.where`` takes ten times as long to trace."""
    return jax.tree.map(lambda a, b: a if a is b else lax.select(when, a, b), new, old)


def _all_finite(tree: object) -> jax.Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    # One sum for all: XLA repeats a chain of ands in each leaf that is selected by its result.
    return jnp.all(lax.is_finite(jnp.stack([jnp.sum(x * 0) for x in leaves])))


def _where_finite(before: optax.OptState, after: optax.OptState) -> list[jax.Array]:
    """The floats of the state after, with zeros for what was not finite before."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    floats = [(a, b) for a, b in pairs if jnp.issubdtype(jnp.result_type(b), jnp.inexact)]
    return [lax.select(lax.is_finite(a), b, lax.full_like(b, 0)) for a, b in floats]


def _checked_state(before: object, after: object) -> object:
    structures: list[PyTreeDef] = [jax.tree.structure(before), jax.tree.structure(after)]
    if structures[0] != structures[1]:
        raise TypeError(
            f"loss must return a state of the structure it was given, {structures[0]}, got "
            f"{structures[1]}."
        )

    def checked(path: tuple[object, ...], old: jax.Array, new: jax.Array | float) -> jax.Array:
        array = new if isinstance(new, jax.Array) else jnp.asarray(new)
        weak = array.shape == old.shape and getattr(array, "weak_type", False)
        if weak and jnp.result_type(old, array) == old.dtype:
            array = array.astype(old.dtype)
        if (array.shape, array.dtype) != (old.shape, old.dtype):
            start = jnp.issubdtype(old.dtype, jnp.integer) and "; start it as a float, 0.0 for 0"
            raise TypeError(
                f"state{jax.tree_util.keystr(path)} must stay {old.dtype}{list(old.shape)}, the "
                f"loss returned {array.dtype}{list(array.shape)}{start or ''}."
            )
        return array

    return jax.tree_util.tree_map_with_path(checked, before, after)


def _scalar(value: object) -> jax.Array:
    value = jnp.asarray(value) if isinstance(value, (int, float)) else value
    if not isinstance(value, jax.Array):
        hint = "return the loss alone"
        if isinstance(value, tuple):
            hint += ", or give fv.fit the state that it carries: state="
        raise TypeError(f"loss must return a scalar array, got {type(value).__name__}: {hint}.")
    if value.shape != ():
        raise ValueError(
            f"loss must return a scalar, got shape {value.shape}: end it with .mean() or .sum()."
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"loss must return a float, got {value.dtype}: it has no gradient.")
    return value
