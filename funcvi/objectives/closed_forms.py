"""KL divergences that have a formula: numpyro's, or ours where numpyro's cancels.

The divergence between two gamma laws, or Dirichlet ones, is a difference of large terms as it is
usually written. Here it is a sum of two of its parts that are never negative: with
``g(x) = log Gamma(x) - x log x + x``, and ``[f](a, b)`` for ``f(b) - f(a) - (b - a) f'(a)``,

    KL(Gamma(a, b) || Gamma(a', b')) = a' (r + exp(-r) - 1) + [g](a, a'),  r = log(a' b / (a b')).
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.linalg import solve_triangular
from numpyro.distributions.kl import kl_divergence

from funcvi.densities.log_prob import log_prob_within

__all__ = ["closed_form"]

Formula: TypeAlias = Callable[..., Array]


def closed_form(q: dist.Distribution, p: dist.Distribution) -> Array | None:
    """KL(q || p) for each batch element, or None where there is no right formula."""
    bare = q.base_dist if isinstance(q, dist.ExpandedDistribution) else q
    if isinstance(bare, dist.Kumaraswamy):
        return None  # numpyro truncates an infinite sum there, which biases the gradient
    other = p.base_dist if isinstance(p, dist.ExpandedDistribution) else p
    if isinstance(bare, dist.Delta):
        return bare.log_density - log_prob_within(p)(_as_value(bare.v, p))
    for kinds, formula in _OURS.items():
        if type(bare) in kinds and type(other) in kinds:
            return formula(bare, other)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _as_value(point: Array, p: dist.Distribution) -> Array:
    """An index is an integer to numpyro, what lies between two is outside (see ``supports``)."""
    while isinstance(p, (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)):
        p = p.base_dist
    if isinstance(p, (dist.CategoricalProbs, dist.CategoricalLogits)):
        return jnp.floor(jnp.asarray(point)).astype(int)
    return point


def _categorical(q: dist.Distribution, p: dist.Distribution) -> Array:
    """numpyro's, with a gradient that stays finite where q is zero."""
    log_q, log_p = _as_long(_log_pmf(q), _log_pmf(p))
    counted = log_q > -jnp.inf
    ratio = jnp.where(counted, log_q, 0.0) - jnp.where(counted, log_p, 0.0)
    return jnp.sum(jnp.where(counted, jnp.exp(log_q) * ratio, 0.0), axis=-1)


def _as_long(*log_pmfs: Array) -> list[Array]:
    """With no mass on the values that the others have beyond."""
    most = max(x.shape[-1] for x in log_pmfs)
    return [
        jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, most - x.shape[-1])], constant_values=-jnp.inf)
        for x in log_pmfs
    ]


def _log_pmf(d: dist.Distribution) -> Array:
    if isinstance(d, dist.CategoricalLogits):
        return jax.nn.log_softmax(d.logits)
    positive = d.probs > 0  # numpyro 0.21 takes the logarithm of zero, whose gradient is NaN
    return jnp.where(positive, jnp.log(jnp.where(positive, d.probs, 1.0)), -jnp.inf)


def _gamma(q: dist.Gamma, p: dist.Gamma) -> Array:
    old, new = jnp.asarray(q.concentration), jnp.asarray(p.concentration)
    ratio = _log_ratio(new, old) - _log_ratio(jnp.asarray(p.rate), jnp.asarray(q.rate))
    return new * _excess(-ratio) + _remainder(old, new)


def _beta(q: dist.Beta, p: dist.Beta) -> Array:
    pairs = [(d.concentration1, d.concentration0) for d in (q, p)]
    return _dirichlet_of(*(jnp.stack(jnp.broadcast_arrays(*pair), axis=-1) for pair in pairs))


def _dirichlet(q: dist.Dirichlet, p: dist.Dirichlet) -> Array:
    return _dirichlet_of(q.concentration, p.concentration)


def _dirichlet_of(old: Array, new: Array) -> Array:
    total = old.sum(-1)
    added = (new - old).sum(-1)  # exact where the difference of two sums is all rounding
    whole = _log_ratio(new.sum(-1), total, added)
    ratio = _log_ratio(new, old) - whole[..., None]
    parts = new * _excess(-ratio) + _remainder(old, new)
    return parts.sum(-1) - _remainder(total, new.sum(-1), added)


def _normal_vector(q: dist.MultivariateNormal, p: dist.MultivariateNormal) -> Array:
    size = q.event_shape[-1]
    batch = jnp.broadcast_shapes(q.batch_shape, p.batch_shape)
    factors = [jnp.broadcast_to(d.scale_tril, (*batch, size, size)) for d in (q, p)]
    gap = jnp.broadcast_to(p.loc - q.loc, (*batch, size))[..., None]
    # At once: jaxlib 0.10 may hang in two that run beside one another (docs/promises.md).
    both = solve_triangular(factors[1], jnp.concatenate([factors[0], gap], -1), lower=True)
    between, apart = both[..., :size], both[..., size]
    diagonal = jnp.diagonal(between, axis1=-2, axis2=-1)
    off = jnp.tril(between, -1)
    own = _excess(2 * jnp.log(diagonal))
    return (own.sum(-1) + (off**2).sum((-2, -1)) + (apart**2).sum(-1)) / 2


def _wishart(q: dist.WishartCholesky, p: dist.WishartCholesky) -> Array:
    return _wishart_of(q, p, q.scale_tril, p.scale_tril)


