"""``fv.guide``: a guide of any family over a target's unconstrained space."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import flows, transforms

from funcvi._numpyro import InverseTransform
from funcvi._types import Key, Params
from funcvi.families import unconstrain
from funcvi.guides.contract import Guide, Unconstrained, check_target, start_of
from funcvi.guides.foreign import FlowjaxLike, from_flowjax
from funcvi.guides.of_program import from_program
from funcvi.sampling.gradients import covers_the_line
from funcvi.targets import Shape, Target
from funcvi.wrong_kinds import instead_of_a_distribution

__all__ = ["guide"]

Pair = tuple[Params, Callable[[Params], Unconstrained]]

# Their weights are hidden in a function.
_NETWORKS = (flows.InverseAutoregressiveTransform, flows.BlockNeuralAutoregressiveTransform)


def guide(
    target: Target,
    family: dist.Distribution
    | Mapping[str, dist.Distribution]
    | Pair
    | FlowjaxLike
    | Callable[..., object],
    *,
    spread: float = 1.0,
) -> Guide:
    """A guide of any family: a mixture, a flow, independent distributions of your choice.

    Args:
        target: made by :func:`fv.target`.
        family: one of

            - a numpyro distribution of the vectors of ``target.ravel``, of event shape
              ``(target.size,)``, as a template: its parameters are learned as
              :func:`fv.unconstrain` does;
            - a dict with a distribution for each site, of the site's unconstrained shape and on
              unconstrained space: for a positive site a Normal, not a Gamma;
            - ``(params, function)``, where ``function(params)`` is one of these: from
              ``fv.unconstrain``, or any pure function (a flow with a network inside, say);
            - a distribution of flowjax of shape ``(target.size,)``; its floating-point arrays
              are learned;
            - a numpyro guide of the target's model: a function with ``numpyro.param`` and
              ``numpyro.sample`` sites, or an autoguide.
        spread: how far starts are from the given parameters. To each location (a leaf of the
            params called ``loc``) a start of the target is added, times ``spread``; to every other
            leaf normal noise of standard deviation ``0.1 * spread``. So each component of a mixture
            starts somewhere of its own; 0 starts exactly as given.

    Returns:
        A :class:`Guide`.

    Raises:
        TypeError: this is no target, or no family.
        ValueError: the event shape is not the target's, a support is not all of unconstrained
            space, or a transform would not be learned.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: jnp.logaddexp(-(x["a"] - 3) ** 2, -(x["a"] + 3) ** 2),
        ...               supports={"a": constraints.real})
        >>> two = dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(2)),
        ...                              dist.Normal(jnp.zeros(2), jnp.ones(2)))
        >>> guide = fv.guide(t, {"a": two})
        >>> guide(guide.init(jax.random.key(0))).unconstrained["a"].mixture_size
        2
    """
    check_target(target)
    params, function = _params_and_function(target, family)

    jax.eval_shape(lambda params: _check_shapes(target, function(params)), params)
    init = start_of(target, lambda key: _scattered(params, target, key, spread))
    return Guide(target, init, function)


def _params_and_function(target: Target, family: object) -> Pair:
    if isinstance(family, FlowjaxLike):
        return from_flowjax(family)
    if isinstance(family, tuple) and len(family) == 2 and callable(family[1]):
        params, function = family
        return params, lambda params: _as_events(target, function(params))
    if not isinstance(family, Mapping | dist.Distribution):
        if callable(family) and not isinstance(family, type):
            return from_program(family, target)
        raise TypeError(
            "family must be a distribution, a dict with one for each site, (params, function), "
            f"a flowjax distribution or a numpyro guide; got {type(family).__name__}."
        )
    q = _as_events(target, family)
    _check_shapes(target, q)
    _check_learnable(q)
    return unconstrain(q)


def _as_events(target: Target, q: Unconstrained) -> Unconstrained:
    """The same, with batch axes of a site's shape made its event."""
    if not isinstance(q, Mapping):
        return q
    events = {}
    for name, d in q.items():
        entries = isinstance(d, dist.Distribution) and d.shape() == target.shapes.get(name)
        events[name] = d.to_event(len(d.batch_shape)) if entries else d
    return events


def _check_shapes(target: Target, q: Unconstrained) -> None:
    if isinstance(q, Mapping):
        if set(q) != set(target.shapes):
            raise ValueError(
                f"family must name the sites {list(target.shapes)}, got {list(q)}: give each one "
                "a distribution."
            )
        for name, shape in target.shapes.items():
            _check_shape(f"family[{name!r}]", q[name], shape, "the site's unconstrained shape")
    else:
        _check_shape("family", q, (target.size,), "the target's size")


def _check_shape(label: str, d: dist.Distribution, shape: Shape, meaning: str) -> None:
    if not isinstance(d, dist.Distribution):
        raise TypeError(f"{label} must be a numpyro distribution, {instead_of_a_distribution(d)}.")
    if (d.batch_shape, d.event_shape) != ((), shape):
        remedy = f": add .to_event({len(d.batch_shape)})" if d.batch_shape == shape != () else ""
        raise ValueError(
            f"{label} must have event shape {shape}, {meaning}, and no batch shape; got event "
            f"shape {d.event_shape} and batch shape {d.batch_shape}{remedy}."
        )
    if d.is_discrete:
        raise ValueError(f"{label} must be continuous, got {type(d).__name__}.")
    if not covers_the_line(d):
        raise ValueError(
            f"{label}, a {type(d).__name__}, covers only a part of unconstrained space: give a "
            "distribution that covers all of it, such as a Normal.\n"
            "The target maps its draws to each site's support."
        )


def _check_learnable(q: object) -> None:
    """Refuses transforms whose parameters a template would hold fixed in silence."""
    for leaf in jax.tree.leaves(q, is_leaf=lambda x: isinstance(x, transforms.Transform)):
        kind = type(leaf)
        foreign = not kind.__module__.startswith(("numpyro.", "funcvi."))
        if isinstance(leaf, transforms.ComposeTransform):
            _check_learnable(leaf.parts)
        elif isinstance(leaf, transforms.IndependentTransform):
            _check_learnable(leaf.base_transform)
        elif isinstance(leaf, InverseTransform):
            _check_learnable(leaf.inv)
        elif isinstance(leaf, _NETWORKS) or (
            isinstance(leaf, transforms.Transform)
            and foreign
            and not isinstance(leaf, transforms.ParameterFreeTransform)
        ):
            raise ValueError(
                f"the parameters of {kind.__name__} would not be learned: pass (params, "
                "function), where function(params) builds the distribution."
            )


def _scattered(params: Params, target: Target, key: Key, spread: float) -> Params:
    """The params of one start."""
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    place_key, key = jax.random.split(key)
    place = target.start(place_key)
    keys = jax.random.split(key, len(paths))
    leaves = []
    for (path, leaf), k in zip(paths, keys, strict=True):
        names = [getattr(step, "key", None) for step in path]
        site = names[0] if names and names[0] in target.shapes else None
        shape = (target.size,) if site is None else target.shapes[site]
        lead = jnp.shape(leaf)[: jnp.ndim(leaf) - len(shape)]
        if names[-1:] == ["loc"] and jnp.shape(leaf) == (*lead, *shape):
            z = target.start(k, lead) if lead else place
            moved = spread * (target.ravel(z) if site is None else z[site])
        else:
            moved = 0.1 * spread * jax.random.normal(k, jnp.shape(leaf))
        leaves.append(leaf + moved.astype(jnp.result_type(leaf)))
    return jax.tree.unflatten(tree, leaves)
