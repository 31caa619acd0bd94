"""Distributions that numpyro's own ``sample`` draws: what is known of their gradients."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi._numpyro import GATED, named
from funcvi._types import Key
from funcvi.sampling.dtypes import own_dtype
from funcvi.sampling.points import value_of
from funcvi.sampling.record import Draw, Record, Shape, discrete
from funcvi.sampling.wrappers import base_of

__all__ = ["RECORDS", "own_draw"]


def own_draw(d: dist.Distribution, key: Key, shape: Shape) -> Array:
    """By the class's own ``sample``."""
    axes = len(d.batch_shape)
    if shape[len(shape) - axes :] != d.batch_shape:
        d, axes = d.expand(shape), len(shape)
    try:
        return jnp.asarray(d.sample(key, shape[: len(shape) - axes]))
    except NotImplementedError as error:
        if str(error):
            raise
        raise NotImplementedError(
            f"numpyro has no draws of this {type(d).__name__}: what it is made of has no icdf. "
            "Give a copula a marginal that has one, with its parameters in full shape instead of "
            "expand."
        ) from None


def _hurdle(d: dist.Distribution, key: Key, shape: Shape, draw: Draw) -> Array:
    """Behind the gate our draws, of which none is zero, as those of numpyro's Gamma may be."""
    if d.base_dist.is_discrete:
        return own_draw(d, key, shape)
    gate_key, base_key = jax.random.split(key)
    shut = jax.random.bernoulli(gate_key, d.gate, shape)
    x = value_of(draw(d.base_dist, base_key, shape))
    return jnp.where(shut, jnp.zeros_like(x), x)


def _polya_gamma(d: dist.TruncatedPolyaGamma, key: Key, shape: Shape) -> Array:
    # numpyro 0.22 returns the batch axes before the sample axes.
    return jnp.asarray(dist.TruncatedPolyaGamma().sample(key, shape))


def _multinomial(d: dist.Distribution, key: Key, shape: Shape) -> Array:
    """Of one total numpyro draws ``total_count_max`` where that is given; of an array, each."""
    if d.total_count_max is None or d.batch_shape:
        return own_draw(d, key, shape)
    logits = isinstance(d, dist.MultinomialLogits)
    total = jnp.asarray(d.total_count)[None]
    row = type(d)(
        (d.logits if logits else d.probs)[None],
        total,
        total_count_max=d.total_count_max,
        validate_args=False,
    )
    return own_draw(row, key, (*shape, 1))[..., 0, :].astype(int)


def _nothing(d: dist.Unit, key: Key, shape: Shape) -> Array:
    """An array of size zero; numpyro's has the default dtype."""
    return jnp.zeros((*shape, 0), own_dtype(d))


def _because(what: str) -> Callable[[dist.Distribution], str]:
    return lambda d: what.format(type(d).__name__)


_gated = _because("{} opens its gate at random, so the gate gets no gradient")
_censored = _because("draws of {} do not follow its log_prob, which is a likelihood")
_unnormalised = _because("{} has no normalised density")
_CENSORED = named(
    "LeftCensoredDistribution", "RightCensoredDistribution", "IntervalCensoredDistribution"
)
_DISCRETE = named(
    "BernoulliLogits",
    "BernoulliProbs",
    "BetaNegativeBinomial",
    "BinomialLogits",
    "BinomialProbs",
    "CategoricalLogits",
    "CategoricalProbs",
    "DiscreteUniform",
    "GeometricLogits",
    "GeometricProbs",
    "NegativeBinomialLogits",
    "NegativeBinomialProbs",
    "OrderedLogistic",
    "Poisson",
)
# numpyro's ``has_rsample`` denies the gradients of Levy and EulerMaruyama, which are right.
_PATHWISE = named(
    "AsymmetricLaplaceQuantile",
    "CAR",
    "Dagum",
    "EulerMaruyama",
    "GaussianRandomWalk",
    "Levy",
    "ProjectedNormal",
)
_GATED = named("HurdleGamma", "HurdleLogNormal", "HurdlePoisson", "ZeroInflatedPoisson")

RECORDS: dict[type, Record] = {
    **dict.fromkeys(_DISCRETE, Record(pathwise=discrete)),
    **dict.fromkeys(
        named("MultinomialLogits", "MultinomialProbs"), Record(_multinomial, pathwise=discrete)
    ),
    **dict.fromkeys(_PATHWISE, Record()),
    **dict.fromkeys((*GATED, *_GATED), Record(pathwise=_gated, parts=base_of)),
    **dict.fromkeys(
        named("HurdleProbs", "HurdleLogits", "HurdleGamma", "HurdleLogNormal"),
        Record(compose=_hurdle, pathwise=_gated, parts=base_of),
    ),
    **dict.fromkeys(_CENSORED, Record(pathwise=_censored, score=_censored, parts=base_of)),
    **dict.fromkeys(
        named("GaussianCopula", "GaussianCopulaBeta"), Record(parts=lambda d: [d.marginal_dist])
    ),
    dist.TruncatedPolyaGamma: Record(_polya_gamma),
    dist.Delta: Record(score=_unnormalised),
    dist.ImproperUniform: Record(pathwise=_because("{} cannot be sampled"), score=_unnormalised),
    dist.Unit: Record(
        _nothing, pathwise=_because("{} is a factor, not a distribution"), score=_unnormalised
    ),
}
