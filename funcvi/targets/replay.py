"""Runs of a numpyro model with given latents, which reach the bodies of its scans and branches."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.primitives import Messenger

from funcvi._numpyro import ALL_VALUES, SCAN_INDEX, runs_backwards, scan_length
from funcvi.constraints import bijection_for, constraint_name
from funcvi.sampling.point_transforms import through
from funcvi.sampling.points import Value
from funcvi.sampling.record import unwrapped
from funcvi.targets.masks import free_log_prob, mask_over, masked_log_det, where_counted
from funcvi.targets.record import Shape, Sites, log_det_of

__all__ = ["WRAPPERS", "Constrain", "Message", "Model", "Replay", "WithoutDraws"]

WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)

Model: TypeAlias = Callable[..., object]
Message: TypeAlias = dict[str, Any]  # numpyro's own: a site of a trace


class _Given(Messenger):
    """Gives latents their values.

    A scan or a branch runs its body first and reports the body's sites afterwards, all steps in
    one: it is handed :meth:`value` for its body, and its reports are treated like other sites.
    """

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "control_flow":
            stack, backwards = msg["kwargs"]["substitute_stack"], runs_backwards(msg)
            given = [x for kind, x in stack if kind == "condition" and isinstance(x, dict)]
            lengths = {n: jnp.shape(x) for data in given for n, x in data.items()}

            def value(site: Message) -> Array | None:
                if site["is_observed"]:
                    _refuse_part(site, lengths.get(site["name"]), scan_length(msg))
                    return None
                return self.value(site, backwards)

            stack.append(("substitute", value))
        elif msg["type"] == "sample" and not msg["is_observed"]:
            self.give(msg)

    def give(self, msg: Message) -> None:
        """Sets the value of a latent site."""
        raise NotImplementedError

    def value(self, site: Message, backwards: bool) -> Array | None:
        """That of a site in a body, at the present step of a scan, which may run backwards."""
        raise NotImplementedError


class Constrain(_Given):
    """Gives each latent site the constrained image of its unconstrained value.

    The bijection is that of the site's support at that moment, so a support may depend on the
    values of earlier sites.

    Attributes:
        values: constrained values by site; the model itself sees ``fill`` where a mask is False.
        log_det: log |det| of the bijections, summed.
        log_det_counted: the same where masks are True, and the density of what they leave free;
            each site's as often as ``counts`` says.
        points: values with their logarithms, where they were rounded to an edge.
    """

    def __init__(
        self,
        fn: Model,
        z: Sites,
        fill: Mapping[str, Array] | None = None,
        counts: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(fn)
        self.z = z
        self.fill = fill or {}
        self.counts = counts or {}
        self.values: Sites = {}
        self.log_det: Array = jnp.zeros(())
        self.log_det_counted: Array = jnp.zeros(())
        self.points: dict[str, Value] = {}

    def give(self, msg: Message) -> None:
        """Sets the value, and adds its log determinant."""
        name, d = msg["name"], msg["fn"]
        if name not in self.z:
            return
        z, bijection = self.z[name], bijection_for(d.support)
        value = bijection(z)
        log_det = log_det_of(bijection, z, value)
        self.values[name] = value
        self.log_det += log_det
        if (mask := mask_over(d)) is None:
            counted = log_det
        else:
            counted = free_log_prob(mask, z)
            z = where_counted(mask, z, self.fill.get(name, 0.0))
            value = bijection(z)
            counted += masked_log_det(d, mask, z, value)
        self.log_det_counted += self.counts.get(name, 1) * counted
        msg["value"] = value
        self.points[name] = through(bijection, z, value)

    def value(self, site: Message, backwards: bool = False) -> Array | None:
        """The constrained value of one step."""
        name, d = site["name"], site["fn"]
        if name not in self.z:
            return None
        bijection = bijection_for(d.support)
        ndim = len(bijection.inverse_shape(tuple(d.shape())))
        z = _at_step(self.z[name], ndim, site, backwards)
        if (mask := mask_over(d)) is not None:
            fill = self.fill.get(name, jnp.zeros_like(self.z[name]))
            z = where_counted(mask, z, _at_step(fill, ndim, site, backwards))
        return bijection(z)


class Replay(_Given):
    """Gives each latent site its constrained value."""

    def __init__(self, fn: Model, values: Sites) -> None:
        super().__init__(fn)
        self.values = values

    def give(self, msg: Message) -> None:
        """Sets the value."""
        if msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]]

    def value(self, site: Message, backwards: bool = False) -> Array | None:
        """That of one step."""
        if site["name"] not in self.values:
            return None
        return _at_step(self.values[site["name"]], len(site["fn"].shape()), site, backwards)


class WithoutDraws(_Given):
    """Gives each continuous latent some value of its support, for shapes and supports to be seen.

    A draw of its prior would do for most, but a flat one has none, and a vague one's may overflow.
    """

    def give(self, msg: Message) -> None:
        """Sets the value, unless the model has."""
        if msg["value"] is None:
            msg["value"] = self.value(msg)

    def value(self, site: Message, backwards: bool = False) -> Array | None:
        """The image of zero; none where only a draw is known to fit."""
        d = site["fn"]
        if d.is_discrete or isinstance(unwrapped(d, *WRAPPERS), dist.Delta):
            return None
        try:
            bijection = bijection_for(d.support)
        except NotImplementedError:
            raise ValueError(
                f"latent site {site['name']!r} has the support {constraint_name(d.support)}, onto "
                "which no bijection is known: write it as a function of latents that have one (a "
                "direction by numpyro's ProjectedNormalReparam)."
            ) from None
        shape = (*site["kwargs"].get("sample_shape", ()), *d.shape())
        return bijection(jnp.zeros(bijection.inverse_shape(shape)))


def _refuse_part(site: Message, given: Shape | None, length: int | None) -> None:
    """Refuse data for some steps of a scan: numpyro draws the others, and calls all observed."""
    if given and length and len(given) == len(site["fn"].shape()) + 1 and given[0] < length:
        raise ValueError(
            f"site {site['name']!r} is conditioned on {given[0]} of its scan's {length} steps: "
            "scan over the observed steps alone, and the others in a scan of another name."
        )


def _at_step(series: Array, ndim: int, site: Message, backwards: bool) -> Array:
    """Of a site's series over a scan, what belongs to the present step; else all of it."""
    axes = 1 if site["infer"].get(ALL_VALUES) else jnp.ndim(series) - ndim
    if axes > 1:
        raise ValueError(
            f"latent site {site['name']!r} is in a scan within a scan, which numpyro cannot give "
            "values to: scan over both at once, or put the inner steps in a plate."
        )
    if axes == 1 and backwards:  # what the scan reports is in the order of what it scans
        series = jnp.flip(series, 0)
    step = site["infer"].get(SCAN_INDEX)
    if axes == 1 and step is not None:  # a branch within a scan has no step: the scan takes it
        return series[step]
    return series
