"""Special functions: gamma, zeta, error, entropy and their relatives."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np

from interop.aten.dtypes import cast
from interop.aten.layers import refuse, wide
from interop.aten.registry import Table
from interop.aten.slopes import Function, with_slopes

rules = Table()


def function_of(*operations: str) -> Callable[..., Any]:
    """A rule of one array, made floating-point, computed in at least 32 bits and rounded once."""

    def add(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        @rules(*(f"aten.{operation}.default" for operation in operations))
        def rule(x: Any, *, result: Any) -> jax.Array:
            return function(wide(cast(x, result.dtype))).astype(result.dtype)

        return function

    return add


def _digamma(x: jax.Array) -> jax.Array:
    """Infinite at 0, with the opposite of its sign."""
    return jnp.where(x == 0, -jnp.copysign(np.inf, x), jax.lax.digamma(x)).astype(x.dtype)


digamma = with_slopes(_digamma, lambda x: polygamma(1, x))
log_gamma = with_slopes(jax.lax.lgamma, digamma)
function_of("digamma")(digamma)
function_of("lgamma")(log_gamma)


def polygamma(n: int, x: jax.Array) -> jax.Array:
    """The derivative of digamma of order ``n``; at 0 and below by reflection."""
    if n == 0:
        return digamma(x)
    return with_slopes(lambda x: _polygamma(n, x), lambda x: polygamma(n + 1, x))(x)


def _polygamma(n: int, x: jax.Array) -> jax.Array:
    low = x <= 0
    whole = low & (x == jnp.floor(x))
    safe = jnp.where(low, 1 - x, x)
    scale = math.factorial(n) * (-1) ** (n + 1)
    value = scale * jax.lax.zeta(jnp.full_like(safe, n + 1), safe)
    # psi_n(x) = (-1)^n psi_n(1 - x) - pi d^n cot(pi x), whose derivatives are polynomials in it.
    cotangent = np.polynomial.Polynomial([0, 1])
    for _ in range(n):
        cotangent = cotangent.deriv() * np.polynomial.Polynomial([-1, 0, -1]) * np.pi
    turn = np.pi * (x - jnp.round(x))
    angle = jnp.where(whole | ~low, 1, turn)
    t = jnp.cos(angle) / jnp.sin(angle)
    total = jnp.zeros_like(x)
    for coefficient in reversed(cotangent.coef):
        total = total * t + float(coefficient)
    reflected = (-1) ** n * value - np.pi * total
    value = jnp.where(low, jnp.where(whole, scale * np.inf, reflected), value)
    return value.astype(x.dtype)


@rules("aten.polygamma.default", "aten.special_polygamma.default")
def polygamma_rule(n: int, x: Any, *, result: Any) -> jax.Array:
    return polygamma(n, wide(cast(x, result.dtype))).astype(result.dtype)


@jax.custom_jvp
def zeta(s: jax.Array, q: jax.Array) -> jax.Array:
    """Hurwitz's; below 0 infinite at whole numbers, and for whole ``s`` by the sum that shifts."""
    s, q = jnp.broadcast_arrays(s, q)
    whole = (q <= 0) & (q == jnp.floor(q)) & (s > 1)
    shifted = (q <= 0) & ~whole & (s == jnp.floor(s)) & (q > -FURTHEST)
    steps = jnp.where(shifted, jnp.ceil(-q), 0)

    def add(state: Any) -> Any:
        k, total = state
        return k + 1, total + jnp.where(k < steps, (jnp.where(shifted, q, 1) + k) ** -s, 0)

    start = (jnp.zeros((), q.dtype), jnp.zeros_like(q))
    most = jnp.max(steps, initial=0)
    total = jax.lax.while_loop(lambda state: state[0] < most, add, start)[1]
    value = total + jax.lax.zeta(s, q + steps)
    return jnp.where(whole, np.inf, value).astype(q.dtype)


FURTHEST = 10_000
"""Terms of the sum; below minus that the outcome is NaN."""


def _zeta_jvp(primals: Any, tangents: Any) -> Any:
    """Of the second argument alone, as in torch."""
    s, q = primals
    by_s, by_q = tangents
    refuse(not isinstance(by_s, jax.custom_derivatives.SymbolicZero), "zeta: no gradient by x")
    value = zeta(s, q)
    if isinstance(by_q, jax.custom_derivatives.SymbolicZero):
        return value, jnp.zeros_like(value)
    return value, (-s * zeta(s + 1, q) * by_q).astype(value.dtype)


zeta.defjvp(_zeta_jvp, symbolic_zeros=True)


@rules(
    "aten.special_zeta.default",
    "aten.special_zeta.other_scalar",
    "aten.special_zeta.self_scalar",
)
def zeta_rule(s: Any, q: Any, *, result: Any) -> jax.Array:
    return zeta(cast(s, result.dtype), cast(q, result.dtype))


@rules("aten.mvlgamma.default", "aten.special_multigammaln.default")
def multivariate_log_gamma(x: Any, p: int, *, result: Any) -> jax.Array:
    x = cast(x, result.dtype)
    constant = p * (p - 1) / 4 * math.log(np.pi)
    return sum((log_gamma(x - i / 2) for i in range(p)), jnp.zeros_like(x)) + constant


@rules("aten.igamma.default", "aten.special_gammainc.default")
def lower_gamma(a: Any, x: Any, *, result: Any) -> jax.Array:
    return jax.lax.igamma(*jnp.broadcast_arrays(cast(a, result.dtype), cast(x, result.dtype)))


