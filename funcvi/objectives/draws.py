"""The draws that every bound is a function of, and the two ways to make a bound of them.

Each site of a joint is handled by the estimator that is right for it: some are drawn pathwise while
others carry their gradient in their score. A single distribution may be summed over instead.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.lax import stop_gradient

from funcvi._checks import check_key
from funcvi._types import Joint, Key
from funcvi.densities.bends import bends, bends_along_draws, once_differentiable
from funcvi.densities.log_prob import log_prob
from funcvi.objectives.enumeration import enumerated, finite_support
from funcvi.objectives.estimators import check_arguments, choose
from funcvi.objectives.sites import Site, check_noise, drawn
from funcvi.sampling.draw import unvalidated
from funcvi.sampling.dtypes import own_dtype
from funcvi.sampling.gradients import (
    edge_obstacle,
    jump_obstacle,
    undifferentiable,
    with_fixed_support,
)
from funcvi.sampling.points import Value, changed, value_of
from funcvi.sampling.rounding import inside_support, is_half, widened
from funcvi.wrong_kinds import instead_of_a_distribution

__all__ = ["Draws", "average", "bound", "draws", "is_distribution"]


class Draws(NamedTuple):
    """n draws z of q, and what a bound is made of: arrays of shape (n, *batch).

    Attributes:
        z: in q's structure, each array of shape (n, *batch, *event).
        log_q: log density of the draws under q; see ``average`` for its derivatives.
        log_p: the value of ``log_p`` at the draws.
        score: zero in value, with the gradient of log q at the sites that the score function
            handles (``log_q`` has none there); zeros where there is no such site.
        live_score: the same, or None where there is no such site.
        weight: the weight of each draw in an exact sum; None where all count alike.
    """

    z: Any
    log_q: Array
    log_p: Array
    live_score: Array | None = None
    weight: Array | None = None

    @property
    def score(self) -> Array:
        """Zeros where every site is handled otherwise, so that a bound may always add it."""
        return jnp.zeros_like(self.log_q) if self.live_score is None else self.live_score


def draws(
    q: Joint,
    log_p: Callable[[Any], Array],
    key: Key | None,
    num_samples: int,
    estimator: str | None,
    allowed: tuple[str, ...],
    *,
    jump: Callable[[dist.Distribution], str | None] | None = None,
    label: str = "q",
    function: str | None = None,
    log_p_of_points: bool = False,
    with_density: bool = True,
    counts: Mapping[str, float] | None = None,
    noise: str = "independent",
) -> Draws:
    """Draws of q, each site by the estimator that is right for it.

    Args:
        q: a distribution of batch shape (*batch), or a joint of such.
        log_p: draws in q's structure to an array of shape (n, *batch).
        key, num_samples, estimator: as the caller of the bound gives them.
        allowed: the estimators that the bound can use, the best first.
        jump: a site to the reason why the gradient of what is averaged is wrong along its draws, or
            to None; by default for its own log density and any ``log_p`` on the line.
        label: the name of q in errors.
        function: the name of ``log_p`` in errors, if its shape is to be checked.
        log_p_of_points: whether ``log_p`` takes draws with their logarithms (``Point``), where they
            have them; otherwise it gets values.
        with_density: whether what is averaged depends on ``log_q``, and not on ``log_p`` alone.
        counts: of a dict of no batch shape, how often the log density of each member counts in
            ``log_q``; members may then have batch shape (num_samples,), an element for each draw.
        noise: one of ``NOISES``.

    Raises:
        TypeError: a member of q is not a distribution.
        ValueError: no estimator is right, the key is missing, there are too few draws, or the
            members have different batch shapes.
    """
    check_arguments(num_samples, estimator, allowed)
    leaves, structure = jax.tree.flatten_with_path(q, is_leaf=is_distribution)
    members = {label + jax.tree_util.keystr(path): d for path, d in leaves}
    _check_members(members, label, () if counts is None else (num_samples,))
    if len(members) > 1 or counts is not None:
        if estimator == "enumeration":
            which = f"has {len(members)}" if len(members) > 1 else "is of some rows"
            raise ValueError(
                f"enumeration needs a single distribution, {label} {which}: leave "
                "estimator out, and each gets the one that is right for it."
            )
        allowed = tuple(e for e in allowed if e != "enumeration")
    sites = []
    for (path, _), (name, d) in zip(leaves, members.items(), strict=True):
        obstacle = jump(d) if jump else jump_obstacle(d) or edge_obstacle(d)
        kind = choose(d, estimator, allowed, jump=obstacle, label=name)
        site = Site(name, unvalidated(widened(d)), kind)
        if counts is not None:
            site = site._replace(times=counts[path[0].key], has_draws=bool(d.batch_shape))
        sites.append(site)
    _check_draws(sites, key, num_samples)

    def given(each: Sequence[Value]) -> Sequence[Value]:
        """What the caller's function gets: in half precision a rounded draw."""
        pairs = zip(members.values(), each, strict=True)
        return [inside_support(d, x) if is_half(own_dtype(d)) else x for d, x in pairs]

    def density(each: Sequence[Value]) -> Array:
        z = each if log_p_of_points else [value_of(x) for x in given(each)]
        values = log_p(jax.tree.unflatten(structure, z))
        expected = len(value_of(each[0])), *sites[0].q.batch_shape
        if function is not None and jnp.shape(values) != expected:
            raise ValueError(
                f"{function} must give shape {expected}, one value for each draw and batch "
                f"element, got {jnp.shape(values)}: sum over the other axes."
            )
        return values

    check_noise(sites, noise)
    if sites[0].estimator == "enumeration":
        z, log_q, values, weight = enumerated(sites[0].q, lambda z: density([z]), key, num_samples)
        if with_density and bends(sites[0].q):
            log_q = once_differentiable(type(sites[0].q).__name__, log_q, sites[0].q)
        (value,) = given([z])
        z = jax.tree.unflatten(structure, [value_of(value)])
        return _narrow(Draws(z, log_q, values, weight=weight), members)
    assert key is not None
    pairs = drawn(sites, key, num_samples, noise)
    each: Sequence[Value] = [z for z, _ in pairs]
    if any(site.estimator == "doubly_reparameterised" for site in sites):
        each = _doubly_reparameterised(sites, each, density)
    log_q, score = _densities(sites, each, [log_q for _, log_q in pairs], with_density)
    values = jax.tree.unflatten(structure, [value_of(x) for x in given(each)])
    return _narrow(Draws(values, log_q, density(each), score), members)


