"""Distributions by mean and variance, as a network's layers give them for sampled activations."""

from collections.abc import Callable

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from funcvi._jax import is_concrete
from funcvi.runtime_checks import require

__all__ = ["from_moments"]


def _gumbel(m: Array, v: Array) -> dist.Distribution:
    scale = jnp.sqrt(6 * v) / jnp.pi
    return dist.Gumbel(m - jnp.euler_gamma * scale, scale)


def _log_normal(m: Array, v: Array) -> dist.Distribution:
    variance = jnp.log1p(v / m**2)
    return dist.LogNormal(jnp.log(m) - variance / 2, jnp.sqrt(variance))


def _inverse_gamma(m: Array, v: Array) -> dist.Distribution:
    concentration = m**2 / v + 2
    return dist.InverseGamma(concentration, m * (concentration - 1))


def _beta(m: Array, v: Array) -> dist.Distribution:
    total = m * (1 - m) / v - 1
    return dist.Beta(m * total, (1 - m) * total)


#: Where the mean must lie, and the distribution of a mean and a variance.
_SOLVED: dict[type, tuple[str, Callable[[Array, Array], dist.Distribution]]] = {
    dist.Normal: ("real", lambda m, v: dist.Normal(m, jnp.sqrt(v))),
    dist.Laplace: ("real", lambda m, v: dist.Laplace(m, jnp.sqrt(v / 2))),
    dist.Logistic: ("real", lambda m, v: dist.Logistic(m, jnp.sqrt(3 * v) / jnp.pi)),
    dist.Gumbel: ("real", _gumbel),
    dist.LogNormal: ("positive", _log_normal),
    dist.Gamma: ("positive", lambda m, v: dist.Gamma(m**2 / v, m / v)),
    dist.InverseGamma: ("positive", _inverse_gamma),
    dist.Beta: ("unit interval", _beta),
}


def from_moments(
    kind: type[dist.Distribution], mean: ArrayLike, variance: ArrayLike
) -> dist.Distribution:
    r"""The distribution of ``kind`` with this mean and variance, entry by entry.

    For activations that a network samples: two layers give ``mean`` and ``variance``, and Normal
    becomes Gamma by changing ``kind`` alone. Draws by :func:`funcvi.sample` carry gradients to
    both, and to everything upstream.

    Args:
        kind: Normal, Laplace, Logistic, Gumbel (any mean); LogNormal, Gamma, InverseGamma (positive
            mean); or Beta (mean in (0, 1), variance below :math:`m (1 - m)`).
        mean, variance: floating-point arrays of one shape, or shapes that broadcast.

    Raises:
        TypeError: ``kind`` is none of those.
        ValueError: an entry of the variance is not positive, or of the mean outside its range;
            the message names a bijection that gives what is needed. Under jit, a
            ``JaxRuntimeError`` with the same words.

    Example:
        >>> import funcvi as fv, jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> mean, raw = jnp.ones((2, 3)), jnp.zeros((2, 3))
        >>> q = fv.from_moments(dist.Gamma, mean, jax.nn.softplus(raw))
        >>> print(fv.sample(q, jax.random.key(0)).shape, q.variance[0, 0].round(4))
        (2, 3) 0.6931
    """
    if kind not in _SOLVED:
        names = ", ".join(sorted(k.__name__ for k in _SOLVED))
        shown = getattr(kind, "__name__", repr(kind))
        raise TypeError(f"from_moments: no solution for {shown}; there are {names}")
    support, build = _SOLVED[kind]
    try:
        mean, variance = jnp.broadcast_arrays(jnp.asarray(mean), jnp.asarray(variance))
    except ValueError as error:
        raise ValueError(
            f"from_moments: mean has shape {jnp.shape(mean)}, variance {jnp.shape(variance)}; "
            "they do not broadcast"
        ) from error
    where = "softplus (fv.Softplus) or exp (fv.Exp)"
    variance = _checked(variance > 0, variance, "variance must be positive", where)
    if support == "positive":
        name = f"mean of {kind.__name__} must be positive"
        mean = _checked(mean > 0, mean, name, where)
    elif support == "unit interval":
        inside = (mean > 0) & (mean < 1)
        mean = _checked(inside, mean, f"mean of {kind.__name__} must be in (0, 1)", "sigmoid")
        largest = mean * (1 - mean)
        name = f"variance of {kind.__name__} must be below mean * (1 - mean)"
        variance = _checked(variance < largest, variance, name, "mean * (1 - mean) * sigmoid")
    return build(mean, variance)


def _checked(holds: Array, value: Array, what: str, bijection: str) -> Array:
    count = f"{jnp.sum(~holds)} of {holds.size}" if is_concrete(holds) else "some"
    return require(
        holds,
        value,
        lambda: ValueError(
            f"from_moments: {what}; {count} entries are not. Make it so by {bijection}."
        ),
    )
