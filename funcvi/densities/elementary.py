"""Log densities without the cancellations and overflows of numpyro's, of plain values."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.lax import stop_gradient
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import i0e

from funcvi.densities.lkj import log_lkj_density
from funcvi.densities.stirling import (
    log_beta_density,
    log_dirichlet_density,
    log_poisson,
    log_rising,
)
from funcvi.sampling.dtypes import own_dtype
from funcvi.sampling.multivariate import times_vector
from funcvi.sampling.polynomials import horner

__all__ = ["DENSITIES"]


def _wide(d: dist.Distribution, *values: Any) -> list[Array]:
    """As floats of one dtype, float32 at least."""
    floating = [v for v in values if jnp.issubdtype(jnp.result_type(v), jnp.floating)]
    dtype = jnp.promote_types(jnp.result_type(own_dtype(d), *floating), jnp.float32)
    return [jnp.asarray(v, dtype) for v in values]


def _student_t(d: dist.StudentT, x: Array) -> Array:
    x, df, loc, scale = _wide(d, x, d.df, d.loc, d.scale)
    u = jnp.abs(x - loc) / (scale * jnp.sqrt(df))
    far = u > 1e9
    near = jnp.log1p(jnp.square(jnp.where(far, 0.0, u)))
    growth = jnp.where(far, 2 * jnp.log(jnp.where(far, u, 1.0)), near)
    norm = log_rising(df / 2, jnp.full_like(df, 0.5)) - math.log(2 * math.pi) / 2 - jnp.log(scale)
    return norm - (df + 1) / 2 * growth


def _multivariate_student_t(d: dist.MultivariateStudentT, x: Array) -> Array:
    x, df, loc, factor = _wide(d, x, d.df, d.loc, d.scale_tril)
    size = factor.shape[-1]
    inverse = solve_triangular(factor, jnp.broadcast_to(jnp.eye(size), factor.shape), lower=True)
    square = jnp.sum(jnp.square(times_vector(inverse, x - loc)), axis=-1)
    log_det = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
    norm = log_rising(df / 2, jnp.full_like(df, size / 2)) - size * math.log(2 * math.pi) / 2
    return norm - log_det - (df + size) / 2 * jnp.log1p(square / df)


def _lkj_cholesky(d: dist.LKJCholesky, x: Array) -> Array:
    (x,) = _wide(d, x)
    return log_lkj_density(d, jnp.log(jnp.diagonal(x, axis1=-2, axis2=-1)))


def _von_mises(d: dist.VonMises, x: Array) -> Array:
    x, loc, k = _wide(d, x, d.loc, d.concentration)
    far = k > 50
    large, small = jnp.where(far, k, 50.0), jnp.where(far, 1.0, k)
    series = horner([1, 1 / 8, 9 / 128, 225 / 3072, 11025 / 98304, 893025 / 3932160], 1 / large)
    asymptotic = jnp.log(series) - jnp.log(2 * math.pi * large) / 2
    log_bessel = jnp.where(far, asymptotic, jnp.log(i0e(small)))
    return -2 * k * jnp.sin((x - loc) / 2) ** 2 - math.log(2 * math.pi) - log_bessel


def _doubly_truncated_power(d: dist.DoublyTruncatedPowerLaw, x: Array) -> Array:
    """An exponential density of log x on an interval, seen from the end where it is larger."""
    x, alpha, low, high = _wide(d, x, d.alpha, d.low, d.high)
    slope, bounded = alpha + 1, low > 0
    start = jnp.where(bounded, low, high / 2)
    width = jnp.log(high / start)
    k = slope * width
    rising = slope > 0
    k = jnp.where(rising, k, -k)
    near = k < 0.1
    fall, small = jnp.where(near, 1.0, k), jnp.where(near, k, 0.0)
    # log((1 - exp(-k)) / k) of a positive k.
    series = small * (-1 / 2 + small * (1 / 24 - small**2 / 2880))
    log_mean = jnp.where(near, series, jnp.log(-jnp.expm1(-fall) / fall))
    from_end = jnp.where(rising, jnp.log(x / high), jnp.log(x / start))
    inside = slope * from_end - jnp.log(x) - jnp.log(width) - log_mean
    open_slope = jnp.where(bounded | ~rising, 1.0, slope)
    below = slope * jnp.log(x / high) - jnp.log(x) + jnp.log(open_slope)
    return jnp.where(bounded, inside, below)


# ---- counts --------------------------------------------------------------------------------------


def _poisson(d: dist.Poisson, x: Array) -> Array:
    if d.is_sparse:
        return jnp.asarray(d.log_prob(x))
    k, rate = _wide(d, x, d.rate)
    some = rate > 0
    return log_poisson(k, rate, jnp.where(some, jnp.log(jnp.where(some, rate, 1.0)), -jnp.inf))


def _binomial(k: Array, n: Array, parts: tuple[Array, Array], logs: tuple[Array, Array]) -> Array:
    """Two Poisson counts, given their sum."""
    total = log_poisson(n, n, jnp.log(n))
    ones, zeros = (
        log_poisson(count, n * part, jnp.log(n) + log)
        for count, part, log in zip((k, n - k), parts, logs, strict=True)
    )
    return ones + zeros - total


def _binomial_probs(d: dist.BinomialProbs, x: Array) -> Array:
    k, n, probs = _wide(d, x, d.total_count, d.probs)
    return _binomial(k, n, (probs, 1 - probs), _logs(probs))


def _binomial_logits(d: dist.BinomialLogits, x: Array) -> Array:
    k, n, logits = _wide(d, x, d.total_count, d.logits)
    parts = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    return _binomial(k, n, parts, (jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)))


def _bernoulli_probs(d: dist.BernoulliProbs, x: Array) -> Array:
    x, probs = _wide(d, x, d.probs)
    one, zero = _logs(probs)
    never, always = (x == 0) & (probs <= 0), (x == 1) & (probs >= 1)
    return jnp.where(never, 0, x * one) + jnp.where(always, 0, (1 - x) * zero)


def _logs(probs: Array) -> tuple[Array, Array]:
    """Of probabilities and of one less them; where infinite, a constant without a gradient."""
    some, rest = probs > 0, probs < 1
    log_probs = jnp.where(some, jnp.log(jnp.where(some, probs, 1.0)), -jnp.inf)
    return log_probs, jnp.where(rest, jnp.log1p(-jnp.where(rest, probs, 0.0)), -jnp.inf)


def _bernoulli_logits(d: dist.BernoulliLogits, x: Array) -> Array:
    """numpyro's has a gradient of 0 or 1 for 1/2 at logits of exactly zero, where many start."""
    x, logits = _wide(d, x, d.logits)
    return jax.nn.log_sigmoid((2 * x - 1) * logits)


