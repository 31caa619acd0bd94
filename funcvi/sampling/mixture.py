"""Draws of mixtures, with gradients for the weights too: implicit reparameterisation.

A draw x of a mixture of univariate components is a quantile of ``F = sum_k w_k F_k``. At that
quantile it moves with the parameters by

    dx = (sum_k w_k p_k(x) dx_k - sum_k dw_k F_k(x)) / sum_k w_k p_k(x),

dx_k being what component k alone would do there (Figurnov et al. 2018, arXiv:1805.08498). A draw of
several coordinates moves one coordinate after the other: given those before it, each has a mixture
for its law too, with the components' posterior weights (Graves 2016, arXiv:1607.05690).

Between components far apart the density is small and dx large: unbiased, with a variance that grows
with the gap. Summing over the components, as ``fv.kl`` does unasked, has no such variance.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from jax.scipy.special import logsumexp, ndtr
from jax.tree_util import PyTreeDef

from funcvi._numpyro import Mixture
from funcvi._types import Key
from funcvi.sampling import noise
from funcvi.sampling.dtypes import inside, noise_dtype
from funcvi.sampling.elementary import elementary_record
from funcvi.sampling.implicit import against, implicit
from funcvi.sampling.multivariate import (
    is_normal_vector,
    loc_and_factor,
    times_vector,
    whitened,
)
from funcvi.sampling.points import Point, Value, changed, together, value_of
from funcvi.sampling.record import Draw, Kind, Record, Shape, unwrapped
from funcvi.sampling.wrappers import elementwise, kind_after, values_before

__all__ = ["RECORDS", "at_fixed_quantile", "mixture_obstacle"]

_LOG_2_PI = math.log(2 * math.pi)
_SAME = (dist.Independent, dist.ExpandedDistribution)
_WIDEST_FIRST: tuple[Kind, ...] = ("real", "positive", "unit")
_LARGEST_EXPONENT = 60.0  # exp of it and its square are float32


# ---- which mixtures -----------------------------------------------------------------------------


def mixture_obstacle(d: Mixture) -> str | None:
    """Why draws of a mixture cannot move with its weights; None if they can.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> weights = dist.Categorical(probs=jnp.array([0.3, 0.7]))
        >>> mixture_obstacle(dist.MixtureSameFamily(weights, dist.Gamma(jnp.ones(2), 1.0)))
        >>> print(mixture_obstacle(dist.MixtureSameFamily(weights, dist.Poisson(jnp.ones(2)))))
        MixtureSameFamily of Poisson: discrete, so its weights get no gradient
    """
    name = type(d).__name__
    for c in _components(d):
        if _kind(c) is None:
            why = "discrete" if c.is_discrete else "no derivative of its cdf is known"
            inner = type(unwrapped(c, *_SAME, dist.MaskedDistribution)).__name__
            return f"{name} of {inner}: {why}, so its weights get no gradient"
    if _support(d) is None:
        return f"{name} of different supports, so its weights get no gradient"
    return None


def _components(d: Mixture) -> list[dist.Distribution]:
    if isinstance(d, dist.MixtureSameFamily):
        return [d.component_distribution]
    return list(d.component_distributions)


def _support(d: Mixture) -> Kind | None:
    """The support of a mixture, without a gap that a draw would have to jump over."""
    kinds = {_kind(c) for c in _components(d)}
    if None in kinds or (len(kinds) > 1 and d.event_dim):
        # Coordinate by coordinate, a density that jumps would make the next one jump.
        return None
    return next(kind for kind in _WIDEST_FIRST if kind in kinds)


def _kind(d: dist.Distribution) -> Kind | None:
    """The support of each coordinate of a component, None where its law is not known."""
    return "real" if is_normal_vector(d) else _elementwise_kind(d)


def _elementwise_kind(d: dist.Distribution) -> Kind | None:
    if isinstance(d, _SAME):
        return _elementwise_kind(d.base_dist)
    if (univariate := elementary_record(d).univariate) is not None:
        return univariate.kind
    if isinstance(d, Mixture) and not d.event_dim:
        kinds = {_kind(c) for c in _components(d)}
        return kinds.pop() if len(kinds) == 1 else None
    if type(d).log_prob is not dist.TransformedDistribution.log_prob:
        return None
    return kind_after(d, _elementwise_kind(d.base_dist))


# ---- one coordinate of one component ------------------------------------------------------------


def _reparameterised(d: dist.Distribution, fixed: dist.Distribution, x: Array) -> Array:
    """x, moving with the parameters of d as a draw at the quantile does that x has in ``fixed``.

    Both have the same values. Another argument, and not ``stop_gradient``, so that the derivative
    can be differentiated once more.
    """
    if isinstance(d, _SAME):
        return _reparameterised(d.base_dist, fixed.base_dist, x)
    if isinstance(d, Mixture):
        x = jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, d.batch_shape))
        return at_fixed_quantile(d, against(*_velocity_of(fixed), x))
    if (univariate := elementary_record(d).univariate) is not None:
        return univariate.value(d, univariate.anchor(fixed, univariate.latent(fixed, x)))
    value = _reparameterised(d.base_dist, fixed.base_dist, values_before(fixed, x)[0])
    for transform in elementwise(d.transforms):
        value = transform(value)
    return value


def _log_density(d: dist.Distribution, x: Array) -> Array:
    if isinstance(d, _SAME):
        return _log_density(d.base_dist, x)
    if isinstance(d, dist.TransformedDistribution):
        values = values_before(d, x)
        total = _log_density(d.base_dist, values[0])
        for t, inner, outer in zip(elementwise(d.transforms), values[:-1], values[1:], strict=True):
            total = total - t.log_abs_det_jacobian(inner, outer)
        return total
    return jnp.asarray(d.log_prob(x))


def _tails(d: dist.Distribution, x: Array) -> tuple[Array, Array]:
    """F and 1 - F."""
    if isinstance(d, _SAME):
        return _tails(d.base_dist, x)
    if (univariate := elementary_record(d).univariate) is not None:
        return univariate.tails(d, univariate.latent(d, x))
    if isinstance(d, Mixture):
        lower, upper = _over_components(_tails, x, d)
        weights = _weights(d)
        return jnp.sum(weights * lower[..., 0], -1), jnp.sum(weights * upper[..., 0], -1)
    inner = values_before(d, x)[0]
    lower, upper = _tails(d.base_dist, inner)
    rising = jnp.ones_like(inner)
    for transform in elementwise(d.transforms):
        rising = rising * getattr(transform, "sign", 1)
    return jnp.where(rising > 0, lower, upper), jnp.where(rising > 0, upper, lower)


# ---- all coordinates of all components ----------------------------------------------------------


def _over_components(function: Callable[..., Any], x: Array, *mixtures: Mixture) -> list[Array]:
    """``function(*components, x)``, each result as (*shape, components, coordinates).

    Several mixtures are one with other parameters: each gives its component.
    """
    d = mixtures[0]
    event = d.event_dim
    shape = x.shape[: x.ndim - event]
    full = (*shape, d.mixture_size, *d.event_shape)
    if isinstance(d, dist.MixtureSameFamily):
        components = (m.component_distribution for m in mixtures)
        results = function(*components, jnp.expand_dims(x, -1 - event))
    else:
        lists = (m.component_distributions for m in mixtures)
        each = [function(*cs, x) for cs in zip(*lists, strict=True)]
        results = [
            jnp.stack([jnp.broadcast_to(part, x.shape) for part in parts], axis=-1 - event)
            for parts in zip(*each, strict=True)
        ]
    flat = (*shape, d.mixture_size, math.prod(d.event_shape))
    return [jnp.broadcast_to(r, full).reshape(flat) for r in results]


def _apart(c: dist.Distribution, x: Array) -> tuple[Array, Array, Array]:
    """x within the support of c, and whether it was below, above."""
    kind = _kind(c)
    below, above = (x <= 0) & (kind != "real"), (x >= 1) & (kind == "unit")
    return jnp.where(below | above, 0.5, x), below, above


def _moving(c: dist.Distribution, fixed: dist.Distribution, x: Array) -> tuple[Array, Array]:
    """x as component c alone would move it, and its log density there, coordinate by coordinate."""
    if is_normal_vector(c):
        loc, factor = loc_and_factor(c)
        z = whitened(*loc_and_factor(fixed), x)
        diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
        return loc + times_vector(factor, z), -(z**2 + _LOG_2_PI) / 2 - jnp.log(diagonal)
    x, below, above = _apart(c, x)
    moved = _reparameterised(c, fixed, x)
    # At what is left of x where its latent was clipped: finite, and so is every derivative.
    log_p = _log_density(c, inside(moved, _kind(c)))
    return moved, jnp.where(below | above, -jnp.inf, log_p)


def _both_tails(c: dist.Distribution, x: Array) -> tuple[Array, Array]:
    """F and 1 - F, coordinate by coordinate."""
    if is_normal_vector(c):
        z = whitened(*loc_and_factor(c), x)
        return ndtr(z), ndtr(-z)
    x, below, above = _apart(c, x)
    lower, upper = _tails(c, x)
    lower = jnp.where(below, 0.0, jnp.where(above, 1.0, lower))
    return lower, jnp.where(below, 1.0, jnp.where(above, 0.0, upper))


def _slope(c: dist.Distribution, x: Array) -> tuple[Array]:
    """The derivative of the log density, coordinate by coordinate."""
    if is_normal_vector(c):
        loc, factor = loc_and_factor(c)
        z = whitened(loc, factor, x)
        return (-z / jnp.diagonal(factor, axis1=-2, axis2=-1),)
    moved = inside(_reparameterised(c, c, _apart(c, x)[0]), _kind(c))
    return (jax.jvp(lambda x: _log_density(c, x), (moved,), (jnp.ones_like(moved),))[1],)


def _coupling(d: Mixture) -> Array | None:
    """How each coordinate follows those before it, (*batch, components, later, earlier)."""
    components = _components(d)
    if not any(is_normal_vector(c) for c in components):
        return None
    size = math.prod(d.event_shape)
    each = []
    for c in components:
        shape = (*c.batch_shape, size, size)
        matrix = jnp.zeros(shape)
        if is_normal_vector(c):
            _, factor = loc_and_factor(c)
            diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
            matrix = jnp.broadcast_to(jnp.tril(factor / diagonal[..., None, :], -1), shape)
        each.append(matrix)
    if isinstance(d, dist.MixtureSameFamily):
        return each[0]
    return jnp.stack([jnp.broadcast_to(m, (*d.batch_shape, size, size)) for m in each], axis=-3)


def _weights(d: Mixture) -> Array:
    mixing = d.mixing_distribution
    if isinstance(mixing, dist.CategoricalLogits):
        return jax.nn.softmax(mixing.logits, axis=-1)
    return mixing.probs / jnp.sum(mixing.probs, axis=-1, keepdims=True)


# ---- the draw -----------------------------------------------------------------------------------


def at_fixed_quantile(d: Mixture, x: Array) -> Array:
    """x, with the derivative that a draw from the mixture d has at its quantile.

    Args:
        d: a mixture without a ``mixture_obstacle``.
        x: values of shape (*shape, *event), where ``d.batch_shape`` broadcasts to ``shape``.

    Returns:
        x itself; its derivative adds to that of the x that was given.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> def draw(w):
        ...     weights = dist.Categorical(probs=jnp.stack([1 - w, w]))
        ...     d = dist.MixtureSameFamily(weights, dist.Normal(jnp.array([0.0, 3.0]), 1.0))
        ...     return at_fixed_quantile(d, jnp.array(0.0))
        >>> round(float(jax.grad(draw)(0.0)), 3)  # (Phi(0) - Phi(-3)) / phi(0)
        1.25
    """
    return implicit(*_velocity_of(d), x)


def _velocity_of(d: Mixture) -> tuple[Callable[..., Array], list[Array]]:
    leaves, tree = jax.tree.flatten(d)
    return partial(_velocity, tree), [jnp.asarray(leaf) for leaf in leaves]


def _velocity(tree: PyTreeDef, x: Array, leaves: list[Array], tangents: list[Array]) -> Array:
    """The derivative of draws x along the tangents of the mixture's leaves."""
    fixed = jax.tree.unflatten(tree, leaves)
    shape = x.shape
    x = inside(x.astype(jnp.promote_types(x.dtype, jnp.float32)), _support(fixed))

    def moving(leaves: Any) -> Any:
        d = jax.tree.unflatten(tree, leaves)
        return _weights(d), *_over_components(_moving, x, d, fixed)

    (w, _, log_p), (dw, own, stretch) = jax.jvp(moving, (leaves,), (tangents,))
    lower, upper = _over_components(_both_tails, x, fixed)
    w, dw = (jnp.broadcast_to(a, own.shape[:-1])[..., None] for a in (w, dw))

    # Before its coordinate, component k has the weight w_k likelihood_k, to be normalised.
    log_w = jnp.where(w > 0, jnp.log(jnp.where(w > 0, w, 1.0)), -jnp.inf)
    likelihood = jnp.cumsum(log_p, axis=-1)
    likelihood = jnp.concatenate([jnp.zeros_like(log_p[..., :1]), likelihood[..., :-1]], axis=-1)
    total = logsumexp(log_w + likelihood, axis=-2, keepdims=True)
    log_prior = log_w + likelihood - total
    log_density = logsumexp(log_prior + log_p, axis=-2, keepdims=True)
    posterior = jnp.exp(log_prior + log_p - log_density)
    prior = jnp.exp(log_prior)
    per_weight = jnp.exp(jnp.minimum(likelihood - total, _LARGEST_EXPONENT))
    # The weights' changes sum to zero, so what multiplies them may be moved: from F to -(1 - F)
    # above the median, and so that it averages to zero, which leaves no difference of large terms.
    below = jnp.sum(prior * lower, axis=-2, keepdims=True) < 0.5
    tail = jnp.where(below, lower, -upper)
    tail = tail - jnp.sum(prior * tail, axis=-2, keepdims=True)
    gap = tail * jnp.exp(jnp.minimum(-log_density, _LARGEST_EXPONENT))
    if own.shape[-1] == 1:
        return jnp.sum(posterior * own - dw * gap, axis=-2).reshape(shape)

    dw = dw[..., 0]
    coupling = _coupling(fixed)
    (slope,) = _over_components(_slope, x, fixed)
    columns = (posterior, own, stretch, slope, prior, per_weight, gap)
    each: tuple[Any, ...] = tuple(jnp.moveaxis(a, -1, 0) for a in columns)
    rows = None if coupling is None else jnp.moveaxis(coupling, -2, 0)

    def step(carry: Any, at: Any) -> Any:
        dlikelihood, apart = carry
        i, (posterior, own, stretch, slope, prior, per_weight, gap), row = at
        if row is not None:
            own = own + jnp.sum(row * apart, axis=-1)
        dprior = dw * per_weight + prior * dlikelihood
        v = jnp.sum(posterior * own - dprior * gap, axis=-1)
        relative = v[..., None] - own
        dlikelihood = dlikelihood + stretch + slope * relative
        if row is not None:
            apart = lax.dynamic_update_index_in_dim(apart, relative, i, axis=-1)
        return (dlikelihood, apart), v

    start = (jnp.zeros_like(own[..., 0]), None if rows is None else jnp.zeros_like(own))
    _, v = lax.scan(step, start, (jnp.arange(own.shape[-1]), each, rows))
    return jnp.moveaxis(v, 0, -1).reshape(shape)


