"""Elementwise bijections that numpyro lacks, or has in a form that overflows: numpyro Transforms.

``x`` is unconstrained and ``y`` constrained throughout. ``log_abs_det_jacobian`` is a function of
``x`` alone, so it stays accurate where ``y`` has rounded to the edge of its constraint.
"""

from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array, lax
from jax.nn import softplus
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

__all__ = [
    "Bijection",
    "Exp",
    "Interval",
    "LowerBound",
    "SignedExp",
    "Softplus",
    "UpperBound",
    "Wrap",
    "float_dtype",
    "margin",
    "spacing",
]

Floats: TypeAlias = npt.NDArray[np.floating]

_LARGE = 1e30  # its logarithm is 69


def spacing(value: ArrayLike, dtype: np.dtype) -> Array:
    """A few units in the last place of ``value``: the least step that is sure to move it."""
    info = jnp.finfo(dtype)
    return jnp.asarray(4 * info.eps * jnp.abs(value) + info.tiny)


def _above(bound: Array | float, step: Array) -> Array:
    """``step``, or where that is too small to move ``bound``, the least that does.

    The derivative stays that of ``step``: a zero would keep an optimiser there for good.
    """
    least = spacing(bound, float_dtype(step))
    return jnp.where(step > least, step, least + (step - lax.stop_gradient(step)))


def float_dtype(value: ArrayLike) -> np.dtype:
    """The floating-point dtype that arithmetic with ``value`` has."""
    return jnp.result_type(value, 0.0)


def margin(bound: Floats) -> Floats:
    """How far from ``bound`` an initial value is surely far enough."""
    return 1e-3 * np.maximum(1, np.abs(bound))


class Bijection(Transform):
    """A Transform that knows its own edges; the arrays named in ``_fields`` are its leaves."""

    _fields: tuple[str, ...] = ()
    domain = constraints.real

    def tree_flatten(
        self,
    ) -> tuple[tuple[ArrayLike, ...], tuple[tuple[str, ...], dict[str, object]]]:
        return tuple(getattr(self, f) for f in self._fields), (self._fields, {})

    def eq(self, other: object, static: bool = False) -> ArrayLike:
        if type(self) is not type(other):
            return False
        same = [jnp.array_equal(getattr(self, f), getattr(other, f)) for f in self._fields]
        return jnp.all(jnp.asarray(same)) if not static else all(bool(s) for s in same)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: object = None) -> Array:
        return jnp.asarray(x)  # that of exp(x), plus or minus a constant

    def exponents(self, x: Floats) -> Floats:
        """The coordinates of ``x`` that go through an exponential, which overflows beyond ±80."""
        return x

    def nearest_interior(self, y: Floats) -> Floats:
        """A value near ``y`` that is well inside the constraint; ``y`` itself where it is."""
        return y


class Exp(Bijection):
    """``y = floor + exp(x)``; the floor keeps a scale away from zero.

    Example:
        >>> round(float(Exp(floor=0.1)(0.0)), 6)
        1.1
    """

    _fields = ("floor",)

    def __init__(self, floor: Array | float = 0.0) -> None:
        self.floor = floor

    @property
    def codomain(self) -> constraints.Constraint:
        return (
            constraints.positive if _is_zero(self.floor) else constraints.greater_than(self.floor)
        )

    @property
    def edge(self) -> Array | float | None:
        """The lower end of what it reaches; None stands for zero."""
        return None if _is_zero(self.floor) else self.floor

    def _step(self, x: Array) -> Array:
        return jnp.exp(x)

    def __call__(self, x: Array) -> Array:
        step = self._step(x)
        return step if _is_zero(self.floor) else self.floor + _above(self.floor, step)

    def _inverse(self, y: Array) -> Array:
        return jnp.log(y - self.floor)

    def nearest_interior(self, y: Floats) -> Floats:
        floor = np.asarray(self.floor)
        return np.clip(y, floor + margin(floor), _LARGE)


class LowerBound(Exp):
    """``y = bound + exp(x)``, and at least one rounding step above the bound."""

    def __init__(self, bound: Array | float) -> None:
        super().__init__(bound)


class Softplus(Exp):
    """``y = floor + log(1 + exp(x))``: grows linearly, so a large gradient step stays moderate.

    Example:
        >>> round(float(Softplus()(0.0)), 4)
        0.6931
    """

    def _step(self, x: Array) -> Array:
        return softplus(x)

    def _inverse(self, y: Array) -> Array:
        above = y - self.floor
        return above + jnp.log(-jnp.expm1(-above))

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: object = None) -> Array:
        return -softplus(-x)

    def exponents(self, x: Floats) -> Floats:
        return np.minimum(x, 0)


