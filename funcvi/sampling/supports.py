"""Supports without their wrapping, and between which ends the values of a distribution lie."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi._jax import is_concrete
from funcvi._numpyro import GATED, Mixture
from funcvi.sampling import wrappers

__all__ = ["Ends", "elementwise", "ends_of", "is_discrete", "support_of"]


class Ends(NamedTuple):
    """The open interval of each entry; zero is possible too where there is an atom."""

    low: ArrayLike
    high: ArrayLike
    has_atom: bool = False

    def are(self, low: float, high: float) -> bool:
        """Whether they are known to be these."""
        return (
            is_concrete((self.low, self.high))
            and bool(np.all(np.equal(self.low, low)))
            and bool(np.all(np.equal(self.high, high)))
        )


_WRAPPED = dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution
_LINE = Ends(-np.inf, np.inf)


def support_of(d: dist.Distribution) -> Any:
    """The support with the wrapping into events taken off."""
    bare = d
    while isinstance(bare, _WRAPPED):
        bare = bare.base_dist
    if isinstance(bare, dist.Levy):
        return constraints.greater_than(bare.loc)  # numpyro's own is lost when a pytree is rebuilt
    return elementwise(d.support)


def is_discrete(d: dist.Distribution) -> bool:
    """Whether values are counts, also of what lost its support when a pytree was rebuilt."""
    return bool(support_of(d).is_discrete)


def elementwise(constraint: Any) -> Any:
    """A constraint with the wrapping into events taken off."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint


def ends_of(d: dist.Distribution) -> Ends | None:
    """None where entries have no ends of their own: on what curves, or is not known."""
    if isinstance(d, _WRAPPED):
        return ends_of(d.base_dist)
    if isinstance(d, GATED):
        base = ends_of(d.base_dist)
        return base and base._replace(has_atom=True)
    if isinstance(d, Mixture):
        return _of_mixture(d)
    if type(d) is dist.TransformedDistribution:
        return _through(d)
    known = d.support is not None or isinstance(d, dist.Levy)
    return _between(support_of(d)) if known else None


def _between(support: Any) -> Ends | None:
    if getattr(support, "event_dim", 0):
        return None
    if isinstance(support, type(constraints.real)):
        return _LINE
    low = getattr(support, "lower_bound", None)
    high = getattr(support, "upper_bound", None)
    if low is None and high is None:
        return None
    return Ends(-np.inf if low is None else low, np.inf if high is None else high)


def _of_mixture(d: dist.Distribution) -> Ends | None:
    """Those of the components, if all have the same: which one a value is of is not known."""
    same = isinstance(d, dist.MixtureSameFamily)
    parts = [d.component_distribution] if same else d.component_distributions
    first, *others = map(ends_of, parts)
    if first is None or not is_concrete(first[:2]):
        return None
    low, high = (np.unique(np.asarray(end)) for end in first[:2])
    if low.size * high.size != 1 or not all(e and e.are(low[0], high[0]) for e in others):
        return None
    return Ends(float(low[0]), float(high[0]), any(e.has_atom for e in (first, *others) if e))


def _through(d: dist.TransformedDistribution) -> Ends | None:
    """The base's ends, through the transforms."""
    ends = ends_of(d.base_dist)
    for t in wrappers.elementwise(d.transforms):
        if ends is None or ends.has_atom:
            return None
        if ends.are(-np.inf, np.inf):
            ends = _between(elementwise(t.codomain))
        elif isinstance(t, nt.AbsTransform) or t.domain.event_dim or t.codomain.event_dim:
            return None
        else:
            with jax.ensure_compile_time_eval():
                both = [t(jnp.asarray(end, jnp.result_type(float))) for end in ends[:2]]
                ends = Ends(jnp.minimum(*both), jnp.maximum(*both))
    return ends
