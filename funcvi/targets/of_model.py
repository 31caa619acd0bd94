"""A target from a numpyro model."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro import handlers

from funcvi._jax import is_concrete
from funcvi._types import Key
from funcvi.constraints import bijection_for, constraint_name
from funcvi.densities.bends import bends
from funcvi.densities.log_prob import log_prob, log_prob_within
from funcvi.runtime_checks import require
from funcvi.sampling.gradients import moving_edges
from funcvi.sampling.points import Value
from funcvi.targets.enumeration import enumeration_of
from funcvi.targets.faults import check_data, faults_of, first_run
from funcvi.targets.latents import latent_sites
from funcvi.targets.masks import changes_nothing, mask_over
from funcvi.targets.points import with_points
from funcvi.targets.record import ModelCall, Sites, Target, check_shapes
from funcvi.targets.replay import Constrain, Message, Model, Replay, WithoutDraws

__all__ = ["from_model"]

_MOVING_SUPPORT = (
    "the support of latent site {name!r} depends on one of the discrete sites {discrete}, which "
    "are summed out: give it the same support for all of their values."
)
_INFLUENCE = (
    "the mask of latent site {name!r} leaves entries without a prior, and other sites depend on "
    "them: their posterior may spread for ever. Mask the data instead (obs=), or give all entries "
    "their prior."
)


def from_model(
    model: Model,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    given: frozenset[str] = frozenset(),
) -> Target:
    """The target of a model at its data; param sites other than those given are to be learned."""
    fixed_key = jax.random.key(0)
    seeded = handlers.seed(model, fixed_key)
    first = first_run(WithoutDraws(seeded), args, kwargs)
    check_data(first)
    sites, discrete = latent_sites(first)
    if params := {n: s for n, s in first.items() if s["type"] == "param" and n not in given}:
        known = given | params.keys()
        return with_points(
            params,
            lambda values: from_model(handlers.substitute(model, data=values), args, kwargs, known),
        )
    corner = next((type(d).__name__ for d in _drawn(first) if bends(d)), None)
    data = [name for name, s in first.items() if s["type"] == "sample" and s["is_observed"]]
    value_shapes = {name: jnp.shape(site["value"]) for name, site in sites.items()}
    shapes = {
        name: tuple(bijection_for(site["fn"].support).inverse_shape(value_shapes[name]))
        for name, site in sites.items()
    }
    names = {name: constraint_name(site["fn"].support) for name, site in sites.items()}

    enumeration = enumeration_of(discrete, first)

    def log_joint(fn: Model, z: Sites, fill: Sites | None = None) -> Array:
        summed = None
        if enumeration is not None:
            fn = summed = enumeration.all_values(fn, lambda s: _log_probs(s, None))
        run = Constrain(fn, z, fill)
        trace = handlers.trace(run).get_trace(*args, **kwargs)
        points = run.points
        if enumeration is not None and summed is not None:
            for name, value in run.values.items():
                if jnp.shape(value) != value_shapes[name]:
                    discrete_names = list(enumeration.names)
                    raise ValueError(_MOVING_SUPPORT.format(name=name, discrete=discrete_names))
            total = enumeration.log_sum(
                trace, summed.chains, lambda s: _log_probs(s, points.get(s["name"]))
            )
        else:
            drawn = (site for site in trace.values() if site["type"] == "sample")
            total = sum((_log_prob(s, points.get(s["name"])) for s in drawn), jnp.zeros(()))
        return total + run.log_det_counted

    free = [name for name, site in sites.items() if mask_over(site["fn"]) is not None]
    unread = not free or changes_nothing(lambda z, fill: log_joint(seeded, z, fill), shapes, free)

    def faults(z: Sites) -> str:
        fn: Model = seeded
        if enumeration is not None:
            fn = enumeration.all_values(fn, lambda s: _log_probs(s, None))
        run = Constrain(fn, z)
        trace = handlers.trace(run).get_trace(*args, **kwargs)
        drawn = [site for site in trace.values() if site["type"] == "sample"]
        return faults_of(
            drawn,
            run.values,
            lambda s: _log_probs(s, run.points.get(s["name"])),
            all_values=enumeration is not None,
        )

    held: list[ArrayLike] = [
        require(unread, unread, lambda: ValueError(_INFLUENCE.format(name=free[0])))
    ]

    def if_held(value: Array) -> Array:
        """NaN where the data were traced, and what is refused else was found as they came."""
        for holds in (x for x in held if not is_concrete(x)):
            value = jnp.where(holds, value, jnp.nan)
        return value

    def density(z: Sites, key: Key | None = None, /) -> Array:
        check_shapes(z, shapes)
        fn = seeded if key is None else handlers.seed(model, key)
        return if_held(log_joint(fn, z))

    def replay(z: Sites) -> tuple[Constrain, dict[str, Message]]:
        check_shapes(z, shapes)
        run = Constrain(seeded, z)
        return run, handlers.trace(run).get_trace(*args, **kwargs)

    def constrain(z: Sites) -> Sites:
        run, trace = replay(z)
        return {
            name: run.values[name] if name in shapes else site["value"]
            for name, site in trace.items()
            if name in shapes or (site["type"] == "deterministic" and name not in hidden)
        }

    def unconstrain(values: Mapping[str, ArrayLike]) -> Sites:
        check_shapes(values, value_shapes)
        latents = {n: jnp.asarray(values[n]) for n in shapes}
        trace = handlers.trace(Replay(seeded, latents)).get_trace(*args, **kwargs)
        supports = {name: trace[name]["fn"].support for name in shapes}
        return {n: bijection_for(c).inv(trace[n]["value"]) for n, c in supports.items()}

    def log_det(z: Sites) -> Array:
        return replay(z)[0].log_det

    def edges(z: Sites) -> list[Array]:
        trace = replay(z)[1]
        return [edge for name in data for edge in moving_edges(trace[name]["fn"])]

    hidden: set[str] = set()
    if enumeration is not None:
        keys = jax.random.split(fixed_key, len(shapes))
        somewhere = {
            name: jax.random.uniform(one_key, shape, minval=-1.0)
            for one_key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

        def there(fn: Model) -> dict[str, Message]:
            return handlers.trace(Constrain(fn, somewhere)).get_trace(*args, **kwargs)

        held += enumeration.check(there, seeded, lambda s: _log_probs(s, None))
        hidden = enumeration.read_by_deterministic(there, seeded)
    has_edges = any(moving_edges(first[name]["fn"]) for name in data)
    return Target(
        shapes,
        value_shapes,
        names,
        density,
        log_det,
        constrain,
        unconstrain,
        corner=corner,
        edges=edges if has_edges else None,
        call=ModelCall(model, args, kwargs),
        summed=() if enumeration is None else enumeration.names,
        constraints={name: site["fn"].support for name, site in sites.items()},
        plates={name: _plates(site) for name, site in sites.items()},
        faults=faults,
    )


def _plates(site: Message) -> tuple[str | None, ...]:
    """The plate that each axis of a site's value is."""
    names: list[str | None] = [None] * jnp.ndim(site["value"])
    batch = len(names) - site["fn"].event_dim
    for frame in site["cond_indep_stack"]:
        names[batch + frame.dim] = frame.name
    return tuple(names)


def _drawn(trace: Mapping[str, Message]) -> list[dist.Distribution]:
    return [site["fn"] for site in trace.values() if site["type"] == "sample"]


def _log_prob(site: Message, point: Value | None) -> Array:
    """The log density of a site of a trace, scaled and summed, as numpyro's log_density has it."""
    values = _log_probs(site, point)
    return jnp.sum(values if site["scale"] is None else site["scale"] * values)


def _log_probs(site: Message, point: Value | None) -> Array:
    """The log density of a site of a trace by entry, without its scale.

    A latent site comes with its logarithms, where its value has been rounded to an edge.
    """
    d, value = site["fn"], site["value"]
    if not (intermediates := site["intermediates"]):
        try:
            jnp.broadcast_shapes(jnp.shape(value), tuple(d.shape()))
        except ValueError:
            raise ValueError(
                f"site {site['name']!r} has a value of shape {jnp.shape(value)}, and its "
                f"distribution {type(d).__name__} the shape {tuple(d.shape())}: give it the "
                "values that the model observes."
            ) from None
    if intermediates:
        return log_prob(d, value, intermediates)
    return log_prob_within(d)(jnp.asarray(value) if point is None else point)
