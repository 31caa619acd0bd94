"""A posterior that is a set of draws."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from funcvi._checks import check_key
from funcvi._types import Key
from funcvi.sampling.draw import checked_shape
from funcvi.targets import Shape, Sites, Target

__all__ = ["EmpiricalPosterior"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class EmpiricalPosterior:
    """A posterior that is a set of draws: of chains, or resampled by importance weights.

    Attributes:
        target: what it is the posterior of.
        vectors: the draws on unconstrained space, (draws, target.size), in the order of
            ``target.ravel``.
    """

    target: Target = field(metadata={"static": True})
    vectors: Array

    @property
    def values(self) -> Sites:
        """All draws: constrained values and deterministic sites, (draws, *site) by name."""
        return jax.vmap(self.target.constrain)(self.target.unravel(self.vectors))

    def sample(self, key: Key, sample_shape: Shape = ()) -> Sites:
        """Draws picked at random, with replacement; what ``fv.sample`` calls."""
        z = self.sample_unconstrained(key, sample_shape)
        constrain = self.target.constrain
        for _ in checked_shape(sample_shape):
            constrain = jax.vmap(constrain)
        return constrain(z)

    def sample_unconstrained(self, key: Key, sample_shape: Shape = ()) -> Sites:
        """The same on unconstrained space."""
        check_key(key)
        shape = checked_shape(sample_shape)
        picked = jax.random.randint(key, (math.prod(shape),), 0, len(self.vectors))
        return self.target.unravel(self.vectors[picked].reshape(*shape, -1))

    def log_prob(self, values: Mapping[str, ArrayLike]) -> Array:
        """Refused: a set of draws has no density."""
        raise TypeError(
            "this posterior is a set of draws, which has no density: infer with "
            'method="variational" for one that has, or use target.log_density.'
        )

    def __repr__(self) -> str:
        target = self.target
        sites = [f"  {n}: {target.supports[n]}, shape {s}" for n, s in target.value_shapes.items()]
        return "\n".join([f"Posterior of {len(self.vectors)} draws of", *sites])


def resampled(draws: Array, log_weights: Array, key: Key, count: int) -> Array:
    """Rows picked by their weights, with few repetitions (systematic resampling)."""
    weights = jax.nn.softmax(log_weights)
    offset = jax.random.uniform(key, ())
    places = (jnp.arange(count) + offset) / count
    picked = jnp.searchsorted(jnp.cumsum(weights), places)
    return draws[jnp.minimum(picked, len(draws) - 1)]