def _multinomial(k: Array, n: Array, probs: Array, log_probs: Array) -> Array:
    wide = n[..., None]
    each = log_poisson(k, wide * probs, jnp.log(wide) + log_probs)
    return jnp.sum(each, axis=-1) - log_poisson(n, n, jnp.log(n))


def _multinomial_probs(d: dist.MultinomialProbs, x: Array) -> Array:
    k, n, probs = _wide(d, x, d.total_count, d.probs)
    return _multinomial(k, n, probs, _logs(probs)[0])


def _multinomial_logits(d: dist.MultinomialLogits, x: Array) -> Array:
    k, n, logits = _wide(d, x, d.total_count, d.logits)
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    return _multinomial(k, n, jnp.exp(log_probs), log_probs)


# Counts whose parameter has been integrated out, by Bayes' rule at any value of the parameter:
# p(k) = p(k | value) prior(value) / posterior(value). The posterior's mean is where nothing is far.


def _gamma_poisson(d: dist.GammaPoisson, x: Array) -> Array:
    k, a, rate = _wide(d, x, d.concentration, d.rate)
    parts, logs = (rate / (1 + rate), 1 / (1 + rate)), (-jnp.log1p(1 / rate), -jnp.log1p(rate))
    if isinstance(d, dist.NegativeBinomialProbs):  # whose rate is a difference
        (probs,) = _wide(d, d.probs)
        parts, logs = (1 - probs, probs), (jnp.log1p(-probs), jnp.log(probs))
    return _waiting(k, a, parts, logs)


