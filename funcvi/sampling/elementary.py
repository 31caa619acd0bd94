"""The distributions that are made of no others, and what truncations and mixtures ask of them."""

import numpyro.distributions as dist

from funcvi.sampling import from_gamma, from_noise, multivariate, von_mises
from funcvi.sampling.record import Record, Univariate, own_record
from funcvi.sampling.tails import Tails

__all__ = ["RECORDS", "tails_of", "univariate_of"]

RECORDS: dict[type, Record] = {
    **from_noise.RECORDS,
    **from_gamma.RECORDS,
    **multivariate.RECORDS,
    **von_mises.RECORDS,
}


def _record(d: dist.Distribution) -> Record:
    return own_record(type(d)) or RECORDS.get(type(d)) or Record()


def univariate_of(d: dist.Distribution) -> Univariate | None:
    """How a value of d is made of a latent, where that is known."""
    return _record(d).univariate


def tails_of(d: dist.Distribution) -> Tails | None:
    """The tails of d in standard form, where it is a symmetric law whose tails are known."""
    return _record(d).tails
