"""Every private name of numpyro that funcvi uses, in one place."""

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import numpyro.distributions as dist
from jax import Array
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.distributions import transforms as nt
from numpyro.distributions.discrete import ZeroInflatedLogits, ZeroInflatedProbs
from numpyro.distributions.mixtures import _MixtureBase as Mixture

__all__ = [
    "BATCHED_AFFINE",
    "GATED",
    "INITIAL_VALUE",
    "MASK",
    "SCAN_INDEX",
    "SUPPORT",
    "InverseTransform",
    "Mixture",
    "first_stored",
    "mask_of",
    "named",
    "runs_backwards",
    "scan_length",
    "unvalidated",
]

D = TypeVar("D", bound=dist.Distribution)

#: Attributes that keep a constructor's argument under another name.
MASK, SUPPORT, INITIAL_VALUE = "_mask", "_support", "_initial_value"

#: Under which name a site in a scan's body carries its step, in ``infer``.
SCAN_INDEX = "_scan_current_index"

#: What ``transform.inv`` is; its own ``inv`` is the transform again.
InverseTransform = nt._InverseTransform

#: Whether LowerCholeskyAffine takes a batch of factors, as numpyro 0.22 does and 0.21 does not.
BATCHED_AFFINE = hasattr(dist, "LeftTruncatedGamma")


def named(*names: str) -> tuple[type[dist.Distribution], ...]:
    """The classes of these names that this version of numpyro has (0.21 lacks eleven)."""
    return tuple(getattr(dist, name) for name in names if hasattr(dist, name))


#: Zero with the probability of a gate, else (or also) a draw of ``base_dist``.
GATED: tuple[type[dist.Distribution], ...] = (
    ZeroInflatedProbs,
    ZeroInflatedLogits,
    *named("HurdleProbs", "HurdleLogits"),
)


def runs_backwards(message: dict[str, Any]) -> bool:
    """Whether a message of control flow is of a scan from the last to the first."""
    return message["fn"] is scan_wrapper and bool(message["args"][4])


def scan_length(message: dict[str, Any]) -> int | None:
    """The number of steps of a message of control flow, if it is of a scan."""
    if message["fn"] is not scan_wrapper:
        return None
    _, _, xs, length, _ = message["args"]
    return length if length is not None else len(jax.tree.leaves(xs)[0])


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


def unvalidated(d: D) -> D:
    """The same distribution with the checks of values off, all the way down."""
    copied = copy.copy(d)
    for name, value in vars(d).items():
        if isinstance(value, dist.Distribution):
            copied.__dict__[name] = unvalidated(value)
        elif isinstance(value, list):
            inner = [unvalidated(v) if isinstance(v, dist.Distribution) else v for v in value]
            copied.__dict__[name] = inner
    copied._validate_args = False
    return copied
