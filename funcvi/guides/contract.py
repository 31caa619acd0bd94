"""What a guide and a posterior are; each family of guides is a file of its own beside this one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from funcvi._checks import check_key, check_not_fit
from funcvi._jax import is_concrete
from funcvi._types import Key, Params
from funcvi.densities.log_prob import log_prob
from funcvi.families import Family
from funcvi.outputs import Outputs
from funcvi.sampling import sample
from funcvi.sampling.draw import checked_shape
from funcvi.sampling.record import unwrapped
from funcvi.sampling.scored import sample_and_log_prob
from funcvi.targets import Shape, Sites, Target, leading_shape

__all__ = ["Guide", "Posterior", "Unconstrained", "check_guide", "check_target", "start_of"]

T = TypeVar("T")

#: A joint distribution on unconstrained space: site by site, or of the vector of ``target.ravel``.
Unconstrained: TypeAlias = dict[str, dist.Distribution] | dist.Distribution

#: One draw of ``Unconstrained``, with any leading axes.
Raw: TypeAlias = Sites | Array


@dataclass(frozen=True, eq=False)
class Guide:
    """A family of posteriors over a target: a record of pure functions.

    Attributes:
        target: what its posteriors approximate.
        init: ``key -> params`` to start from; other keys start elsewhere, under ``jax.vmap`` too.
        family: ``params -> distribution`` on unconstrained space.
        recipe: the function of funcvi that made it and its options, if they tell all of the
            family: what a file needs to make it again.

    ``guide(params)`` is a :class:`Posterior`. Everything works under jit, grad and vmap.

    Where the target has point parameters (``numpyro.param``), params are ``{"latents": ...,
    "points": ...}``, both learned.
    """

    target: Target
    init: Callable[[Key], Params]
    family: Callable[[Params], Unconstrained]
    recipe: tuple[str, Mapping[str, int]] | None = None

    def __call__(self, params: Params) -> "Posterior":
        """The posterior at ``params``.

        Raises:
            TypeError: ``params`` is the result of a fit, or no params.
            ValueError: names or shapes of ``params`` are not the family's.
        """
        check_not_fit(params, "a guide")
        latents = self.latents(params)
        if isinstance(self.family, Family) and is_concrete(latents):
            jax.eval_shape(lambda: (self.family(latents), None)[1])  # refuses wrong ones at once
        return Posterior(self, params)

    def latents(self, params: Params) -> Params:
        """Of params those of the family.

        Raises:
            ValueError: there are point parameters, and params have none.
        """
        if not self.target.points:
            return params
        if not (isinstance(params, Mapping) and set(params) == {"latents", "points"}):
            raise ValueError(
                f"the model has point parameters, {list(self.target.points)}: params are "
                '{"latents": ..., "points": ...}, as of guide.init(key).'
            )
        return params["latents"]

    def __repr__(self) -> str:
        return "\n".join(["Guide over", *_sites_of(self.target)])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Posterior(Outputs):
    """A guide at some params: a joint distribution of a target's sites. A pytree of the params.

    Shapes are those of the sites behind leading axes: first ``sample_shape``, then the leading
    axes of the params where ``jax.vmap`` made them.
    """

    guide: Guide = field(metadata={"static": True})
    params: Params

    def __repr__(self) -> str:
        q = self.unconstrained
        each = q if isinstance(q, Mapping) else {"all sites": q}
        named = [f"{name} {type(unwrapped(d)).__name__}" for name, d in each.items()]
        lines = ["Posterior of", *_sites_of(self.target)]
        return "\n".join([*lines, f"on unconstrained space: {', '.join(named)}"])

    @property
    def target(self) -> Target:  # type: ignore[override]
        """What it approximates, at its point parameters."""
        of = self.guide.target
        return of if of.at is None else of.at(self._points)

    @property
    def points(self) -> dict[str, Any]:
        """The constrained values of point parameters (``numpyro.param``), by name."""
        return self.guide.target.point_values(self._points)

    @property
    def _points(self) -> Mapping[str, Any]:
        return self.params["points"] if self.guide.target.points else {}

    @property
    def unconstrained(self) -> Unconstrained:
        """The joint distribution on unconstrained space.

        ``{site: distribution}`` where the sites are independent; else one distribution of the
        vectors of ``target.ravel``. Rebuilt from the params, so that its batch shape is theirs.
        """
        return self.guide.family(self.guide.latents(self.params))

    def sites(self, raw: Raw) -> Sites:
        """The unconstrained sites of a draw of ``unconstrained``, with any leading axes."""
        return raw if isinstance(raw, Mapping) else self.target.unravel(raw)

    def sample(self, key: Key, sample_shape: Shape = ()) -> Sites:
        """Constrained values and deterministic sites, by name; what ``fv.sample`` calls.

        Returns:
            For each site an array of shape (*sample_shape, *site).
        """
        z = self.sites(sample(self.unconstrained, key, sample_shape))
        return _over_leading(self.target.constrain, z, self.target.shapes)

    def log_prob(self, values: Mapping[str, ArrayLike]) -> Array:
        """Log density of constrained values by site name, by change of variables.

        Args:
            values: for each latent site an array of shape (*leading, *site); other names, such as
                deterministic sites, are ignored.

        Returns:
            Shape (*leading).

        Raises:
            TypeError: ``values`` is not a dict.
            ValueError: a site is missing, or a shape does not fit.
        """
        if not isinstance(values, Mapping):
            raise TypeError(
                f"log_prob takes a dict of constrained values by site, {list(self.target.shapes)}; "
                f"got {type(values).__name__}."
            )
        target = self.target
        latents = {name: jnp.asarray(values[name]) for name in target.shapes if name in values}
        z = _over_leading(target.unconstrain, latents, target.value_shapes)
        q = self.unconstrained
        if isinstance(q, Mapping):
            log_q = sum((log_prob(d, z[name]) for name, d in q.items()), jnp.zeros(()))
        else:
            log_q = log_prob(q, target.ravel(z))
        return log_q - _over_leading(target.log_det, z, target.shapes)

    def sample_and_log_prob(self, key: Key, sample_shape: Shape = ()) -> tuple[Sites, Array]:
        """:meth:`sample`, and the log density of each draw, without inverting what was drawn."""
        z, log_q = self.sample_unconstrained(key, sample_shape)
        target = self.target
        values = _over_leading(target.constrain, z, target.shapes)
        return values, log_q - _over_leading(target.log_det, z, target.shapes)

    def sample_unconstrained(self, key: Key, sample_shape: Shape = ()) -> tuple[Sites, Array]:
        """Unconstrained sites, and the log density of each draw on unconstrained space."""
        check_key(key)
        q = self.unconstrained
        raw, log_q = sample_and_log_prob(q, key, checked_shape(sample_shape))
        return self.sites(raw), log_q

    def marginals(self) -> dict[str, dist.Normal]:
        """The normal distribution of each site's entries on unconstrained space.

        Raises:
            TypeError: the marginals of this guide are not normal.
        """
        q = self.unconstrained
        if isinstance(q, Mapping):
            entries = {name: unwrapped(d, dist.Independent) for name, d in q.items()}
            if all(isinstance(d, dist.Normal) for d in entries.values()):
                return entries
        elif isinstance(q, dist.MultivariateNormal | dist.LowRankMultivariateNormal):
            scales = self.sites(jnp.sqrt(q.variance))
            return {n: dist.Normal(loc, scales[n]) for n, loc in self.sites(q.mean).items()}
        raise TypeError(
            "the marginals of this guide are not normal: they are to be had of fv.mean_field, "
            "fv.full_rank, fv.low_rank and fv.laplace; draw from the posterior instead."
        )


def start_of(target: Target, latents: Callable[[Key], Params]) -> Callable[[Key], Params]:
    """``guide.init``, from that of its family: with the target's point parameters."""
    if not target.points:
        return latents
    return lambda key: {"latents": latents(key), "points": dict(target.points)}


