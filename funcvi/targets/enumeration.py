"""Discrete latents of few values, summed out exactly: each has all its values at once.

A site's values lie along an axis of its own, left of all batch axes, and whatever the model makes
of them broadcasts. What broadcasts wrongly, or not at all, is refused: log densities of all sites
are compared with those at single values.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions.constraints import Constraint
from numpyro.primitives import Messenger

from funcvi._jax import is_concrete, read_inputs
from funcvi._numpyro import SCAN_INDEX
from funcvi.masks import masked
from funcvi.targets.elimination import Factor, log_sum_product
from funcvi.targets.replay import Message, Model

__all__ = ["Enumeration", "enumeration_of"]

_MOST = 1000  # values of a site
_HINT = (
    "Index with all axes at once (means[z], or table[rows, z]), branch with jnp.where, and put "
    "batch axes in plates; or sum {name!r} out by hand (dist.MixtureSameFamily)."
)

LogProb: TypeAlias = Callable[[Message], Array]
Run: TypeAlias = Callable[[Model], Mapping[str, Message]]


class _Site(NamedTuple):
    """A discrete latent: its values, its batch shape, and the plates of its long axes."""

    values: Array
    batch_shape: tuple[int, ...]
    plates: tuple[str, ...]
    support: Constraint


class _Given(Messenger):
    """Gives discrete latents values."""

    def __init__(self, fn: Model, values: Mapping[str, Array]) -> None:
        super().__init__(fn)
        self.values = values

    def process_message(self, msg: Message) -> None:
        """Sets the value of a site that is one of them."""
        if msg["type"] == "sample" and msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.values[msg["name"]]


class Enumeration:
    """The discrete latents of a model, and the sum over all their values.

    Attributes:
        names: of the sites.
    """

    def __init__(self, sites: Mapping[str, _Site], depth: int, sizes: Mapping[str, int]) -> None:
        self.names = tuple(sites)
        self._sites, self._depth = sites, depth
        self._sizes = {**sizes, **{n: len(s.values) for n, s in sites.items()}}

    def all_values(self, fn: Model) -> Messenger:
        """The model with all values of each site at once."""
        values = {}
        for number, (name, site) in enumerate(self._sites.items()):
            ones = (1,) * (self._depth + number)
            values[name] = site.values.reshape(len(site.values), *ones)
        return _Given(fn, values)

    def at(self, fn: Model, places: Mapping[str, Array]) -> Messenger:
        """The model with single values of the sites, by their places among all."""
        values = {
            name: site.values[places[name].reshape(site.batch_shape)]
            for name, site in self._sites.items()
        }
        return _Given(fn, values)

    def places(self, key: Array) -> dict[str, Array]:
        """Such places, at random; without axes of size one."""
        return {
            name: jnp.squeeze(
                jax.random.randint(
                    jax.random.fold_in(key, number), site.batch_shape, 0, len(site.values)
                )
            )
            for number, (name, site) in enumerate(self._sites.items())
        }

    def log_sum(self, trace: Mapping[str, Message], log_prob: LogProb) -> Array:
        """The log density of a trace with all values, summed over them.

        Args:
            trace: of :meth:`all_values`.
            log_prob: of a site, by entry, without its scale.
        """
        drawn = {n: s for n, s in trace.items() if s["type"] == "sample"}
        values = {name: log_prob(site) for name, site in drawn.items()}
        factors = {name: self._factor(site, values[name]) for name, site in drawn.items()}
        plates_of = {name: frozenset(s.plates) for name, s in self._sites.items()}
        total = jnp.zeros(())
        for group in self._groups(factors):
            scales = {n: drawn[n]["scale"] for n in group}
            if variables := {n: plates_of[n] for n in group if n in plates_of}:
                parts = [factors[n] for n in group]
                summed = log_sum_product(parts, variables, self._sizes)
                total += _scale_of(scales, variables) * summed
            else:
                (name,) = group
                scale = scales[name]
                total += jnp.sum(values[name] if scale is None else scale * values[name])
        return total

    def check(self, run: Run, fn: Model, log_prob: LogProb) -> None:
        """Raises a ValueError where log densities of all values are not those of single ones.

        A site that reads a discrete one must have an axis of its values, and its plates, for else
        it was reduced over them; and its density at single values must be that of the model there.

        Args:
            run: the trace of a model with some latents.
            fn: the model.
            log_prob: of a site, by entry.
        """
        axes: dict[str, tuple[str, ...]] = {}

        def both(places: dict[str, Array]) -> tuple[dict[str, Any], dict[str, Any]]:
            trace = _sampled(run(self.all_values(fn)))
            factors = {name: self._factor(site, log_prob(site)) for name, site in trace.items()}
            axes.update({name: factor.names for name, factor in factors.items()})
            single = _sampled(run(self.at(fn, places)))
            pairs = {}
            for name, factor in factors.items():
                other = self._factor(single[name], log_prob(single[name]))
                pairs[name] = self._at(factor, places), other.over(_plates(factor, self._sites))
            return pairs, {name: trace[name]["fn"].support for name in self.names}

        keys = jax.random.split(jax.random.key(0), 3)
        try:
            reads = self._reads(run, fn, log_prob)
            pairs, supports = jax.jit(jax.vmap(both))(jax.vmap(self.places)(keys))
        except (ValueError, TypeError, IndexError) as error:
            text = str(error).split("\n")[0]
            raise ValueError(
                f"the model does not take all values of the discrete sites {list(self.names)} at "
                f"once: {text}\n{_HINT.format(name=self.names[0])}"
            ) from error
        for name, read in reads.items():
            for variable in read:
                needed = {variable, *self._sites[variable].plates}
                if not needed <= set(axes[name]):
                    raise ValueError(
                        f"site {name!r} depends on the discrete site {variable!r}, and not value "
                        f"by value: it is reduced over {sorted(needed - set(axes[name]))}. "
                        f"{_HINT.format(name=variable)}"
                    )
        for name, (found, expected) in pairs.items():
            if not np.allclose(found, expected, rtol=1e-3, atol=1e-3, equal_nan=True):
                raise ValueError(
                    f"site {name!r} has another log density where the model is given all values "
                    f"of the discrete sites {list(self.names)} at once than at single ones:\n"
                    "something broadcasts along a wrong axis. "
                    f"{_HINT.format(name=self.names[0])}"
                )
        for name, support in supports.items():
            for now, first in zip(
                jax.tree.leaves(support), jax.tree.leaves(self._sites[name].support), strict=True
            ):
                if not np.all(np.asarray(now) == np.asarray(first).reshape(-1)[0]):
                    raise ValueError(
                        f"the values of latent site {name!r} depend on other latents: it has to be "
                        "summed over the same values always; give those that do not count a "
                        "probability of zero."
                    )

    def _reads(self, run: Run, fn: Model, log_prob: LogProb) -> dict[str, list[str]]:
        """The discrete sites that the log density of each site depends on."""

        def densities(places: dict[str, Array]) -> dict[str, Array]:
            trace = _sampled(run(self.at(fn, places)))
            return {name: jnp.sum(log_prob(site)) for name, site in trace.items()}

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
        plates = _plates(factor, self._sites)
        axes = [*self._sites, *plates]
        values = factor.over(axes)
        for number, (variable, site) in enumerate(self._sites.items()):
            if variable in factor.names:
                index = Factor(site.plates, places[variable]).over(axes)
                values = jnp.take_along_axis(values, index, axis=number)
        return values.reshape(values.shape[len(self._sites) :])

    def _factor(self, site: Message, values: Array) -> Factor:
        """By its variables and plates; batch axes that are no plates are products at once."""
        frames = {frame.dim: frame.name for frame in site["cond_indep_stack"]}
        deepest = max((-dim for dim in frames), default=0)
        values = values.reshape(*(1,) * (deepest - values.ndim), *values.shape)
        names, sizes = [], []
        for dim, size in zip(range(-values.ndim, 0), values.shape, strict=True):
            name = frames.get(dim)
            if (number := -dim - 1 - self._depth) >= 0 and size > 1:
                name = self.names[number] if number < len(self.names) else None
                if name is None or size != self._sizes[name]:
                    raise ValueError(
                        f"site {site['name']!r} has the shape {values.shape}, of which axis {dim} "
                        "is neither a batch axis nor one of a discrete site's values."
                    )
            names.append(name)
            sizes.append(size if name is None else self._sizes[name])
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


def _plates(factor: Factor, sites: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(name for name in factor.names if name not in sites)


def _scale_of(scales: Mapping[str, Any], variables: Mapping[str, object]) -> Any:
    """What the sum over variables is multiplied by."""
    first = next(iter(scales.values()))
    if not all(_same_scale(scale, first) for scale in scales.values()):
        raise ValueError(
            f"the sites {sorted(scales)} depend on the discrete sites {sorted(variables)} and have "
            "different scales (subsampling, handlers.scale): a sum over the discrete ones has no "
            "one scale. Put them all under one."
        )
    if np.size(first) > 1:
        raise ValueError(
            f"the discrete sites {sorted(variables)} are under a scale by entry: a sum over them "
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
    return Enumeration({name: _site(name, s) for name, s in discrete.items()}, depth, sizes)


def _site(name: str, site: Message) -> _Site:
    d, kind = site["fn"], type(site["fn"]).__name__
    frames = {frame.dim: frame.name for frame in site["cond_indep_stack"]}
    dims = range(-len(d.batch_shape), 0)
    long = [dim for dim, size in zip(dims, d.batch_shape, strict=True) if size > 1]
    what = f"latent site {name!r} is discrete ({kind})"
    if SCAN_INDEX in site["infer"]:
        raise ValueError(
            f"{what} and in a scan: write its forward algorithm there, with log probabilities "
            "for a carry, or loop over the steps in Python."
        )
    if jnp.shape(site["value"]) != tuple(d.shape()):
        raise ValueError(f"{what} with a sample_shape: put it in numpyro.plate instead.")
    if not d.has_enumerate_support or d.event_shape:
        raise ValueError(
            f"{what} without a few single values: sum it out by hand, and observe the result."
        )
    if outside := [dim for dim in long if dim not in frames]:
        raise ValueError(
            f"{what} with the batch shape {d.batch_shape}, of which axis {outside[0]} is no plate: "
            "put it in numpyro.plate, so that it can be summed out."
        )
    if masked(d):
        raise ValueError(f"{what} and masked: leave out what does not count, and its data.")
    try:
        values = jnp.asarray(d.enumerate_support(expand=False)).reshape(-1)
    except NotImplementedError as error:
        raise ValueError(f"{what}, whose values cannot be listed: {error}") from None
    if len(values) > _MOST:
        raise ValueError(
            f"{what} with {len(values)} values, more than {_MOST}: sum it out by hand."
        )
    return _Site(values, tuple(d.batch_shape), tuple(frames[dim] for dim in long), d.support)


def _same_scale(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if not is_concrete((one, other)):
        return one is other
    return bool(np.all(np.asarray(one) == np.asarray(other)))
