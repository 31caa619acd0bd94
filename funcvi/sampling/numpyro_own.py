"""Distributions that numpyro's own ``sample`` draws: what is known of their gradients."""

from collections.abc import Callable

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi._numpyro import GATED, named
from funcvi._types import Key
from funcvi.sampling.record import Record, Shape, discrete
from funcvi.sampling.wrappers import base_of

__all__ = ["RECORDS"]


def _polya_gamma(d: dist.TruncatedPolyaGamma, key: Key, shape: Shape) -> Array:
    # numpyro 0.22 returns the batch axes before the sample axes.
    return jnp.asarray(dist.TruncatedPolyaGamma().sample(key, shape))


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
    "MultinomialLogits",
    "MultinomialProbs",
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
    **dict.fromkeys(_PATHWISE, Record()),
    **dict.fromkeys((*GATED, *_GATED), Record(pathwise=_gated, parts=base_of)),
    **dict.fromkeys(_CENSORED, Record(pathwise=_censored, score=_censored, parts=base_of)),
    **dict.fromkeys(
        named("GaussianCopula", "GaussianCopulaBeta"), Record(parts=lambda d: [d.marginal_dist])
    ),
    dist.TruncatedPolyaGamma: Record(_polya_gamma),
    dist.Delta: Record(score=_unnormalised),
    dist.ImproperUniform: Record(pathwise=_because("{} cannot be sampled"), score=_unnormalised),
    dist.Unit: Record(pathwise=_because("{} is a factor, not a distribution"), score=_unnormalised),
}
