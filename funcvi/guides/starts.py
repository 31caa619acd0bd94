"""Where guides start, and the family that a starting distribution has."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from funcvi._checks import check_key
from funcvi._jax import is_concrete
from funcvi._types import Key, Params
from funcvi.families import family
from funcvi.guides.contract import Guide, Recipe, Unconstrained, check_target, start_of
from funcvi.runtime_checks import require
from funcvi.targets import Shape, Sites, Target, leading_shape

__all__ = ["checked_sites", "guide_of", "start_scales"]


def guide_of(
    target: Target,
    at: Callable[[Sites, Key], Unconstrained],
    loc: Mapping[str, ArrayLike] | None = None,
    recipe: Recipe | None = None,
    lead: Shape = (),
) -> Guide:
    """The guide whose family is that of ``at(z, key)``, and which starts at that distribution.

    Args:
        target: what to approximate.
        at: unconstrained sites, and a key for whatever else is random at the start, to a
            distribution there. Its parameters are learned as ``fv.unconstrain`` does.
        loc: unconstrained sites to start from, by default ``target.start(key, lead)``.
        recipe: see :class:`Guide`.
        lead: leading axes of z, where there are several places to start from.
    """
    check_target(target)
    places = None if loc is None else checked_sites(loc, target, lead)
    zeros = {name: jnp.zeros((*lead, *shape)) for name, shape in target.shapes.items()}
    of = family(at(zeros, jax.random.key(0)))

    def init(key: Key) -> Params:
        check_key(key, "guide.init(key)")
        place_key, own_key = jax.random.split(key)
        z = target.start(place_key, lead) if places is None else places
        return of.inverse(at(z, own_key))

    return Guide(target, start_of(target, init), of, recipe)


def start_scales(scale: float | Mapping[str, ArrayLike], target: Target) -> Sites:
    """A standard deviation for every coordinate, from one number or from one for each site."""
    check_target(target)
    each = scale if isinstance(scale, Mapping) else dict.fromkeys(target.shapes, scale)
    if set(each) != set(target.shapes):
        raise ValueError(f"scale must name the sites {list(target.shapes)}, got {list(each)}.")
    for name, value in each.items():
        if np.shape(value) not in ((), target.shapes[name]):
            raise ValueError(
                f"scale[{name!r}] must be a number or of shape {target.shapes[name]}, got shape "
                f"{np.shape(value)}."
            )
    concrete = is_concrete(each)
    numpy = np if concrete else jnp
    dtype = jnp.result_type(float)
    scales = {
        n: numpy.broadcast_to(numpy.asarray(each[n], dtype), s) for n, s in target.shapes.items()
    }
    positive = numpy.all(numpy.stack([numpy.all(scale > 0) for scale in scales.values()]))
    return require(
        positive,
        jax.tree.map(jnp.asarray, scales),
        lambda: ValueError("every scale must be positive."),
    )


def checked_sites(loc: Mapping[str, ArrayLike], target: Target, lead: Shape = ()) -> Sites:
    """``loc`` as arrays of shape (*lead, *site), unconstrained; anything else is refused."""
    if unknown := [name for name in loc if name not in target.shapes]:
        raise ValueError(f"loc names {unknown}, which are no sites: {list(target.shapes)} are.")
    z = {name: jnp.asarray(loc[name], float) for name in target.shapes if name in loc}
    if (got := leading_shape(z, target.shapes)) != lead:
        wanted = f", with {lead} in front" if lead else ""
        raise ValueError(
            f"loc must have the target's unconstrained shapes{wanted}; got {got} in front."
        )
    return z
