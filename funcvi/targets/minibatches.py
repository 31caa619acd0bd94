"""Latents inside of subsampling plates: the target of all rows, and what a minibatch tells of it.

Each row has its own latents, so the target is that of the model without subsampling. A minibatch
reads the latents of its rows alone: their log densities, each counted for the rows that it stands
for, are in the mean those of all. That holds where rows do not depend on each other, which is
compared here, site by site and row by row.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from numpyro import handlers

from funcvi._jax import is_concrete
from funcvi._types import Key
from funcvi.programs import run
from funcvi.runtime_checks import require
from funcvi.targets.discrete_values import GivenDiscrete
from funcvi.targets.faults import first_run
from funcvi.targets.joint import Joint, log_probs
from funcvi.targets.record import Minibatch, ModelCall, Sites, Target, check_shapes
from funcvi.targets.replay import Constrain, Message, Model, WithoutDraws
from funcvi.targets.rows import OnAllRows, OnRows

__all__ = ["local_axes", "plates_of", "with_minibatches"]

Axes: TypeAlias = Mapping[int, str]

_PLACES = 3  # at which densities are compared
_HINT = "Read data by the plate's rows, as in `with numpyro.plate(...) as rows: ... obs=y[rows]`"
_OTHERWISE = "or leave subsample_size out, or sum the latents out"


def plates_of(site: Message) -> tuple[str | None, ...]:
    """The plate that each axis of a site's value is."""
    names: list[str | None] = [None] * jnp.ndim(site["value"])
    batch = len(names) - site["fn"].event_dim
    for frame in site["cond_indep_stack"]:
        names[batch + frame.dim] = frame.name
    return tuple(names)


def local_axes(
    sites: Mapping[str, Message], plates: Mapping[str, tuple[int, int]]
) -> dict[str, dict[int, str]]:
    """By site inside some of these plates, the axes of its value that they are."""
    found = {name: _axes(site, plates) for name, site in sites.items()}
    return {name: axes for name, axes in found.items() if axes}


def with_minibatches(
    make: Callable[[Model], Target],
    call: ModelCall,
    joint: Joint,
    plates: Mapping[str, tuple[int, int]],
    is_checked: bool,
) -> Target:
    """The target of a model on all rows of its plates, which can be estimated from some.

    Args:
        make: of a model without subsampling, its target.
        call: the model as it is written, and its data.
        joint: its log joint density, on some rows.
        plates: those that are subsampled.
        is_checked: whether rows are known not to depend on each other.

    Raises:
        ValueError: they do, or the model cannot be run on all of them.
    """
    axes = local_axes(joint.sites, plates)
    site, plate = next((name, next(iter(own.values()))) for name, own in axes.items())
    on_all = OnAllRows(call.model, frozenset(plates))
    key = jax.random.key(0)
    where = f"latent site {site!r} is inside the subsampling plate {plate!r}, and"
    try:
        first_run(WithoutDraws(handlers.seed(on_all, key)), call.args, call.kwargs)
    except (ValueError, TypeError, IndexError) as error:
        raise _does_not_run(where, plates[plate][0], error) from error
    whole = make(on_all)
    try:
        is_random = whole.is_random  # its density is traced here, once the model has run
    except (ValueError, TypeError, IndexError) as error:
        raise _does_not_run(where, plates[plate][0], error) from error
    if is_random:
        raise ValueError(
            f"{where} the model makes other random choices too (numpyro.prng_key, dropout), which "
            "differ with the rows: leave one of the two out."
        )

    def estimate(z: Sites, rows: Mapping[str, Array]) -> Array:
        check_shapes(z, joint.shapes)
        return joint(handlers.seed(OnRows(call.model, rows), key), z, counts=counts)

    part = Minibatch(dict(plates), axes, estimate)
    counts = {name: part.count(name) for name in axes}
    if not is_checked:
        each = run(_same_by_row(whole, part, call.model, joint), jax.random.split(key, _PLACES))
        held = [require(same, same, _dependent(name, where)) for name, same in each.items()]
        whole, part = _if_held(whole, part, held)
    return replace(whole, minibatch=part, call=call)


