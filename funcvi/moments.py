"""Distributions by mean and variance, as a network's layers give them for sampled activations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from funcvi._jax import is_concrete
from funcvi.runtime_checks import require

__all__ = ["from_moments"]


def _normal(m: Array, v: Array) -> dist.Distribution:
    return dist.Normal(m, jnp.sqrt(v))


def _laplace(m: Array, v: Array) -> dist.Distribution:
    return dist.Laplace(m, jnp.sqrt(v / 2))


def _logistic(m: Array, v: Array) -> dist.Distribution:
    return dist.Logistic(m, jnp.sqrt(3 * v) / jnp.pi)


def _gumbel(m: Array, v: Array) -> dist.Distribution:
    scale = jnp.sqrt(6 * v) / jnp.pi
    return dist.Gumbel(m - jnp.euler_gamma * scale, scale)


def _log_normal(m: Array, v: Array) -> dist.Distribution:
    variance = jnp.log1p(v / m**2)
    return dist.LogNormal(jnp.log(m) - variance / 2, jnp.sqrt(variance))


def _gamma(m: Array, v: Array) -> dist.Distribution:
    return dist.Gamma(m**2 / v, m / v)


def _inverse_gamma(m: Array, v: Array) -> dist.Distribution:
    concentration = m**2 / v + 2
    return dist.InverseGamma(concentration, m * (concentration - 1))


def _beta(m: Array, v: Array) -> dist.Distribution:
    total = m * (1 - m) / v - 1
    return dist.Beta(m * total, (1 - m) * total)


@dataclass(frozen=True)
class _Solved:
    build: Callable[[Array, Array], dist.Distribution]
    mean: Literal["real", "positive", "unit interval"] = "real"  # where the mean must lie


_SOLVED: dict[type[dist.Distribution], _Solved] = {
    dist.Normal: _Solved(_normal),
    dist.Laplace: _Solved(_laplace),
    dist.Logistic: _Solved(_logistic),
    dist.Gumbel: _Solved(_gumbel),
    dist.LogNormal: _Solved(_log_normal, "positive"),
    dist.Gamma: _Solved(_gamma, "positive"),
    dist.InverseGamma: _Solved(_inverse_gamma, "positive"),
    dist.Beta: _Solved(_beta, "unit interval"),
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
    solved = _SOLVED.get(kind)
    if solved is None:
        names = ", ".join(sorted(k.__name__ for k in _SOLVED))
        shown = getattr(kind, "__name__", repr(kind))
        raise TypeError(f"from_moments: no solution for {shown}; there are {names}")
    mean, variance = jnp.asarray(mean), jnp.asarray(variance)
    try:
        shape = jnp.broadcast_shapes(mean.shape, variance.shape)
    except ValueError as error:
        raise ValueError(
            f"from_moments: mean has shape {mean.shape}, variance {variance.shape}; they do not "
            "broadcast"
        ) from error
    where = "softplus (fv.Softplus) or exp (fv.Exp)"
    mean, variance = jnp.broadcast_to(mean, shape), jnp.broadcast_to(variance, shape)
    positive = variance > 0
    variance = _checked(positive, variance, "variance must be positive", where)
    if solved.mean == "positive":
        name = f"mean of {kind.__name__} must be positive"
        mean = _checked(mean > 0, mean, name, where)
    elif solved.mean == "unit interval":
        inside = (mean > 0) & (mean < 1)
        mean = _checked(inside, mean, f"mean of {kind.__name__} must be in (0, 1)", "sigmoid")
        largest = mean * (1 - mean)
        name = f"variance of {kind.__name__} must be below mean * (1 - mean)"
        variance = _checked(variance < largest, variance, name, "mean * (1 - mean) * sigmoid")
    return solved.build(mean, variance)


def _checked(holds: Array, value: Array, what: str, bijection: str) -> Array:
    concrete = is_concrete(holds)
    broken = int(jnp.sum(~holds)) if concrete else 0
    count = f"{broken} of {holds.size} entries are not" if concrete else "some entries are not"
    return require(
        holds,
        value,
        lambda: ValueError(f"from_moments: {what}; {count}. Make it so by {bijection}."),
    )
