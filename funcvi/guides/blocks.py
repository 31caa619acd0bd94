"""Blocks: sites that depend on each other, each block with a guide of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from funcvi._types import Key, Params
from funcvi.guides.contract import Guide, Unconstrained, check_target, start_of
from funcvi.guides.full_rank import full_rank
from funcvi.targets import Sites, Target

__all__ = ["blocks"]

Names: TypeAlias = tuple[str, ...]
Maker: TypeAlias = Callable[[Target], Guide]


def blocks(
    target: Target,
    structure: Sequence[str | Sequence[str]] | Mapping[str | tuple[str, ...], Maker],
) -> Guide:
    """Blocks of sites: dependent inside, independent of each other; each has a guide of its own.

    Args:
        target: made by :func:`fv.target`.
        structure: a list of blocks, each a site or a list of sites, which get :func:`fv.full_rank`;
            or a dict from a site or a tuple of sites to a function that makes the block's guide,
            such as ``fv.flow`` or ``lambda block: fv.low_rank(block, rank=2)``. The function gets
            the block as a target, whose vectors are those of its sites alone, and which has no log
            density.

    Returns:
        A :class:`Guide`; its params are ``{"a, b": ..., "c": ...}``, those of each block by the
        names of its sites. ``posterior.unconstrained`` has a member for each block.

    Raises:
        TypeError: this is no target, or what makes a block's guide makes none.
        ValueError: a site is in no block or in two, or is none of the target's.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda v: -(v["a"] - v["b"]) ** 2 - v["b"] ** 2 - (v["c"] ** 2).sum(),
        ...               supports={"a": constraints.real, "b": constraints.real,
        ...                         "c": (constraints.real, (9,))})
        >>> guide = fv.blocks(t, {("a", "b"): fv.full_rank, "c": fv.mean_field})
        >>> jax.tree.map(jnp.shape, guide.init(jax.random.key(0)))["a, b"]
        {'loc': (2,), 'scale_tril': (3,)}
    """
    check_target(target)
    makers = _makers(target, structure)
    zeros = {name: jnp.zeros(shape) for name, shape in target.shapes.items()}

    def guides(place: Sites) -> dict[str, Guide]:
        return {", ".join(names): _made(target, names, make, place) for names, make in makers}

    family = _Blocks(guides(zeros))

    def latents(key: Key) -> Params:
        key, place_key = jax.random.split(key)
        each = guides(target.start(place_key))
        keys = jax.random.split(key, len(each))
        return {name: of.init(k) for (name, of), k in zip(each.items(), keys, strict=True)}

    return Guide(target, start_of(target, latents), family, blocks=family.names())


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The family: the distributions of all blocks, those by site side by side with vectors."""

    guides: Mapping[str, Guide]

    def __call__(self, params: Params) -> Unconstrained:
        if not isinstance(params, Mapping) or set(params) != set(self.guides):
            raise ValueError(f"params must have those of each block, {list(self.guides)}.")
        joint: dict[str, dist.Distribution] = {}
        for name, guide in self.guides.items():
            q = guide.family(params[name])
            joint |= q if isinstance(q, Mapping) else {name: q}
        return joint

    def inverse(self, q: Any) -> Params:
        """The params of each block, from the distributions of its members."""
        known = isinstance(q, Mapping)
        params = {}
        for name, guide in self.guides.items():
            own = [name] if name in self.names() else [*guide.blocks, *guide.target.shapes]
            members = {n: q[n] for n in own if known and n in q}
            if not members:
                raise TypeError(
                    f"inverse takes a distribution for each block, {list(self.guides)}; of "
                    f"{name!r} there is none."
                )
            params[name] = guide.inverse(members[name] if name in self.names() else members)
        return params

    def names(self) -> dict[str, Names]:
        """The sites of each member that is a distribution of vectors."""
        found: dict[str, Names] = {}
        for name, guide in self.guides.items():
            is_joint = isinstance(_distribution(guide), Mapping)
            found |= guide.blocks if is_joint else {name: tuple(guide.target.shapes)}
        return found


def _distribution(guide: Guide) -> Unconstrained:
    """What the guide's posteriors are, without values."""
    found: list[Unconstrained] = []
    jax.eval_shape(lambda key: found.append(guide.family(guide.init(key))), jax.random.key(0))
    return found[0]


def _makers(target: Target, structure: Any) -> list[tuple[Names, Maker]]:
    if isinstance(structure, str) or not isinstance(structure, Sequence | Mapping):
        raise TypeError(
            'structure must be a list of blocks, such as [["a", "b"], ["c"]], or a dict from '
            f"blocks to functions that make guides; got {type(structure).__name__}."
        )
    pairs = (
        structure.items() if isinstance(structure, Mapping) else [(b, full_rank) for b in structure]
    )
    makers = [((b,) if isinstance(b, str) else tuple(b), make) for b, make in pairs]
    named = [name for names, _ in makers for name in names]
    if unknown := [name for name in named if name not in target.shapes]:
        raise ValueError(f"blocks name {unknown}, which are no sites: {list(target.shapes)} are.")
    if twice := [name for name in target.shapes if named.count(name) > 1]:
        raise ValueError(f"each site is in one block, and {twice} are named more than once.")
    if missing := [name for name in target.shapes if name not in named]:
        raise ValueError(f"{missing} are in no block: add {[[n] for n in missing]}, or to another.")
    return makers


def _made(target: Target, names: Names, make: Maker, place: Sites) -> Guide:
    """The guide of a block that starts at ``place``."""

    def kept(by_site: Mapping[str, Any]) -> dict[str, Any]:
        return {name: by_site[name] for name in names}

    def refused(*args: object, **options: object) -> NoReturn:
        raise ValueError(
            f"the block {', '.join(names)} has no log density of its own, which is needed here: "
            "choose another guide for it, or give this one all sites."
        )

    part = Target(
        kept(target.shapes),
        kept(target.value_shapes),
        kept(target.supports),
        *(refused,) * 4,
        place=kept(place),
        constraints={n: target.constraints[n] for n in names if n in target.constraints},
    )
    guide = make(part)
    if not isinstance(guide, Guide) or guide.target is not part:
        raise TypeError(
            f"blocks: what makes the guide of {', '.join(names)} must give one for the target that "
            f"it gets, as lambda block: fv.full_rank(block) does; got {type(guide).__name__}."
        )
    return guide