def _same_by_row(
    whole: Target, part: Minibatch, model: Model, joint: Joint
) -> Callable[[Key], dict[str, Array]]:
    """By site whether the rows that are read have the densities that they have among all rows."""

    def same(key: Key) -> dict[str, Array]:
        row_key, seed, *keys = jax.random.split(key, 2 + len(whole.shapes))
        z = {
            name: jax.random.uniform(k, shape, minval=-2.0, maxval=2.0)
            for k, (name, shape) in zip(keys, whole.shapes.items(), strict=True)
        }
        rows = part.rows(row_key)
        on_all = Constrain(handlers.seed(OnAllRows(model, frozenset(rows)), seed), z)
        of_all = _sampled(joint.trace(on_all))
        discrete = {
            n: _taken(of_all[n]["value"], _axes(of_all[n], rows), rows) for n in joint.discrete
        }
        given = GivenDiscrete(handlers.seed(OnRows(model, rows), seed), discrete)
        on_some = Constrain(given, {n: _taken(x, part.axes.get(n, {}), rows) for n, x in z.items()})
        of_some = _sampled(joint.trace(on_some))
        if set(of_all) != set(of_some):
            names = sorted(set(of_all) ^ set(of_some))
            raise ValueError(
                f"the sites {names} of the model depend on how many rows of {list(rows)} are read."
            )
        found = {}
        for name, site in of_some.items():
            _check_rows(of_all[name], part)
            values = _taken(_scaled(of_all[name]), _density_axes(of_all[name], rows), rows)
            scale = _count(site, part)
            found[name] = _close(scale * values, _scaled(site))
        for name, value in on_some.values.items():
            expected = _taken(on_all.values[name], part.axes.get(name, {}), rows)
            found[name] &= _close(expected, value)
        return found

    return lambda keys: jax.tree.map(jnp.all, jax.lax.map(same, keys))


def _check_rows(site: Message, part: Minibatch) -> None:
    """Raises a ValueError where a site's data have one row, which would be that of all."""
    if not site["is_observed"]:
        return
    shape = jnp.shape(site["value"])
    batch = len(shape) - site["fn"].event_dim
    for frame in site["cond_indep_stack"]:
        axis = batch + frame.dim
        if frame.name in part.sizes and axis >= 0 and shape[axis] == 1 < frame.size:
            raise ValueError(
                f"site {site['name']!r} observes one row, of shape {shape}, in the subsampling "
                f"plate {frame.name!r} of {frame.size} rows, which have latents of their own.\n"
                f"{_HINT}; what all rows share is a scalar."
            )


def _count(site: Message, part: Minibatch) -> float:
    """For how many rows each row of a site stands."""
    count = 1.0
    for frame in site["cond_indep_stack"]:
        size, some = part.sizes.get(frame.name, (1, 1))
        count *= size / some
    return count


def _scaled(site: Message) -> Array:
    values = log_probs(site, None)
    return values if site["scale"] is None else site["scale"] * values


def _density_axes(site: Message, rows: Mapping[str, Any]) -> dict[int, str]:
    """Of these plates the axes that they are in a site's log density."""
    rank = len(tuple(site["fn"].batch_shape))
    frames = site["cond_indep_stack"]
    return {rank + frame.dim: frame.name for frame in frames if frame.name in rows}


def _axes(site: Message, rows: Mapping[str, Any]) -> dict[int, str]:
    """Of these plates the axes that they are in a site's value."""
    named = ((i, name) for i, name in enumerate(plates_of(site)) if name is not None)
    return {i: name for i, name in named if name in rows}


def _taken(value: Array, axes: Axes, rows: Mapping[str, Array]) -> Array:
    """The rows of a value, along each of these axes."""
    for axis, plate in axes.items():
        value = jnp.take(value, rows[plate], axis=axis)
    return value


def _close(expected: Array, found: Array) -> Array:
    if jnp.shape(expected) != jnp.shape(found):
        return jnp.zeros((), bool)
    tolerance = float(jnp.finfo(jnp.result_type(float)).eps) ** 0.5
    return jnp.allclose(expected, found, rtol=tolerance, atol=tolerance, equal_nan=True)


def _sampled(trace: Mapping[str, Message]) -> dict[str, Message]:
    return {name: site for name, site in trace.items() if site["type"] == "sample"}


def _does_not_run(where: str, size: int, error: Exception) -> ValueError:
    text = str(error).split("\n")[0]
    return ValueError(
        f"{where} the model does not run on all of its {size} rows: {text}\n"
        f"{_HINT}, {_OTHERWISE}, or learn an encoder (docs/posteriors.md, Amortised guides)."
    )


def _dependent(name: str, where: str) -> Callable[[], ValueError]:
    return lambda: ValueError(
        f"{where} site {name!r} has another log density where some rows are read than where all "
        "are: rows depend on each other, on their place or on their number (a mean over rows, "
        f"data that are a minibatch already).\n{_HINT}, {_OTHERWISE}."
    )


def _if_held(whole: Target, part: Minibatch, held: list[Array]) -> tuple[Target, Minibatch]:
    """NaN where the data were traced, and rows were found to depend on each other as they came."""
    traced = [x for x in held if not is_concrete(x)]
    if not traced:
        return whole, part
    fine = jnp.all(jnp.stack(traced))

    def guarded(density: Callable[..., Array]) -> Callable[..., Array]:
        return lambda *args: jnp.where(fine, density(*args), jnp.nan)

    return (
        replace(whole, log_density=guarded(whole.log_density)),
        replace(part, log_density=guarded(part.log_density)),
    )
