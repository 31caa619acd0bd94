"""Implicit derivatives of draws, in one place.

A draw x from a distribution function F(x; theta) moves with theta at its quantile: from
``F(x(theta); theta) = u`` follows ``dx = -(dF/dtheta) dtheta / p(x)`` (Figurnov et al. 2018,
arXiv:1805.08498), whatever made x. Each sampler says only what its ``dx`` is.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.custom_derivatives import SymbolicZero

from funcvi._types import Key
from funcvi.sampling import noise
from funcvi.sampling.dtypes import noise_dtype
from funcvi.sampling.record import Kind, Record, Shape, Univariate
from funcvi.tangents import moved

__all__ = ["against", "cdf_velocity", "from_cdf", "implicit", "instantiated"]


def implicit(velocity: Callable[..., Array], theta: Any, x: Array, *fixed: Any) -> Array:
    """``x``, moving with ``theta`` as a draw does that keeps its quantile.

    Args:
        velocity: ``(x, theta, dtheta, *fixed) -> dx``, linear in dtheta, of the shape of x.
        theta: the parameters, a pytree.
        x: the draws; their own derivative, if they have one, is added.
        *fixed: whatever else ``velocity`` reads, without a derivative.

    Example:
        >>> import jax
        >>> def exponential(x, rate, drate):
        ...     return -x / rate * drate
        >>> float(jax.grad(lambda rate: implicit(exponential, rate, jnp.float32(3.0)))(2.0))
        -1.5
    """
    return moved(_Along(_comparable(velocity)), x, theta, fixed)


@dataclass(frozen=True)
class _Call:
    """A ``functools.partial`` that is equal to another of the same function and arguments."""

    function: Callable[..., Array]
    arguments: tuple[Hashable, ...]

    def __call__(self, *args: Any) -> Array:
        return self.function(*self.arguments, *args)


def _comparable(velocity: Callable[..., Array]) -> Callable[..., Array]:
    if not isinstance(velocity, partial):
        return velocity
    arguments = (_comparable(a) if isinstance(a, partial) else a for a in velocity.args)
    return _Call(velocity.func, tuple(arguments))


@dataclass(frozen=True)
class _Along:
    """The rule of what moves with its parameters by a velocity."""

    velocity: Callable[..., Array]

    def __call__(self, primals: Any, tangents: Any) -> Any:
        (x, theta, fixed), (own, slope, _) = primals, tangents
        if all(isinstance(t, SymbolicZero) for t in jax.tree.leaves(slope)):
            return own
        dx = _speed(self.velocity, x, theta, jax.tree.map(instantiated, slope), fixed)
        return dx if isinstance(own, SymbolicZero) else dx + own


@partial(jax.jit, static_argnums=0)
def _speed(
    velocity: Callable[..., Array], x: Array, theta: Any, dtheta: Any, fixed: tuple[Any, ...]
) -> Array:
    """Compiled, so that JAX keeps what it has traced of it."""
    return velocity(x, theta, dtheta, *fixed).astype(x.dtype)


def against(velocity: Callable[..., Array], theta: Any, x: Array, *fixed: Any) -> Array:
    """``x``, moving against what ``implicit`` adds: the two, one after the other, stand still."""
    return implicit(partial(_minus, velocity), theta, x, *fixed)


def _minus(velocity: Callable[..., Array], *args: Any) -> Array:
    return -velocity(*args)


def instantiated(tangent: Any) -> Any:
    """A tangent as an array, also where it is known to be zero."""
    if not isinstance(tangent, SymbolicZero):
        return tangent
    zeros = np.zeros if tangent.dtype == jax.dtypes.float0 else jnp.zeros
    return zeros(tangent.shape, tangent.dtype)


def cdf_velocity(x: Array, d: dist.Distribution, dd: dist.Distribution) -> Array:
    """``-(dF/dtheta) dtheta / p(x)``, from ``d.cdf`` and ``d.log_prob``."""
    slope: Array = jax.jvp(lambda d: d.cdf(x), (d,), (dd,))[1]
    return -slope * jnp.exp(-d.log_prob(x))


def from_cdf(kind: Kind) -> Record:
    """The record of a univariate distribution that is known by its ``cdf`` and ``log_prob``.

    Draws invert the distribution function by bisection, to the last bit, and carry the implicit
    gradient; mixtures of it get gradients for their weights too. As fine in each tail as the
    distribution function is there, so less fine near one than near zero.

    Args:
        kind: the support: "real", "positive" or "unit".

    Raises:
        ValueError: it is none of these.
        TypeError: when it is drawn from, the class has no ``cdf`` of its own.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> class Triangle(dist.Distribution):
        ...     arg_constraints, support = {}, dist.constraints.unit_interval
        ...     sampling_record = from_cdf("unit")
        ...     def cdf(self, x): return x**2
        ...     def log_prob(self, x): return jnp.log(2 * x)
        >>> import funcvi as fv
        >>> x = fv.sample(Triangle(), jax.random.key(0), (1000,))
        >>> bool(abs(x.mean() - 2 / 3) < 0.03)
        True
    """
    if kind not in (kinds := get_args(Kind)):
        raise ValueError(f"kind must be one of {', '.join(kinds)}; got {kind!r}.")

    def draw(d: dist.Distribution, key: Key, shape: Shape) -> Array:
        if type(d).cdf is dist.Distribution.cdf:
            raise TypeError(f"{type(d).__name__} is drawn by its cdf and has none: define cdf(x).")
        u, _ = noise.fractions(key, shape, noise_dtype(d))
        return implicit(cdf_velocity, d, _quantile(jax.lax.stop_gradient(d).cdf, u, kind))

    def latent(d: dist.Distribution, x: Array) -> Array:
        return jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, d.batch_shape))

    def value(d: dist.Distribution, x: Array) -> Array:
        return implicit(cdf_velocity, d, x)

    def tails(d: dist.Distribution, x: Array) -> tuple[Array, Array]:
        return d.cdf(x), 1 - d.cdf(x)

    def anchor(d: dist.Distribution, x: Array) -> Array:
        return against(cdf_velocity, d, x)

    return Record(draw, univariate=Univariate(kind, latent, value, tails, anchor))


def _quantile(cdf: Callable[[Array], Array], u: Array, kind: Kind) -> Array:
    """By bisection over all floats of one sign, whose bits are in their order."""
    info, whole = jnp.finfo(u.dtype), jnp.int64 if u.dtype == jnp.float64 else jnp.int32
    negative = (u < cdf(jnp.zeros_like(u))) if kind == "real" else jnp.zeros(u.shape, bool)
    last = 1 - info.epsneg if kind == "unit" else info.max
    ends = [jnp.full(u.shape, end, u.dtype) for end in (info.tiny, last)]

    def at(bits: Array) -> Array:
        size = jax.lax.bitcast_convert_type(bits, u.dtype)
        return jnp.where(negative, -size, size)

    def halve(_: int, bits: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = bits[0] + (bits[1] - bits[0]) // 2
        below = cdf(at(middle))
        outward = jnp.where(negative, below > u, below < u)
        return jnp.where(outward, middle, bits[0]), jnp.where(outward, bits[1], middle)

    start = jax.lax.bitcast_convert_type(ends[0], whole)
    end = jax.lax.bitcast_convert_type(ends[1], whole)
    x = at(jax.lax.fori_loop(0, info.bits, halve, (start, end))[1])
    return jnp.where(jnp.isnan(cdf(x)), jnp.nan, x)
