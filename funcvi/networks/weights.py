"""Families over all weights of a network: independent normals, or correlated ones of low rank."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from funcvi._types import Key, Params
from funcvi.families import unconstrain
from funcvi.networks.local import Gaussian
from funcvi.objectives import kl
from funcvi.sampling import sample

__all__ = ["LowRank", "MeanField", "WeightFamily"]

Priors = Mapping[str, dist.Distribution]


class WeightFamily(Protocol):
    """A family over named weights."""

    params: Params

    def distribution(self, params: Params) -> Any:
        """The joint distribution of all weights."""

    def marginals(self, params: Params) -> dict[str, dist.Normal]:
        """The distribution of each weight's entries, of the weight's shape."""

    def weights(self, params: Params, key: Key, estimator: str) -> dict[str, Any]:
        """Each weight: a :class:`Gaussian` to be drawn where it is used, or a draw."""

    def kl(self, params: Params, prior: Priors, key: Key | None) -> jax.Array:
        """KL to independent priors, summed over weights."""

    def inverse(self, marginals: Mapping[str, dist.Normal]) -> Params:
        """The params at which the weights are independent with these marginals."""


class MeanField:
    """Independent normals."""

    def __init__(self, values: Mapping[str, jax.Array], scale: float) -> None:
        start = {n: dist.Normal(v, jnp.full_like(v, scale)) for n, v in values.items()}
        self.params, self._family = unconstrain(start)

    def distribution(self, params: Params) -> Any:
        """A dict of normals by name."""
        return self._family(params)

    def marginals(self, params: Params) -> dict[str, dist.Normal]:
        """The same."""
        return self._family(params)

    def weights(self, params: Params, key: Key, estimator: str) -> dict[str, Any]:
        """Gaussians, whatever the estimator does with them."""
        return {
            name: Gaussian(jnp.broadcast_to(q.loc, q.batch_shape), q.scale)
            for name, q in self._family(params).items()
        }

    def kl(self, params: Params, prior: Priors, key: Key | None) -> jax.Array:
        """In closed form where there is one."""
        return kl(self._family(params), dict(prior), key=key)

    def inverse(self, marginals: Mapping[str, dist.Normal]) -> Params:
        """Params of these normals."""
        return self._family.inverse(dict(marginals))


class LowRank:
    r"""All weights as one normal vector of covariance :math:`D + U U^T` with U of ``rank`` columns.

    At the start :math:`U` is small and random, so that its gradient is not zero.
    """

    def __init__(self, values: Mapping[str, jax.Array], scale: float, rank: int, key: Key) -> None:
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f"bayesian: rank must be an integer of at least 1, got {rank!r}")
        self._shapes = {name: value.shape for name, value in values.items()}
        loc = jnp.concatenate([jnp.ravel(v) for v in values.values()])
        factor = 0.1 * scale * jax.random.normal(key, (loc.size, rank), loc.dtype)
        self.params, self._family = unconstrain(
            dist.LowRankMultivariateNormal(loc, factor, jnp.full_like(loc, scale**2))
        )

    def distribution(self, params: Params) -> Any:
        """One LowRankMultivariateNormal of all entries, weights in order, each ravelled."""
        return self._family(params)

    def marginals(self, params: Params) -> dict[str, dist.Normal]:
        """Normals by name."""
        q = self._family(params)
        spread = jnp.sqrt(q.cov_diag + jnp.sum(q.cov_factor**2, axis=-1))
        scales = self._split(spread)
        return {n: dist.Normal(loc, scales[n]) for n, loc in self._split(q.loc).items()}

    def weights(self, params: Params, key: Key, estimator: str) -> dict[str, Any]:
        """One draw of all, as correlated weights leave no layer's output independent."""
        if estimator != "plain":
            raise ValueError(
                f"a low-rank guide has no '{estimator}' estimator, as its weights are correlated: "
                "use 'plain', or the mean-field guide"
            )
        return self._split(sample(self._family(params), key))

    def kl(self, params: Params, prior: Priors, key: Key | None) -> jax.Array:
        """The KL of the marginals and what they lose: their entropies above the joint's."""
        marginals = self.marginals(params)
        entropies = sum(jnp.sum(q.entropy()) for q in marginals.values())
        return kl(marginals, dict(prior), key=key) + entropies - self._family(params).entropy()

    def inverse(self, marginals: Mapping[str, dist.Normal]) -> Params:
        """With a factor of zero."""
        loc = jnp.concatenate([jnp.ravel(marginals[n].loc) for n in self._shapes])
        scale = jnp.concatenate([jnp.ravel(marginals[n].scale) for n in self._shapes])
        factor = jnp.zeros_like(self._family(self.params).cov_factor)
        return self._family.inverse(dist.LowRankMultivariateNormal(loc, factor, scale**2))

    def _split(self, vector: jax.Array) -> dict[str, jax.Array]:
        found, start = {}, 0
        for name, shape in self._shapes.items():
            size = math.prod(shape)
            found[name] = vector[start : start + size].reshape(shape)
            start += size
        return found
