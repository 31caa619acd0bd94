"""Bijections from vectors: onto the simplex, ordered vectors and Cholesky factors.

As in ``bijections``, ``x`` is unconstrained and ``y`` constrained.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.nn import log_sigmoid, log_softmax
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi.bijections import Bijection, Floats, float_dtype, margin, spacing

__all__ = ["CorrelationFactor", "CovarianceFactor", "Ordered", "PositiveOrdered", "Simplex"]


class Simplex(Bijection):
    """K - 1 reals to K positive numbers that sum to one: the inverse isometric log-ratio map.

    ``y = softmax(V x)`` with the columns of V orthonormal and orthogonal to the ones vector
    (a Helmert basis, applied here in O(K) by cumulative sums). x = 0 is the uniform point, and no
    corner is preferred, unlike stick-breaking. Egozcue et al. 2003, doi:10.1023/A:1023818214614.

    Shapes: x (..., K - 1), y (..., K).
    """

    domain = constraints.real_vector
    codomain = constraints.simplex

    def _centred_logits(self, x: Array) -> Array:
        k = jnp.arange(1, jnp.shape(x)[-1] + 1, dtype=float_dtype(x))
        w = x / jnp.sqrt(k * (k + 1))
        tail_sums = jnp.flip(jnp.cumsum(jnp.flip(w, -1), -1), -1)  # sum over j >= i of w_j
        first = jnp.concatenate([tail_sums, jnp.zeros_like(w[..., :1])], -1)
        last = jnp.concatenate([jnp.zeros_like(w[..., :1]), k * w], -1)
        return first - last

    def log_image(self, x: Array) -> Array:
        """log y, also where y is at its floor."""
        return log_softmax(self._centred_logits(x))

    def __call__(self, x: Array) -> Array:
        logits = self._centred_logits(x)
        # Divided, not exp of a difference of logs: those lose digits where logits are large, and
        # the sum would miss one by more than numpyro allows.
        y = jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))
        # Below this floor y is zero in float32, and zero is the boundary.
        return jnp.maximum(y / y.sum(-1, keepdims=True), 3 * jnp.finfo(y.dtype).tiny)

    def _inverse(self, y: Array) -> Array:
        log_y = jnp.log(y)
        k = jnp.arange(1, jnp.shape(y)[-1], dtype=log_y.dtype)
        # x_k = (mean of the first k logs - log number k + 1) * sqrt(k / (k + 1)), from differences,
        # so that equal entries give exactly zero.
        head_mean = jnp.cumsum(log_y[..., :-1], -1) / k
        return (head_mean - log_y[..., 1:]) * jnp.sqrt(k / (k + 1))

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: object = None) -> Array:
        # With respect to the first K - 1 entries of y, as Dirichlet's density is:
        # log det = sum(log y) + log(K) / 2.
        log_y = self.log_image(x)
        return log_y.sum(-1) + 0.5 * jnp.log(jnp.asarray(log_y.shape[-1], log_y.dtype))

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] - 1)

    def nearest_interior(self, y: Floats) -> Floats:
        raised = np.maximum(y, 1e-3)
        return raised / raised.sum(-1, keepdims=True)


class Ordered(Bijection):
    """``y_1 = x_1``, ``y_k = y_{k-1} + exp(x_k)``; entries stay distinct after rounding."""

    domain = constraints.real_vector
    codomain = constraints.ordered_vector

    def _steps(self, x: Array) -> Array:
        return jnp.concatenate([x[..., :1], jnp.exp(x[..., 1:])], -1)

    def __call__(self, x: Array) -> Array:
        steps = self._steps(x)
        # Rounding error of the running sum grows with its length; a floor of that size on every
        # step keeps neighbours apart.
        reach = lax.stop_gradient(jnp.max(jnp.abs(jnp.cumsum(steps, -1)), -1, keepdims=True))
        floor = x.shape[-1] * spacing(reach, steps.dtype)
        first, rest = steps[..., :1], jnp.maximum(steps[..., 1:], floor)
        return jnp.cumsum(jnp.concatenate([first, rest], -1), -1)

    def _inverse(self, y: Array) -> Array:
        return jnp.concatenate([y[..., :1], jnp.log(y[..., 1:] - y[..., :-1])], -1)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: object = None) -> Array:
        return x[..., 1:].sum(-1)

    def exponents(self, x: Floats) -> Floats:
        return x[..., 1:]

    def nearest_interior(self, y: Floats) -> Floats:
        return np.sort(y, -1) + self._gaps(y) * np.arange(y.shape[-1])

    @staticmethod
    def _gaps(y: Floats) -> Floats:
        return margin(np.abs(y).max(-1, keepdims=True))


class PositiveOrdered(Ordered):
    """``y_1 = exp(x_1)``, ``y_k = y_{k-1} + exp(x_k)``: sums, where exp of a sum would overflow."""

    codomain = constraints.positive_ordered_vector

    def _steps(self, x: Array) -> Array:
        return jnp.exp(x)

    def _inverse(self, y: Array) -> Array:
        return jnp.log(jnp.concatenate([y[..., :1], y[..., 1:] - y[..., :-1]], -1))

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: object = None) -> Array:
        return x.sum(-1)

    def exponents(self, x: Floats) -> Floats:
        return x

    def nearest_interior(self, y: Floats) -> Floats:
        return np.maximum(super().nearest_interior(y), self._gaps(y) * (1 + np.arange(y.shape[-1])))


class CorrelationFactor(nt.CorrCholeskyTransform):
    """numpyro's, of partial correlations ``tanh(x)``, with logarithms that see no rounding to one.

    With ``s = log(1 - tanh(x)**2)``, the log of a diagonal entry is half the sum of s in its row.
    """

    @staticmethod
    def log_diagonal(s: Array) -> Array:
        """(..., n, n): the logs of the diagonal, and zero elsewhere."""
        n = round((1 + (1 + 8 * s.shape[-1]) ** 0.5) / 2)
        rows, cols = jnp.tril_indices(n, -1)
        below = jnp.zeros((*s.shape[:-1], n, n), s.dtype).at[..., rows, cols].set(s)
        return jnp.eye(n, dtype=s.dtype) * jnp.sum(below, axis=-1, keepdims=True) / 2

    @staticmethod
    def log_rest(x: Array) -> Array:
        """s, above."""
        return 2 * jnp.log(2.0).astype(x.dtype) + log_sigmoid(2 * x) + log_sigmoid(-2 * x)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: object = None) -> Array:
        rows, cols = jnp.tril_indices(y.shape[-1], -1)
        return jnp.sum((rows + 1 - cols) / 2 * self.log_rest(x), axis=-1)


class CovarianceFactor(Bijection):
    """n(n + 1)/2 reals to a Cholesky factor L with ``L_ii = exp(x_i / 2)``.

    The half keeps ``L @ L.T`` finite for x up to 80 in float32, where ``exp(x)`` on the diagonal
    would overflow once squared. Strictly lower entries come first in x, row by row.
    """

    domain = constraints.real_vector
    codomain = constraints.lower_cholesky

    @staticmethod
    def _size(length: int) -> int:
        return round(((1 + 8 * length) ** 0.5 - 1) / 2)

    def __call__(self, x: Array) -> Array:
        n = self._size(x.shape[-1])
        rows, cols = jnp.tril_indices(n, -1)
        diagonal = jnp.exp(0.5 * x[..., -n:])
        lower = (
            jnp.zeros((*x.shape[:-1], n, n), diagonal.dtype).at[..., rows, cols].set(x[..., :-n])
        )
        return lower + jnp.eye(n, dtype=diagonal.dtype) * diagonal[..., None, :]

    def _inverse(self, y: Array) -> Array:
        rows, cols = jnp.tril_indices(y.shape[-1], -1)
        log_diagonal = 2 * jnp.log(jnp.diagonal(y, axis1=-2, axis2=-1))
        return jnp.concatenate([y[..., rows, cols], log_diagonal], -1)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: object = None) -> Array:
        n = self._size(x.shape[-1])
        return (0.5 * x[..., -n:] - jnp.log(2.0).astype(x.dtype)).sum(-1)

    def exponents(self, x: Floats) -> Floats:
        return x[..., -self._size(x.shape[-1]) :]

    def nearest_interior(self, y: Floats) -> Floats:
        y = np.nan_to_num(y)
        return y + 1e-3 * max(np.abs(y).max(), 1.0) * np.eye(y.shape[-1])

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n = self._size(shape[-1])
        return (*shape[:-1], n, n)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n = shape[-1]
        return (*shape[:-2], n * (n + 1) // 2)
