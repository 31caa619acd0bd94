"""A target from a numpyro model."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro import handlers
from numpyro.primitives import Messenger

from funcvi._numpyro import GATED
from funcvi._types import Key
from funcvi.constraints import bijection_for, constraint_name
from funcvi.densities.bends import bends
from funcvi.densities.log_prob import log_prob, log_prob_within
from funcvi.sampling.gradients import moving_edges
from funcvi.sampling.point_transforms import through
from funcvi.sampling.points import Value
from funcvi.sampling.record import unwrapped
from funcvi.sampling.registry import record_of
from funcvi.targets.record import Sites, Target, check_shapes, log_det_of

__all__ = ["from_model"]

_WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)

Model: TypeAlias = Callable[..., object]
Message: TypeAlias = dict[str, Any]  # numpyro's own: a site of a trace


class _Constrain(Messenger):
    """Gives each latent site the constrained image of its unconstrained value.

    The bijection is that of the site's support at that moment, so a support may depend on the
    values of earlier sites. Collects the log determinants as it goes.
    """

    def __init__(self, fn: Model, z: Sites) -> None:
        super().__init__(fn)
        self.z = z
        self.log_det: Array = jnp.zeros(())
        self.points: dict[str, Value] = {}

    def process_message(self, msg: Message) -> None:
        if msg["type"] != "sample" or msg["is_observed"] or msg["name"] not in self.z:
            return
        bijection = bijection_for(msg["fn"].support)
        z = self.z[msg["name"]]
        value = bijection(z)
        msg["value"] = value
        self.points[msg["name"]] = through(bijection, z, value)
        self.log_det = self.log_det + log_det_of(bijection, z, value)


class _Drawable(Messenger):
    """Refuses a flat prior by name, where numpyro has no draw to start from."""

    def process_message(self, msg: Message) -> None:
        if msg["type"] != "sample" or msg["value"] is not None:
            return
        if isinstance(unwrapped(msg["fn"], *_WRAPPERS), dist.ImproperUniform):
            raise ValueError(
                f"site {msg['name']!r} is an ImproperUniform, which has no draws: give it a wide "
                "prior, or write the model as fv.target(log_density, supports={...}), which may be "
                "improper."
            )


def from_model(model: Model, args: tuple[object, ...], kwargs: dict[str, object]) -> Target:
    """The target of a model at its data."""
    fixed_key = jax.random.key(0)
    seeded = handlers.seed(model, fixed_key)
    first = handlers.trace(_Drawable(seeded)).get_trace(*args, **kwargs)
    sites = _latent_sites(first)
    corner = next((type(d).__name__ for d in _drawn(first) if bends(d)), None)
    data = [name for name, s in first.items() if s["type"] == "sample" and s["is_observed"]]
    value_shapes = {name: jnp.shape(site["value"]) for name, site in sites.items()}
    shapes = {
        name: tuple(bijection_for(site["fn"].support).inverse_shape(value_shapes[name]))
        for name, site in sites.items()
    }
    names = {name: constraint_name(site["fn"].support) for name, site in sites.items()}

    def density(z: Sites, key: Key | None = None, /) -> Array:
        check_shapes(z, shapes)
        bijected = _Constrain(seeded if key is None else handlers.seed(model, key), z)
        trace = handlers.trace(bijected).get_trace(*args, **kwargs)
        drawn = (site for site in trace.values() if site["type"] == "sample")
        log_joint = sum((_log_prob(s, bijected.points.get(s["name"])) for s in drawn), 0.0)
        return log_joint + bijected.log_det

    def replay(z: Sites) -> tuple[Array, Message]:
        check_shapes(z, shapes)
        bijected = _Constrain(seeded, z)
        trace = handlers.trace(bijected).get_trace(*args, **kwargs)
        return bijected.log_det, trace

    def constrain(z: Sites) -> Sites:
        return {
            name: site["value"]
            for name, site in replay(z)[1].items()
            if name in shapes or site["type"] == "deterministic"
        }

    def unconstrain(values: Mapping[str, ArrayLike]) -> Sites:
        check_shapes(values, value_shapes)
        latents = {n: jnp.asarray(values[n]) for n in shapes}
        trace = handlers.trace(handlers.substitute(seeded, data=latents)).get_trace(*args, **kwargs)
        supports = {name: trace[name]["fn"].support for name in shapes}
        return {n: bijection_for(c).inv(trace[n]["value"]) for n, c in supports.items()}

    def log_det(z: Sites) -> Array:
        return replay(z)[0]

    def edges(z: Sites) -> list[Array]:
        trace = replay(z)[1]
        return [edge for name in data for edge in moving_edges(trace[name]["fn"])]

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
    )


def _drawn(trace: Mapping[str, Message]) -> list[dist.Distribution]:
    return [site["fn"] for site in trace.values() if site["type"] == "sample"]


def _log_prob(site: Message, point: Value | None) -> Array:
    """The log density of a site of a trace, scaled and summed, as numpyro's log_density has it.

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
        values = log_prob(d, value, intermediates)
    else:
        values = log_prob_within(d)(jnp.asarray(value) if point is None else point)
    return jnp.sum(values if site["scale"] is None else site["scale"] * values)


def _has_atom(d: dist.Distribution) -> bool:
    """Whether single values in a continuous support have a probability."""
    return isinstance(d, (dist.Delta, *GATED)) or any(map(_has_atom, record_of(d).parts(d)))


def _latent_sites(trace: Mapping[str, Message]) -> dict[str, Message]:
    sites = {}
    minibatches = {
        name
        for name, site in trace.items()
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0])
    }
    for name, site in trace.items():
        if site["type"] == "param":
            raise ValueError(
                f"the model has a param site {name!r}: a target has none. Give it a prior "
                "(numpyro.sample), or pass its value as an argument."
            )
        if site["type"] != "sample" or site["is_observed"]:
            continue
        if inside := minibatches & {frame.name for frame in site["cond_indep_stack"]}:
            raise ValueError(
                f"latent site {name!r} is inside the subsampling plate {inside.pop()!r}: its "
                "values would belong to other data at every step. Sum it out, or learn an encoder "
                "for it (fv.importance_weighted_elbo)."
            )
        if site["fn"].is_discrete:
            raise ValueError(
                f"latent site {name!r} is discrete ({type(site['fn']).__name__}): sum it out, for "
                "instance with dist.MixtureSameFamily, and observe the result."
            )
        bare = unwrapped(site["fn"], *_WRAPPERS)
        if isinstance(bare, dist.Delta):
            raise ValueError(
                f"latent site {name!r} is a Delta: use numpyro.deterministic for a computed value."
            )
        if _has_atom(bare):
            raise ValueError(
                f"latent site {name!r} is a {type(bare).__name__}, which gives single values a "
                "probability: a density of the rest is not its posterior. Sum it out, and observe "
                "the result."
            )
        sites[name] = site
    if not sites:
        raise ValueError("the model has no latent sites: there is nothing to infer.")
    return sites
