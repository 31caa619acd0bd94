"""Two angles of a sine bivariate von Mises, and sine-skewed von Mises angles.

The first angle of the bivariate law (Singh, Hnizdo and Demchuk 2002, doi:10.1093/biomet/89.3.719)
has a density that is known up to its constant,

    p(phi) ~ exp(k_1 cos(phi)) I_0(sqrt(k_2**2 + rho**2 sin(phi)**2)).

It is drawn by rejection from two half von Mises densities around its mode, the same fixed number of
rounds for all draws, and its implicit derivative (Figurnov et al. 2018, arXiv:1805.08498) is a
quadrature. Given it, the second angle is von Mises. A sine-skewed angle (Ameijeiras-Alonso and Ley
2019, arXiv:1910.13293) is a von Mises one, mirrored with a probability that depends on it; its
derivative is a quadrature too.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import i0e, i1e

from funcvi._types import Key
from funcvi.sampling import noise
from funcvi.sampling.dtypes import noise_dtype
from funcvi.sampling.implicit import implicit
from funcvi.sampling.points import value_of
from funcvi.sampling.record import Draw, Record, Shape, unwrapped
from funcvi.sampling.von_mises import centred_von_mises, wrapped
from funcvi.sampling.wrappers import base_of

__all__ = ["RECORDS", "angles_of", "implicit_angle"]

#: A round accepts at least 0.59 of all draws, so less than one in 1e9 is left at the mode.
_ROUNDS = 24
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


def implicit_angle(
    log_density: Callable[..., Array], start: float, x: Array, reach: Array, *params: Array
) -> Array:
    """``x``, with the implicit derivative of a draw in (start, pi), from its density alone.

    With A and B the integrals of the density below and above x, dA and dB their derivatives at a
    fixed x, and the density scaled to one at x: ``dx = (A dB - B dA) / (A + B)``.

    Args:
        log_density: of an angle and the params, elementwise, with any constant.
        start: where the cdf starts: -pi, or zero for a density and a draw folded there.
        x: the draws.
        reach: how far from x the density is not negligible, at most.
        *params: of the shape and dtype of x.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcvi.sampling.von_mises import von_mises_pull
        >>> k, x = jnp.float32(2.0), jnp.float32(1.0)
        >>> cosine = lambda t, k: k * jnp.cos(t)
        >>> dx = jax.grad(lambda k: implicit_angle(cosine, -jnp.pi, x, 2 * jnp.pi, k))(k)
        >>> round(float(dx / (-jnp.sin(x) * von_mises_pull(k, x))), 3)
        1.0
    """
    return implicit(partial(_velocity, log_density, start), params, x, reach)


def _velocity(
    log_density: Callable[..., Array],
    start: float,
    x: Array,
    params: tuple[Array, ...],
    dparams: tuple[Array, ...],
    reach: Array,
) -> Array:
    wide = [p[..., None] for p in params]
    here = log_density(x, *params)[..., None]

    def integrals(end: float) -> tuple[Array, list[Array]]:
        # Nodes crowd around x, where the density is.
        s = jnp.asarray((_NODES + 1) / 2, x.dtype)
        whole = jnp.clip(end - x, -reach, reach)[..., None]
        steps = whole * s**2
        weights = jnp.abs(whole) * jnp.asarray(_WEIGHTS, x.dtype) * s
        t = x[..., None] + steps
        weights = weights * jnp.exp(jnp.minimum(log_density(t, *wide) - here, 80))

        def slope(i: int) -> Array:
            def at(angle: Array, like: list[Array]) -> Array:
                def along(p: Array) -> Array:
                    return log_density(angle, *like[:i], p, *like[i + 1 :])

                return jax.jvp(along, (like[i],), (jnp.ones_like(like[i]),))[1]

            difference = at(t, wide) - at(x, list(params))[..., None]
            return (weights * difference).sum(-1)

        return weights.sum(-1), [slope(i) for i in range(len(params))]

    below, d_below = integrals(start)
    above, d_above = integrals(math.pi)
    slopes = zip(d_below, d_above, dparams, strict=True)
    moves = [(below * db - above * da) / (below + above) * dp for da, db, dp in slopes]
    return sum(moves, jnp.zeros_like(x))


def _first_log_density(phi: Array, one: Array, two: Array, correlation: Array) -> Array:
    """Of the first angle around its location, zero at zero up to a constant in phi."""
    total = jnp.sqrt(two**2 + (correlation * jnp.sin(phi)) ** 2)
    # The growth of total over two, without the cancellation.
    growth = (correlation * jnp.sin(phi)) ** 2 / (total + two)
    return -2 * one * jnp.sin(phi / 2) ** 2 + growth + jnp.log(i0e(total))


class _Envelope(NamedTuple):
    """Two half von Mises densities around a centre in [0, pi), above the first angle's density."""

    centre: Array
    left: Array  # concentrations
    right: Array
    height: Array  # in logs, at the centre