def _negative_binomial_logits(d: dist.NegativeBinomialLogits, x: Array) -> Array:
    """The rate is exp(-logits)."""
    k, a, logits = _wide(d, x, d.total_count, d.logits)
    share, log_share = jax.nn.sigmoid(-logits), jax.nn.log_sigmoid(-logits)
    return _waiting(k, a, (share, jax.nn.sigmoid(logits)), (log_share, jax.nn.log_sigmoid(logits)))


def _waiting(k: Array, a: Array, parts: tuple[Array, Array], logs: tuple[Array, Array]) -> Array:
    """Of k failures before a successes of this probability: a Beta density of it, rescaled."""
    beta = log_beta_density(a, k + 1, parts, logs)
    return beta + logs[0] - jnp.log(a + k)


def _beta_binomial(d: dist.BetaBinomial, x: Array) -> Array:
    k, n, one, zero = _wide(d, x, d.total_count, d.concentration1, d.concentration0)
    total = one + zero + n
    parts = stop_gradient((k + one) / total), stop_gradient((n - k + zero) / total)
    logs = jnp.log(parts[0]), jnp.log(parts[1])
    prior = log_beta_density(one, zero, parts, logs)
    posterior = log_beta_density(one + k, zero + (n - k), parts, logs)
    return _binomial(k, n, parts, logs) + prior - posterior


def _beta_negative_binomial(d: dist.BetaNegativeBinomial, x: Array) -> Array:
    """The probability of what is counted is a Beta variable."""
    k, n, one, zero = _wide(d, x, d.n, d.concentration1, d.concentration0)
    total = one + zero + n + k
    parts = stop_gradient((k + one) / total), stop_gradient((n + zero) / total)
    logs = jnp.log(parts[0]), jnp.log(parts[1])
    prior = log_beta_density(one, zero, parts, logs)
    posterior = log_beta_density(one + k, zero + n, parts, logs)
    return _waiting(k, n, parts[::-1], logs[::-1]) + prior - posterior


def _dirichlet_multinomial(d: dist.DirichletMultinomial, x: Array) -> Array:
    k, a = _wide(d, x, d.concentration)
    n = jnp.sum(k, axis=-1)
    probs = stop_gradient((k + a) / jnp.sum(k + a, axis=-1, keepdims=True))
    logs = jnp.log(probs)
    ratio = log_dirichlet_density(a, probs, logs) - log_dirichlet_density(a + k, probs, logs)
    return _multinomial(k, n, probs, logs) + ratio


DENSITIES: dict[object, Callable[[dist.Distribution, Array], Array]] = {
    dist.StudentT.log_prob: _student_t,
    dist.MultivariateStudentT.log_prob: _multivariate_student_t,
    dist.LKJCholesky.log_prob: _lkj_cholesky,
    dist.VonMises.log_prob: _von_mises,
    dist.DoublyTruncatedPowerLaw.log_prob: _doubly_truncated_power,
    dist.Poisson.log_prob: _poisson,
    dist.BernoulliProbs.log_prob: _bernoulli_probs,
    dist.BernoulliLogits.log_prob: _bernoulli_logits,
    dist.BinomialProbs.log_prob: _binomial_probs,
    dist.BinomialLogits.log_prob: _binomial_logits,
    dist.MultinomialProbs.log_prob: _multinomial_probs,
    dist.MultinomialLogits.log_prob: _multinomial_logits,
    dist.GammaPoisson.log_prob: _gamma_poisson,
    dist.NegativeBinomialLogits.log_prob: _negative_binomial_logits,
    dist.BetaBinomial.log_prob: _beta_binomial,
    dist.BetaNegativeBinomial.log_prob: _beta_negative_binomial,
    dist.DirichletMultinomial.log_prob: _dirichlet_multinomial,
}