def _mixture(d: Mixture, key: Key, shape: Shape, draw: Draw) -> Value:
    """A draw from every component, of which one is taken."""
    fixed = lax.stop_gradient(d)
    choice_key, key = jax.random.split(key)
    axis = -1 - d.event_dim
    # The largest of log w plus Gumbel noise: never a component of weight zero.
    e = noise.exponential(choice_key, (*shape, d.mixture_size), noise_dtype(d))
    scores = jnp.log(_weights(fixed)) - jnp.log(e)
    choice = jnp.argmax(scores, axis=-1, keepdims=True)
    if isinstance(d, dist.MixtureSameFamily):
        every = draw(fixed.component_distribution, key, (*shape, d.mixture_size))
    else:
        keys = jax.random.split(key, d.mixture_size)
        components = zip(fixed.component_distributions, keys, strict=True)
        every = together([draw(c, k, shape) for c, k in components], axis)
    index = choice.reshape(*choice.shape, *(1,) * d.event_dim)
    taken = changed(every, lambda x: jnp.take_along_axis(x, index, axis=axis).squeeze(axis))
    x = value_of(taken)
    if jnp.issubdtype(x.dtype, jnp.floating):
        # argmax takes weights that are NaN for the largest; the draw must show them.
        lost = jnp.isnan(jnp.sum(scores, axis=-1))
        x = jnp.where(lost.reshape(*lost.shape, *(1,) * d.event_dim), jnp.nan, x)
    if mixture_obstacle(d) is None:
        x = at_fixed_quantile(d, lax.stop_gradient(x))
    return x if not isinstance(taken, Point) else _with_logs(x, taken)


def _with_logs(x: Array, taken: Point) -> Point:
    """Logarithms that move with x, and have no gradient (NaN) where x has rounded to an edge."""
    taken, info = lax.stop_gradient(taken), jnp.finfo(x.dtype)

    def moves(log_y: Array, x: Array, dx: Array, sign: float, lost: Array) -> Array:
        return dx * jnp.where(lost, jnp.nan, sign * jnp.exp(-log_y))

    above, below = taken.above, taken.below
    if above is not None:
        above = implicit(moves, x, above, 1.0, taken.x < 2 * info.tiny)
    if below is not None:
        below = implicit(moves, x, below, -1.0, taken.x > 1 - 2 * info.eps)
    return Point(x, above, below, taken.low, taken.high)


_MIXTURE = Record(compose=_mixture, pathwise=mixture_obstacle, parts=_components)

RECORDS: dict[type, Record] = {dist.MixtureSameFamily: _MIXTURE, dist.MixtureGeneral: _MIXTURE}