def _inverse_wishart(q: dist.InverseWishartCholesky, p: dist.InverseWishartCholesky) -> Array:
    return _wishart_of(
        q, p, p.scale_tril, q.scale_tril
    )  # of the inverses, whose scales are inverse


def _wishart_of(q: dist.Distribution, p: dist.Distribution, ours: Array, theirs: Array) -> Array:
    """Gamma laws of Bartlett's diagonal, with the mean scale; and how far scales are from it."""
    size = q.event_shape[-1]
    batch = jnp.broadcast_shapes(q.batch_shape, p.batch_shape)
    ours, theirs = (jnp.broadcast_to(f, (*batch, size, size)) for f in (ours, theirs))
    between = solve_triangular(theirs, ours, lower=True)
    log_scales = 2 * jnp.log(jnp.diagonal(between, axis1=-2, axis2=-1))
    mean = log_scales.mean(-1)
    off = (jnp.tril(between, -1) ** 2).sum((-2, -1))
    apart = jnp.exp(mean) * _excess(log_scales - mean[..., None]).sum(-1) + off
    old, new = ((jnp.asarray(d.concentration)[..., None] - jnp.arange(size)) / 2 for d in (q, p))
    ratio = _log_ratio(new, old) - mean[..., None]
    gammas = (new * _excess(-ratio) + _remainder(old, new)).sum(-1)
    gap = size * (size - 1) / 4 * _excess(mean)
    return gammas + jnp.asarray(q.concentration) / 2 * apart + gap


def _lkj(q: dist.LKJCholesky, p: dist.LKJCholesky) -> Array:
    """That of the partial correlations, which are independent Beta variables."""
    below = jnp.arange(1, q.dimension)  # of that many, in one column, each has this concentration
    old, new = (jnp.asarray(d.concentration)[..., None] + (below - 1) / 2 for d in (q, p))
    each = _dirichlet_of(*(jnp.stack([a, a], axis=-1) for a in (old, new)))
    return (below * each).sum(-1)


def _bare_of(formula: Formula) -> Formula:
    """The same of what both are one bijection of."""
    return lambda q, p: formula(q.base_dist, p.base_dist)


def _log_ratio(new: Array, old: Array, added: Array | None = None) -> Array:
    """``log(new / old)``, also where the two are nearly the same."""
    step = (new - old if added is None else added) / old
    near = jnp.abs(step) < 0.5
    return jnp.where(near, jnp.log1p(jnp.where(near, step, 0)), jnp.log(new) - jnp.log(old))


def _excess(x: Array) -> Array:
    """``exp(x) - 1 - x``, never negative."""
    near = jnp.abs(x) < 0.2
    s = jnp.where(near, x, 0)
    series = 1 / 2 + s * (1 / 6 + s * (1 / 24 + s * (1 / 120 + s * (1 / 720 + s / 5040))))
    if x.dtype == jnp.float64:
        tail = 1 / 40320 + s * (1 / 362880 + s * (1 / 3628800 + s / 39916800))
        series = series + s**6 * tail
    return jnp.where(near, s * s * series, jnp.expm1(x) - x)


def _remainder(old: Array, new: Array, added: Array | None = None) -> Array:
    """``[g](old, new)``: Stirling's series term by term, each a square times what is positive.

    Below 8 through ``log Gamma(x) = log Gamma(x + 6) - log x - ... - log(x + 5)``.
    """
    added = new - old if added is None else added
    far = jnp.minimum(old, new) > 8
    a, b, d = (jnp.where(far, x, 1.0) for x in (old, new, added))
    low, high, step = (jnp.where(far, 1.0, x) for x in (old, new, added))
    shifted = -high * _excess(-_log_ratio(high, low, step))
    for _ in range(6):
        shifted = shifted + _excess(_log_ratio(high, low, step))
        low, high = low + 1, high + 1
    shifted = shifted + high * _excess(-_log_ratio(high, low, step))
    a, b, d = (jnp.where(far, x, y) for x, y in ((a, low), (b, high), (d, step)))
    series = _excess(_log_ratio(b, a, d)) / 2
    for power, coefficient in _STIRLING.items():
        terms = sum(j * b ** (j - 1 - power) * a ** -(j + 1) for j in range(1, power + 1))
        series = series + coefficient * d * d * terms
    return jnp.where(far, series, shifted + series)


_STIRLING = {1: 1 / 12, 3: -1 / 360, 5: 1 / 1260, 7: -1 / 1680, 9: 1 / 1188}
"""``log Gamma(x) = (x - 1/2) log x - x + log(2 pi) / 2`` and these powers of 1 / x."""


_OURS: dict[tuple[type, ...], Formula] = {
    (dist.CategoricalProbs, dist.CategoricalLogits): _categorical,
    (dist.Gamma, dist.Chi2): _gamma,
    (dist.Beta,): _beta,
    (dist.Dirichlet,): _dirichlet,
    (dist.MultivariateNormal,): _normal_vector,
    (dist.WishartCholesky,): _wishart,
    (dist.InverseWishartCholesky,): _inverse_wishart,
    (dist.LKJCholesky,): _lkj,
    (dist.Wishart,): _bare_of(_wishart),
    (dist.InverseWishart,): _bare_of(_inverse_wishart),
    (dist.LKJ,): _bare_of(_lkj),
}
