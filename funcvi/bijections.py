"""Bijections that numpyro lacks, or has in a form that overflows; all are numpyro Transforms.

``x`` is unconstrained and ``y`` constrained throughout. ``log_abs_det_jacobian`` is a function of
``x`` alone, so it stays accurate where ``y`` has rounded to the edge of its constraint.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.nn import softplus
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.transforms import ParameterFreeTransform, Transform

__all__ = [
    "CovarianceFactor",
    "Exp",
    "Interval",
    "LowerBound",
    "Ordered",
    "PositiveOrdered",
    "SignedExp",
    "Simplex",
    "Softplus",
    "UpperBound",
    "Wrap",
]


def _spacing(value: ArrayLike, dtype: Any) -> Array:
    """A few units in the last place of ``value``: the least step that is sure to move it."""
    info = jnp.finfo(dtype)
    return 4 * info.eps * jnp.abs(value) + info.tiny


def _above(bound: ArrayLike, step: Array) -> Array:
    """``step``, or where that is too small to move ``bound``, the least that does.

    The derivative stays that of ``step``: a zero would keep an optimiser there for good.
    """
    least = _spacing(bound, _float_dtype(step))
    return jnp.where(step > least, step, least + (step - lax.stop_gradient(step)))


def _float_dtype(*values: ArrayLike) -> Any:
    return jnp.result_type(float, *values) if not values else jnp.result_type(*values, 0.0)


class _WithBounds(Transform):
    """A transform whose array attributes, named in ``_fields``, are its pytree leaves."""

    _fields: tuple[str, ...] = ()

    def tree_flatten(self) -> Any:
        return tuple(getattr(self, f) for f in self._fields), (self._fields, {})

    def eq(self, other: object, static: bool = False) -> ArrayLike:
        if type(self) is not type(other):
            return False
        same = [jnp.array_equal(getattr(self, f), getattr(other, f)) for f in self._fields]
        return jnp.all(jnp.asarray(same)) if not static else all(bool(s) for s in same)


class Exp(_WithBounds):
    """``y = floor + exp(x)``; the floor keeps a scale away from zero.

    Example:
        >>> round(float(Exp(floor=0.1)(0.0)), 6)
        1.1
    """

    _fields = ("floor",)
    domain = constraints.real

    def __init__(self, floor: ArrayLike = 0.0) -> None:
        self.floor: Any = floor

    @property
    def codomain(self) -> Any:
        return (
            constraints.positive if _is_zero(self.floor) else constraints.greater_than(self.floor)
        )

    def __call__(self, x: Any) -> Array:
        step = jnp.exp(x)
        return step if _is_zero(self.floor) else self.floor + _above(self.floor, step)

    def _inverse(self, y: Any) -> Array:
        return jnp.log(y - self.floor)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return jnp.asarray(x)


class Softplus(_WithBounds):
    """``y = floor + log(1 + exp(x))``: grows linearly, so a large gradient step stays moderate.

    Example:
        >>> round(float(Softplus()(0.0)), 4)
        0.6931
    """

    _fields = ("floor",)
    domain = constraints.real

    def __init__(self, floor: ArrayLike = 0.0) -> None:
        self.floor: Any = floor

    @property
    def codomain(self) -> Any:
        return (
            constraints.positive if _is_zero(self.floor) else constraints.greater_than(self.floor)
        )

    def __call__(self, x: Any) -> Array:
        step = softplus(x)
        return step if _is_zero(self.floor) else self.floor + _above(self.floor, step)

    def _inverse(self, y: Any) -> Array:
        above = y - self.floor
        return above + jnp.log(-jnp.expm1(-above))

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return -softplus(-x)


class LowerBound(_WithBounds):
    """``y = bound + exp(x)``, and at least one rounding step above the bound."""

    _fields = ("bound",)
    domain = constraints.real

    def __init__(self, bound: ArrayLike) -> None:
        self.bound: Any = bound

    @property
    def codomain(self) -> Any:
        return constraints.greater_than(self.bound)

    def __call__(self, x: Any) -> Array:
        return self.bound + _above(self.bound, jnp.exp(x))

    def _inverse(self, y: Any) -> Array:
        return jnp.log(y - self.bound)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return jnp.asarray(x)


class UpperBound(_WithBounds):
    """``y = bound - exp(x)``, and at least one rounding step below the bound."""

    _fields = ("bound",)
    domain = constraints.real

    def __init__(self, bound: ArrayLike) -> None:
        self.bound: Any = bound

    @property
    def codomain(self) -> Any:
        return constraints.less_than(self.bound)

    def __call__(self, x: Any) -> Array:
        return self.bound - _above(self.bound, jnp.exp(x))

    def _inverse(self, y: Any) -> Array:
        return jnp.log(self.bound - y)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return jnp.asarray(x)


class Interval(_WithBounds):
    """``y = low + (high - low) * sigmoid(x)``, kept strictly inside (low, high)."""

    _fields = ("low", "high")
    domain = constraints.real

    def __init__(self, low: ArrayLike, high: ArrayLike) -> None:
        self.low, self.high = low, high

    @property
    def codomain(self) -> Any:
        return constraints.interval(self.low, self.high)

    def __call__(self, x: Any) -> Array:
        width = jnp.asarray(self.high) - self.low
        # From the nearer end, so that neither tail loses its digits to the other end's.
        t = jnp.exp(-jnp.abs(x)) / (1 + jnp.exp(-jnp.abs(x)))
        y = jnp.where(x < 0, self.low + width * t, self.high - width * t)
        dtype = _float_dtype(x)
        inner_low = self.low + _spacing(self.low, dtype)
        inner_high = self.high - _spacing(self.high, dtype)
        return y + lax.stop_gradient(jnp.clip(y, inner_low, inner_high) - y)

    def _inverse(self, y: Any) -> Array:
        return jnp.log(y - self.low) - jnp.log(self.high - y)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        width = jnp.asarray(self.high) - self.low
        return jnp.log(width) - softplus(x) - softplus(-x)


class SignedExp(_WithBounds):
    """``y = sign * exp(x)``: a non-zero real that keeps the sign it started with."""

    _fields = ("negative",)
    domain = constraints.real

    def __init__(self, negative: ArrayLike) -> None:
        self.negative = negative

    @property
    def codomain(self) -> Any:
        return constraints.real

    def __call__(self, x: Any) -> Array:
        return jnp.where(self.negative, -1.0, 1.0) * jnp.exp(x)

    def _inverse(self, y: Any) -> Array:
        return jnp.log(jnp.where(self.negative, -1.0, 1.0) * y)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return jnp.asarray(x)


class Wrap(ParameterFreeTransform):
    """An angle: ``y`` is ``x`` wrapped into [-pi, pi).

    Onto, and one-to-one within a turn. For a location parameter this is what an optimiser needs:
    it may walk through pi, where a sigmoid onto (-pi, pi) would put a wall.
    """

    domain = constraints.real
    codomain = constraints.circular

    def __call__(self, x: Any) -> Array:
        # floor, not remainder: exact identity within the first turn, and gradient one everywhere.
        turns = lax.stop_gradient(jnp.floor((x + jnp.pi) / (2 * jnp.pi)))
        return jnp.clip(x - 2 * jnp.pi * turns, -jnp.pi, jnp.pi)

    def _inverse(self, y: Any) -> Array:
        return jnp.asarray(y)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return jnp.zeros_like(x)


class Simplex(ParameterFreeTransform):
    """K - 1 reals to K positive numbers that sum to one: the inverse isometric log-ratio map.

    ``y = softmax(V x)`` with the columns of V orthonormal and orthogonal to the ones vector
    (a Helmert basis, applied here in O(K) by cumulative sums). x = 0 is the uniform point, and no
    corner is preferred, unlike stick-breaking. Egozcue et al. 2003, doi:10.1023/A:1023818214614.

    Shapes: x (..., K - 1), y (..., K).
    """

    domain = constraints.real_vector
    codomain = constraints.simplex

    def _centred_logits(self, x: Any) -> Array:
        k = jnp.arange(1, jnp.shape(x)[-1] + 1, dtype=_float_dtype(x))
        w = x / jnp.sqrt(k * (k + 1))
        tail_sums = jnp.flip(jnp.cumsum(jnp.flip(w, -1), -1), -1)  # sum over j >= i of w_j
        first = jnp.concatenate([tail_sums, jnp.zeros_like(w[..., :1])], -1)
        last = jnp.concatenate([jnp.zeros_like(w[..., :1]), k * w], -1)
        return first - last

    def __call__(self, x: Any) -> Array:
        logits = self._centred_logits(x)
        # Divided, not exp of a difference of logs: those lose digits where logits are large, and
        # the sum would miss one by more than numpyro allows.
        y = jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))
        # Below this floor y is zero in float32, and zero is the boundary.
        return jnp.maximum(y / y.sum(-1, keepdims=True), 3 * jnp.finfo(y.dtype).tiny)

    def _inverse(self, y: Any) -> Array:
        log_y = jnp.log(y)
        k = jnp.arange(1, jnp.shape(y)[-1], dtype=log_y.dtype)
        # x_k = (mean of the first k logs - log number k + 1) * sqrt(k / (k + 1)), from differences,
        # so that equal entries give exactly zero.
        head_mean = jnp.cumsum(log_y[..., :-1], -1) / k
        return (head_mean - log_y[..., 1:]) * jnp.sqrt(k / (k + 1))

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        # With respect to the first K - 1 entries of y, as Dirichlet's density is:
        # log det = sum(log y) + log(K) / 2.
        logits = self._centred_logits(x)
        log_y = logits - _logsumexp(logits)
        return log_y.sum(-1) + 0.5 * jnp.log(jnp.asarray(log_y.shape[-1], log_y.dtype))

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] - 1)


def _logsumexp(logits: Array) -> Array:
    top = lax.stop_gradient(logits.max(-1, keepdims=True))
    return top + jnp.log(jnp.exp(logits - top).sum(-1, keepdims=True))


class Ordered(ParameterFreeTransform):
    """``y_1 = x_1``, ``y_k = y_{k-1} + exp(x_k)``; entries stay distinct after rounding."""

    domain = constraints.real_vector
    codomain = constraints.ordered_vector

    def _steps(self, x: Any) -> Array:
        return jnp.concatenate([x[..., :1], jnp.exp(x[..., 1:])], -1)

    def __call__(self, x: Any) -> Array:
        steps = self._steps(x)
        # Rounding error of the running sum grows with its length; a floor of that size on every
        # step keeps neighbours apart.
        reach = lax.stop_gradient(jnp.max(jnp.abs(jnp.cumsum(steps, -1)), -1, keepdims=True))
        floor = x.shape[-1] * _spacing(reach, steps.dtype)
        first, rest = steps[..., :1], jnp.maximum(steps[..., 1:], floor)
        return jnp.cumsum(jnp.concatenate([first, rest], -1), -1)

    def _inverse(self, y: Any) -> Array:
        return jnp.concatenate([y[..., :1], jnp.log(y[..., 1:] - y[..., :-1])], -1)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return x[..., 1:].sum(-1)


class PositiveOrdered(Ordered):
    """``y_1 = exp(x_1)``, ``y_k = y_{k-1} + exp(x_k)``: sums, where exp of a sum would overflow."""

    domain = constraints.real_vector
    codomain = constraints.positive_ordered_vector

    def _steps(self, x: Any) -> Array:
        return jnp.exp(x)

    def _inverse(self, y: Any) -> Array:
        return jnp.log(jnp.concatenate([y[..., :1], y[..., 1:] - y[..., :-1]], -1))

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        return x.sum(-1)


class CovarianceFactor(ParameterFreeTransform):
    """n(n + 1)/2 reals to a Cholesky factor L with ``L_ii = exp(x_i / 2)``.

    The half keeps ``L @ L.T`` finite for x up to 80 in float32, where ``exp(x)`` on the diagonal
    would overflow once squared. Strictly lower entries come first in x, row by row.
    """

    domain = constraints.real_vector
    codomain = constraints.lower_cholesky

    @staticmethod
    def _size(length: int) -> int:
        return round(((1 + 8 * length) ** 0.5 - 1) / 2)

    def __call__(self, x: Any) -> Array:
        n = self._size(x.shape[-1])
        rows, cols = jnp.tril_indices(n, -1)
        diagonal = jnp.exp(0.5 * x[..., -n:])
        lower = (
            jnp.zeros((*x.shape[:-1], n, n), diagonal.dtype).at[..., rows, cols].set(x[..., :-n])
        )
        return lower + jnp.eye(n, dtype=diagonal.dtype) * diagonal[..., None, :]

    def _inverse(self, y: Any) -> Array:
        rows, cols = jnp.tril_indices(y.shape[-1], -1)
        log_diagonal = 2 * jnp.log(jnp.diagonal(y, axis1=-2, axis2=-1))
        return jnp.concatenate([y[..., rows, cols], log_diagonal], -1)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        n = self._size(x.shape[-1])
        return (0.5 * x[..., -n:] - jnp.log(2.0).astype(x.dtype)).sum(-1)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n = self._size(shape[-1])
        return (*shape[:-1], n, n)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n = shape[-1]
        return (*shape[:-2], n * (n + 1) // 2)


def _is_zero(floor: Any) -> bool:
    return isinstance(floor, (int, float)) and floor == 0
