"""Laplace: the normal distribution that has the target's curvature at a mode."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from funcvi._checks import check_count, check_key
from funcvi._jax import is_concrete
from funcvi._types import Key, Params
from funcvi.families import family
from funcvi.guides.contract import Guide, check_target
from funcvi.guides.starts import checked_sites
from funcvi.programs import run
from funcvi.targets import Target

__all__ = ["laplace", "triangular"]

_WIDEST = 2.0  # standard deviation in a direction without curvature: as wide as the starts
_CLOSE = 1e-5  # nats below the mode: within 0.5 % of a standard deviation


def laplace(
    target: Target, *, loc: Mapping[str, ArrayLike] | None = None, num_steps: int = 200
) -> Guide:
    """The normal distribution with the curvature of the log density at a mode.

    ``guide.init(key)`` climbs there from a start, so ``guide(guide.init(key))`` is the
    approximation: no fit is needed, and one from there is a full-rank fit. Where the Hessian has
    directions that do not curve downwards (a saddle, a flat one), a UserWarning says so, and the
    standard deviation there is at most 2. Under jit and vmap, params are NaN where the log density
    is finite at none of the starts.

    MacKay 1992, doi:10.1162/neco.1992.4.3.448.

    Args:
        target: made by :func:`fv.target`. Its log density must be twice differentiable; the
            Hessian has size² entries.
        loc: unconstrained sites to climb from; by default ``target.start(key)``.
        num_steps: Newton steps at most; a UserWarning says if that was too few.

    Returns:
        A :class:`Guide` with the params of :func:`fv.full_rank`.

    Raises:
        TypeError: this is no target.
        ValueError: its log density is random (a subsampling plate).

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: dist.Normal(3.0, 0.5).log_prob(x["a"]),
        ...               supports={"a": constraints.real})
        >>> guide = fv.laplace(t)
        >>> q = guide(guide.init(jax.random.key(0))).marginals()["a"]
        >>> round(float(q.loc), 3), round(float(q.scale), 3)
        (3.0, 0.5)
    """
    check_target(target)
    target.check_exact("fv.laplace")
    target.check_known("fv.laplace")
    check_count(num_steps, "num_steps")

    def height(x: Array) -> Array:
        return -target.log_density(target.unravel(x))

    def init(key: Key) -> Params:
        check_key(key, "guide.init(key)")
        found = target.start(key, mark_failed=True) if loc is None else checked_sites(loc, target)
        start = target.ravel(found)
        mode, factor, flat, left = run(partial(_curvature_at_mode, height, num_steps), start)
        report = partial(_report, size=target.size, num_steps=num_steps)
        if is_concrete((flat, left)):
            report(flat, left)
        else:
            jax.debug.callback(report, flat, left)
        return of.inverse(dist.MultivariateNormal(mode, scale_tril=factor))

    of = family(dist.MultivariateNormal(jnp.zeros(target.size), scale_tril=jnp.eye(target.size)))
    return Guide(target, init, of, ("full_rank", {}))


class _Climb(NamedTuple):
    x: Array
    height: Array
    slope: Array  # along the axes of the Hessian
    precision: Array  # along them, made positive
    axes: Array
    curved: Array  # which were positive

    @property
    def left(self) -> Array:
        """How much lower the minimum of the quadratic model is, nats."""
        return jnp.sum(self.slope**2 / self.precision) / 2


def _curvature_at_mode(
    height: Callable[[Array], Array], num_steps: int, start: Array
) -> tuple[Array, Array, Array, Array]:
    """Mode, Cholesky factor of the covariance, number of uncurved directions, nats left to climb.

    Newton steps that follow every direction downwards, damped until they descend
    (Dauphin et al. 2014, arXiv:1406.2572; Levenberg and Marquardt).
    """

    def at(x: Array) -> _Climb:
        value, slope = jax.value_and_grad(height)(x)
        curvature, axes = jnp.linalg.eigh(jax.hessian(height)(x))
        size = jnp.abs(curvature)
        curved = curvature > 10 * len(size) * jnp.finfo(x.dtype).eps * jnp.max(size)
        precision = jnp.where(curved, curvature, jnp.maximum(size, _WIDEST**-2))
        return _Climb(x, value, axes.T @ slope, precision, axes, curved)

    def step(state: tuple[_Climb, Array, Array]) -> tuple[_Climb, Array, Array]:
        now, damping, steps = state
        new = at(now.x - now.axes @ (now.slope / (now.precision + damping)))
        rounding = 4 * jnp.finfo(start.dtype).eps * jnp.abs(now.height)
        better = (new.height <= now.height + rounding) & jnp.all(jnp.isfinite(new.precision))
        more = 10 * damping + 1e-3 * jnp.max(now.precision)
        chosen = jax.tree.map(partial(jnp.where, better), (new, damping / 10), (now, more))
        return *chosen, steps + 1

    def climbing(state: tuple[_Climb, Array, Array]) -> Array:
        return (state[0].left > _CLOSE) & (state[2] < num_steps)

    first = at(start), jnp.zeros((), start.dtype), jnp.zeros((), jnp.int32)
    end, _, _ = jax.lax.while_loop(climbing, step, first)
    last = end.axes @ (end.slope / end.precision)
    mode = jnp.where(end.left <= _CLOSE, end.x - last, end.x)
    factor = triangular(end.axes / jnp.sqrt(end.precision))
    return mode, factor, jnp.sum(~end.curved), end.left


def triangular(factor: Array) -> Array:
    """The Cholesky factor of ``factor @ factor.T``, of which no square is taken: none is lost to
    rounding. R^T of factor^T = Q R is the Cholesky factor up to signs."""
    upper = jnp.linalg.qr(factor.T, mode="r")
    return (upper * jnp.sign(jnp.diagonal(upper))[:, None]).T


def _report(flat: ArrayLike, left: ArrayLike, size: int, num_steps: int) -> None:
    if (count := int(np.max(flat))) > 0:
        warnings.warn(
            f"laplace: the Hessian is not positive definite: in {count} of {size} directions the "
            "log density does not curve downwards at the end of the climb (a saddle, a flat or an "
            "unidentified direction). Their standard deviations are a guess, at most "
            f"{_WIDEST:.0f}: fit fv.full_rank instead, or give loc to climb from elsewhere.",
            stacklevel=3,
        )
    if not (gap := float(np.max(left))) <= _CLOSE:
        warnings.warn(
            f"laplace: no mode within {num_steps} steps: about {gap:.2g} nats are left to climb. "
            "Raise num_steps, or give loc nearer to the mode.",
            stacklevel=3,
        )
