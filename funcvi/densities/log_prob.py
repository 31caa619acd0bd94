"""Which log density belongs to which distribution: ours where numpyro's is wrong in float32."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions.util import validate_sample

from funcvi.densities.censored import CENSORED
from funcvi.densities.composed import COMPOSED, transformed
from funcvi.densities.elementary import DENSITIES
from funcvi.densities.logarithmic import LOGARITHMIC, at_value
from funcvi.densities.truncated import log_prob_truncated
from funcvi.densities.truncated_gamma import TRUNCATED_GAMMAS, log_prob_truncated_gamma
from funcvi.densities.within import within
from funcvi.sampling.draw import unvalidated
from funcvi.sampling.points import Point, Value, value_of

__all__ = ["log_prob", "log_prob_within"]

#: By the ``log_prob`` of a class of numpyro; what is in neither table is numpyro's own.
_ELEMENTARY: dict[object, Callable[[dist.Distribution, Array], Array]] = {
    **dict.fromkeys(
        (
            dist.LeftTruncatedDistribution.log_prob,
            dist.RightTruncatedDistribution.log_prob,
            dist.TwoSidedTruncatedDistribution.log_prob,
        ),
        validate_sample(log_prob_truncated),
    ),
    **{k.log_prob: validate_sample(log_prob_truncated_gamma) for k in TRUNCATED_GAMMAS},
    **dict.fromkeys(LOGARITHMIC, validate_sample(at_value)),
    **{method: validate_sample(density) for method, density in DENSITIES.items()},
}


def log_prob(
    d: dist.Distribution, x: ArrayLike | Point, intermediates: list[Any] | None = None
) -> Array:
    """The log density of d, as ``d.log_prob``, and as exact as our draws.

    A class whose ``log_prob`` is its own keeps it.

    Args:
        d: any distribution.
        x: values of shape (*sample, *batch, *event), with their logarithms where they are known.
        intermediates: as ``d.log_prob`` takes them: of a TransformedDistribution, what each
            transform was given, so that nothing is inverted.

    Returns:
        Shape (*sample, *batch), in nats.

    Example:
        >>> import numpyro.distributions as dist
        >>> round(float(log_prob(dist.Normal(0.0, 1.0), 0.0)), 4)
        -0.9189
    """
    method = type(d).log_prob
    if not isinstance(x, Point):
        x = jnp.asarray(x)
    if intermediates and method is dist.TransformedDistribution.log_prob:
        return transformed(d, x, log_prob, intermediates)
    if isinstance(x, Point):
        d = unvalidated(d)
        if method in LOGARITHMIC:
            return LOGARITHMIC[method](d, x)
    if intermediates:
        return jnp.asarray(d.log_prob(value_of(x), intermediates))
    if method in COMPOSED:
        return COMPOSED[method](d, x, log_prob)
    if method in CENSORED:
        return CENSORED[method](d, x, log_prob)
    if method in _ELEMENTARY:
        return _ELEMENTARY[method](d, value_of(x))
    return jnp.asarray(d.log_prob(value_of(x)))


def log_prob_within(d: dist.Distribution) -> Callable[[Value], Array]:
    """The log density of d, minus infinity where a value is outside its support.

    numpyro's own are not where values are not validated, and do not see an edge that an affine
    transform has moved.

    Example:
        >>> import numpyro.distributions as dist
        >>> from numpyro.distributions import transforms
        >>> shifted = transforms.AffineTransform(1.0, 2.0)
        >>> log_p = log_prob_within(dist.TransformedDistribution(dist.Exponential(1.0), shifted))
        >>> float(log_p(jnp.array(0.5)))
        -inf
    """

    bare = unvalidated(d)  # what is outside has an answer here, and needs no warning

    def within_support(x: Value) -> Array:
        inside, values = within(d, value_of(x)), log_prob(bare, x)
        return values if inside is True else jnp.where(inside, values, -jnp.inf)

    return within_support
