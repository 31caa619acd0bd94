"""Relaxed one-hot samples of discrete distributions, and straight-through ones.

Both carry a gradient, and both are biased, so nothing uses them unasked: the first draws from a
continuous distribution near the discrete one, the second from the discrete one itself with the
first one's gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from funcvi._checks import check_key
from funcvi._types import Key
from funcvi.densities.log_prob import log_prob
from funcvi.sampling import noise
from funcvi.sampling.draw import unvalidated
from funcvi.sampling.dtypes import noise_dtype, own_dtype
from funcvi.sampling.implicit import implicit
from funcvi.sampling.record import unwrapped

__all__ = ["relaxed_one_hot", "straight_through_one_hot"]


def relaxed_one_hot(
    d: dist.Distribution,
    key: Key,
    sample_shape: tuple[int, ...] = (),
    *,
    temperature: float | Array,
) -> Array:
    """Points of the simplex near its corners, one corner for each value of ``d``.

    ``softmax((log p + Gumbel noise) / temperature)``: the concrete distribution of Maddison et al.
    2017, arXiv:1611.00712, and Jang et al. 2017, arXiv:1611.01144. Pathwise gradients are right
    for it, hence biased for ``d``; both biases go and the variance grows as the temperature falls.

    Args:
        d: a distribution of finite support: categorical, Bernoulli, binomial with a fixed count ...
        key: a key.
        sample_shape: leading axes of independent draws.
        temperature: positive scalar, or an array that broadcasts to the draws without ``values``.

    Returns:
        Floats of shape (*sample_shape, *batch, *event, values), in the order of
        ``d.enumerate_support()``: false, true for a Bernoulli; each row sums to one.

    Raises:
        TypeError: ``d`` has no finite support. ValueError: the temperature is not positive
            (inside jit it gives NaN).

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> d = dist.Categorical(probs=jnp.array([0.2, 0.3, 0.5]))
        >>> relaxed_one_hot(d, jax.random.key(0), (4,), temperature=0.5).shape
        (4, 3)
    """
    scores, temperature = _scores(d, key, tuple(sample_shape), temperature)
    return jax.nn.softmax(scores / temperature, axis=-1).astype(own_dtype(d))


def straight_through_one_hot(
    d: dist.Distribution,
    key: Key,
    sample_shape: tuple[int, ...] = (),
    *,
    temperature: float | Array,
) -> Array:
    """Exact one-hot draws of ``d``, with the gradient of ``relaxed_one_hot`` for the same noise.

    Bengio et al. 2013, arXiv:1308.3432; biased. ``x @ values`` gives draws as numbers. Arguments,
    shapes and errors as ``relaxed_one_hot``.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> d = dist.Bernoulli(probs=0.3)
        >>> x = straight_through_one_hot(d, jax.random.key(0), (1000,), temperature=1.0)
        >>> bool(abs(x[:, 1].mean() - 0.3) < 0.05)
        True
        >>> def mean(p):
        ...     d = dist.Bernoulli(probs=p)
        ...     x = straight_through_one_hot(d, jax.random.key(0), (1000,), temperature=1.0)
        ...     return x[:, 1].mean()
        >>> bool(jax.grad(mean)(0.3) > 0.5)
        True
    """
    scores, temperature = _scores(d, key, tuple(sample_shape), temperature)
    relaxed = jax.nn.softmax(scores / temperature, axis=-1)
    hard = jax.nn.one_hot(jnp.argmax(scores, axis=-1), scores.shape[-1], dtype=relaxed.dtype)
    # A row of NaN stays one; argmax would choose the first.
    hard = jnp.where(jnp.isnan(relaxed), relaxed, hard)
    return implicit(_as_relaxed, relaxed, jax.lax.stop_gradient(hard)).astype(own_dtype(d))


def _as_relaxed(hard: Array, relaxed: Array, drelaxed: Array) -> Array:
    return drelaxed


def _scores(
    d: dist.Distribution, key: Key, sample_shape: tuple[int, ...], temperature: float | Array
) -> tuple[Array, Array]:
    """Log probabilities plus Gumbel noise, (*sample_shape, *batch, *event, values)."""
    check_key(key)
    log_probs = _log_probs(d)
    if not isinstance(temperature, jax.core.Tracer) and not np.all(np.asarray(temperature) > 0):
        raise ValueError(f"temperature must be positive, got {temperature}.")
    dtype = noise_dtype(d)
    temperature = jnp.asarray(temperature, dtype)
    temperature = jnp.where(temperature > 0, temperature, jnp.nan)
    if temperature.ndim:
        temperature = temperature[..., None]
    # A value of probability zero is never drawn, and its gradient is zero, not NaN.
    log_probs = jnp.maximum(log_probs.astype(dtype), jnp.finfo(dtype).min / 4)
    e = noise.exponential(key, (*sample_shape, *log_probs.shape), dtype)
    return log_probs - jnp.log(e), temperature


def _log_probs(d: dist.Distribution) -> Array:
    """(*batch, *event, values)."""
    inner = unwrapped(d, dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)
    name = type(inner).__name__
    if not isinstance(inner, dist.Distribution) or not inner.has_enumerate_support:
        raise TypeError(
            f"one-hot samples need a distribution of finite support, got {name}.\n"
            'fv.kl and fv.negative_elbo take any discrete distribution: estimator="score_function".'
        )
    if inner.event_shape:
        raise TypeError(f"one-hot samples need scalar events, got {name} of {inner.event_shape}.")
    try:
        values = inner.enumerate_support(expand=False)
    except (NotImplementedError, jax.errors.JAXTypeError):
        raise TypeError(
            f"the support of {name} has no fixed finite size here: make its count a Python integer."
        ) from None
    log_probs = jnp.moveaxis(log_prob(unvalidated(inner), values), 0, -1)
    return jnp.broadcast_to(log_probs, (*d.batch_shape, *d.event_shape, log_probs.shape[-1]))
