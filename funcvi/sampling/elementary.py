"""The distributions that are made of no others, and what truncations and mixtures ask of them."""

import numpyro.distributions as dist

from funcvi.sampling import from_gamma, from_noise, multivariate, von_mises
from funcvi.sampling.record import Record, own_record

__all__ = ["RECORDS", "elementary_record"]

RECORDS: dict[type, Record] = {
    **from_noise.RECORDS,
    **from_gamma.RECORDS,
    **multivariate.RECORDS,
    **von_mises.RECORDS,
}


def elementary_record(d: dist.Distribution) -> Record:
    """What is known of d by itself; an empty record for a distribution made of others."""
    return own_record(type(d)) or RECORDS.get(type(d)) or Record()