def _narrow(d: Draws, members: dict[str, dist.Distribution]) -> Draws:
    """Densities in the dtype of q's parameters: in half precision they are rounded once, here."""
    dtype = jnp.result_type(*map(own_dtype, members.values()))
    if not is_half(dtype):
        return d
    names = "log_q", "live_score", "weight"
    parts = {name: getattr(d, name) for name in names if getattr(d, name) is not None}
    return d._replace(**{name: part.astype(dtype) for name, part in parts.items()})


def average(d: Draws, f: Array) -> Array:
    """The mean over draws of f (n, *batch), of shape (*batch), with all its derivatives.

    The score function's factor is that of Foerster et al. 2018, arXiv:1802.05098, which may be
    differentiated any number of times; its baseline is the mean of the other draws (Kool et al.
    2019, OpenReview r1lgTGL5DE).
    """
    if d.weight is not None:
        return jnp.sum(d.weight * f, axis=0)
    if d.live_score is None:
        return jnp.mean(f, axis=0)
    n = f.shape[0]
    above = f - stop_gradient((jnp.sum(f, axis=0) - f) / (n - 1))
    # Where f is infinite the mean is too, and not the NaN of zero times infinity.
    above = jnp.where(jnp.isfinite(above), above, 0)
    return jnp.mean(f + above * jnp.expm1(d.live_score), axis=0)


def bound(d: Draws, of: Callable[[Array], Array]) -> Array:
    """A symmetric function of the log weights log p - log q, of shape (*batch), with derivatives.

    The score function's factor is as in ``average``; its baseline is the same function of the other
    draws, as in Mnih and Rezende 2016, arXiv:1602.06725; it takes memory that grows with the square
    of n.

    Args:
        d: draws without weights.
        of: (n, *batch) to (*batch), for any n.
    """
    log_weight = d.log_p - d.log_q
    if d.live_score is None:
        return of(log_weight)
    n = log_weight.shape[0]
    value = of(log_weight + jnp.expm1(-d.live_score))  # with the gradient of log q inside
    others = (jnp.arange(n)[:, None] + jnp.arange(1, n)) % n
    without = stop_gradient(jax.vmap(of)(log_weight[others]))
    return value * jnp.exp(d.live_score.sum(axis=0)) - jnp.sum(
        without * jnp.expm1(d.live_score), axis=0
    )