def _envelope(one: Array, two: Array, correlation: Array) -> _Envelope:
    """The tightest on a grid, less three in a hundred for what lies between its points."""

    def slope(y: Array) -> Array:
        total = jnp.sqrt(two**2 + correlation**2 * y)
        pull = correlation**2 * i1e(total) / (i0e(total) * total)
        return pull - one / jnp.sqrt(jnp.maximum(1 - y, 1e-12))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        up = slope(middle) > 0
        return jnp.where(up, middle, ends[0]), jnp.where(up, ends[1], middle)

    # The log density is concave in sin(phi)**2, where it has one mode.
    zero = jnp.zeros_like(one)
    mode = jnp.arcsin(jnp.sqrt(jax.lax.fori_loop(0, 40, halve, (zero, zero + 1))[0]))
    top = _first_log_density(mode, one, two, correlation)
    at_zero = _first_log_density(zero, one, two, correlation)
    # A mode too near to zero to tell apart: centred there, and a little higher.
    merged = top - at_zero < 0.25
    centre, height = jnp.where(merged, 0, mode), top + jnp.where(merged, 0.5, 0)
    s = jnp.asarray(np.linspace(0, 1, 97)[1:] ** 2, one.dtype)

    def concentration(end: float | Array) -> Array:
        t = centre[..., None] + (end - centre)[..., None] * s
        below = height[..., None] - _first_log_density(
            t, one[..., None], two[..., None], correlation[..., None]
        )
        ratio = below / (2 * jnp.sin((t - centre[..., None]) / 2) ** 2)
        return 0.97 * jnp.min(ratio, axis=-1, where=below > 0.05, initial=1e30)

    left = jnp.where(merged, 0, concentration(zero))
    return _Envelope(centre, left, concentration(zero + math.pi), height)


