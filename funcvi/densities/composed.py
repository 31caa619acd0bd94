"""Log densities of distributions made of others: numpyro's formulas, with our densities inside.

Each takes the distribution, a value, and ``log_prob``, which is that of the parts.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import logsumexp
from numpyro.distributions.discrete import ZeroInflatedLogits, ZeroInflatedProbs
from numpyro.distributions.transforms import Transform
from numpyro.distributions.util import sum_rightmost, validate_sample

from funcvi._numpyro import Mixture, mask_of, named
from funcvi.densities.within import within
from funcvi.sampling.point_transforms import before, log_det
from funcvi.sampling.points import Value, changed, value_of

__all__ = ["COMPOSED", "Composed", "transformed"]

Density: TypeAlias = Callable[[dist.Distribution, Value], Array]
Composed: TypeAlias = Callable[[dist.Distribution, Value, Density], Array]


def _independent(d: dist.Independent, x: Value, log_prob: Density) -> Array:
    return sum_rightmost(log_prob(d.base_dist, x), d.reinterpreted_batch_ndims)


def _expanded(d: dist.ExpandedDistribution, x: Value, log_prob: Density) -> Array:
    shape = jnp.broadcast_shapes(d.batch_shape, _leading(d, x))
    return jnp.broadcast_to(log_prob(d.base_dist, x), shape)


def _leading(d: dist.Distribution, x: Value) -> tuple[int, ...]:
    """The shape of a value without the event axes."""
    shape = value_of(x).shape
    return shape[: max(len(shape) - d.event_dim, 0)]


def _masked(d: dist.MaskedDistribution, x: Value, log_prob: Density) -> Array:
    mask, base = mask_of(d), d.base_dist
    if mask is True:
        return log_prob(base, x)
    if mask is False:
        return jnp.zeros(jnp.broadcast_shapes(base.batch_shape, _leading(d, x)))
    return jnp.where(mask, log_prob(base, _feasible(base, x, mask)), 0.0)


def transformed(
    d: dist.TransformedDistribution,
    x: Value,
    log_prob: Density,
    intermediates: list[Any] | None = None,
) -> Array:
    """By change of variables.

    Args:
        d: the distribution.
        x: values of shape (*sample, *batch, *event).
        log_prob: of its base.
        intermediates: for each transform what it was given, and what its Jacobian can use again.

    Raises:
        TypeError: a transform has no log determinant, as folding at zero.
    """
    for transform in d.transforms:
        if type(transform).log_abs_det_jacobian is Transform.log_abs_det_jacobian:
            raise TypeError(
                f"{type(d).__name__} has no density: its {type(transform).__name__} has no log "
                "determinant. Put a FoldedDistribution outermost, or another transform."
            )
    total: Array | float = 0.0
    event_dim = d.event_dim
    for i, transform in reversed(list(enumerate(d.transforms))):
        if intermediates is None:
            x, change = before(transform, x)
        else:
            y, (x, extra) = x, intermediates[i]
            change = log_det(transform, x, y, extra)
        batch_ndim = event_dim - transform.codomain.event_dim
        total = total - sum_rightmost(change, batch_ndim)
        event_dim = transform.domain.event_dim + batch_ndim
    return total + sum_rightmost(log_prob(d.base_dist, x), event_dim - d.base_dist.event_dim)


def _folded(d: dist.FoldedDistribution, x: Value, log_prob: Density) -> Array:
    """Of both signs; numpyro's own leaves out the transforms of what is folded."""
    x = value_of(x)
    inner = d.base_dist
    if d.transforms[:-1]:
        inner = dist.TransformedDistribution(inner, d.transforms[:-1], validate_args=False)
    signs = jnp.array([1.0, -1.0]).reshape(2, *(1,) * max(len(d.batch_shape), x.ndim))
    return logsumexp(_inside(inner, signs * x, log_prob), axis=0)


def _inside(d: dist.Distribution, x: Value, log_prob: Density) -> Array:
    inside = within(d, value_of(x))
    if inside is True:
        return log_prob(d, x)
    return jnp.where(inside, log_prob(d, _feasible(d, x, inside)), -jnp.inf)