def is_distribution(x: object) -> bool:
    """Where a joint ends and its members begin."""
    return isinstance(x, dist.Distribution)


def _densities(
    sites: list[Site], each: Sequence[Value], known: Sequence[Array | None], with_density: bool
) -> tuple[Array, Array | None]:
    """log q and the score, each summed over its sites."""
    log_q, score = [], []
    scored = [site for site in sites if site.estimator == "score_function"]
    for site, z, density in zip(sites, each, known, strict=True):
        if site.estimator == "score_function":
            live = with_fixed_support(site.q, log_prob(site.q, z))
            if bends(site.q):
                live = once_differentiable(type(site.q).__name__, live, site.q)
            density = stop_gradient(live)
            score.append(live - density)
        elif density is None:
            density = with_fixed_support(site.q, _along_draws(site.q, z))
        if site.estimator != "score_function" and with_density and bends_along_draws(site.q):
            density = once_differentiable(type(site.q).__name__, density, site.q)
        log_q.append(density if site.times == 1 else site.times * density)
    if not score:
        return reduce(add, log_q), None
    # Its first derivative is zero, as it may be, for the mean of the score is; the later ones are
    # those of log q once they are multiplied by exp(score).
    later = [s.times * (own + jnp.expm1(-own)) for s, own in zip(scored, score, strict=True)]
    return reduce(add, log_q) + reduce(add, later), reduce(add, score)


@jax.custom_jvp
def _along_draws(q: dist.Distribution, z: Value) -> Array:
    """log q(z), whose derivative leaves out the score of the parameters: a term of mean zero."""
    return log_prob(q, z)


@_along_draws.defjvp
def _along_draws_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (q, z), (_, slope) = primals, tangents
    return cast("tuple[Array, Array]", jax.jvp(partial(log_prob, q), (z,), (slope,)))


def _doubly_reparameterised(
    sites: list[Site], each: Sequence[Value], log_p: Callable[[Sequence[Value]], Array]
) -> Sequence[Value]:
    """The same draws, with gradients scaled once more by their normalised importance weights.

    Tucker et al. 2019, arXiv:1810.04152, equation 8. That holds for the first derivative, and the
    second is refused.
    """
    # The same computation twice, which XLA does once: the weights first, then gradients by them.
    log_q = reduce(add, (log_prob(s.q, z) for s, z in zip(sites, each, strict=True)))
    weight = jax.nn.softmax(log_p(each) - log_q, axis=0)

    def scaled(x: Array) -> Array:
        return _scaled_gradient(x, weight.reshape(*weight.shape, *(1,) * (x.ndim - weight.ndim)))

    return [
        changed(z, scaled) if site.estimator == "doubly_reparameterised" else z
        for site, z in zip(sites, each, strict=True)
    ]


@jax.custom_jvp
def _scaled_gradient(x: Array, factor: Array) -> Array:
    return x


@_scaled_gradient.defjvp
def _scaled_gradient_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (x, factor), (slope, _) = primals, tangents
    refusal = ValueError(
        "the doubly reparameterised gradient has no right second derivative: use "
        'estimator="pathwise" where the Hessian is wanted.'
    )
    return x, slope * undifferentiable(factor.astype(slope.dtype), [x, factor], refusal)


def _check_members(members: dict[str, Any], label: str, of_draws: tuple[int, ...]) -> None:
    if not members:
        raise ValueError(f"{label} is an empty joint: there is nothing to draw.")
    for name, d in members.items():
        if not is_distribution(d):
            raise TypeError(
                f"{name} must be a numpyro distribution, {instead_of_a_distribution(d)}."
            )
    shapes = {
        name: () if of_draws and d.batch_shape == of_draws else d.batch_shape
        for name, d in members.items()
    }
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"the members of {label} must have one batch shape, got {shapes}: expand them, or turn "
            "batch axes into event axes (to_event)."
        )


def _check_draws(sites: list[Site], key: Key | None, num_samples: int) -> None:
    if key is not None:
        check_key(key)
    for label, q, estimator, *_ in sites:
        name = f"{label} = {type(q).__name__}"
        if key is None and not (estimator == "enumeration" and finite_support(q) is not None):
            raise ValueError(
                f"the objective of {name} is estimated from draws ({estimator}): "
                "pass key=jax.random.key(...), a new one at each step."
            )
        if estimator == "score_function" and num_samples < 2:
            raise ValueError(
                f"the score-function estimator of {name} needs num_samples >= 2 (each draw's "
                f"baseline is the mean of the others), got {num_samples}."
            )
