"""Every private name of numpyro that funcvi uses, in one place."""

import numpyro.distributions as dist
from jax import Array
from numpyro.distributions.mixtures import _MixtureBase as Mixture

__all__ = ["Mixture", "mask_of"]


def mask_of(d: dist.MaskedDistribution) -> Array | bool:
    """Where the log density counts: an array of the batch shape, or one flag."""
    return d._mask
