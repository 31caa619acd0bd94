"""Bessel and Airy functions.

Integrals over a period, and over the whole line of what falls like a normal density, are exact to
rounding by the trapezoidal rule; that and the large-argument expansions are all that is used.
torch has gradients of the first three alone; what it takes to be constant is so here.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np

from interop.aten.dtypes import cast
from interop.aten.layers import wide
from interop.aten.registry import Table
from interop.aten.slopes import with_slopes

rules = Table()


def _rule(name: str, function: Callable[[jax.Array], jax.Array], constant: bool) -> None:
    @rules(f"aten.{name}.default")
    def rule(x: Any, *, result: Any) -> jax.Array:
        x = wide(cast(x, result.dtype))
        return function(jax.lax.stop_gradient(x) if constant else x).astype(result.dtype)


i0 = with_slopes(special.i0, special.i1)

for _name, _function in {
    "i0": i0,
    "special_i0": i0,
    "special_i0e": special.i0e,
    "special_i1": special.i1,
    "special_i1e": special.i1e,
}.items():
    _rule(_name, _function, constant=False)

NODES = 64
SWITCH = 25.0
"""From here on the large-argument expansion, exact to exp(-50)."""


def _expansion(order: int, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Hankel's P and Q, of which J and Y are made for large arguments."""
    p, q, term = jnp.ones_like(x), jnp.zeros_like(x), jnp.ones_like(x)
    for k in range(1, 24):
        term = term * ((4 * order**2 - (2 * k - 1) ** 2) / (8 * k)) / x
        if k % 2:
            q = q + (-1) ** (k // 2) * term
        else:
            p = p + (-1) ** (k // 2) * term
    return p, q


def _far(order: int, x: jax.Array, second: bool) -> jax.Array:
    p, q = _expansion(order, x)
    # cos(x - pi/4 - order pi/2) by sums, so that pi/4 is not rounded away.
    c, s = jnp.cos(x), jnp.sin(x)
    cosine, sine = (c + s, s - c) if order == 0 else (s - c, -(s + c))
    found = p * sine + q * cosine if second else p * cosine - q * sine
    return found / jnp.sqrt(np.pi * x)


def _near(x: jax.Array) -> tuple[Any, Any]:
    """cos(x sin t) and sin t sin(x sin t) at the nodes of a quarter period, and their weights.

    Besides those that give J0 and J1 there are weights for the sum of (-1)^k J_2k / k, by which
    Y0 differs from J0's logarithm, and for its derivative.
    """
    t = (np.arange(NODES) + 0.5) * np.pi / (2 * NODES)
    mean = np.full(NODES, 1 / NODES)
    k = np.arange(1, NODES)[:, None]
    tail = mean * np.sum((-1.0) ** k / k * np.cos(2 * k * t), axis=0)
    phases = x[..., None] * jnp.asarray(np.sin(t), x.dtype)
    even = jnp.cos(phases)
    odd = jnp.sin(phases) * jnp.asarray(np.sin(t), x.dtype)
    weights = jnp.asarray(np.stack([mean, tail], -1), x.dtype)
    product = jax.lax.Precision.HIGHEST
    return jnp.matmul(even, weights, precision=product), jnp.matmul(odd, weights, precision=product)


def _bessel_j(order: int, x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    near = _near(jnp.minimum(size, SWITCH))[order][..., 0]
    value = jnp.where(size < SWITCH, near, _far(order, jnp.maximum(size, SWITCH), False))
    value = jnp.where(jnp.isnan(x), x, value)
    return value * jnp.sign(x) if order else value


def _bessel_y(order: int, x: jax.Array) -> jax.Array:
    """NaN below 0, minus infinity at 0."""
    small = jnp.clip(x, jnp.finfo(x.dtype).tiny, SWITCH)
    even, odd = _near(small)
    logarithm = jnp.log(small / 2) + np.euler_gamma
    if order == 0:
        near = 2 / np.pi * (logarithm * even[..., 0] - 2 * even[..., 1])
    else:
        slope = even[..., 0] / small - logarithm * odd[..., 0] + 2 * odd[..., 1]
        near = -2 / np.pi * slope
    value = jnp.where(x < SWITCH, near, _far(order, jnp.maximum(x, SWITCH), True))
    value = jnp.where(x == 0, -np.inf, value)
    return jnp.where((x < 0) | jnp.isnan(x), np.nan, value)


def _bessel_k(order: int, x: jax.Array, scaled: bool) -> jax.Array:
    """By its series below 2, else as an integral of a normal density."""
    small = jnp.clip(x, jnp.finfo(x.dtype).tiny, 2.0)
    logarithm = jnp.log(small / 2) + np.euler_gamma
    total, term, harmonic = jnp.zeros_like(x), jnp.ones_like(x), 0.0
    for k in range(1, 20):
        term = term * (small / 2) ** 2 / k**2
        harmonic += 1 / k
        total = total + harmonic * term * (2 * k / small if order else 1)
    if order == 0:
        near = total - logarithm * special.i0(small)
    else:
        near = special.i0(small) / small + logarithm * special.i1(small) - total
    large = jnp.maximum(x, 2.0)
    far = _integral(large, lambda s, y: jnp.ones_like(s) if order == 0 else 1 + s * s / y)
    if scaled:
        near = near * jnp.exp(small)
    else:
        far = far * jnp.exp(-large)
    value = jnp.where(x < 2, near, far)
    value = jnp.where(jnp.isinf(x), 0, jnp.where(x == 0, np.inf, value))
    return jnp.where((x < 0) | jnp.isnan(x), np.nan, value)


def _integral(x: jax.Array, factor: Callable[[Any, Any], Any]) -> jax.Array:
    """The integral of exp(-x (cosh t - 1)) factor over t > 0, by s = sqrt(2 x) sinh(t / 2)."""
    step = 0.25
    total: Any = 0.0
    for k in range(26):
        s = jnp.full_like(x, k * step)
        weight = step * math.exp(-((k * step) ** 2)) * (0.5 if k == 0 else 1)
        total = total + weight * factor(s, x) / jnp.sqrt(1 + s * s / (2 * x))
    return total * jnp.sqrt(2 / x)


def spherical_j0(x: jax.Array) -> jax.Array:
    still = jnp.abs(x) < 1e-4
    safe = jnp.where(still, 1, x)
    return jnp.where(jnp.isinf(x), 0, jnp.where(still, 1 - x * x / 6, jnp.sin(safe) / safe))


AIRY = (
    (-0.022133721547341126, -0.9756639809263316),
    (-0.05270505035638643, 0.9355609381983064),
    (0.1842808352505062, -0.7710081684101256),
    (-0.3291451736298231, 0.3459354872813428),
    (0.3507610090241142, 0.3271928185544436),
    (-0.07026553294928964, -0.7906285753685814),
    (-0.37881429367765806, 0.314583769216599),
    (0.22740742820168564, 0.618259020741691),
    (0.5355608832923522, -0.010160567116645175),
    (0.3550280538878172, -0.2588194037928068),
    (0.13529241631288147, -0.15914744129679328),
)
"""Ai and its derivative at -9, -8, …, 1."""


def airy(x: jax.Array) -> jax.Array:
    """By Taylor's series between -9.5 and 1.5, outside from Bessel functions of order 1/3."""
    center = jnp.clip(jnp.round(x), -9, 1)
    center = jnp.where(jnp.isnan(center), 0, center)
    start = jnp.asarray(AIRY, x.dtype)[(center + 9).astype(np.int32)]
    h = jnp.clip(x - center, -0.5, 0.5)
    a = [start[..., 0], start[..., 1], center * start[..., 0] / 2]
    for n in range(1, 22):  # the equation y'' = x y
        a.append((center * a[n] + a[n - 1]) / ((n + 1) * (n + 2)))
    middle = a[-1]
    for coefficient in reversed(a[:-1]):
        middle = middle * h + coefficient
    size = jnp.maximum(jnp.abs(x), 1.5)
    zeta = 2 / 3 * size * jnp.sqrt(size)

    def third(s: Any, y: Any) -> Any:
        return jnp.cosh(2 / 3 * jnp.arcsinh(s / jnp.sqrt(2 * y)))

    decaying = jnp.exp(-zeta) * jnp.sqrt(size / 3) / np.pi * _integral(zeta, third)
    large = jnp.maximum(zeta, 18.0)
    u, p, q = jnp.ones_like(x), jnp.ones_like(x), jnp.zeros_like(x)
    for k in range(1, 24):
        u = u * ((6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1))) / large
        if k % 2:
            q = q + (-1) ** (k // 2) * u
        else:
            p = p + (-1) ** (k // 2) * u
    c, s = jnp.cos(zeta), jnp.sin(zeta)
    wave = (p * (c + s) + q * (s - c)) / jnp.sqrt(2 * np.pi * jnp.sqrt(size))
    value = jnp.where(x < -9.5, wave, jnp.where(x > 1.5, decaying, middle))
    return jnp.where(jnp.isfinite(x), value, np.nan)


for _name, _function in {
    "special_bessel_j0": lambda x: _bessel_j(0, x),
    "special_bessel_j1": lambda x: _bessel_j(1, x),
    "special_bessel_y0": lambda x: _bessel_y(0, x),
    "special_bessel_y1": lambda x: _bessel_y(1, x),
    "special_modified_bessel_i0": special.i0,
    "special_modified_bessel_i1": special.i1,
    "special_modified_bessel_k0": lambda x: _bessel_k(0, x, False),
    "special_modified_bessel_k1": lambda x: _bessel_k(1, x, False),
    "special_scaled_modified_bessel_k0": lambda x: _bessel_k(0, x, True),
    "special_scaled_modified_bessel_k1": lambda x: _bessel_k(1, x, True),
    "special_spherical_bessel_j0": spherical_j0,
    "special_airy_ai": airy,
}.items():
    _rule(_name, _function, constant=True)
