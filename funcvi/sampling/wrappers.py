"""Distributions around others: the draw is the inner one's, in another shape or transformed."""

import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import transforms as nt

from funcvi._numpyro import mask_of, named
from funcvi._types import Key
from funcvi.sampling.point_transforms import through
from funcvi.sampling.points import Value
from funcvi.sampling.record import Draw, Kind, Record, Shape

__all__ = ["RECORDS", "base_of", "elementwise", "kind_after", "values_before"]


def base_of(d: dist.Distribution) -> list[dist.Distribution]:
    """The parts of a distribution that has one, its ``base_dist``."""
    return [d.base_dist]


def _same(d: dist.Distribution, key: Key, shape: Shape, draw: Draw) -> Value:
    return draw(d.base_dist, key, shape)


def _independent(d: dist.Independent, key: Key, shape: Shape, draw: Draw) -> Value:
    base = d.base_dist
    kept = len(base.batch_shape) - d.reinterpreted_batch_ndims
    return draw(base, key, (*shape, *base.batch_shape[kept:]))


def _transformed(d: dist.TransformedDistribution, key: Key, shape: Shape, draw: Draw) -> Value:
    """The base's draw through each transform in turn."""
    x = draw(d.base_dist, key, shape)
    for transform in d.transforms:
        x = through(transform, x)
    return x


def _mask_obstacle(d: dist.MaskedDistribution) -> str | None:
    if mask_of(d) is True:
        return None
    return "draws of MaskedDistribution do not follow its log_prob, which is zero where masked"


_TRANSFORMED = Record(compose=_transformed, parts=base_of)

RECORDS: dict[type, Record] = {
    dist.ExpandedDistribution: Record(compose=_same, parts=base_of),
    dist.MaskedDistribution: Record(compose=_same, parts=base_of, score=_mask_obstacle),
    dist.Independent: Record(compose=_independent, parts=base_of),
    **dict.fromkeys(
        named(
            "TransformedDistribution",
            "CirculantNormal",
            "FoldedDistribution",
            "GaussianStateSpace",
            "InverseWishart",
            "LKJ",
            "LogNormal",
            "LogUniform",
            "Pareto",
            "RelaxedBernoulliLogits",
            "Wishart",
            "ZeroSumNormal",
        ),
        _TRANSFORMED,
    ),
}


# ---- elementwise transforms, for the components of mixtures --------------------------------------

# Elementwise and monotone, with the support that each leads to. An affine one would carry the edge
# of a half line along with its parameters, so it is missing there.
_KINDS: dict[tuple[type, Kind | None], Kind] = {
    (nt.AffineTransform, "real"): "real",
    (nt.ExpTransform, "real"): "positive",
    (nt.SoftplusTransform, "real"): "positive",
    (nt.SigmoidTransform, "real"): "unit",
    (nt.PowerTransform, "positive"): "positive",
}


def kind_after(d: dist.TransformedDistribution, kind: Kind | None) -> Kind | None:
    """The support that the transforms of d lead to from this one, None where it is not known."""
    for transform in elementwise(d.transforms):
        kind = _KINDS.get((type(transform), kind))
    return kind


def elementwise(transforms: list[nt.Transform]) -> list[nt.Transform]:
    """Elementwise transforms, one after the other, out of whatever holds them."""
    parts: list[nt.Transform] = []
    for t in transforms:
        if isinstance(t, nt.ComposeTransform):
            parts += elementwise(t.parts)
        elif isinstance(t, nt.IndependentTransform):
            parts += elementwise([t.base_transform])
        elif not isinstance(t, nt.IdentityTransform):
            parts.append(t)
    return parts


def values_before(d: dist.TransformedDistribution, x: Array) -> list[Array]:
    """The value that each transform takes, and x at last."""
    values = [x]
    for transform in reversed(elementwise(d.transforms)):
        values.insert(0, transform.inv(values[0]))
    return values