@rules("aten.igammac.default", "aten.special_gammaincc.default")
def upper_gamma(a: Any, x: Any, *, result: Any) -> jax.Array:
    return jax.lax.igammac(*jnp.broadcast_arrays(cast(a, result.dtype), cast(x, result.dtype)))


# ---- errors and normals -------------------------------------------------------------------------

function_of("erf", "special_erf")(special.erf)
function_of("erfc", "special_erfc")(special.erfc)
function_of("erfinv", "special_erfinv")(special.erfinv)


def _scaled_erfc(x: jax.Array) -> jax.Array:
    """exp(x²) erfc(x); above 3 a trapezoidal rule, exact to exp(-36)."""
    step = 0.5
    t = jnp.minimum(x, 3)
    near = jnp.exp(t * t) * special.erfc(t)
    y = jnp.maximum(x, 3)
    total = 0.5 / y
    for k in range(1, 14):
        total = total + math.exp(-((k * step) ** 2)) / (y + (k * step) ** 2 / y)
    return jnp.where(x < 3, near, total * (2 * step / np.pi))


erfcx: Function = with_slopes(_scaled_erfc, lambda x: 2 * x * erfcx(x) - 2 / math.sqrt(np.pi))
function_of("special_erfcx")(erfcx)
ndtri: Function = with_slopes(
    special.ndtri, lambda p: math.sqrt(2 * np.pi) * jnp.exp(ndtri(p) ** 2 / 2)
)
function_of("special_ndtri")(ndtri)


@function_of("special_ndtr")
def normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * special.erfc(-x * math.sqrt(0.5))


def _log_ndtr(x: jax.Array) -> jax.Array:
    """From erfcx in the lower tail, exact to the last digits and in its gradient."""
    t = x * math.sqrt(0.5)
    low = jnp.log(erfcx(-jnp.minimum(t, 0)) / 2) - t * t
    high = jnp.log1p(-special.erfc(jnp.maximum(t, -1)) / 2)
    return jnp.where(x < -1, low, high)


def _log_ndtr_slope(x: jax.Array) -> jax.Array:
    t = x * math.sqrt(0.5)
    tail = math.sqrt(2 / np.pi) / erfcx(-jnp.minimum(t, 0))
    bulk = jnp.exp(-t * t) / (math.sqrt(2 * np.pi) * normal_cdf(jnp.maximum(x, -1)))
    return jnp.where(x < -1, tail, bulk)


log_normal_cdf = with_slopes(_log_ndtr, _log_ndtr_slope)
function_of("special_log_ndtr")(log_normal_cdf)

# ---- logarithms ---------------------------------------------------------------------------------


def _entropy(x: jax.Array) -> jax.Array:
    """-x log x; 0 at 0, minus infinity below."""
    positive = x > 0
    value = -x * jnp.log(jnp.where(positive, x, 1))
    return jnp.where(positive | jnp.isnan(x), value, jnp.where(x == 0, 0, -np.inf))


function_of("special_entr")(with_slopes(_entropy, lambda x: -1 - jnp.log(x)))


def _times_log(function: Function, inverse: Function, lowest: float) -> Function:
    """x log y; 0 where x is, whatever the logarithm is, but NaN is kept."""

    def value(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where((x == 0) & ~jnp.isnan(y), 0, x * function(y))

    def by_x(x: jax.Array, y: jax.Array) -> jax.Array:
        lost = (x == 0) & (y <= lowest)
        return jnp.where(lost, 0, function(jnp.where(lost, 1, y)))

    return with_slopes(value, by_x, lambda x, y: x * inverse(y))


_x_log_y = _times_log(jnp.log, lambda y: 1 / y, 0)
_x_log1p_y = _times_log(jnp.log1p, lambda y: 1 / (1 + y), -1)


@rules(
    "aten.xlogy.Tensor",
    "aten.xlogy.Scalar_Other",
    "aten.xlogy.Scalar_Self",
    "aten.special_xlogy.default",
    "aten.special_xlogy.other_scalar",
    "aten.special_xlogy.self_scalar",
)
def x_log_y(x: Any, y: Any, *, result: Any) -> jax.Array:
    return _x_log_y(*jnp.broadcast_arrays(cast(x, result.dtype), cast(y, result.dtype)))


@rules(
    "aten.special_xlog1py.default",
    "aten.special_xlog1py.other_scalar",
    "aten.special_xlog1py.self_scalar",
)
def x_log1p_y(x: Any, y: Any, *, result: Any) -> jax.Array:
    return _x_log1p_y(*jnp.broadcast_arrays(cast(x, result.dtype), cast(y, result.dtype)))


_logit = with_slopes(
    lambda x: jnp.log(x / (1 - x)),
    lambda x: jnp.where((x < 0) | (x > 1), np.nan, 1 / (x * (1 - x))),
)


@rules("aten.logit.default", "aten.special_logit.default")
def logit(x: Any, eps: float | None = None, *, result: Any) -> jax.Array:
    """With ``eps`` clamped first; where it was, the slope is 0."""
    x = cast(x, result.dtype)
    if eps is not None:
        inside = (x >= eps) & (x <= 1 - eps)
        x = jnp.where(inside, x, jax.lax.stop_gradient(jnp.clip(x, eps, 1 - eps)))
    return _logit(x)
