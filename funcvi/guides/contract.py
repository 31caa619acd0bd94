"""What a guide and a posterior are; each family of guides is a file of its own beside this one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from funcvi._checks import check_key, check_not_fit
from funcvi._jax import is_concrete
from funcvi._types import Key, Params
from funcvi.densities.log_prob import log_prob
from funcvi.families import Family
from funcvi.guides.inside import inside_support
from funcvi.outputs import Outputs
from funcvi.sampling import sample
from funcvi.sampling.draw import checked_shape
from funcvi.sampling.record import unwrapped
from funcvi.sampling.scored import sample_and_log_prob
from funcvi.targets import Shape, Sites, Target, batch_axes, leading_shape, traced_data, with_data
from funcvi.targets.record import ravel, unravel

__all__ = [
    "Guide",
    "Posterior",
    "Recipe",
    "Unconstrained",
    "check_guide",
    "check_target",
    "start_of",
]

T = TypeVar("T")

#: A joint distribution on unconstrained space: by independent sites, or blocks of them (see
#: ``Guide.blocks``), or of the vector of ``target.ravel``.
Unconstrained: TypeAlias = dict[str, dist.Distribution] | dist.Distribution

_Shapes: TypeAlias = Mapping[str, Shape]

#: One draw of ``Unconstrained``, with any leading axes.
Raw: TypeAlias = Sites | Array

#: The name of a function of funcvi, and options that JSON can hold.
Recipe: TypeAlias = tuple[str, Mapping[str, int | str]]


@dataclass(frozen=True, eq=False)
class Guide:
    """A family of posteriors over a target: a record of pure functions.

    Attributes:
        target: what its posteriors approximate.
        init: ``key -> params`` to start from; other keys start elsewhere, under ``jax.vmap`` too.
        family: ``params -> distribution`` on unconstrained space.
        recipe: the function of funcvi that made it and its options, if they tell all of the
            family: what a file needs to make it again.
        blocks: what members of the distribution are, that are not one site: by their name the
            sites whose vector they are of.

    ``guide(params)`` is a :class:`Posterior`. Everything works under jit, grad and vmap.

    Where the target has point parameters (``numpyro.param``), params are ``{"latents": ...,
    "points": ...}``, both learned.
    """

    target: Target
    init: Callable[[Key], Params]
    family: Callable[[Params], Unconstrained]
    recipe: Recipe | None = None
    blocks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        return Posterior(self, params, traced_data(self.target))

    def inverse(self, posterior: "Posterior | Unconstrained") -> Params:
        """The params at which this guide gives ``posterior``: to start from what is known.

        Args:
            posterior: of this guide or another one over the same target, or its distribution on
                unconstrained space. Of a distribution alone, point parameters are at their start.

        Raises:
            TypeError: the guide has no inverse, as that of a network or a function; or the
                distribution is of another kind.
            ValueError: see :meth:`fv.Family.inverse`.

        Example:
            >>> import jax, numpyro, numpyro.distributions as dist
            >>> import funcvi as fv
            >>> t = fv.target(lambda: numpyro.sample("a", dist.Normal(3.0, 0.5)))
            >>> found = fv.batch_and_match(t, key=jax.random.key(0))
            >>> params = fv.full_rank(t).inverse(found)  # to be fitted further
            >>> round(float(params["loc"][0]), 2)
            3.0
        """
        inverse = getattr(self.family, "inverse", None)
        if inverse is None:
            raise TypeError(
                "this guide has no inverse: only that of fv.mean_field, fv.full_rank, fv.low_rank, "
                "fv.laplace, fv.mixture, fv.blocks, of a template in fv.guide, and of fv.flow at a "
                "normal distribution."
            )
        points: Mapping[str, Any] = self.target.points
        if isinstance(posterior, Posterior):
            points = posterior._points or points
            posterior = posterior.unconstrained
        latents = inverse(posterior)
        return {"latents": latents, "points": dict(points)} if points else latents

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

    Attributes:
        guide: whose family it is of.
        params: of the family.
        data: of the model's arguments the arrays that were traced where the target was made, inside
            ``jax.jit`` or ``jax.vmap``; as leaves they come out with the params, each posterior of
            a batch with its own.
    """

    guide: Guide = field(metadata={"static": True})
    params: Params
    data: tuple[Array, ...] = ()

    def __repr__(self) -> str:
        q = self.unconstrained
        each = q if isinstance(q, Mapping) else {"all sites": q}
        named = [f"{name} {type(unwrapped(d)).__name__}" for name, d in each.items()]
        lines = ["Posterior of", *_sites_of(self.guide.target)]
        return "\n".join([*lines, f"on unconstrained space: {', '.join(named)}"])

    @property
    def target(self) -> Target:  # type: ignore[override]
        """What it approximates, at its point parameters and its data.

        Raises:
            ValueError: this is a batch of posteriors, each with its own data.
        """
        of = with_data(self.guide.target, self.data)
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

        ``{site: distribution}`` where the sites are independent, and a distribution of vectors for
        each block of :func:`fv.blocks`; else one distribution of the vectors of ``target.ravel``.
        Rebuilt from the params, so that its batch shape is theirs.
        """
        if is_concrete(self.params) and any(map(_has_nan, jax.tree.leaves(self.params))):
            raise ValueError(_FAILED)
        return self.guide.family(self.guide.latents(self.params))

    def sites(self, raw: Raw) -> Sites:
        """The unconstrained sites of a draw of ``unconstrained``, with any leading axes."""
        if not isinstance(raw, Mapping):
            return self.guide.target.unravel(raw)
        found: Sites = {}
        for name, x in raw.items():
            found |= unravel(x, self._block(name)) if name in self.guide.blocks else {name: x}
        return {name: found[name] for name in self.guide.target.shapes}

    def _block(self, name: str) -> dict[str, Shape]:
        return {site: self.guide.target.shapes[site] for site in self.guide.blocks[name]}

    def _each(self, function: Callable[[Target, Sites], T], z: Sites, shapes: _Shapes) -> T:
        """``function`` of one draw, mapped over leading axes of many; the last are the data's."""
        if not self.data:
            return _over_leading(partial(function, self.target), z, shapes)

        def one(data: tuple[Array, ...], z: Sites) -> T:
            return function(replace(self, data=data).target, z)

        of_data = batch_axes(self.guide.target, self.data)
        lead = leading_shape(z, shapes)
        if len(lead) < of_data:
            lead = self.data[0].shape[:of_data]
            z = {name: jnp.broadcast_to(z[name], (*lead, *shapes[name])) for name in shapes}
        for axis in range(len(lead)):
            one = jax.vmap(one, (0 if axis < of_data else None, 0))
        return one(self.data, z)

    def sample(self, key: Key, sample_shape: Shape = ()) -> Sites:
        """Constrained values and deterministic sites, by name; what ``fv.sample`` calls.

        Returns:
            For each site an array of shape (*sample_shape, *site).
        """
        z = self.sites(sample(self.unconstrained, key, sample_shape))
        return self._each(lambda target, z: target.constrain(z), z, self.guide.target.shapes)

    def log_prob(self, values: Mapping[str, ArrayLike]) -> Array:
        """Log density of constrained values by site name, by change of variables.

        Args:
            values: for each latent site an array of shape (*leading, *site); other names, such as
                deterministic sites, are ignored.

        Returns:
            Shape (*leading); minus infinity outside of a site's support.

        Raises:
            TypeError: ``values`` is not a dict.
            ValueError: a site is missing, or a shape does not fit.
        """
        if not isinstance(values, Mapping):
            raise TypeError(
                "log_prob takes a dict of constrained values by site, "
                f"{list(self.guide.target.shapes)}; got {type(values).__name__}."
            )
        of = self.guide.target
        latents = {name: jnp.asarray(values[name]) for name in of.shapes if name in values}
        z, outside = self._each(inside_support, latents, of.value_shapes)
        q = self.unconstrained
        if isinstance(q, Mapping):
            parts = {n: ravel(z, self._block(n)) if n in self.guide.blocks else z[n] for n in q}
            log_q = sum((log_prob(d, parts[name]) for name, d in q.items()), jnp.zeros(()))
        else:
            log_q = log_prob(q, of.ravel(z))
        log_q -= self._each(lambda target, z: target.log_det(z), z, of.shapes)
        return jnp.where(outside == 0, log_q, outside)

    def sample_and_log_prob(self, key: Key, sample_shape: Shape = ()) -> tuple[Sites, Array]:
        """:meth:`sample`, and the log density of each draw, without inverting what was drawn."""
        z, log_q = self.sample_unconstrained(key, sample_shape)
        shapes = self.guide.target.shapes
        values = self._each(lambda target, z: target.constrain(z), z, shapes)
        return values, log_q - self._each(lambda target, z: target.log_det(z), z, shapes)

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
        each = q if isinstance(q, Mapping) else {"all": q}
        found: dict[str, dist.Normal] = {}
        for name, d in each.items():
            normal = unwrapped(d, dist.Independent)
            if isinstance(normal, dist.Normal) and name in self.target.shapes:
                found[name] = normal
            elif isinstance(d, dist.MultivariateNormal | dist.LowRankMultivariateNormal):
                block = self._block(name) if isinstance(q, Mapping) else self.target.shapes
                loc, scale = unravel(d.mean, block), unravel(jnp.sqrt(d.variance), block)
                found |= {site: dist.Normal(x, scale[site]) for site, x in loc.items()}
        if set(found) == set(self.target.shapes):
            return {name: found[name] for name in self.target.shapes}
        raise TypeError(
            "the marginals of this guide are not normal; those of fv.mean_field, fv.full_rank, "
            "fv.low_rank, fv.laplace and blocks of these are. Draw from the posterior instead."
        )


_FAILED = (
    "params hold NaN: nothing was found for these data. Of a batch of posteriors go on with the "
    "others, jax.tree.map(lambda x: x[kept], posterior); fv.diagnose_each tells which have failed."
)


def _has_nan(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and np.isnan(leaf).any())


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
        name = "guide" if isinstance(target, Guide) else "posterior"
        remedy = f"it has one already: pass {name}.target"
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