def _feasible(d: dist.Distribution, x: Value, kept: Any) -> Value:
    """Values of finite density in place of those not kept: no NaN comes from behind a mask."""
    try:
        instead = d.support.feasible_like(value_of(x))
    except NotImplementedError:
        return x
    wide = jnp.reshape(kept, jnp.shape(kept) + (1,) * d.event_dim)
    return changed(x, lambda x: jnp.where(wide, x, instead))


def _mixture(d: dist.Distribution, x: Value, log_prob: Density) -> Array:
    """Each component counts on its own support alone."""
    if type(d).component_log_probs not in _COMPONENTS:
        return jnp.asarray(d.log_prob(value_of(x)))
    if isinstance(d, dist.MixtureSameFamily):
        wide = changed(x, lambda x: jnp.expand_dims(x, d.mixture_dim))
        each = _inside(d.component_distribution, wide, log_prob)
    else:
        each = jnp.stack([_inside(c, x, log_prob) for c in d.component_distributions], axis=-1)
    terms = jax.nn.log_softmax(d.mixing_distribution.logits) + each
    # Where a term is minus infinity, a constant: it has no gradient to give but NaN.
    return logsumexp(jnp.where(jnp.isneginf(terms), -jnp.inf, terms), axis=-1)


def _log_gates(d: dist.Distribution) -> tuple[Array, Array]:
    """Log of the gate, and of one less it."""
    if hasattr(d, "gate_logits"):
        return jax.nn.log_sigmoid(d.gate_logits), jax.nn.log_sigmoid(-d.gate_logits)
    return jnp.log(d.gate), jnp.log1p(-d.gate)


def _zero_inflated(d: dist.Distribution, x: Value, log_prob: Density) -> Array:
    log_gate, log_rest = _log_gates(d)
    through = log_rest + log_prob(d.base_dist, x)
    if hasattr(d, "gate_logits"):
        zero = jnp.logaddexp(log_gate, through)
    else:  # a gate of zero has a gradient, its logarithm has not
        zero = jnp.log(d.gate + jnp.exp(through))
    return jnp.where(value_of(x) == 0, zero, through)


def _hurdle(d: dist.Distribution, x: Value, log_prob: Density) -> Array:
    log_gate, log_rest = _log_gates(d)
    is_zero = value_of(x) == 0
    positive = changed(x, lambda x: jnp.where(is_zero, jnp.ones_like(x), x))
    through = log_rest + log_prob(d.base_dist, positive)
    if d.base_dist.is_discrete:
        zero = log_prob(d.base_dist, jnp.zeros((), jnp.result_type(int)))
        through = through - jax.nn.log1mexp(-zero)
    return jnp.where(is_zero, log_gate, through)


def _sine_skewed(d: dist.SineSkewed, x: Value, log_prob: Density) -> Array:
    skew = jnp.sum(d.skewness * jnp.sin(value_of(x) - d.base_dist.mean), axis=-1)
    return log_prob(d.base_dist, x) + jnp.log1p(skew)


_COMPONENTS = (
    dist.MixtureSameFamily.component_log_probs,
    dist.MixtureGeneral.component_log_probs,
)

#: By the ``log_prob`` of a class, so that a class that has one of its own keeps it.
COMPOSED: dict[object, Composed] = {
    dist.Independent.log_prob: _independent,
    dist.ExpandedDistribution.log_prob: _expanded,
    dist.MaskedDistribution.log_prob: _masked,
    dist.TransformedDistribution.log_prob: validate_sample(transformed),
    dist.FoldedDistribution.log_prob: validate_sample(_folded),
    dist.SineSkewed.log_prob: validate_sample(_sine_skewed),
    Mixture.log_prob: validate_sample(_mixture),
    ZeroInflatedProbs.log_prob: validate_sample(_zero_inflated),
    ZeroInflatedLogits.log_prob: validate_sample(_zero_inflated),
    **{kind.log_prob: validate_sample(_hurdle) for kind in named("HurdleProbs")},
}
