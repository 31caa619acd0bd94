"""Every private name of numpyro that funcvi uses, in one place."""

import copy
import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers
from numpyro.contrib.control_flow.scan import _subs_wrapper, scan_wrapper
from numpyro.distributions import transforms as nt
from numpyro.distributions.discrete import ZeroInflatedLogits, ZeroInflatedProbs
from numpyro.distributions.mixtures import _MixtureBase as Mixture

__all__ = [
    "ALL_VALUES",
    "BATCHED_AFFINE",
    "GATED",
    "INITIAL_VALUE",
    "MASK",
    "SCAN_INDEX",
    "SUPPORT",
    "InverseTransform",
    "Mixture",
    "first_stored",
    "is_scan",
    "mask_of",
    "named",
    "runs_backwards",
    "scan_length",
    "scan_step",
    "scanned_sites",
    "unvalidated",
]

D = TypeVar("D", bound=dist.Distribution)

#: Attributes that keep a constructor's argument under another name.
MASK, SUPPORT, INITIAL_VALUE = "_mask", "_support", "_initial_value"

#: Under which name a site in a scan's body carries its step, in ``infer``.
SCAN_INDEX = "_scan_current_index"

#: What ``transform.inv`` is; its own ``inv`` is the transform again.
InverseTransform = nt._InverseTransform

#: Under which name, in ``infer``, it says that discrete sites have all their values there.
ALL_VALUES = "_all_values"

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


def is_scan(message: dict[str, Any]) -> bool:
    """Whether a message of control flow is of a scan."""
    return message["fn"] is scan_wrapper


def scanned_sites(message: dict[str, Any]) -> set[str]:
    """The names of what the body of a scan has drawn, once its message has its value."""
    _, (trace, _) = message["value"]
    return {name for name, site in trace.trace.items() if site["type"] == "sample"}


def scan_step(
    message: dict[str, Any], body: Callable[..., Any], step: Array | int, key: Array
) -> Callable[..., Any]:
    """A body under all that the handlers around a scan do to its own, at one of its steps."""
    length = scan_length(message)
    fn = handlers.infer_config(body, config_fn=lambda _: {SCAN_INDEX: step, ALL_VALUES: True})
    fn = handlers.seed(fn, key)
    for kind, given in message["kwargs"]["substitute_stack"]:
        wrapper = _value_of_site if callable(given) else _subs_wrapper
        values = functools.partial(wrapper, given, step, length)
        if kind == "condition":
            fn = handlers.condition(fn, condition_fn=values)
        elif kind == "substitute":
            fn = handlers.substitute(fn, substitute_fn=values)
    return fn


def _value_of_site(
    given: Callable[[dict[str, Any]], Array | None], _step: Any, _length: Any, site: dict[str, Any]
) -> Array | None:
    """As numpyro's wrapper, which takes no values of fewer axes than the distribution's."""
    return given(site) if site["type"] == "sample" else None


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
