"""Where to begin: of all places along several climbs, the one whose normal has the highest ELBO.

A hierarchical posterior is highest where one of its scales is zero, far from its mass, and nothing
recovers from a start there; the mass lies on the way. Pathfinder, Zhang et al. 2022,
jmlr.org/papers/v23/21-0889.html.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from funcvi._types import Key
from funcvi.sampling import noise

__all__ = ["PER_STEP", "Climbs", "Normal", "best_of_climbs"]

LogDensity = Callable[[Array], Array]

_SHORTER = 12
_DRAWS = 32  # for each ELBO, in mirrored pairs
PER_STEP = 2 * _DRAWS + 2  # evaluations, where the line search accepts its first length or two
_LEFT_OUT = 2  # of them, the lowest: one draw in a tail must not hide a good place


class Normal(NamedTuple):
    """The law of ``loc + factor @ noise``; any square factor, of shape (size, size)."""

    loc: Array
    factor: Array


class _Climb(NamedTuple):
    """Of the quasi-Newton climb: the place, what is there, and the inverse of the curvature."""

    x: Array
    value: Array
    slope: Array
    inverse: Array
    begun: Array


class Climbs(NamedTuple):
    """The best normal of each climb, and its ELBO, with a leading axis of climbs."""

    elbo: Array
    normal: Normal


def best_of_climbs(
    log_density: LogDensity, starts: Array, key: Key, num_steps: int
) -> tuple[Normal, Climbs]:
    """The normal of the highest ELBO, and those of all climbs.

    Args:
        log_density: of a vector (size,).
        starts: shape (climbs, size), where the log density and its gradient are finite.
        key: of the draws that the ELBOs are estimated by, the same ones everywhere.
        num_steps: of each climb.
    """
    half = noise.normal(key, (_DRAWS // 2, starts.shape[1]), starts.dtype)
    draws = jnp.concatenate([half, -half])
    best = jax.vmap(partial(_climb, log_density, draws, num_steps))(starts)
    top = jnp.argmax(best.elbo)
    return jax.tree.map(lambda x: x[top], best.normal), best


def _climb(log_density: LogDensity, draws: Array, num_steps: int, start: Array) -> Climbs:
    unit = jnp.eye(start.shape[0], dtype=start.dtype)
    lowest, none = jnp.array(-jnp.inf, start.dtype), jnp.zeros((), bool)
    # What is at the start is the first step's to find, which goes nowhere.
    first = _Climb(start, lowest, jnp.zeros_like(start), unit, none)

    def step(state: tuple[_Climb, Climbs], _: None) -> tuple[tuple[_Climb, Climbs], None]:
        climb, best = state
        climb = _step(log_density, climb)
        factor = jnp.linalg.cholesky(climb.inverse)
        # Of the quadratic model at this place: its top, and the place itself.
        places = jnp.stack([climb.x + climb.inverse @ climb.slope, climb.x])
        elbos = jax.vmap(lambda loc: _elbo(log_density, draws, Normal(loc, factor)))(places)
        top = jnp.argmax(elbos)
        here = Climbs(elbos[top], Normal(places[top], factor))
        better = here.elbo > best.elbo
        return (climb, jax.tree.map(partial(jnp.where, better), here, best)), None

    nothing = Climbs(lowest, Normal(start, unit))
    return lax.scan(step, (first, nothing), None, length=1 + num_steps)[0][1]


def _elbo(log_density: LogDensity, draws: Array, normal: Normal) -> Array:
    values = jax.vmap(log_density)(normal.loc + draws @ normal.factor.T)
    values = jnp.sort(jnp.where(jnp.isfinite(values), values, -jnp.inf))[_LEFT_OUT:]
    size = draws.shape[1]
    entropy = jnp.sum(jnp.log(jnp.diagonal(normal.factor))) + size * (1 + math.log(2 * math.pi)) / 2
    elbo = jnp.mean(values) + entropy
    return jnp.where(jnp.isfinite(elbo), elbo, -jnp.inf)


def _step(log_density: LogDensity, now: _Climb) -> _Climb:
    """One step of BFGS, shortened until it climbs."""
    unit = jnp.eye(len(now.x), dtype=now.x.dtype)
    unscaled = unit / (1 + jnp.linalg.norm(now.slope))
    now = now._replace(inverse=jnp.where(now.begun, now.inverse, unscaled))
    direction = now.inverse @ now.slope
    longest = 5 * (1 + jnp.linalg.norm(now.x))
    direction *= jnp.minimum(1.0, longest / (jnp.linalg.norm(direction) + 1e-30))
    rise = jnp.vdot(direction, now.slope)

    def at(length: Array) -> tuple[Array, Array, Array]:
        x = now.x + length * direction
        value, slope = jax.value_and_grad(log_density)(x)
        enough = value >= now.value + 1e-4 * length * rise
        return value, slope, enough & jnp.isfinite(value) & jnp.all(jnp.isfinite(slope))

    def failing(state: tuple[Array, Array, tuple[Array, Array, Array]]) -> Array:
        count, _, (_, _, climbs) = state
        return ~climbs & (count <= _SHORTER)

    def shorter(
        state: tuple[Array, Array, tuple[Array, Array, Array]],
    ) -> tuple[Array, Array, tuple[Array, Array, Array]]:
        count, length, _ = state
        return count + 1, length / 3, at(length / 3)

    # The body is traced once, and compiled once: its first length is one.
    length = jnp.full((), 3.0, now.x.dtype)
    untried = jnp.zeros((), jnp.int32), length, (now.value, now.slope, jnp.zeros((), bool))
    _, length, (value, slope, climbs) = lax.while_loop(failing, shorter, untried)
    moved = length * direction
    new = _Climb(now.x + moved, value, slope, *_updated(now, moved, now.slope - slope))
    return jax.tree.map(partial(jnp.where, climbs), new, now)


def _updated(now: _Climb, moved: Array, fell: Array) -> tuple[Array, Array]:
    """The inverse curvature that explains by how much the slope fell along a step."""
    along = jnp.vdot(moved, fell)
    curved = along > 1e-8 * jnp.linalg.norm(moved) * jnp.linalg.norm(fell)
    unit = jnp.eye(len(moved), dtype=moved.dtype)
    safe = jnp.where(curved, along, 1.0)
    scaled = unit * safe / jnp.vdot(fell, fell)
    before = jnp.where(now.begun, now.inverse, scaled)
    left = unit - jnp.outer(moved, fell) / safe
    after = left @ before @ left.T + jnp.outer(moved, moved) / safe
    return jnp.where(curved, after, now.inverse), now.begun | curved
