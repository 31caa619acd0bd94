"""A target from a numpyro model."""

from collections.abc import Mapping
from types import MappingProxyType

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
from funcvi.runtime_checks import require
from funcvi.sampling.gradients import moving_edges
from funcvi.targets.faults import check_data, faults_of, first_run
from funcvi.targets.joint import Joint, log_probs
from funcvi.targets.masks import changes_nothing, mask_over
from funcvi.targets.minibatches import local_axes, plates_of, with_minibatches
from funcvi.targets.points import with_points
from funcvi.targets.record import ModelCall, Sites, Target, check_shapes
from funcvi.targets.replay import Constrain, Message, Model, Replay, WithoutDraws
from funcvi.targets.rows import Subsampled

__all__ = ["from_model"]

_INFLUENCE = (
    "the mask of latent site {name!r} leaves entries without a prior, and other sites depend on "
    "them: their posterior may spread for ever. Mask the data instead (obs=), or give all entries "
    "their prior."
)


def from_model(
    model: Model,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    given: Mapping[str, object] = MappingProxyType({}),
) -> Target:
    """The target of a model at its data; param sites other than those given are to be learned."""
    fixed_key = jax.random.key(0)
    seeded = handlers.seed(model, fixed_key)
    watched = Subsampled(model)
    first = first_run(WithoutDraws(handlers.seed(watched, fixed_key)), args, kwargs)
    check_data(first)
    joint = Joint(first, args, kwargs)
    if params := {n: s for n, s in first.items() if s["type"] == "param" and n not in given}:
        return with_points(
            params,
            lambda values: from_model(
                handlers.substitute(model, data=values), args, kwargs, {**given, **values}
            ),
        )
    if local_axes(joint.sites, watched.sizes):
        # Of points that are being learned it is known since their start was looked at.
        is_checked = is_concrete((args, kwargs)) and not is_concrete(given)
        return with_minibatches(
            lambda on_all: from_model(on_all, args, kwargs, given),
            ModelCall(model, args, kwargs),
            joint,
            watched.sizes,
            is_checked,
        )
    sites, shapes, value_shapes = joint.sites, joint.shapes, joint.value_shapes
    enumeration = joint.enumeration
    corner = next((type(d).__name__ for d in _drawn(first) if bends(d)), None)
    data = [name for name, s in first.items() if s["type"] == "sample" and s["is_observed"]]
    names = {name: constraint_name(site["fn"].support) for name, site in sites.items()}

    free = [name for name, site in sites.items() if mask_over(site["fn"]) is not None]
    unread = not free or changes_nothing(lambda z, fill: joint(seeded, z, fill), shapes, free)

    def faults(z: Sites) -> str:
        fn: Model = seeded
        if enumeration is not None:
            fn = enumeration.all_values(fn, lambda s: log_probs(s, None))
        run = Constrain(fn, z)
        drawn = [site for site in joint.trace(run).values() if site["type"] == "sample"]
        return faults_of(
            drawn,
            run.values,
            lambda s: log_probs(s, run.points.get(s["name"])),
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
        return if_held(joint(fn, z))

    def replay(z: Sites) -> tuple[Constrain, dict[str, Message]]:
        check_shapes(z, shapes)
        run = Constrain(seeded, z)
        return run, joint.trace(run)

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
        trace = joint.trace(Replay(seeded, latents))
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
            return joint.trace(Constrain(fn, somewhere))

        held += enumeration.check(there, seeded, lambda s: log_probs(s, None))
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
        plates={name: plates_of(site) for name, site in sites.items()},
        faults=faults,
    )


def _drawn(trace: Mapping[str, Message]) -> list[dist.Distribution]:
    return [site["fn"] for site in trace.values() if site["type"] == "sample"]
