"""What draws of a network's output say: mean, spread, and whether to believe the probabilities."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "PredictedClasses",
    "PredictedValues",
    "calibration_error",
    "predicted_classes",
    "predicted_values",
]


class PredictedClasses(NamedTuple):
    """Attributes: see :func:`predicted_classes`."""

    probabilities: jax.Array
    entropy: jax.Array
    mutual_information: jax.Array


class PredictedValues(NamedTuple):
    """Attributes: see :func:`predicted_values`."""

    mean: jax.Array
    variance: jax.Array


def predicted_classes(logits: jax.Array) -> PredictedClasses:
    r"""The predictive distribution over classes, from logits of axes (draw, *batch, class).

    Returns:
        ``probabilities`` of axes (*batch, class), the mean over draws; ``entropy`` of axes
        (*batch), of those probabilities, in nats; ``mutual_information`` between the class and the
        weights, :math:`H[E_w p] - E_w H[p]`: what more data would tell (Houlsby et al. 2011,
        arXiv:1112.5745).

    Example:
        >>> import jax.numpy as jnp
        >>> from funcvi.networks import predicted_classes
        >>> sure_but_divided = jnp.array([[[50.0, 0.0]], [[0.0, 50.0]]])
        >>> print(predicted_classes(sure_but_divided).mutual_information.round(3))
        [0.693]
    """
    logs = jax.nn.log_softmax(logits, axis=-1)
    draws = logits.shape[0]
    mean_log = jax.nn.logsumexp(logs, axis=0) - jnp.log(draws)
    entropy = -jnp.sum(jnp.exp(mean_log) * mean_log, axis=-1)
    within = -jnp.mean(jnp.sum(jnp.exp(logs) * logs, axis=-1), axis=0)
    return PredictedClasses(jnp.exp(mean_log), entropy, jnp.maximum(entropy - within, 0))


def predicted_values(means: jax.Array, variances: jax.Array | float = 0.0) -> PredictedValues:
    """Predictive mean and variance, from each draw's mean and noise variance: axes (draw, *batch).

    The variance is the sum of that of the means (the weights') and the mean of the noise's.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcvi.networks import predicted_values
        >>> print(*predicted_values(jnp.array([1.0, 3.0]), 0.25))
        2.0 1.25
    """
    noise = jnp.mean(jnp.broadcast_to(variances, means.shape), axis=0)
    return PredictedValues(jnp.mean(means, axis=0), jnp.var(means, axis=0) + noise)


def calibration_error(
    probabilities: jax.Array, labels: jax.Array, *, num_bins: int = 15
) -> jax.Array:
    """Expected calibration error: how far confidence is from accuracy, over bins of confidence.

    Args:
        probabilities: axes (example, class).
        labels: integers, axes (example).
        num_bins: bins of equal width (Guo et al. 2017, arXiv:1706.04599).

    Example:
        >>> import jax.numpy as jnp
        >>> from funcvi.networks import calibration_error
        >>> print(calibration_error(jnp.array([[0.75, 0.25]] * 4), jnp.array([0, 0, 0, 1])))
        0.0
    """
    confidence = jnp.max(probabilities, axis=-1)
    right = (jnp.argmax(probabilities, axis=-1) == labels).astype(confidence.dtype)
    bins = jnp.clip((confidence * num_bins).astype(jnp.int32), 0, num_bins - 1)
    gaps = jax.ops.segment_sum(confidence - right, bins, num_bins)
    return jnp.sum(jnp.abs(gaps)) / labels.shape[0]
