"""The layer of a flow: each coordinate bent by a spline that a network of other ones chooses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints, transforms

from funcvi._types import Key
from funcvi.rational_quadratic import Spline, inverse, spline, value_and_log_slope

__all__ = ["SplineLayer", "start_of_layer"]

_BOUND = 4.0  # noise further out is moved and scaled, not bent

Weights = dict[str, Array]


class SplineLayer(transforms.Transform):
    r"""``y_i = shift_i + exp(log_scale_i) spline_i(x_i)``, all of them functions of other x.

    These are the x_j of lower rank, through one hidden layer whose weights are masked (Germain et
    al. 2015, arXiv:1502.03509): with a rank for each coordinate the layer is autoregressive, with
    two ranks it is a coupling layer, whose first half has a spline of its own. The inverse takes as
    many evaluations as there are ranks.

    Args:
        weights: as of :func:`start_of_layer`, with any leading axes.
        ranks: of each coordinate.
    """

    domain = codomain = constraints.real_vector

    def __init__(self, weights: Weights, ranks: tuple[int, ...]) -> None:
        self.weights, self.ranks = weights, ranks

    def tree_flatten(self) -> Any:
        """Into the weights."""
        return (self.weights,), (("weights",), {"ranks": self.ranks})

    def __call__(self, x: Array) -> Array:
        """The values."""
        return self.call_with_intermediates(x)[0]

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        """The values, and the log determinant."""
        bent, shift, log_scale = self._of_others(x)
        y, log_slope = value_and_log_slope(bent, x)
        return shift + jnp.exp(log_scale) * y, jnp.sum(log_scale + log_slope, axis=-1)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """The log determinant."""
        return self.call_with_intermediates(x)[1] if intermediates is None else intermediates

    def _inverse(self, y: Array) -> Array:
        lead = self.weights["bias"].shape[:-1]
        y = jnp.broadcast_to(y, jnp.broadcast_shapes(y.shape, (*lead, len(self.ranks))))

        def step(x: Array, _: None) -> tuple[Array, None]:
            bent, shift, log_scale = self._of_others(x)
            return inverse(bent, (y - shift) * jnp.exp(-log_scale)), None

        # Each step makes the coordinates of one more rank right, whatever the others are.
        return jax.lax.scan(step, jnp.zeros_like(y), None, length=max(self.ranks) + 1)[0]

    def _of_others(self, x: Array) -> tuple[Spline, Array, Array]:
        w, ranks = self.weights, np.asarray(self.ranks)
        outputs = w["bias"].shape[-1] // len(ranks)
        units = np.arange(w["hidden bias"].shape[-1]) % max(ranks.max(), 1)
        sees, seen = ranks[:, None] <= units, np.repeat(units[:, None] < ranks, outputs, axis=1)
        hidden = jnp.tanh(_times(x, w["hidden kernel"] * sees) + w["hidden bias"])
        raw = _times(hidden, w["kernel"] * seen) + w["bias"]
        raw = raw.reshape(*raw.shape[:-1], len(ranks), outputs)
        return spline(raw[..., 2:], _BOUND), raw[..., 0], raw[..., 1]


def start_of_layer(key: Key, size: int, num_bins: int, width: int) -> Weights:
    """Weights at which the layer is the identity."""
    outputs = size * (2 + 3 * num_bins - 1)
    hidden = jax.random.normal(key, (size + 1, width)) / np.sqrt(size)
    return {
        "hidden kernel": hidden[:-1],
        "hidden bias": hidden[-1],
        "kernel": jnp.zeros((width, outputs)),
        "bias": jnp.zeros(outputs),
    }


def _times(x: Array, matrix: Array) -> Array:
    """(..., rows) times (*batch, rows, columns), where there may be no batch."""
    return x @ matrix if matrix.ndim == 2 else (x[..., None, :] @ matrix)[..., 0, :]
