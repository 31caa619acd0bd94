"""Discrete latents of few values, summed out exactly: each has all its values at once.

A site's values lie along an axis of its own, left of all batch axes, and whatever the model makes
of them broadcasts. What broadcasts wrongly, or not at all, is refused: log densities of all sites
are compared with those at single values.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.primitives import Messenger

from funcvi._jax import is_concrete, read_inputs
from funcvi.runtime_checks import require
from funcvi.targets.chains import BEFORE, Axes, Chain, ChainRefusal, sum_chain
from funcvi.targets.discrete_sites import DiscreteSite, discrete_site
from funcvi.targets.discrete_values import AllValues, GivenDiscrete
from funcvi.targets.elimination import Factor, log_sum_product
from funcvi.targets.masks import mask_over
from funcvi.targets.replay import Message, Model

__all__ = ["Enumeration", "enumeration_of"]

_MOST_PLACES = 32  # at which chains are checked
_HINT = (
    "Index with all axes at once (means[z], or table[rows, z]), branch with jnp.where, and put "
    "batch axes in plates; or sum {name!r} out by hand (dist.MixtureSameFamily)."
)

LogProb: TypeAlias = Callable[[Message], Array]
Run: TypeAlias = Callable[[Model], Mapping[str, Message]]


class Enumeration:
    """The discrete latents of a model, and the sum over all their values.

    Attributes:
        names: of the sites.
    """

    def __init__(
        self, sites: Mapping[str, DiscreteSite], depth: int, sizes: Mapping[str, int]
    ) -> None:
        self.names = tuple(sites)
        self._sites = sites
        chained = {name + BEFORE: s for name, s in sites.items() if s.length is not None}
        variables = {**sites, **chained}
        self._axes = Axes(
            {name: number for number, name in enumerate(variables)},
            depth,
            {name: frozenset(s.plates) for name, s in variables.items()},
            {**sizes, **{name: len(s.values) for name, s in variables.items()}},
            frozenset(name for name, s in sites.items() if s.length is not None),
        )
        self._plates = {name: s.plates for name, s in variables.items()}

    def all_values(
        self, fn: Model, log_prob: LogProb, places: Mapping[str, Array] | None = None
    ) -> AllValues:
        """The model with all values of each site at once.

        Args:
            fn: the model.
            log_prob: of a site, by entry, without its scale.
            places: where to look at the densities of each step of scans, for checks.
        """
        values = {
            name: site.values.reshape(len(site.values), *(1,) * (self._axes.depth + number))
            for number, (name, site) in enumerate(self._sites.items())
        }
        chained = self._axes.chained

        def look(factor: Factor, step: Array | int, before: Array | int) -> Array:
            assert places is not None
            now = {n: x[step] if n in chained else x for n, x in places.items()}
            earlier = {n + BEFORE: places[n][before] for n in chained}
            return jnp.sum(self._at(factor, {**now, **earlier}))

        def chain(msg: Message) -> Chain:
            return sum_chain(
                msg,
                lambda body: GivenDiscrete(body, values),
                lambda site: self._factor(site, self._log_prob(site, log_prob)),
                self._axes,
                None if places is None else look,
            )

        ones = {n: jnp.broadcast_to(s.values[0], s.batch_shape) for n, s in self._sites.items()}
        single = {n: x for n, x in ones.items() if n in chained}
        return AllValues(fn, {n: x for n, x in values.items() if n not in chained}, single, chain)

    def at(self, fn: Model, places: Mapping[str, Array]) -> Messenger:
        """The model with single values of the sites, by their places among all."""
        values = {
            name: site.values[places[name].reshape(site.shape)]
            for name, site in self._sites.items()
        }
        return GivenDiscrete(fn, values)

    def places(self, key: Array) -> dict[str, Array]:
        """Such places, at random; without axes of size one but that of a scan."""
        found = {}
        for number, (name, site) in enumerate(self._sites.items()):
            one_key = jax.random.fold_in(key, number)
            drawn = jax.random.randint(one_key, site.shape, 0, len(site.values))
            first = 0 if site.length is None else 1
            short = tuple(i for i in range(first, drawn.ndim) if drawn.shape[i] == 1)
            found[name] = jnp.squeeze(drawn, short)
        return found

    def log_sum(
        self, trace: Mapping[str, Message], chains: Sequence[Chain], log_prob: LogProb
    ) -> Array:
        """The log density of a trace with all values, summed over them.

        Args:
            trace: of :meth:`all_values`.
            chains: of :meth:`all_values`.
            log_prob: of a site, by entry, without its scale.
        """
        summed = {name for chain in chains for name in chain.sites}
        drawn = {n: s for n, s in _sampled(trace).items() if n not in summed}
        values = {name: self._log_prob(site, log_prob) for name, site in drawn.items()}
        factors = {name: self._factor(site, values[name]) for name, site in drawn.items()}
        scales = {name: site["scale"] for name, site in drawn.items()}
        for chain in chains:
            own = {name: trace[name]["scale"] for name in chain.sites}
            _scale_of(own, sorted(self._axes.chained & chain.sites))
            scale = next(iter(own.values()))
            for number, factor in enumerate(chain.factors):
                name = f"{min(chain.sites)}, of the scan ({number})"
                factors[name], values[name], scales[name] = factor, factor.values, scale
        variables_of = {n: p for n, p in self._axes.plates_of.items() if n in self._sites}
        total = jnp.zeros(())
        for group in self._groups(factors):
            held = {v for n in group for v in factors[n].names if v in variables_of}
            own = {n: scales[n] for n in group}
            if held:
                parts = [factors[n] for n in group]
                variables = {v: variables_of[v] for v in held}
                summed_group = log_sum_product(parts, variables, self._axes.sizes)
                total += _scale_of(own, sorted(held)) * summed_group
            else:
                (name,) = group
                scale = scales[name]
                total += jnp.sum(values[name] if scale is None else scale * values[name])
        return total

    def check(self, run: Run, fn: Model, log_prob: LogProb) -> list[ArrayLike]:
        """Raises a ValueError where log densities of all values are not those of single ones.

        Where the data are traced it is raised as the program runs, if something reads what is
        returned: whether they are.

        A site that reads a discrete one must have an axis of its values, and its plates, for else
        it was reduced over them; and its density at single values must be that of the model there.

        Args:
            run: the trace of a model with some latents.
            fn: the model.
            log_prob: of a site, by entry.
        """
        axes: dict[str, tuple[str, ...]] = {}

        def both(places: dict[str, Array]) -> tuple[dict[str, Any], dict[str, Any]]:
            model = self.all_values(fn, log_prob, places)
            trace = _sampled(run(model))
            summed = {name for chain in model.chains for name in chain.sites}
            rest = {name: site for name, site in trace.items() if name not in summed}
            values = {name: self._log_prob(site, log_prob) for name, site in rest.items()}
            factors = {name: self._factor(trace[name], x) for name, x in values.items()}
            axes.update({name: factor.names for name, factor in factors.items()})
            single = _sampled(run(self.at(fn, places)))
            pairs = {}
            for name, factor in factors.items():
                other = self._factor(single[name], self._log_prob(single[name], log_prob))
                pairs[name] = self._at(factor, places), other.over(self._plates_in(factor))
            for chain in model.chains:
                axes.update(chain.axes)
                for name, steps in chain.steps.items():
                    other_values = self._log_prob(single[name], log_prob)
                    by_step = jnp.sum(other_values, tuple(range(1, other_values.ndim)))
                    pairs[name] = steps, by_step
            return pairs, {name: trace[name]["fn"].support for name in self.names}

        try:
            reads = self._reads(run, fn, log_prob)
            pairs, supports = jax.jit(jax.vmap(both))(self._many_places())
        except ChainRefusal:
            raise
        except (ValueError, TypeError, IndexError) as error:
            text = str(error).split("\n")[0]
            raise ValueError(
                f"the model does not take all values of the discrete sites {list(self.names)} at "
                f"once: {text}\n{_HINT.format(name=self.names[0])}"
            ) from error
        for name, read in reads.items():
            for variable in read:
                needed = {variable, *self._sites[variable].plates}
                if variable in self._axes.chained and not {variable, variable + BEFORE} & set(
                    axes[name]
                ):
                    raise ValueError(
                        f"site {name!r} depends on the discrete site {variable!r} of a scan, which "
                        "is summed out step by step: make it a site of the scan's body, and let "
                        "it read the values of a step one by one."
                    )
                if variable + BEFORE in axes[name]:
                    needed.discard(variable)
                if not needed <= set(axes[name]):
                    raise ValueError(
                        f"site {name!r} depends on the discrete site {variable!r}, and not value "
                        f"by value: it is reduced over {sorted(needed - set(axes[name]))}. "
                        f"{_HINT.format(name=variable)}"
                    )
        held: list[ArrayLike] = []

        def hold(same: ArrayLike, message: str) -> None:
            held.append(require(same, same, lambda: ValueError(message)))

        for name, (found, expected) in pairs.items():
            xp = np if is_concrete((found, expected)) else jnp
            hold(
                xp.allclose(found, expected, rtol=1e-3, atol=1e-3, equal_nan=True),
                f"site {name!r} has another log density where the model is given all values "
                f"of the discrete sites {list(self.names)} at once than at single ones:\n"
                f"something broadcasts along a wrong axis. {_HINT.format(name=self.names[0])}",
            )
        for name, support in supports.items():
            for now, first in zip(
                jax.tree.leaves(support), jax.tree.leaves(self._sites[name].support), strict=True
            ):
                xp = np if is_concrete((now, first)) else jnp
                hold(
                    xp.all(xp.asarray(now) == xp.asarray(first).reshape(-1)[0]),
                    f"the values of latent site {name!r} depend on other latents: it has to be "
                    "summed over the same values always; give those that do not count a "
                    "probability of zero.",
                )
        return held

    def _many_places(self) -> dict[str, Array]:
        """Such places, along a leading axis; of a scan all values (or 32) of each step."""
        counts = [len(self._sites[name].values) for name in self._axes.chained]
        number = max(3, min(max(counts, default=0), _MOST_PLACES))
        places = jax.vmap(self.places)(jax.random.split(jax.random.key(0), number))
        for name in self._axes.chained:
            shifts = jnp.arange(number).reshape(-1, *(1,) * (places[name].ndim - 1))
            places[name] = (places[name][:1] + shifts) % len(self._sites[name].values)
        return places

    def _reads(self, run: Run, fn: Model, log_prob: LogProb) -> dict[str, list[str]]:
        """The discrete sites that the log density of each site depends on."""

        def densities(places: dict[str, Array]) -> dict[str, Array]:
            trace = _sampled(run(self.at(fn, places)))
            return {n: jnp.sum(self._log_prob(site, log_prob)) for n, site in trace.items()}

        places = self.places(jax.random.key(0))
        closed, shapes = jax.make_jaxpr(densities, return_shape=True)(places)
        inputs, outputs = sorted(places), sorted(shapes)
        flags = {
            name: read_inputs(closed.jaxpr, [name == other for other in outputs])
            for name in outputs
        }
        return {
            name: [n for n, is_read in zip(inputs, read, strict=True) if is_read]
            for name, read in flags.items()
        }

    def read_by_deterministic(self, run: Run, fn: Model) -> set[str]:
        """The names of deterministic sites that depend on discrete ones."""

        def computed(places: dict[str, Array]) -> dict[str, Array]:
            trace = run(self.at(fn, places))
            return {n: s["value"] for n, s in trace.items() if s["type"] == "deterministic"}

        places = self.places(jax.random.key(0))
        closed, shapes = jax.make_jaxpr(computed, return_shape=True)(places)
        names = [path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
        outputs = range(len(names))
        return {
            name
            for i, name in enumerate(names)
            if any(read_inputs(closed.jaxpr, [i == j for j in outputs]))
        }

    def _at(self, factor: Factor, places: Mapping[str, Array]) -> Array:
        """A factor at one value of each site, by its plates."""
        plates = self._plates_in(factor)
        axes = [*self._plates, *plates]
        values = factor.over(axes)
        for number, (variable, own) in enumerate(self._plates.items()):
            if variable in factor.names:
                index = Factor(own, places[variable]).over(axes)
                values = jnp.take_along_axis(values, index, axis=number)
        return values.reshape(values.shape[len(self._plates) :])

    def _plates_in(self, factor: Factor) -> tuple[str, ...]:
        return tuple(name for name in factor.names if name not in self._plates)

    def _log_prob(self, site: Message, log_prob: LogProb) -> Array:
        """By entry; a discrete latent is uniform where a mask leaves it free."""
        values = log_prob(site)
        if site["name"] in self._sites and (mask := mask_over(site["fn"])) is not None:
            values = jnp.where(mask, values, -jnp.log(len(self._sites[site["name"]].values)))
        return values

    def _factor(self, site: Message, values: Array) -> Factor:
        """By its variables and plates; batch axes that are no plates are products at once."""
        frames = {frame.dim: frame.name for frame in site["cond_indep_stack"]}
        deepest = max((-dim for dim in frames), default=0)
        values = values.reshape(*(1,) * (deepest - values.ndim), *values.shape)
        names, sizes = [], []
        for dim, size in zip(range(-values.ndim, 0), values.shape, strict=True):
            name = frames.get(dim)
            if (number := -dim - 1 - self._axes.depth) >= 0 and size > 1:
                variables = tuple(self._axes.numbers)
                name = variables[number] if number < len(variables) else None
                if name is None or size != self._axes.sizes[name]:
                    raise ValueError(
                        f"site {site['name']!r} has the shape {values.shape}, of which axis {dim} "
                        "is neither a batch axis nor one of a discrete site's values."
                    )
            names.append(name)
            sizes.append(size if name is None else self._axes.sizes[name])
        values = jnp.broadcast_to(values, sizes)
        anonymous = tuple(i for i, n in enumerate(names) if n is None)
        return Factor(tuple(n for n in names if n is not None), jnp.sum(values, anonymous))

    def _groups(self, factors: Mapping[str, Factor]) -> list[list[str]]:
        """The sites, in groups that share variables."""
        groups: list[tuple[set[str], list[str]]] = []
        for name, factor in factors.items():
            variables = set(factor.names) & set(self._sites)
            joined = [g for g in groups if g[0] & variables]
            groups = [g for g in groups if not g[0] & variables]
            names = [n for _, members in joined for n in members]
            variables = variables.union(*(other for other, _ in joined))
            groups.append((variables, [*names, name]))
        return [names for _, names in groups]


def _sampled(trace: Mapping[str, Message]) -> dict[str, Message]:
    return {name: site for name, site in trace.items() if site["type"] == "sample"}


def _scale_of(scales: Mapping[str, Any], variables: Sequence[str]) -> Any:
    """What the sum over variables is multiplied by."""
    first = next(iter(scales.values()))
    if not all(_same_scale(scale, first) for scale in scales.values()):
        raise ValueError(
            f"the sites {sorted(scales)} depend on the discrete sites {variables} and have "
            "different scales (subsampling, handlers.scale): a sum over the discrete ones has no "
            "one scale. Put them all under one."
        )
    if np.size(first) > 1:
        raise ValueError(
            f"the discrete sites {variables} are under a scale by entry: a sum over them "
            "has no such scale. Use one number."
        )
    return 1.0 if first is None else jnp.reshape(first, ())


def enumeration_of(
    discrete: Mapping[str, Message], trace: Mapping[str, Message]
) -> Enumeration | None:
    """What sums out these discrete latents of a trace; None if there are none.

    Raises:
        ValueError: a site has too many values, batch axes outside of plates, or a mask.
    """
    if not discrete:
        return None
    drawn = [s for s in trace.values() if s["type"] == "sample"]
    depth = max(
        max(len(s["fn"].batch_shape) for s in drawn),
        max(jnp.ndim(s["value"]) - s["fn"].event_dim for s in drawn),
        max((-f.dim for s in drawn for f in s["cond_indep_stack"]), default=0),
    )
    sizes = {f.name: f.size for s in drawn for f in s["cond_indep_stack"]}
    return Enumeration({name: discrete_site(name, s) for name, s in discrete.items()}, depth, sizes)


def _same_scale(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if not is_concrete((one, other)):
        return one is other
    return bool(np.all(np.asarray(one) == np.asarray(other)))