class UpperBound(Bijection):
    """``y = bound - exp(x)``, and at least one rounding step below the bound."""

    _fields = ("bound",)

    def __init__(self, bound: Array | float) -> None:
        self.bound = bound

    @property
    def codomain(self) -> constraints.Constraint:
        return constraints.less_than(self.bound)

    def __call__(self, x: Array) -> Array:
        return self.bound - _above(self.bound, jnp.exp(x))

    def _inverse(self, y: Array) -> Array:
        return jnp.log(self.bound - y)

    def nearest_interior(self, y: Floats) -> Floats:
        bound = np.asarray(self.bound)
        return np.clip(y, -_LARGE, bound - margin(bound))


class Interval(Bijection):
    """``y = low + (high - low) * sigmoid(x)``, kept strictly inside (low, high)."""

    _fields = ("low", "high")

    def __init__(self, low: Array | float, high: Array | float) -> None:
        self.low, self.high = low, high

    @property
    def codomain(self) -> constraints.Constraint:
        return constraints.interval(self.low, self.high)

    def __call__(self, x: Array) -> Array:
        width = jnp.asarray(self.high) - self.low
        # From the nearer end, so that neither tail loses its digits to the other end's.
        t = jnp.exp(-jnp.abs(x)) / (1 + jnp.exp(-jnp.abs(x)))
        y = jnp.where(x < 0, self.low + width * t, self.high - width * t)
        dtype = float_dtype(x)
        inner_low = self.low + spacing(self.low, dtype)
        inner_high = self.high - spacing(self.high, dtype)
        return y + lax.stop_gradient(jnp.clip(y, inner_low, inner_high) - y)

    def _inverse(self, y: Array) -> Array:
        return jnp.log(y - self.low) - jnp.log(self.high - y)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: object = None) -> Array:
        width = jnp.asarray(self.high) - self.low
        return jnp.log(width) - softplus(x) - softplus(-x)

    def nearest_interior(self, y: Floats) -> Floats:
        low, high = np.asarray(self.low), np.asarray(self.high)
        inset = 1e-3 * (high - low)
        return np.clip(y, low + inset, high - inset)


class NonZeroReal(constraints.ParameterFreeConstraint):
    """Any real but zero."""

    event_dim = 0

    def __call__(self, x: Array) -> Array:
        return jnp.isfinite(x) & (x != 0)

    def feasible_like(self, prototype: Array) -> Array:
        return jnp.ones_like(prototype)


class SignedExp(Bijection):
    """``y = sign * exp(x)``: a non-zero real that keeps the sign it started with."""

    _fields = ("negative",)
    codomain = NonZeroReal()

    def __init__(self, negative: ArrayLike) -> None:
        self.negative = negative

    def _sign(self) -> Array:
        return jnp.where(self.negative, -1.0, 1.0)

    def __call__(self, x: Array) -> Array:
        return self._sign() * jnp.exp(x)

    def _inverse(self, y: Array) -> Array:
        return jnp.log(self._sign() * y)

    def nearest_interior(self, y: Floats) -> Floats:
        return np.asarray(self._sign()) * np.clip(np.abs(y), 1e-3, _LARGE)


class Wrap(Bijection):
    """An angle: ``y`` is ``x`` wrapped into [-pi, pi).

    Onto, and one-to-one within a turn. For a location parameter this is what an optimiser needs:
    it may walk through pi, where a sigmoid onto (-pi, pi) would put a wall.
    """

    codomain = constraints.circular

    def __call__(self, x: Array) -> Array:
        # floor, not remainder: exact identity within the first turn, and gradient one everywhere.
        turns = lax.stop_gradient(jnp.floor((x + jnp.pi) / (2 * jnp.pi)))
        return jnp.clip(x - 2 * jnp.pi * turns, -jnp.pi, jnp.pi)

    def _inverse(self, y: Array) -> Array:
        return jnp.asarray(y)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: object = None) -> Array:
        return jnp.zeros_like(x)

    def exponents(self, x: Floats) -> Floats:
        return np.zeros(0)


def _is_zero(floor: Array | float) -> bool:
    return isinstance(floor, (int, float)) and floor == 0
