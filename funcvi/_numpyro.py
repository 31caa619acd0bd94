"""Every private name of numpyro that funcvi uses, in one place."""

from collections.abc import Iterable

import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import transforms as nt
from numpyro.distributions.mixtures import _MixtureBase as Mixture

__all__ = [
    "BATCHED_AFFINE",
    "INITIAL_VALUE",
    "MASK",
    "SUPPORT",
    "InverseTransform",
    "Mixture",
    "first_stored",
    "mask_of",
]

#: Attributes that keep a constructor's argument under another name.
MASK, SUPPORT, INITIAL_VALUE = "_mask", "_support", "_initial_value"

#: What ``transform.inv`` is; its own ``inv`` is the transform again.
InverseTransform = nt._InverseTransform

#: Whether LowerCholeskyAffine takes a batch of factors, as numpyro 0.22 does and 0.21 does not.
BATCHED_AFFINE = hasattr(dist, "LeftTruncatedGamma")


def first_stored(instance: object, names: Iterable[str]) -> str | None:
    """Which of ``names`` the instance stored first: the alternative that its constructor was given.

    The others are lazy properties, stored when somebody first reads them, and ``__dict__`` keeps
    the order. What went through a pytree (``jax.tree.map``, the result of a jitted function) keeps
    only what numpyro computes with, a covariance's Cholesky factor.
    """
    wanted = set(names)
    return next((n for n, v in vars(instance).items() if n in wanted and v is not None), None)


def mask_of(d: dist.MaskedDistribution) -> Array | bool:
    """Where the log density counts: an array of the batch shape, or one flag."""
    return d._mask
