"""Where constrained values are on unconstrained space, and whether they are inside the supports."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions.constraints import Constraint

from funcvi.targets import Sites, Target

__all__ = ["inside_support"]

_OFF = 1e-2  # relative, beyond what a long vector's bijection and its inverse lose in float32


def inside_support(target: Target, values: Mapping[str, Array]) -> tuple[Sites, Array]:
    """Unconstrained sites of one draw, and what a log density is outside: zero where all is inside.

    Minus infinity outside of a support, where sites are at some place; NaN where a value is, or
    where a vector has no image by rounding, so that nobody knows.

    Args:
        target: its supports may depend on other sites.
        values: of its latent sites, constrained, without leading axes.
    """
    # A support of numbers that has no parameters is asked at once: what depends on the site is not
    # run at a value that it cannot have. The others have an image and its inverse.
    fixed = {n: c for n, c in target.constraints.items() if _is_fixed(c)}
    each = {n: _feasible(fixed[n], x) if n in fixed else (x, True) for n, x in values.items()}
    feasible = {name: x for name, (x, _) in each.items()}
    z = target.unconstrain(feasible)
    inside, unknown = jnp.array(True), jnp.array(False)
    for name, (_, is_inside) in each.items():
        is_vector = target.constraints[name].event_dim > 0
        lost = jnp.any(jnp.isnan(z[name])) if is_vector else jnp.array(False)
        inside &= jnp.all(is_inside) & (lost | jnp.all(jnp.isfinite(z[name])))
        unknown |= lost | jnp.any(jnp.isnan(values[name]))
    somewhere = {name: jnp.where(jnp.isfinite(x), x, 0) for name, x in z.items()}
    if len(fixed) < len(values):
        back = target.constrain(somewhere)
        for name in values.keys() - fixed.keys():
            inside &= _are_close(back[name], feasible[name])
    return somewhere, jnp.where(unknown, jnp.nan, jnp.where(inside, 0.0, -jnp.inf))


def _is_fixed(support: Constraint) -> bool:
    return support.event_dim == 0 and not jax.tree.leaves(support)


def _feasible(support: Constraint, x: Array) -> tuple[Array, Array]:
    inside = support(x)
    wide = jnp.reshape(inside, inside.shape + (1,) * (x.ndim - inside.ndim))
    return jnp.where(wide, x, support.feasible_like(x)), inside


def _are_close(x: Array, y: Array) -> Array:
    if not jnp.issubdtype(y.dtype, jnp.floating):
        y = y.astype(x.dtype)
    size = jnp.max(jnp.abs(y), initial=0.0)
    return jnp.all(jnp.abs(x - y) <= _OFF * size)
