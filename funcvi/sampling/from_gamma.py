"""Distributions made of Gamma draws. Ratios are taken in log space, where nothing underflows."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammainc, gammaincc
from jax.typing import ArrayLike
from numpyro.distributions.util import signed_stick_breaking_tril

from funcvi._types import Key
from funcvi.sampling import noise
from funcvi.sampling.dtypes import bounded_exp, inside, noise_dtype
from funcvi.sampling.gamma import (
    gamma_velocity,
    log_standard_gamma,
    standard_gamma,
    standard_gamma_and_log,
)
from funcvi.sampling.implicit import against, implicit
from funcvi.sampling.multivariate import times_vector
from funcvi.sampling.points import Point, value_of
from funcvi.sampling.record import Draw, Record, Shape, Univariate, discrete
from funcvi.sampling.wrappers import base_of
from funcvi.vector_bijections import CorrelationFactor

__all__ = ["RECORDS"]


def _gamma(d: dist.Gamma | dist.GammaPoisson, key: Key, shape: Shape) -> Point:
    concentration = _float(d.concentration, d)
    g, log_g = standard_gamma_and_log(key, concentration, shape)
    return Point(inside(g / d.rate, "positive"), log_g - jnp.log(jnp.asarray(d.rate, g.dtype)))


def _float(x: ArrayLike, d: dist.Distribution) -> Array:
    return jnp.asarray(x, noise_dtype(d))


def _log_odds(key: Key, one: Array, zero: Array, shape: Shape, *, bounded: bool = False) -> Array:
    """Of a Beta(one, zero) draw."""
    log_gamma = partial(log_standard_gamma, shape=shape, bounded=bounded)
    first, second = jax.random.split(key)
    return log_gamma(first, one) - log_gamma(second, zero)


def _beta(d: dist.Beta | dist.BetaBinomial, key: Key, shape: Shape) -> Point:
    one, zero = _float(d.concentration1, d), _float(d.concentration0, d)
    log_odds = _log_odds(key, one, zero, shape)
    logs = jax.nn.log_sigmoid(log_odds), jax.nn.log_sigmoid(-log_odds)
    bounded = _log_odds(key, one, zero, shape, bounded=True)
    return Point(inside(jax.nn.sigmoid(bounded)), *logs)


def _dirichlet(d: dist.Dirichlet | dist.DirichletMultinomial, key: Key, shape: Shape) -> Point:
    how = key, _float(d.concentration, d), (*shape, *d.event_shape)
    logs, bounded = log_standard_gamma(*how), log_standard_gamma(*how, bounded=True)
    return Point(inside(jax.nn.softmax(bounded, axis=-1)), jax.nn.log_softmax(logs, axis=-1))


def _inverse_gamma(d: dist.InverseGamma, key: Key, shape: Shape) -> Point:
    gamma = d.base_dist  # the attributes of d itself are lost when a pytree is rebuilt
    log_x = -log_standard_gamma(key, _float(gamma.concentration, d), shape)
    return Point(
        inside(gamma.rate * bounded_exp(log_x), "positive"), log_x + jnp.log(_float(gamma.rate, d))
    )


def _inverse_root(key: Key, df: ArrayLike, d: dist.Distribution, shape: Shape) -> Array:
    """``sqrt(df / chi2(df))``, through logs: a chi2 of few degrees of freedom underflows."""
    half = jnp.broadcast_to(_float(df, d), shape) / 2
    return bounded_exp((jnp.log(half) - log_standard_gamma(key, half, shape)) / 2)


def _student_t(d: dist.StudentT, key: Key, shape: Shape) -> Array:
    normal_key, gamma_key = jax.random.split(key)
    z = noise.normal(normal_key, shape, noise_dtype(d))
    return d.loc + d.scale * (z * _inverse_root(gamma_key, d.df, d, shape))


def _multivariate_student_t(d: dist.MultivariateStudentT, key: Key, shape: Shape) -> Array:
    normal_key, gamma_key = jax.random.split(key)
    z = noise.normal(normal_key, (*shape, *d.event_shape), noise_dtype(d))
    stretch = _inverse_root(gamma_key, d.df, d, shape)
    return d.loc + times_vector(d.scale_tril, z) * stretch[..., None]


def _bartlett(d: dist.Distribution, key: Key, shape: Shape, df: Array) -> Array:
    """Lower triangular: chi of ``df`` on the diagonal, normals below it (Bartlett 1933)."""
    size = d.event_shape[-1]
    normal_key, gamma_key = jax.random.split(key)
    below = jnp.tril(noise.normal(normal_key, (*shape, size, size), noise_dtype(d)), -1)
    half = jnp.broadcast_to(df / 2, (*shape, size))
    diagonal = jnp.sqrt(2 * standard_gamma(gamma_key, half, half.shape))
    return below + diagonal[..., None] * jnp.eye(size, dtype=diagonal.dtype)


def _wishart_cholesky(d: dist.WishartCholesky, key: Key, shape: Shape) -> Array:
    df = _float(d.concentration, d)[..., None] - jnp.arange(d.event_shape[-1])
    return d.scale_tril @ _bartlett(d, key, shape, df)


def _inverse_wishart_cholesky(d: dist.InverseWishartCholesky, key: Key, shape: Shape) -> Array:
    size = d.event_shape[-1]
    df = _float(d.concentration, d)[..., None] + jnp.arange(1 - size, 1)
    latent = _bartlett(d, key, shape, df)
    eye = jnp.broadcast_to(jnp.eye(size, dtype=latent.dtype), latent.shape)
    return d.scale_tril @ solve_triangular(latent, eye, lower=True)


def _lkj_cholesky(d: dist.LKJCholesky, key: Key, shape: Shape) -> Point:
    """Canonical partial correlations, each a Beta on (-1, 1) (Lewandowski et al. 2009,
    doi:10.1016/j.jmva.2009.04.008)."""
    size = d.dimension
    columns = jnp.concatenate([jnp.arange(i) for i in range(1, size)])
    a = _float(d.concentration, d)[..., None] + (size - 2 - columns) / 2
    # A Beta(a, a) on (-1, 1) is tanh of half its log odds, which keeps both ends.
    log_odds = _log_odds(key, a, a, (*shape, columns.size))
    bound = 1 - jnp.finfo(log_odds.dtype).eps
    x = signed_stick_breaking_tril(jnp.clip(jnp.tanh(log_odds / 2), -bound, bound))
    return Point(x, CorrelationFactor.log_diagonal(CorrelationFactor.log_rest(log_odds / 2)))


def _counts(latent: Draw, given: Callable[[dist.Distribution, Array], dist.Distribution]) -> Record:
    """Of a discrete distribution whose parameter is itself drawn."""

    def draw(d: dist.Distribution, key: Key, shape: Shape) -> Array:
        latent_key, key = jax.random.split(key)
        return jnp.asarray(given(d, value_of(latent(d, latent_key, shape))).sample(key))

    return Record(draw, pathwise=discrete)


def _poisson(d: dist.GammaPoisson, rate: Array) -> dist.Distribution:
    return dist.Poisson(rate, validate_args=False)


def _binomial(d: dist.BetaBinomial, probs: Array) -> dist.Distribution:
    return dist.BinomialProbs(probs, d.total_count, validate_args=False)


def _multinomial(d: dist.DirichletMultinomial, probs: Array) -> dist.Distribution:
    most = _most_trials(d)
    return dist.MultinomialProbs(probs, d.total_count, total_count_max=most, validate_args=False)


def _most_trials(d: dist.DirichletMultinomial) -> int | None:
    """A constant count stays one inside jit, where numpyro asks for its maximum."""
    if d.total_count_max is not None:
        return d.total_count_max
    try:
        with jax.ensure_compile_time_eval():
            return int(jnp.max(jnp.asarray(d.total_count)))
    except jax.errors.JAXTypeError:  # an argument of the compiled function
        return None


def _latent(d: dist.Gamma, x: Array) -> Array:
    g = jnp.clip(x * d.rate, jnp.finfo(x.dtype).tiny, 1e30)
    return jnp.broadcast_to(g, jnp.broadcast_shapes(jnp.shape(g), jnp.shape(d.concentration)))


def _value(d: dist.Gamma, g: Array) -> Array:
    return implicit(gamma_velocity, _concentration(d, g), g) / d.rate


def _anchor(d: dist.Gamma, g: Array) -> Array:
    return against(gamma_velocity, _concentration(d, g), g)


def _concentration(d: dist.Gamma, g: Array) -> Array:
    return jnp.broadcast_to(jnp.asarray(d.concentration, g.dtype), g.shape)


def _tails(d: dist.Gamma, g: Array) -> tuple[Array, Array]:
    # In the dtype of g: gammainc of two widths would fail.
    a = _concentration(d, g)
    return gammainc(a, g), gammaincc(a, g)


_GAMMA = Record(_gamma, univariate=Univariate("positive", _latent, _value, _tails, _anchor))

RECORDS: dict[type, Record] = {
    dist.Gamma: _GAMMA,
    dist.Chi2: _GAMMA,
    dist.InverseGamma: Record(_inverse_gamma, parts=base_of),
    dist.Beta: Record(_beta),
    dist.BetaProportion: Record(_beta),
    dist.Dirichlet: Record(_dirichlet),
    dist.StudentT: Record(_student_t),
    dist.MultivariateStudentT: Record(_multivariate_student_t),
    dist.WishartCholesky: Record(_wishart_cholesky),
    dist.InverseWishartCholesky: Record(_inverse_wishart_cholesky),
    dist.LKJCholesky: Record(_lkj_cholesky),
    dist.GammaPoisson: _counts(_gamma, _poisson),
    dist.NegativeBinomial2: _counts(_gamma, _poisson),
    dist.BetaBinomial: _counts(_beta, _binomial),
    dist.DirichletMultinomial: _counts(_dirichlet, _multinomial),
}
