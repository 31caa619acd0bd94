"""Recipes: one parameterisation of one constructor each, derived from the class where it can be.

A class's signature and ``arg_constraints`` say most of it; ``tables`` holds the rest. The public
names of numpyro that are functions get recipes of the classes that they return.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt
from numpyro.distributions.discrete import ZeroInflatedLogits, ZeroInflatedProbs

from funcvi.constraints import bijection_for
from funcvi.families.parameter import MISSING, Parameter, Recipe
from funcvi.families.tables import (
    ALTERNATIVES,
    ATTRIBUTE,
    CORRECTIONS,
    FACTORED,
    KEPT_AS,
    NESTED,
    TRANSFORMS,
    TRANSPARENT,
    present,
)

__all__ = ["default_bijection", "recipe_of", "recipes_for"]


def _expand(base_dist: dist.Distribution, batch_shape: tuple[int, ...]) -> dist.Distribution:
    # New leading batch dimensions of the params pass through the expansion.
    return base_dist.expand(jnp.broadcast_shapes(batch_shape, base_dist.batch_shape))


def _zero_sum(scale: Any, event_shape: tuple[int, ...]) -> dist.Distribution:
    # numpyro would broadcast a batch of scales against the event, silently.
    if jnp.ndim(scale) > 0:
        raise ValueError(
            "ZeroSumNormal has no batch in numpyro: scale must be a scalar, got shape "
            f"{jnp.shape(scale)}. Map over the params with jax.vmap instead."
        )
    return dist.ZeroSumNormal(scale, event_shape)


_BUILD: dict[Any, Callable[..., Any]] = {
    dist.ExpandedDistribution: _expand,
    dist.ZeroSumNormal: _zero_sum,
}


# ---- deriving a recipe from a class -------------------------------------------------------------


def _derive(cls: type) -> tuple[Recipe, ...]:
    arguments = inspect.signature(cls).parameters
    names = [n for n in arguments if n != "validate_args"]
    parameters = {n: _parameter(cls, n, arguments[n].default) for n in names}
    transparent = TRANSPARENT.get(cls)
    build = _BUILD.get(cls, cls)
    if cls not in ALTERNATIVES:
        return (Recipe(cls.__name__, build, parameters, transparent=transparent),)
    alternatives, holder = ALTERNATIVES[cls]
    return tuple(
        Recipe(
            cls.__name__,
            build,
            {n: p for n, p in parameters.items() if n == chosen or n not in alternatives},
            matches=_gave(chosen, alternatives, holder),
        )
        for chosen in alternatives
    )


def _gave(
    chosen: str, alternatives: tuple[str, ...], holder: Callable[[Any], Any]
) -> Callable[[Any], bool]:
    return lambda d: _given(holder(d), alternatives) == chosen


def _given(holder: Any, alternatives: tuple[str, ...]) -> str:
    """Which alternative the caller gave: the constructor stores that one first.

    The others appear later, when somebody first reads them, and ``__dict__`` keeps the order.
    """
    kept = {KEPT_AS.get(name, name): name for name in alternatives}
    return next(kept[attribute] for attribute in holder.__dict__ if attribute in kept)


def _parameter(cls: type, name: str, default: Any) -> Parameter:
    default = MISSING if default is inspect.Parameter.empty else default
    correction = CORRECTIONS.get(cls, {}).get(name) or (
        FACTORED.get(name) if cls in ALTERNATIVES else None
    )
    attribute = ATTRIBUTE.get((cls, name), name)

    def read(instance: Any) -> Any:
        if hasattr(instance, attribute):
            return getattr(instance, attribute)
        if default is not MISSING:
            return default
        raise TypeError(
            f"{cls.__name__} does not keep its argument {name!r}, so it cannot be rebuilt: "
            f"store it as self.{name} in the constructor."
        )

    if correction is not None:
        kept_as = correction.argument
        reader = correction.read or (read if kept_as is None else lambda d: getattr(d, kept_as))
        kept_default = default if correction.default is MISSING else correction.default
        return replace(correction, read=reader, default=kept_default)
    if name in NESTED:
        return Parameter("nested", read=read, default=default)
    constraint = getattr(cls, "arg_constraints", {}).get(name)
    if constraint is None:
        return Parameter("static", read=read, default=default)
    if constraints.is_dependent(constraint) or constraint.is_discrete:
        return Parameter("constant", constraint, read=read, default=default)
    return Parameter("free", constraint, read=read, default=default)


# ---- the public names that are functions --------------------------------------------------------


def _pick(base: Any, *names: str) -> dict[str, Parameter]:
    """Parameters of ``base`` under a function that flattens them: read from ``base_dist``."""
    (recipe,) = recipes_for(base)
    picked = {}
    for name in names:
        parameter = recipe.parameters[name]
        picked[name] = replace(parameter, read=_of_base(parameter.read))
    return picked


def _of_base(read: Any) -> Callable[[Any], Any]:
    return lambda d: read(d.base_dist)


def _wraps(wrapper: Any, base: Any) -> Callable[[Any], bool]:
    return lambda d: type(d) is wrapper and type(d.base_dist) is base


def _is_a(cls: Any, recipe: Recipe) -> Callable[[Any], bool]:
    return lambda d: type(d) is cls and recipe.matches(d)


def _truncated(function: Any, base: Any, wrappers: tuple[Any, Any, Any]) -> tuple[Recipe, ...]:
    left, right, both = wrappers
    names = tuple(recipes_for(base)[0].parameters)
    options = [
        Recipe(
            function.__name__,
            function,
            {**_pick(base, *names), **_bounds(wrapper)},
            matches=_wraps(wrapper, base),
        )
        for wrapper in (both, left, right)
    ]
    untruncated = replace(recipes_for(base)[0], build=function, matches=lambda d: type(d) is base)
    return (*options, untruncated)


def _bounds(wrapper: Any) -> dict[str, Parameter]:
    (recipe,) = recipes_for(wrapper)
    return {n: p for n, p in recipe.parameters.items() if n in ("low", "high")}


def _of_type(*classes: Any) -> tuple[Recipe, ...]:
    return tuple(replace(r, matches=_is_a(c, r)) for c in classes for r in recipes_for(c))


def _gated(function: Any, gates: tuple[tuple[str, Any], ...]) -> tuple[Recipe, ...]:
    return tuple(
        Recipe(
            function.__name__,
            function,
            {
                **_pick(dist.NegativeBinomial2, "mean", "concentration"),
                gate: recipes_for(wrapper)[0].parameters[gate],
            },
            matches=_wraps(wrapper, dist.NegativeBinomial2),
        )
        for gate, wrapper in gates
    )


_GENERAL = (
    dist.LeftTruncatedDistribution,
    dist.RightTruncatedDistribution,
    dist.TwoSidedTruncatedDistribution,
)

_FUNCTIONS: dict[Any, Callable[[], tuple[Recipe, ...]]] = present(
    {
        "Bernoulli": lambda: _of_type(dist.BernoulliProbs, dist.BernoulliLogits),
        "Binomial": lambda: _of_type(dist.BinomialProbs, dist.BinomialLogits),
        "Categorical": lambda: _of_type(dist.CategoricalProbs, dist.CategoricalLogits),
        "Geometric": lambda: _of_type(dist.GeometricProbs, dist.GeometricLogits),
        "Multinomial": lambda: _of_type(dist.MultinomialProbs, dist.MultinomialLogits),
        "NegativeBinomial": lambda: _of_type(
            dist.NegativeBinomialProbs, dist.NegativeBinomialLogits
        ),
        "RelaxedBernoulli": lambda: _of_type(dist.RelaxedBernoulliLogits),
        "Mixture": lambda: _of_type(dist.MixtureSameFamily, dist.MixtureGeneral),
        "HurdleDistribution": lambda: _of_type(dist.HurdleProbs, dist.HurdleLogits),
        "ZeroInflatedDistribution": lambda: _of_type(ZeroInflatedProbs, ZeroInflatedLogits),
        "TruncatedDistribution": lambda: _of_type(*reversed(_GENERAL)),
        "TruncatedNormal": lambda: _truncated(dist.TruncatedNormal, dist.Normal, _GENERAL),
        "TruncatedCauchy": lambda: _truncated(dist.TruncatedCauchy, dist.Cauchy, _GENERAL),
        "TruncatedGamma": lambda: _truncated(
            dist.TruncatedGamma,
            dist.Gamma,
            (dist.LeftTruncatedGamma, dist.RightTruncatedGamma, dist.TwoSidedTruncatedGamma),
        ),
        "HurdleNegativeBinomial2": lambda: _gated(
            dist.HurdleNegativeBinomial2, (("gate", dist.HurdleProbs),)
        ),
        "ZeroInflatedNegativeBinomial2": lambda: _gated(
            dist.ZeroInflatedNegativeBinomial2,
            (("gate", ZeroInflatedProbs), ("gate_logits", ZeroInflatedLogits)),
        ),
    }
)


@cache
def recipes_for(constructor: Any) -> tuple[Recipe, ...]:
    """Every parameterisation of a distribution class, or of a function that makes one."""
    if constructor in _FUNCTIONS:
        return _FUNCTIONS[constructor]()
    if constructor in TRANSFORMS:
        return (TRANSFORMS[constructor],)
    if isinstance(constructor, type) and issubclass(constructor, dist.Distribution):
        if constructor is dist.Distribution:
            raise TypeError("Distribution is abstract: name one of its subclasses, or an instance.")
        return _derive(constructor)
    raise TypeError(
        f"expected a numpyro distribution (class, constructor or instance), got {constructor!r}."
    )


def recipe_of(instance: Any) -> Recipe | None:
    """The parameterisation that this instance was made with; None for an opaque transform."""
    kind: Any = type(instance)
    if isinstance(instance, nt.Transform) and kind not in TRANSFORMS:
        return None
    return next(r for r in recipes_for(kind) if r.matches(instance))


def default_bijection(parameter: Parameter) -> Any:
    """The parameter's own bijection, or the one of its constraint."""
    return (
        parameter.bijection
        if parameter.bijection is not None
        else bijection_for(parameter.constraint)
    )
