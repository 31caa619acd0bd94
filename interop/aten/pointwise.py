"""Arithmetic and elementary functions, element by element, with torch's gradients at kinks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from interop.aten.dtypes import cast, promote, together
from interop.aten.registry import Table
from interop.aten.slopes import Function, with_slopes

rules = Table()


@rules("aten.add.Tensor", "aten.add.Scalar")
def add(x: Any, y: Any, alpha: Any = 1, *, result: Any) -> jax.Array:
    x, y = cast(x, result.dtype), cast(y, result.dtype)
    if result.dtype == bool:
        return x | y
    return x + (y if alpha == 1 else cast(alpha, result.dtype) * y)


@rules("aten.sub.Tensor", "aten.sub.Scalar")
def subtract(x: Any, y: Any, alpha: Any = 1, *, result: Any) -> jax.Array:
    x, y = cast(x, result.dtype), cast(y, result.dtype)
    return x - (y if alpha == 1 else cast(alpha, result.dtype) * y)


@rules("aten.rsub.Tensor", "aten.rsub.Scalar")
def subtract_from(x: Any, y: Any, alpha: Any = 1, *, result: Any) -> jax.Array:
    return subtract(y, x, alpha, result=result)


@rules("aten.mul.Tensor", "aten.mul.Scalar")
def multiply(x: Any, y: Any, *, result: Any) -> jax.Array:
    return cast(x, result.dtype) * cast(y, result.dtype)


@rules("aten.div.Tensor", "aten.div.Scalar")
def divide(x: Any, y: Any, *, result: Any) -> jax.Array:
    return cast(x, result.dtype) / cast(y, result.dtype)


@rules("aten.true_divide.Tensor")
def true_divide(x: Any, y: Any, *, result: Any) -> jax.Array:
    return divide(x, y, result=result)


@rules("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def divide_rounding(x: Any, y: Any, *, rounding_mode: str | None = None, result: Any) -> jax.Array:
    if rounding_mode is None:
        return divide(x, y, result=result)
    x, y = cast(x, result.dtype), cast(y, result.dtype)
    if rounding_mode == "floor":
        return _floor_divide(x, y)
    if jnp.issubdtype(result.dtype, jnp.integer):
        return jax.lax.div(*jnp.broadcast_arrays(x, y))
    return jnp.trunc(x / y)


@rules("aten.floor_divide.default", "aten.floor_divide.Scalar")
def floor_divide(x: Any, y: Any, *, result: Any) -> jax.Array:
    return _floor_divide(cast(x, result.dtype), cast(y, result.dtype))


def _floor_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.floor_divide(x, y)
    # As Python's //: from the remainder, so that it is exact; x / 0 is infinite, not NaN.
    x, y = jnp.broadcast_arrays(jax.lax.stop_gradient(x), jax.lax.stop_gradient(y))
    rest = jax.lax.rem(x, y)
    quotient = jnp.round((x - rest) / y) - ((rest != 0) & ((y < 0) != (rest < 0)))
    return jnp.where(y == 0, x / y, quotient).astype(x.dtype)


@rules("aten.remainder.Tensor", "aten.remainder.Scalar", "aten.remainder.Scalar_Tensor")
def remainder(x: Any, y: Any, *, result: Any) -> jax.Array:
    x, y = cast(x, result.dtype), cast(y, result.dtype)
    if jnp.issubdtype(result.dtype, jnp.integer):
        return jnp.remainder(x, y)
    return _remainder(*jnp.broadcast_arrays(x, y))


_remainder = with_slopes(
    jnp.remainder, lambda x, y: jnp.ones_like(x), lambda x, y: -_floor_divide(x, y)
)


@rules("aten.fmod.Tensor", "aten.fmod.Scalar")
def fmod(x: Any, y: Any, *, result: Any) -> jax.Array:
    x, y = jnp.broadcast_arrays(cast(x, result.dtype), cast(y, result.dtype))
    return jax.lax.rem(x, y)


@rules("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def power(x: Any, y: Any, *, result: Any) -> jax.Array:
    x = cast(x, result.dtype)
    small = isinstance(y, int | float) and float(y).is_integer() and abs(y) < 64
    if small and not (jnp.issubdtype(result.dtype, jnp.integer) and y < 0):
        return jax.lax.integer_pow(x, int(y))
    if isinstance(y, float) and abs(y) == 0.5:
        return jnp.sqrt(x) if y > 0 else _inverse_root(x)
    x, y = jnp.broadcast_arrays(x, cast(y, result.dtype))
    return _power(x, y) if jnp.issubdtype(result.dtype, jnp.inexact) else jnp.power(x, y)


def _by_base(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.where(y == 0, 0, y * _power(x, jnp.where(y == 0, 1, y - 1)))


def _by_exponent(x: jax.Array, y: jax.Array) -> jax.Array:
    still = (x == 0) & (y.real >= 0)
    return jnp.where(still, 0, _power(x, y) * jnp.log(jnp.where(still, 1, x)))


_power: Function = with_slopes(jnp.power, _by_base, _by_exponent)
_inverse_root = with_slopes(jax.lax.rsqrt, lambda x: -0.5 * _power(x, jnp.full_like(x, -1.5)))
rsqrt: Function = with_slopes(jax.lax.rsqrt, lambda x: -0.5 * rsqrt(x) ** 3)


@rules(
    "aten.float_power.Tensor_Tensor", "aten.float_power.Scalar", "aten.float_power.Tensor_Scalar"
)
def float_power(x: Any, y: Any, *, result: Any) -> jax.Array:
    return power(x, y, result=result)


@rules("aten.abs.default")
def absolute(x: Any, *, result: Any) -> jax.Array:
    if jnp.iscomplexobj(x):
        zero = x == 0
        return jnp.where(zero, 0, jnp.abs(jnp.where(zero, 1, x)))
    return _absolute(x) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.abs(x)


@rules("aten.sgn.default", "aten.sign.default")
def sign(x: Any) -> jax.Array:
    if jnp.iscomplexobj(x):
        zero = x == 0
        safe = jnp.where(zero, 1, x)
        return jnp.where(zero, 0, safe / jnp.abs(safe))
    return jnp.where(jnp.isnan(x), 0, jnp.sign(x)).astype(x.dtype)


_absolute = with_slopes(jnp.abs, sign)


@rules("aten.atan2.default")
def atan2(y: Any, x: Any, *, result: Any) -> jax.Array:
    y, x = jnp.broadcast_arrays(cast(y, result.dtype), cast(x, result.dtype))
    origin = (x == 0) & (y == 0)  # torch's gradient is zero there
    value = jnp.arctan2(jax.lax.stop_gradient(y), jax.lax.stop_gradient(x))
    angle = jnp.arctan2(jnp.where(origin, 0, y), jnp.where(origin, 1, x))
    return jnp.where(origin, value, angle)


@rules("aten.hypot.default")
def hypot(x: Any, y: Any) -> jax.Array:
    x, y = jnp.broadcast_arrays(*together(x, y))
    return jnp.hypot(x, y)


@rules("aten.lerp.Scalar", "aten.lerp.Tensor")
def lerp(x: Any, y: Any, weight: Any) -> jax.Array:
    x, y, weight = together(x, y, weight)
    near, far = x + weight * (y - x), y - (y - x) * (1 - weight)
    return jnp.where(jnp.abs(weight) < 0.5, near, far)


@rules("aten.addcmul.default")
def addcmul(x: Any, y: Any, z: Any, *, value: Any = 1, result: Any) -> jax.Array:
    x, y, z = (cast(v, result.dtype) for v in (x, y, z))
    return x + cast(value, result.dtype) * y * z


@rules("aten.addcdiv.default")
def addcdiv(x: Any, y: Any, z: Any, *, value: Any = 1, result: Any) -> jax.Array:
    x, y, z = (cast(v, result.dtype) for v in (x, y, z))
    return x + cast(value, result.dtype) * (y / z)


@rules("aten.copysign.Tensor", "aten.copysign.Scalar")
def copysign(x: Any, y: Any, *, result: Any) -> jax.Array:
    x, y = jnp.broadcast_arrays(cast(x, result.dtype), cast(y, result.dtype))
    signs = jnp.where(jnp.signbit(y), -1, 1).astype(result.dtype)
    return absolute(x, result=result) * signs


@rules("aten.heaviside.default")
def heaviside(x: Any, at_zero: Any) -> jax.Array:
    return jax.lax.stop_gradient(jnp.heaviside(*together(x, at_zero)).astype(promote(x, at_zero)))


_nextafter = with_slopes(
    jnp.nextafter, lambda x, y: (x != y).astype(x.dtype), lambda x, y: jnp.zeros_like(y)
)


@rules("aten.nextafter.default")
def nextafter(x: Any, y: Any) -> jax.Array:
    return _nextafter(*jnp.broadcast_arrays(*together(x, y)))


@rules("aten.ldexp.Tensor")
def ldexp(x: Any, exponent: Any, *, result: Any) -> jax.Array:
    return cast(x, result.dtype) * jnp.exp2(cast(exponent, result.dtype))


@rules("aten.frexp.Tensor")
def frexp(x: Any, *, result: Any) -> Any:
    mantissa, exponent = jnp.frexp(x)
    return mantissa, exponent.astype(result[1].dtype)


@rules("aten.round.decimals")
def round_decimals(x: Any, *, decimals: int) -> jax.Array:
    return jnp.round(x, decimals)


@rules("aten.nan_to_num.default")
def nan_to_num(x: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> jax.Array:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    return jnp.nan_to_num(x, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)


@rules("aten.logaddexp.default")
def logaddexp(x: Any, y: Any) -> jax.Array:
    return jnp.logaddexp(*together(x, y))


@rules("aten.logaddexp2.default")
def logaddexp2(x: Any, y: Any) -> jax.Array:
    return jnp.logaddexp2(*together(x, y))


@rules("aten.gcd.default")
def gcd(x: Any, y: Any) -> jax.Array:
    return jnp.gcd(*together(x, y))


@rules("aten.lcm.default")
def lcm(x: Any, y: Any) -> jax.Array:
    return jnp.lcm(*together(x, y))


@rules("aten.complex.default")
def make_complex(real: Any, imaginary: Any) -> jax.Array:
    return jax.lax.complex(*jnp.broadcast_arrays(real, imaginary))


@rules("aten.polar.default")
def polar(size: Any, angle: Any) -> jax.Array:
    return make_complex(size * jnp.cos(angle), size * jnp.sin(angle))


@rules(
    "aten._conj.default",
    "aten.conj.default",
    "aten._conj_physical.default",
    "aten.conj_physical.default",
)
def conjugate(x: Any) -> jax.Array:
    return jnp.conj(x)


@rules("aten.real.default")
def real(x: Any) -> jax.Array:
    return jnp.real(x)


@rules("aten.imag.default")
def imaginary(x: Any) -> jax.Array:
    return jnp.imag(x)


@rules("aten.angle.default")
def angle(x: Any, *, result: Any) -> jax.Array:
    if jnp.iscomplexobj(x):
        return jnp.asarray(atan2(jnp.imag(x), jnp.real(x), result=result))
    x = jax.lax.stop_gradient(x)
    turned = jnp.where(x < 0, jnp.pi, 0.0)
    return jnp.where(jnp.isnan(x), jnp.nan, turned).astype(result.dtype)


ELEMENTARY: dict[str, Callable[[jax.Array], jax.Array]] = {
    "neg": jnp.negative,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "log2": jnp.log2,
    "log10": jnp.log10,
    "sqrt": jnp.sqrt,
    "rsqrt": rsqrt,
    "reciprocal": jnp.reciprocal,
    "square": jnp.square,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "asin": jnp.arcsin,
    "acos": jnp.arccos,
    "atan": jnp.arctan,
    "sinh": jnp.sinh,
    "cosh": jnp.cosh,
    "tanh": jnp.tanh,
    "asinh": jnp.arcsinh,
    "acosh": jnp.arccosh,
    "atanh": jnp.arctanh,
    "sigmoid": jax.nn.sigmoid,
    "sinc": jnp.sinc,
    "deg2rad": jnp.deg2rad,
    "rad2deg": jnp.rad2deg,
}
"""Floating-point functions; integers are made floating-point first, as torch does."""

STEPS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "trunc": jnp.trunc,
    "fix": jnp.trunc,
    "round": jnp.round,
}


def _elementwise(name: str, function: Callable[[jax.Array], jax.Array]) -> None:
    @rules(f"aten.{name}.default")
    def rule(x: Any, *, result: Any) -> jax.Array:
        return function(cast(x, result.dtype))


def _step(name: str, function: Callable[[jax.Array], jax.Array]) -> None:
    @rules(f"aten.{name}.default")
    def rule(x: Any) -> jax.Array:
        return jax.lax.stop_gradient(function(x)) if jnp.issubdtype(x.dtype, jnp.inexact) else x


for _name, _function in ELEMENTARY.items():
    _elementwise(_name, _function)
for _name, _function in STEPS.items():
    _step(_name, _function)


@rules("aten.frac.default")
def fraction(x: Any) -> jax.Array:
    return x - jax.lax.stop_gradient(jnp.trunc(x))
