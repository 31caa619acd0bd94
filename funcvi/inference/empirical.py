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
from funcvi.outputs import Outputs
from funcvi.programs import run
from funcvi.sampling.draw import checked_shape
from funcvi.targets import Shape, Sites, Target

__all__ = ["EmpiricalPosterior"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class EmpiricalPosterior(Outputs):
    """A posterior that is a set of draws: of chains, or resampled by importance weights.

    Attributes:
        target: what it is the posterior of.
        vectors: the draws on unconstrained space, (draws, target.size), in the order of
            ``target.ravel``; those of one chain follow each other.
        num_chains: chains that they are of; one for independent draws.
        computed: of a posterior from a file, the deterministic sites of all draws, for the model
            that computes them is not there.
    """

    target: Target = field(metadata={"static": True})
    vectors: Array
    num_chains: int = field(default=1, metadata={"static": True})
    computed: Mapping[str, Array] = field(default_factory=dict)

    @property
    def values(self) -> Sites:
        """All draws: constrained values and deterministic sites, (draws, *site) by name."""
        values = jax.vmap(self.target.constrain)(self.target.unravel(self.vectors))
        return {**values, **self.computed}

    def by_chain(self, key: Key, num_samples: int) -> Sites:
        """All draws, (chain, draw, *site) by name; key and number are not read."""
        chains = self.num_chains
        return jax.tree.map(lambda x: x.reshape(chains, -1, *x.shape[1:]), self.values)

    def sample(self, key: Key, sample_shape: Shape = ()) -> Sites:
        """Draws picked at random, with replacement; what ``fv.sample`` calls."""
        picked = self._picked(key, sample_shape)
        constrain = self.target.constrain
        for _ in picked.shape:
            constrain = jax.vmap(constrain)
        values = constrain(self.target.unravel(self.vectors[picked]))
        return {**values, **{name: x[picked] for name, x in self.computed.items()}}

    def sample_unconstrained(self, key: Key, sample_shape: Shape = ()) -> Sites:
        """The same on unconstrained space."""
        return self.target.unravel(self.vectors[self._picked(key, sample_shape)])

    def _picked(self, key: Key, sample_shape: Shape) -> Array:
        check_key(key)
        shape = checked_shape(sample_shape)
        return jax.random.randint(key, (math.prod(shape),), 0, len(self.vectors)).reshape(shape)

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

    def rows(draws: Array, log_weights: Array, key: Key) -> Array:
        weights = jax.nn.softmax(log_weights)
        offset = jax.random.uniform(key, ())
        places = (jnp.arange(count) + offset) / count
        picked = jnp.searchsorted(jnp.cumsum(weights), places)
        return draws[jnp.minimum(picked, len(draws) - 1)]

    return run(rows, draws, log_weights, key)
