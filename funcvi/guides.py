"""Guides: families over the unconstrained space of a target."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from funcvi._types import Key, Params
from funcvi.families import Family, unconstrain
from funcvi.sampling import sample
from funcvi.targets import Target

__all__ = ["Guide", "Posterior", "mean_field"]


@dataclass(frozen=True, eq=False)
class Posterior:
    """A guide at some params: a joint of distributions over a target's unconstrained sites.

    Attributes:
        base: ``{site: distribution}`` on unconstrained space.
        target: what it approximates.
    """

    base: dict[str, dist.Distribution]
    target: Target

    def draw(self, key: Key, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Draws of constrained values and deterministic sites; what ``fv.sample`` calls.

        Returns:
            For each site an array of shape (*sample_shape, *site shape).
        """
        z = sample(self.base, key, sample_shape)
        constrain = self.target.constrain
        for _ in sample_shape:
            constrain = jax.vmap(constrain)
        return constrain(z)

    def log_prob(self, z: dict[str, Array]) -> Array:
        """Log density of unconstrained sites, with any leading sample axes."""
        return sum((d.log_prob(z[name]) for name, d in self.base.items()), jnp.zeros(()))


@dataclass(frozen=True, eq=False)
class Guide:
    """A family of posteriors: ``guide(params)``, with ``guide.init(key)`` to start from.

    Attributes:
        family: params to ``{site: distribution}`` on unconstrained space.
        target: what it approximates.
    """

    family: Family
    target: Target
    start: Params

    def __call__(self, params: Params) -> Posterior:
        """The posterior at ``params``; pure, works under jit, grad and vmap."""
        return Posterior(self.family(params), self.target)

    def init(self, key: Key, *, jitter: float = 0.1, attempts: int = 100) -> Params:
        """Params near zero on unconstrained space at which the target's log density is finite.

        Args:
            key: a key; another one gives another start.
            jitter: standard deviation of the starting locations around zero, on unconstrained
                space.
            attempts: starts to try, each wider than the last, up to a standard deviation of 2.

        Raises:
            ValueError: the log density was non-finite at every start.
        """
        density = jax.jit(jax.value_and_grad(self.target.log_density))
        widths = np.geomspace(max(jitter, 1e-3), max(2.0, jitter), attempts)
        leaves, treedef = jax.tree.flatten({n: jnp.zeros(s) for n, s in self.target.shapes.items()})
        for attempt, width in enumerate(widths):
            keys = jax.random.split(jax.random.fold_in(key, attempt), len(leaves))
            z = jax.tree.unflatten(
                treedef,
                [
                    width * jax.random.normal(k, x.shape, x.dtype)
                    for k, x in zip(keys, leaves, strict=True)
                ],
            )
            value, slope = density(z)
            if all(bool(jnp.isfinite(x).all()) for x in (value, *jax.tree.leaves(slope))):
                located = self.family(self.start)
                return self.family.inverse({n: _moved(located[n], z[n]) for n in z})
        raise ValueError(
            f"the log density or its gradient was non-finite at {attempts} starts around zero on "
            "unconstrained space: check the data for NaN, and that each prior's support holds what "
            "the likelihood needs; float64 (jax_enable_x64) helps where densities overflow."
        )


def _moved(d: dist.Distribution, loc: Array) -> dist.Distribution:
    dims = d.event_dim
    base = d.base_dist if isinstance(d, dist.Independent) else d
    return dist.Normal(loc, base.scale).to_event(dims)


def mean_field(target: Target, *, scale: float = 0.1) -> Guide:
    """Independent normals on unconstrained space, one for each coordinate.

    Kucukelbir et al. 2017, arXiv:1603.00788.

    Args:
        target: made by :func:`fv.target`.
        scale: standard deviation to start from.

    Returns:
        A :class:`Guide`; its params are ``{site: {"loc": ..., "scale": ...}}``, each of the site's
        unconstrained shape.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: dist.Gamma(2.0, 1.0).log_prob(x["a"]),
        ...               supports={"a": constraints.positive})
        >>> guide = fv.mean_field(t)
        >>> sorted(guide.init(jax.random.key(0))["a"])
        ['loc', 'scale']
    """
    if not isinstance(target, Target):
        raise TypeError(
            f"expected a target, got {type(target).__name__}: wrap the model in fv.target(model, "
            "*args)."
        )
    joint: dict[str, Any] = {
        name: dist.Normal(jnp.zeros(shape), jnp.full(shape, scale)).to_event(len(shape))
        for name, shape in target.shapes.items()
    }
    start, family = unconstrain(joint)
    return Guide(family, target, start)
