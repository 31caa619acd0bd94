"""The log joint density of a numpyro model, as a function of its unconstrained latents."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array
from numpyro import handlers

from funcvi.constraints import bijection_for
from funcvi.densities.log_prob import log_prob, log_prob_within
from funcvi.sampling.points import Value
from funcvi.targets.enumeration import enumeration_of
from funcvi.targets.latents import latent_sites
from funcvi.targets.record import Sites
from funcvi.targets.replay import Constrain, Message, Model

__all__ = ["Joint", "log_probs"]

_MOVING_SUPPORT = (
    "the support of latent site {name!r} depends on one of the discrete sites {discrete}, which "
    "are summed out: give it the same support for all of their values."
)


class Joint:
    """The log joint density of a model at its data, ``(seeded model, unconstrained sites)``.

    Attributes:
        sites: the continuous latents, as a first run has them.
        value_shapes: their shapes.
        shapes: those of their unconstrained values.
        enumeration: what sums out the discrete latents, None where there are none.

    Args:
        first: the trace of the first run.
        args: of the model.
        kwargs: of the model.
    """

    def __init__(
        self,
        first: Mapping[str, Message],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> None:
        self.sites, self.discrete = latent_sites(first)
        self.value_shapes = {name: jnp.shape(site["value"]) for name, site in self.sites.items()}
        self.shapes = {
            name: tuple(bijection_for(site["fn"].support).inverse_shape(self.value_shapes[name]))
            for name, site in self.sites.items()
        }
        self._first, self._args, self._kwargs = first, args, kwargs
        self.enumeration = enumeration_of(self.discrete, first)

    def __call__(
        self,
        fn: Model,
        z: Sites,
        fill: Sites | None = None,
        counts: Mapping[str, float] | None = None,
    ) -> Array:
        """With the log determinant of the bijections.

        Args:
            fn: the model, seeded.
            z: unconstrained latents.
            fill: of masked sites what the model sees where the mask is False, by default zeros.
            counts: by site, how often its log determinant counts, by default once.
        """
        summed = None
        if self.enumeration is not None:
            fn = summed = self.enumeration.all_values(fn, lambda s: log_probs(s, None))
        run = Constrain(fn, z, fill, counts)
        trace = self.trace(run)
        points = run.points
        if self.enumeration is None or summed is None:
            drawn = (site for site in trace.values() if site["type"] == "sample")
            total = sum((_log_prob(s, points.get(s["name"])) for s in drawn), jnp.zeros(()))
            return total + run.log_det_counted
        for name, value in run.values.items():
            if jnp.shape(value) != self.value_shapes[name]:
                discrete = list(self.enumeration.names)
                raise ValueError(_MOVING_SUPPORT.format(name=name, discrete=discrete))
        total = self.enumeration.log_sum(
            trace, summed.chains, lambda s: log_probs(s, points.get(s["name"]))
        )
        return total + run.log_det_counted

    def trace(self, fn: Model) -> dict[str, Message]:
        """That of a run of the model under some handlers."""
        return dict(handlers.trace(fn).get_trace(*self._args, **self._kwargs))


def _log_prob(site: Message, point: Value | None) -> Array:
    """The log density of a site of a trace, scaled and summed, as numpyro's log_density has it."""
    values = log_probs(site, point)
    return jnp.sum(values if site["scale"] is None else site["scale"] * values)


def log_probs(site: Message, point: Value | None) -> Array:
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