def check_target(target: object) -> None:
    """Raises a TypeError that says what to do, unless this is a target."""
    if isinstance(target, Target):
        return
    remedy = "wrap the model in fv.target(model, *args)"
    if isinstance(target, Guide | Posterior):
        remedy = "it has one already: pass guide.target"
    elif hasattr(target, "sample_posterior"):  # numpyro's AutoGuide
        remedy = "it is a guide, of fv.guide(fv.target(model, *args), this)"
    raise TypeError(f"expected a target, got {type(target).__name__}: {remedy}.")


def check_guide(guide: object) -> None:
    """Raises a TypeError that says what to do, unless this is a guide."""
    if isinstance(guide, Guide):
        return
    remedy = "make one with fv.mean_field(target), or fv.guide(target, family)"
    if isinstance(guide, Target):
        remedy = "make a guide for it, such as fv.mean_field(target)"
    elif isinstance(guide, Posterior):
        remedy = "the loss calls the guide itself: pass posterior.guide"
    elif hasattr(guide, "sample_posterior"):
        remedy = "it is numpyro's: fv.guide(fv.target(model, *args), this) makes one of it"
    raise TypeError(f"expected a guide, got {type(guide).__name__}: {remedy}.")


def _sites_of(target: Target) -> list[str]:
    return [f"  {n}: {target.supports[n]}, shape {s}" for n, s in target.value_shapes.items()]


def _over_leading(function: Callable[[Sites], T], z: Sites, shapes: Mapping[str, Shape]) -> T:
    """``function`` of one draw, mapped over the leading axes of many."""
    for _ in leading_shape(z, shapes):
        function = jax.vmap(function)
    return function(z)
