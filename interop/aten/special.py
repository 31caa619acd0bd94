"""Special functions: gamma, zeta, error, entropy and their relatives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np

from interop.aten.dtypes import cast
from interop.aten.layers import refuse, wide
from interop.aten.registry import Table

rules = Table()


def function_of(*operations: str) -> Callable[..., Any]:
    """A rule of one array, made floating-point, computed in at least 32 bits and rounded once."""

    def add(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        @rules(*(f"aten.{operation}.default" for operation in operations))
        def rule(x: Any, *, result: Any) -> jax.Array:
            return function(wide(cast(x, result.dtype))).astype(result.dtype)

        return function

    return add


@function_of("digamma")
@jax.custom_jvp
def digamma(x: jax.Array) -> jax.Array:
    """Infinite at 0, with the opposite of its sign."""
    return jnp.where(x == 0, -jnp.copysign(np.inf, x), jax.lax.digamma(x)).astype(x.dtype)


@digamma.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return digamma(*primals), polygamma(1, *primals) * tangents[0]


@function_of("lgamma")
@jax.custom_jvp
def log_gamma(x: jax.Array) -> jax.Array:
    return jax.lax.lgamma(x)


@log_gamma.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return log_gamma(*primals), digamma(*primals) * tangents[0]


def polygamma(n: int, x: jax.Array) -> jax.Array:
    """The derivative of digamma of order ``n``; below 0 by reflection where it is known."""
    if n == 0:
        return digamma(x)
    if n == 1:
        return _trigamma(x)
    scale = float((-1) ** (n + 1) * np.prod(np.arange(1.0, n + 1)))
    return scale * zeta(jnp.full((), n + 1, x.dtype), x)


@jax.custom_jvp
def _trigamma(x: jax.Array) -> jax.Array:
    """Below a half by reflection: pi² / sin²(pi x) - trigamma(1 - x)."""
    left = x < 0.5
    safe = jnp.where(left, 1 - x, x)
    value = jax.lax.zeta(jnp.full_like(safe, 2), safe)
    return jnp.where(left, (np.pi / _sin_pi(x)) ** 2 - value, value).astype(x.dtype)


@_trigamma.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return _trigamma(*primals), polygamma(2, *primals) * tangents[0]


def _sin_pi(x: jax.Array) -> jax.Array:
    return jnp.sin(np.pi * (x - jnp.round(x))) * jnp.where(jnp.round(x) % 2 == 0, 1, -1)


@rules("aten.polygamma.default", "aten.special_polygamma.default")
def polygamma_rule(n: int, x: Any, *, result: Any) -> jax.Array:
    return polygamma(n, wide(cast(x, result.dtype))).astype(result.dtype)


def _zeta_jvp(primals: Any, tangents: Any) -> Any:
    """Of the second argument alone, as in torch."""
    s, q = primals
    by_s, by_q = tangents
    refuse(not isinstance(by_s, jax.custom_derivatives.SymbolicZero), "zeta: no gradient by x")
    value = zeta(s, q)
    if isinstance(by_q, jax.custom_derivatives.SymbolicZero):
        return value, jnp.zeros_like(value)
    return value, (-s * zeta(s + 1, q) * by_q).astype(value.dtype)


@jax.custom_jvp
def zeta(s: jax.Array, q: jax.Array) -> jax.Array:
    """Hurwitz's; at whole numbers below 0 infinite, as in torch."""
    s, q = jnp.broadcast_arrays(s, q)
    value = jax.lax.zeta(s, q)
    whole = (q <= 0) & (q == jnp.floor(q)) & (s > 1)
    return jnp.where(whole, np.inf, value).astype(value.dtype)


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
    constant = p * (p - 1) / 4 * np.log(np.pi)
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
function_of("special_erfcx")(special.erfcx)
function_of("special_ndtri")(special.ndtri)


@function_of("special_ndtr")
def normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * special.erfc(-x * np.sqrt(0.5))


@function_of("special_log_ndtr")
@jax.custom_jvp
def log_normal_cdf(x: jax.Array) -> jax.Array:
    """From erfcx in the lower tail, exact to the last digits and in its gradient."""
    t = x * np.sqrt(0.5)
    low = jnp.log(special.erfcx(-jnp.minimum(t, 0)) / 2) - t * t
    high = jnp.log1p(-special.erfc(jnp.maximum(t, -1)) / 2)
    return jnp.where(x < -1, low, high)


@log_normal_cdf.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x,) = primals
    t = x * np.sqrt(0.5)
    tail = np.sqrt(2 / np.pi) / special.erfcx(-jnp.minimum(t, 0))
    bulk = jnp.exp(-t * t) / (np.sqrt(2 * np.pi) * normal_cdf(jnp.maximum(x, -1)))
    return log_normal_cdf(x), jnp.where(x < -1, tail, bulk) * tangents[0]


# ---- logarithms ---------------------------------------------------------------------------------


@function_of("special_entr")
def entropy(x: jax.Array) -> jax.Array:
    """-x log x; 0 at 0, minus infinity below."""
    positive = x > 0
    safe = jnp.where(positive, x, 1)
    value = jnp.where(positive, -x * jnp.log(safe), jnp.where(x == 0, -x * np.inf, -np.inf))
    value = jnp.where(x == 0, _infinite_slope(x), value)
    return jnp.where(jnp.isnan(x), x, value)


@jax.custom_jvp
def _infinite_slope(x: jax.Array) -> jax.Array:
    return jnp.zeros_like(x)


@_infinite_slope.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return jnp.zeros_like(primals[0]), jnp.full_like(primals[0], np.inf) * tangents[0]


def _times_log(
    x: jax.Array, y: jax.Array, function: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """x log y, 0 where x is, whatever the logarithm is, but NaN is kept."""
    x, y = jnp.broadcast_arrays(x, y)
    zero = x == 0
    lost = zero & ~jnp.isnan(y)
    safe = jnp.where(lost, 1, y)
    value = x * function(safe)
    # At x = 0 the slope by x is still the logarithm, where that is finite.
    bounded = jnp.isfinite(function(y))
    return jnp.where(lost, jnp.where(bounded, x * function(jnp.where(bounded, y, 1)), 0), value)


@rules(
    "aten.xlogy.Tensor",
    "aten.xlogy.Scalar_Other",
    "aten.xlogy.Scalar_Self",
    "aten.special_xlogy.default",
    "aten.special_xlogy.other_scalar",
    "aten.special_xlogy.self_scalar",
)
def x_log_y(x: Any, y: Any, *, result: Any) -> jax.Array:
    return _times_log(cast(x, result.dtype), cast(y, result.dtype), jnp.log)


@rules(
    "aten.special_xlog1py.default",
    "aten.special_xlog1py.other_scalar",
    "aten.special_xlog1py.self_scalar",
)
def x_log1p_y(x: Any, y: Any, *, result: Any) -> jax.Array:
    return _times_log(cast(x, result.dtype), cast(y, result.dtype), jnp.log1p)


@rules("aten.logit.default", "aten.special_logit.default")
def logit(x: Any, eps: float | None = None, *, result: Any) -> jax.Array:
    """With ``eps`` clamped first; where it was, the slope is 0."""
    x = cast(x, result.dtype)
    if eps is None:
        return jnp.log(x / (1 - x))
    inside = (x >= eps) & (x <= 1 - eps)
    x = jnp.where(inside, x, jax.lax.stop_gradient(jnp.clip(x, eps, 1 - eps)))
    return jnp.log(x / (1 - x))
