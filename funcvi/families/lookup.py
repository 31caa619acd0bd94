"""The signatures of each constructor: derived from the class where it can be, else from the table.

A class's own signature and ``arg_constraints`` say most of it; ``entries`` holds the rest. The
public names of numpyro that are functions get signatures of the classes that they return.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpyro.distributions as dist
from numpyro.distributions import constraints, discrete
from numpyro.distributions import transforms as nt

from funcvi.constraints import bijection_for
from funcvi.families.entries import ENTRIES, NESTED, Entry
from funcvi.families.signatures import MISSING, Argument, Dependent, Instance, Kind, Signature

__all__ = ["default_bijection", "signature_of", "signatures_of"]


def _derive(cls: type[Instance]) -> tuple[Signature, ...]:
    entry = ENTRIES.get(cls, Entry())
    build = entry.build or cls
    declared = inspect.signature(build).parameters
    names = [n for n in declared if n != "validate_args"]
    arguments = {n: _argument(cls, entry, n, declared[n].default) for n in names}
    alternatives = entry.alternatives.values()
    return tuple(
        Signature(
            cls.__name__.lstrip("_"),
            build,
            {n: a for n, a in arguments.items() if n == given or n not in alternatives},
            kind=cls,
            given=given,
            alternatives=entry.alternatives,
            holder=entry.holder,
            transparent=entry.transparent,
        )
        for given in alternatives or [None]
    )


def _argument(cls: type, entry: Entry, name: str, default: object) -> Argument:
    default = MISSING if default is inspect.Parameter.empty else default
    if name in entry.arguments:
        argument = entry.arguments[name]
        return replace(argument, attribute=argument.attribute or name, default=default)
    if name in NESTED:
        return Argument(Kind.NESTED, attribute=name, default=default)
    constraint = getattr(cls, "arg_constraints", {}).get(name)
    if constraint is None:
        kind = Kind.STATIC
    elif constraints.is_dependent(constraint) or constraint.is_discrete:
        kind = Kind.CONSTANT
    else:
        kind = Kind.LEARNED
    return Argument(kind, constraint, attribute=name, default=default)


# ---- the public names that are functions --------------------------------------------------------

#: Functions that give an instance of one of several classes.
_BY_PROBABILITY = ("Bernoulli", "Binomial", "Categorical", "Geometric", "Multinomial")
_ONE_OF: dict[str, tuple[str, ...]] = {
    **{name: (f"{name}Probs", f"{name}Logits") for name in _BY_PROBABILITY},
    "HurdleDistribution": ("HurdleProbs", "HurdleLogits"),
    "Mixture": ("MixtureSameFamily", "MixtureGeneral"),
    "NegativeBinomial": ("NegativeBinomialProbs", "NegativeBinomialLogits"),
    "RelaxedBernoulli": ("RelaxedBernoulliLogits",),
    "TruncatedDistribution": (
        "TwoSidedTruncatedDistribution",
        "RightTruncatedDistribution",
        "LeftTruncatedDistribution",
    ),
    "ZeroInflatedDistribution": ("ZeroInflatedProbs", "ZeroInflatedLogits"),
}

_SIDES = ("TwoSided", "Left", "Right")
_TRUNCATED = tuple(f"{side}TruncatedDistribution" for side in _SIDES)
_TRUNCATED_GAMMA = tuple(f"{side}TruncatedGamma" for side in _SIDES)
_ZERO_INFLATED = ("ZeroInflatedProbs", "ZeroInflatedLogits")
#: Functions that flatten a base under one of several wrappers, and whether they may give it bare.
_FLAT: dict[str, tuple[type, tuple[str, ...], bool]] = {
    "TruncatedNormal": (dist.Normal, _TRUNCATED, True),
    "TruncatedCauchy": (dist.Cauchy, _TRUNCATED, True),
    "TruncatedGamma": (dist.Gamma, _TRUNCATED_GAMMA, True),
    "HurdleNegativeBinomial2": (dist.NegativeBinomial2, ("HurdleProbs",), False),
    "ZeroInflatedNegativeBinomial2": (dist.NegativeBinomial2, _ZERO_INFLATED, False),
}


def _class(name: str) -> type[dist.Distribution]:
    cls = getattr(dist, name, None) or getattr(discrete, name)
    assert isinstance(cls, type)
    return cls


def _flattened(function: Callable[..., dist.Distribution]) -> tuple[Signature, ...]:
    base, wrappers, may_be_bare = _FLAT[function.__name__]
    (inner,) = _derive(base)
    below = {n: replace(a, attribute=f"base_dist.{n}") for n, a in inner.arguments.items()}
    options = []
    for (outer,) in map(_derive, map(_class, wrappers)):
        own = {n: a for n, a in outer.arguments.items() if n != "base_dist"}
        options.append(
            Signature(function.__name__, function, {**below, **own}, kind=outer.kind, base=base)
        )
    return (*options, replace(inner, build=function)) if may_be_bare else tuple(options)


@cache
def signatures_of(constructor: Callable[..., Instance]) -> tuple[Signature, ...]:
    """Every parameterisation of a class, or of a function that makes an instance of one."""
    if constructor is dist.Distribution:
        raise TypeError("Distribution is abstract: name one of its subclasses, or an instance.")
    if isinstance(constructor, type) and (
        issubclass(constructor, dist.Distribution) or constructor in ENTRIES
    ):
        return _derive(constructor)
    name = getattr(constructor, "__name__", "")
    if constructor is getattr(dist, name, None):
        if name in _ONE_OF:
            return tuple(s for option in _ONE_OF[name] for s in _derive(_class(option)))
        if name in _FLAT:
            return _flattened(constructor)
    raise TypeError(
        f"expected a numpyro distribution (class, constructor or instance), got {constructor!r}."
    )


def signature_of(instance: Instance) -> Signature | None:
    """The parameterisation that this instance was made with; None for an opaque transform."""
    if isinstance(instance, nt.Transform) and type(instance) not in ENTRIES:
        return None
    constructor: Callable[..., Instance] = type(instance)
    return next(s for s in signatures_of(constructor) if s.matches(instance))


def default_bijection(argument: Argument) -> nt.Transform | Dependent:
    """The argument's own bijection, or the one of its constraint."""
    if argument.bijection is not None:
        return argument.bijection
    assert argument.constraint is not None
    return bijection_for(argument.constraint)
