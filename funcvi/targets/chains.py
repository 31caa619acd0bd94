"""Discrete latents in a scan, summed out step by step: the forward algorithm.

A step has all values of its discrete latents at once, and, by what it is handed, all those of the
step before, along axes of their own. What is carried between two steps of the sum is the logarithm
of the probability of all that was seen, by the values of the step before (Rabiner 1989,
doi:10.1109/5.18626).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from numpyro import handlers

from funcvi._numpyro import runs_backwards, scan_length, scan_step
from funcvi.targets.elimination import Factor, eliminate
from funcvi.targets.replay import Message, Model

__all__ = ["BEFORE", "Axes", "Chain", "ChainRefusal", "sum_chain"]

#: Behind the name of a site: its values at the step before.
BEFORE = " before"

FactorOf: TypeAlias = Callable[[Message], Factor]


class ChainRefusal(ValueError):
    """The discrete latents of a scan cannot be summed out step by step."""


class Axes(NamedTuple):
    """The discrete latents of a model, and where their values lie.

    Attributes:
        numbers: of each variable, the number of its axis, left of ``depth`` batch axes.
        depth: how many batch axes there are.
        plates_of: of each variable.
        sizes: of variables and plates.
        chained: those in scans, each of which is two variables: of a step, and ``BEFORE`` it.
    """

    numbers: Mapping[str, int]
    depth: int
    plates_of: Mapping[str, frozenset[str]]
    sizes: Mapping[str, int]
    chained: frozenset[str]


class Chain(NamedTuple):
    """The sum over the discrete latents of a scan.

    Attributes:
        sites: the names of the sites whose densities are in it.
        factors: what is left, by other discrete sites.
        axes: the variables and plates that each site's density has, at any step.
        steps: what ``look`` made of each site's density, by step, in the order of the data.
    """

    sites: frozenset[str]
    factors: list[Factor]
    axes: dict[str, tuple[str, ...]]
    steps: dict[str, Array]


def sum_chain(
    message: Message,
    given: Callable[[Model], Model],
    factor_of: FactorOf,
    axes: Axes,
    look: Callable[[Factor, Array | int, Array | int], Array] | None = None,
) -> Chain:
    """The sum over the discrete latents of a scan.

    Args:
        message: of the scan, after all handlers have seen it.
        given: a body with all values of the discrete latents.
        factor_of: the log density of a site of a body.
        axes: of all discrete latents.
        look: at the factor of a site at a step, and the one before, for checks.

    Raises:
        ChainRefusal: a step depends on more than the step before, or plates cross each other.
    """
    f, start, xs, _, _ = message["args"]
    length, backwards, key = scan_length(message) or 0, runs_backwards(message), _key_of(message)
    if backwards:
        xs = jax.tree.map(lambda x: jnp.flip(x, 0), xs)
    (_, _, single), _ = message["value"]

    def step(index: Array | int, key: Array, carry: Any, x: Any) -> _Step:
        body = scan_step(message, given(f), index, key)
        with handlers.block(), handlers.trace() as trace:
            carry, _ = body(carry, x)
        drawn = {n: site for n, site in trace.items() if site["type"] == "sample"}
        for site in drawn.values():
            _refuse_moving_support(site, axes)
        carry, carried = _as_before(carry, single, axes)
        return _Step(carry, carried, {name: factor_of(site) for name, site in drawn.items()})

    def entry(tree: Any, index: int) -> Any:
        return jax.tree.map(lambda x: x[index], tree)

    key, own = jax.random.split(key)
    begun = step(0, own, start, entry(xs, 0))
    names = {name: factor.names for name, factor in begun.found.items()}
    carry, carried = begun.carry, frozenset[str]()
    if length > 1:
        carry, more, carried = _steady(lambda carry: step(1, own, carry, entry(xs, 1)), carry)
        names = {n: tuple(dict.fromkeys((*names[n], *more[n]))) for n in names}
    variables = set(axes.plates_of)
    sites = frozenset(name for name in names if variables & set(names[name]))
    outer = dict.fromkeys(n for name in sites for n in names[name] if n in variables)
    inner = axes.chained | {name + BEFORE for name in axes.chained}
    kept = _Kept([n for n in outer if n not in inner], sorted(carried), axes)

    def of_chain(found: Mapping[str, Factor]) -> list[Factor]:
        return [found[name] for name in names if name in sites]

    def looks(found: Mapping[str, Factor], index: Array | int) -> dict[str, Array]:
        if look is None:
            return {}
        before = jnp.maximum(index - 1, 0)
        places = (length - 1 - index, length - 1 - before) if backwards else (index, before)
        return {n: look(found[n], *places) for n in names if n in sites}

    total = kept.advance([], of_chain(begun.found))
    seen = {n: x[None] for n, x in looks(begun.found, 0).items()}
    if length > 1:

        def body(state: Any, x: Any) -> Any:
            index, key, carry, values = state
            key, own = jax.random.split(key)
            now = step(index, own, carry, x)
            values = kept.values(kept.advance(kept.factors(values), of_chain(now.found)))
            return (index + 1, key, _like(now.carry, carry), values), looks(now.found, index)

        later = jax.tree.map(lambda x: x[1:], xs)
        state = jnp.asarray(1), key, carry, kept.values(total)
        (_, _, _, values), more_seen = jax.lax.scan(body, state, later, length=length - 1)
        total = kept.factors(values)
        seen = {n: jnp.concatenate([seen[n], x]) for n, x in more_seen.items()}
    if backwards:
        seen = {n: jnp.flip(x, 0) for n, x in seen.items()}
    left = eliminate(total, kept.carried, axes.plates_of, axes.sizes)
    return Chain(sites, left, {n: names[n] for n in sites}, seen)


class _Step(NamedTuple):
    """What a step makes: its carry, the variables that it has, and the factors of its sites."""

    carry: Any
    carried: frozenset[str]
    found: dict[str, Factor]


class _Kept:
    """What is carried of the sum: a table of the values of the last step, and a number."""

    def __init__(self, outer: Sequence[str], carried: Sequence[str], axes: Axes) -> None:
        self.outer, self.carried, self.axes = outer, carried, axes
        plates = {axes.plates_of[name] for name in carried}
        if len(plates) > 1:
            raise ChainRefusal(
                f"the discrete sites {list(carried)} of a scan are in different plates, and each "
                "step hands all of them on: their sum is not to be had. Put them in the same."
            )
        self.plates: frozenset[str] = next(iter(plates), frozenset())
        self.names = (*outer, *carried, *sorted(self.plates))

    def advance(self, total: Sequence[Factor], found: Sequence[Factor]) -> list[Factor]:
        """The sum with the factors of one step more, over all but its own values."""
        before = {name: name + BEFORE for name in self.axes.chained}
        turned = [Factor(tuple(before.get(n, n) for n in f.names), f.values) for f in total]
        plates_of = self.axes.plates_of
        gone = [n for n in plates_of if n in before.values()]
        gone += [n for n in before if n not in self.carried]
        left = eliminate([*turned, *found], gone, plates_of, self.axes.sizes)
        shape = [self.axes.sizes[n] for n in self.names]
        table, number = jnp.zeros(shape), jnp.zeros(())
        for factor in left:
            if not any(n in plates_of for n in factor.names):
                number += jnp.sum(factor.values)
                continue
            further = [n for n in factor.names if n not in plates_of and n not in self.plates]
            held = [n for n in factor.names if plates_of.get(n, frozenset()) & set(further)]
            if held or not self.plates <= set(factor.names):
                sites = [n for n in factor.names if n in plates_of]
                raise ChainRefusal(
                    f"the discrete sites {sites} are in other plates than those of the scan, "
                    f"{list(self.carried)}: their sum is not to be had. Put them into the same."
                )
            table += factor.product(further).over(self.names)
        return [Factor(self.names, table), Factor((), number)]

    def values(self, total: Sequence[Factor]) -> tuple[Array, ...]:
        """The arrays alone."""
        return tuple(factor.values for factor in total)

    def factors(self, values: Sequence[Array]) -> list[Factor]:
        """The arrays with their names."""
        return [Factor(n, x) for n, x in zip((self.names, ()), values, strict=True)]


def _as_before(carry: Any, single: Any, axes: Axes) -> tuple[Any, frozenset[str]]:
    """A carry for the next step, to which the values of this one are those before.

    Args:
        carry: with all values of this step.
        single: the same with single ones.
        axes: of all variables.
    """
    carried: set[str] = set()

    def moved(leaf: Any, one: Any) -> Any:
        if jnp.shape(leaf) == jnp.shape(one):
            return leaf
        most = axes.depth + len(axes.numbers)
        if jnp.ndim(leaf) > most:
            raise ChainRefusal(_LONGER.format(names=sorted(axes.chained)))
        leaf = jnp.reshape(leaf, (*(1,) * (most - jnp.ndim(leaf)), *jnp.shape(leaf)))
        place = {name: most - axes.depth - n - 1 for name, n in axes.numbers.items()}
        held = {name for name, axis in place.items() if leaf.shape[axis] > 1}
        if not held <= axes.chained or any(leaf.shape[place[n]] != axes.sizes[n] for n in held):
            raise ChainRefusal(_LONGER.format(names=sorted(axes.chained)))
        for name in held:
            leaf = jnp.swapaxes(leaf, place[name], place[name + BEFORE])
        carried.update(held)
        return leaf

    return jax.tree.map(moved, carry, single), frozenset(carried)


_LONGER = (
    "a step of the scan over the discrete sites {names} hands on more than their values, or a "
    "function of them by entry:\nits carry may not keep those of two steps before. Carry the "
    "values alone; of two steps, make one site of the pairs of values."
)


def _steady(
    step: Callable[[Any], _Step], carry: Any
) -> tuple[Any, dict[str, tuple[str, ...]], frozenset[str]]:
    """A first carry with the shapes that all later ones have, and what such a step finds."""
    found: list[_Step] = []

    def shapes_after(carry: Any) -> Any:
        found.append(step(carry))
        return jax.tree.map(jnp.asarray, found[-1].carry)

    carry = jax.tree.map(jnp.asarray, carry)
    for _ in range(4):
        after = jax.eval_shape(shapes_after, carry)
        wide = jax.tree.map(_wider, carry, after)
        if jax.tree.map(jnp.shape, wide) == jax.tree.map(jnp.shape, carry):
            break
        carry = wide
    return carry, {n: f.names for n, f in found[-1].found.items()}, found[-1].carried


def _wider(leaf: Array, after: Any) -> Array:
    if leaf.shape == after.shape:
        return leaf
    wide = jnp.broadcast_to(leaf, jnp.broadcast_shapes(leaf.shape, after.shape))
    return wide.astype(jnp.promote_types(leaf.dtype, after.dtype))


def _like(carry: Any, other: Any) -> Any:
    """A carry in the shapes and dtypes of another."""

    def one(leaf: Any, like: Array) -> Array:
        leaf = jnp.asarray(leaf)
        if leaf.shape != like.shape:
            leaf = jnp.broadcast_to(leaf, like.shape)
        return leaf if leaf.dtype == like.dtype else leaf.astype(like.dtype)

    return jax.tree.map(one, carry, other)


def _refuse_moving_support(site: Message, axes: Axes) -> None:
    """Refuse a latent whose support depends on a discrete one: its value has such an axis."""
    if site["is_observed"] or site["name"] in axes.plates_of:
        return
    if jnp.ndim(site["value"]) - site["fn"].event_dim > axes.depth:
        raise ChainRefusal(
            f"the support of latent site {site['name']!r} depends on one of the discrete sites "
            f"{sorted(axes.chained)}, which are summed out: give it the same support for all of "
            "their values."
        )


def _key_of(message: Message) -> Array:
    key = message["kwargs"].get("rng_key")
    return jax.random.key(0) if key is None else key
