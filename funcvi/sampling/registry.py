"""Which record belongs to which distribution, and the draws that follow from it."""

from dataclasses import replace

import numpyro.distributions as dist
from jax import Array

from funcvi._types import Key
from funcvi.sampling import (
    circular,
    elementary,
    mixture,
    numpyro_own,
    truncated,
    truncated_gamma,
    wrappers,
)
from funcvi.sampling.dtypes import own_dtype
from funcvi.sampling.points import Value, value_of
from funcvi.sampling.record import Record, Shape, discrete, own_record
from funcvi.sampling.rounding import inside_support, is_half, widened

__all__ = ["RECORDS", "draw", "raw_point", "raw_sample", "record_of"]

#: Of every class of numpyro.
RECORDS: dict[type, Record] = {
    **elementary.RECORDS,
    **circular.RECORDS,
    **truncated.RECORDS,
    **truncated_gamma.RECORDS,
    **mixture.RECORDS,
    **wrappers.RECORDS,
    **numpyro_own.RECORDS,
}


def record_of(d: dist.Distribution) -> Record:
    """What is known of the class of d.

    A class has the record that it brings along, else the one in the table above, else, where it
    inherits ``sample`` unchanged, that of the class it inherits from. Another class of one's own is
    trusted where it declares its ``reparametrized_params``; what is left is unknown, and its
    gradients are refused.
    """
    kind = type(d)
    record, trusted = _UNKNOWN, False
    for base in kind.__mro__:
        known = own_record(base) or RECORDS.get(base)
        if known is not None:
            if base is kind:
                return known
            if all(getattr(kind, m, None) is getattr(base, m, None) for m in _SAMPLING):
                # What its density has become, mixtures and truncations cannot know.
                record = replace(known, univariate=None, tails=None)
            break
        if base is dist.Distribution:
            break
        if base.__module__.partition(".")[0] != "numpyro":
            trusted = trusted or any(name in vars(base) for name in _DECLARATIONS)
    return replace(record, pathwise=_declared) if trusted else record


def raw_sample(d: dist.Distribution, key: Key, sample_shape: Shape) -> Array:
    """The draws with whatever gradient they carry, as wide as the distribution's parameters."""
    return value_of(raw_point(d, key, sample_shape))


def raw_point(d: dist.Distribution, key: Key, sample_shape: Shape) -> Value:
    """The same draws, with their logarithms where the density may need them."""
    wide = widened(d) if is_half(own_dtype(d)) else d
    return inside_support(d, draw(wide, key, (*sample_shape, *d.batch_shape)))


def draw(d: dist.Distribution, key: Key, shape: Shape) -> Value:
    """Draws of shape (*shape, *event), with whatever gradient they carry."""
    record = record_of(d)
    if record.draw is not None:
        return record.draw(d, key, shape)
    if record.compose is not None:
        return record.compose(d, key, shape, draw)
    if type(d).sample is dist.Distribution.sample:
        raise TypeError(
            f"{type(d).__name__} cannot be drawn from: define sample(key, sample_shape), or give "
            "the class a sampling_record (funcvi.sampling.from_cdf, where its cdf is known)."
        )
    return numpyro_own.own_draw(d, key, shape)


def _unknown(d: dist.Distribution) -> str | None:
    if d.is_discrete:
        return discrete(d)
    return (
        f"whether draws of {type(d).__name__} move with its parameters is not known: declare them "
        "in its reparametrized_params, or give the class a sampling_record"
    )


def _declared(d: dist.Distribution) -> str | None:
    return None if d.has_rsample else f"{type(d).__name__}.has_rsample is False"


_DECLARATIONS = ("reparametrized_params", "has_rsample")
_SAMPLING = ("sample", "rsample", "icdf")
_UNKNOWN = Record(pathwise=_unknown)