def _first(key: Key, shape: Shape, one: Array, two: Array, correlation: Array) -> Array:
    """|phi| of the first angle, around its location."""
    dtype = one.dtype
    envelope = [jnp.broadcast_to(x, shape) for x in _envelope(one, two, correlation)]
    centre, left, right, height = envelope
    one, two, correlation = (jnp.broadcast_to(x, shape) for x in (one, two, correlation))
    left_mass = jnp.where(centre > 0, i0e(left), 0)
    share = left_mass / (left_mass + i0e(right))

    def attempt(i: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        done, phi = state
        keys = jax.random.split(jax.random.fold_in(key, i), 3)
        is_left = noise.uniform(keys[0], shape, dtype) < share
        c = jnp.where(is_left, left, right)
        distance = jnp.abs(centred_von_mises(keys[1], c, shape))
        proposal = jnp.where(is_left, centre - distance, centre + distance)
        accept = _first_log_density(proposal, one, two, correlation) - height
        accept = accept + 2 * c * jnp.sin(distance / 2) ** 2
        chosen = jnp.log(noise.uniform(keys[2], shape, dtype)) < accept
        chosen = chosen & (proposal >= 0) & (proposal <= math.pi)
        return done | chosen, jnp.where(chosen & ~done, proposal, phi)

    return jax.lax.fori_loop(0, _ROUNDS, attempt, (jnp.zeros(shape, bool), centre))[1]


def _reach(x: Array, one: Array, two: Array, correlation: Array) -> Array:
    """How far from x the first angle's density matters."""
    envelope = _envelope(*jax.lax.stop_gradient((one, two, correlation)))
    least = jnp.where(envelope.centre > 0, jnp.minimum(envelope.left, envelope.right), math.inf)
    least = jnp.minimum(least, envelope.right)
    return jnp.abs(x - envelope.centre) + 10 * jax.lax.rsqrt(jnp.maximum(least, 1))


def _sine_bivariate(d: dist.SineBivariateVonMises, key: Key, shape: Shape) -> Array:
    first_key, second_key, sign_key = jax.random.split(key, 3)
    dtype = noise_dtype(d)
    params = [
        jnp.broadcast_to(jnp.asarray(p, dtype), d.batch_shape)
        for p in (d.phi_concentration, d.psi_concentration, d.correlation)
    ]
    size = _first(first_key, shape, *jax.lax.stop_gradient(params))
    one, two, correlation = (jnp.broadcast_to(p, shape) for p in params)
    size = implicit_angle(
        _first_log_density, 0.0, size, _reach(size, *params), one, two, correlation
    )
    sign, _ = noise.signed_tail(sign_key, shape, dtype)
    phi = sign * size
    valid = (one > 0) & (two > 0) & jnp.isfinite(correlation)
    phi = jnp.where(valid, phi, jnp.nan)
    pulled = correlation * jnp.sin(phi)
    centre = jnp.arctan2(pulled, two)
    psi = centre + centred_von_mises(second_key, jnp.sqrt(two**2 + pulled**2), shape)
    return jnp.stack([wrapped(phi + d.phi_loc), wrapped(psi + d.psi_loc)], -1)


def angles_of(d: dist.Distribution) -> dist.VonMises | None:
    """The von Mises distribution of independent angles under wrappers, or None.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> type(angles_of(dist.VonMises(jnp.zeros(2), 1.0).to_event(1))).__name__
        'VonMises'
    """
    d = unwrapped(d)
    return d if type(d) is dist.VonMises else None


def _mirror_obstacle(d: dist.SineSkewed) -> str | None:
    if angles_of(d.base_dist) is not None:
        return None
    return f"SineSkewed mirrors the draws of a {type(d.base_dist).__name__} at random"


def _skewed_log_density(x: Array, concentration: Array, skewness: Array) -> Array:
    return -2 * concentration * jnp.sin(x / 2) ** 2 + jnp.log1p(skewness * jnp.sin(x))


def _sine_skewed(d: dist.SineSkewed, key: Key, shape: Shape, draw: Draw) -> Array:
    """One angle after the other: given those before it, each is sine-skewed by itself.

    Integrating out what follows leaves ``1 + sum_{j <= i} skewness_j sin(x_j)``, so the i-th has
    the skewness ``skewness_i / (1 + sum_{j < i} skewness_j sin(x_j))``.
    """
    base = angles_of(d.base_dist)
    base_key, mirror_key = jax.random.split(key)
    dtype, full = noise_dtype(d), (*shape, *d.event_shape)
    skewness = jnp.broadcast_to(jnp.asarray(d.skewness, dtype), full)
    if base is None:
        x = wrapped(value_of(draw(d.base_dist, base_key, shape)) - d.base_dist.mean)
        lean = (skewness * jnp.sin(x)).sum(-1)
        stay = noise.uniform(mirror_key, shape, dtype) < (1 + lean) / 2
        return wrapped(jnp.where(stay[..., None], x, -x) + d.base_dist.mean)
    concentration = jnp.broadcast_to(jnp.asarray(base.concentration, dtype), full)
    centred = centred_von_mises(base_key, jax.lax.stop_gradient(concentration), full)
    u = noise.uniform(mirror_key, full, dtype)
    total = jnp.ones(shape, dtype)
    angles = []
    for i in range(full[-1]):
        skew = skewness[..., i] / jnp.maximum(total, jnp.finfo(dtype).tiny)
        stay = u[..., i] < (1 + jax.lax.stop_gradient(skew) * jnp.sin(centred[..., i])) / 2
        x = jnp.where(stay, centred[..., i], -centred[..., i])
        k = concentration[..., i]
        reach = jnp.abs(x) + 10 * jax.lax.rsqrt(jnp.maximum(k, 1))
        x = implicit_angle(_skewed_log_density, -math.pi, x, reach, k, skew)
        total = total + skewness[..., i] * jnp.sin(x)
        angles.append(x)
    return wrapped(jnp.stack(angles, -1) + base.loc)


RECORDS: dict[type, Record] = {
    dist.SineBivariateVonMises: Record(_sine_bivariate),
    dist.SineSkewed: Record(compose=_sine_skewed, pathwise=_mirror_obstacle, parts=base_of),
}
