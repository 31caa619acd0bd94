"""Any function of (params, inputs) as a Bayesian network: a guide over its weights."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from funcvi._types import Key, Params
from funcvi.constraints import constraint_name
from funcvi.densities.log_prob import log_prob
from funcvi.guides import Guide, Posterior, full_rank, low_rank, mean_field
from funcvi.networks.names import dotted, flatten, matching
from funcvi.networks.network import BayesianNetwork
from funcvi.targets import Sites, Target, target
from funcvi.wrong_kinds import instead_of_a_distribution

__all__ = ["bayesian"]

GuideName: TypeAlias = Literal["mean_field", "low_rank", "full_rank"]

Prior: TypeAlias = dist.Distribution | Mapping[str, dist.Distribution]


def bayesian(
    function: Callable[..., Any],
    params: Params,
    prior: Prior,
    *,
    only: Iterable[str] | None = None,
    scale: float = 1e-2,
    guide: GuideName | Callable[[Target], Guide] = "mean_field",
    rank: int = 8,
    key: Key | None = None,
    state: Params = None,
) -> BayesianNetwork:
    """A Bayesian version of any ``function(params, *inputs)``.

    The function may come from torch (``interop.to_jax``), flax, equinox or be written by hand. Its
    weights get a posterior around their present values, independent normals by default; KL and
    minibatch scaling are right by construction.

    Args:
        function: pure, of ``(params, *inputs)``.
        params: a pytree of floating-point arrays, where the posterior starts.
        prior: of each entry of every random weight; or a dict from patterns of dotted names
            (``"*.bias"``) to priors, the first that matches counts. A prior may have arrays of the
            weight's shape, such as a pretrained checkpoint's values.
        only: patterns of the names of weights that become random, as ``["head.*"]`` for the last
            layer; the others are trained as point values. All, by default.
        scale: standard deviation of every weight at the start.
        guide: "mean_field", independent normals; "low_rank", one normal of all random weights whose
            covariance is a diagonal and ``rank`` directions; "full_rank", one of any covariance; or
            any function from a target to a guide, such as ``lambda t: fv.guide(t, family)``. The
            target's sites are the random weights by dotted name, its log density is the prior's,
            and its ``start`` the weights.
        rank: of the low-rank guide.
        key: for what is random about the guide's start, as the low-rank one's directions;
            ``jax.random.key(0)`` by default.
        state: what the function carries from call to call beside its weights, such as the
            statistics of batch normalisation: it is then a ``function(params, *inputs,
            state=state) -> (output, new state)``, and ``state`` the first. Nothing about it is
            random.

    Raises:
        TypeError: a weight is no floating-point array, the function is a torch module, or
            ``guide`` gives no guide.
        ValueError: a pattern matches nothing; a random weight has no prior, or one whose shape
            or support does not fit; statistics of batch normalisation are among the weights, or
            the function has them and there is no ``state``.

    Example:
        >>> import funcvi as fv, jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> linear = lambda w, x: x @ w["weight"] + w["bias"]
        >>> weights = {"weight": jnp.zeros(3), "bias": jnp.zeros(())}
        >>> net = fv.bayesian(linear, weights, dist.Normal(0.0, 1.0))
        >>> net(net.params, jnp.ones((5, 3)), key=jax.random.key(0)).shape
        (5,)
    """
    _check_is_no_module(function)
    _check_are_weights(params)
    _check_has_state(function, state)
    named, structure = flatten(params)
    chosen = named if only is None else matching(only, tuple(named), "bayesian: only")
    if not chosen:
        raise ValueError("bayesian: only=[] leaves no weight random; leave it out for all of them")
    random = {name: leaf for name, leaf in named.items() if name in chosen}
    point = {name: leaf for name, leaf in named.items() if name not in chosen}
    priors = _priors(prior, random)
    made = _guide(guide, _target(priors, random), scale, rank)
    start = made.init(jax.random.key(0) if key is None else key)
    return BayesianNetwork(
        params={"random": start, "point": point},
        prior=priors,
        state=state,
        guide=made,
        _independent=_are_independent(made(start)),
        _function=function,
        _dtypes={name: leaf.dtype for name, leaf in named.items()},
        _structure=structure,
    )


def _target(priors: Mapping[str, dist.Distribution], weights: Sites) -> Target:
    """The prior of the weights, with a start where they are."""

    def log_prior(values: Sites) -> jax.Array:
        return sum((jnp.sum(log_prob(p, values[n])) for n, p in priors.items()), jnp.zeros(()))

    supports = {name: (constraints.real, weight.shape) for name, weight in weights.items()}
    place = {name: jnp.asarray(weight, float) for name, weight in weights.items()}
    return replace(target(log_prior, supports=supports), is_prior=True, place=place)


def _guide(
    guide: GuideName | Callable[[Target], Guide], weights: Target, scale: float, rank: int
) -> Guide:
    makers: dict[str, Callable[..., Guide]] = {
        "mean_field": mean_field,
        "low_rank": partial(low_rank, rank=rank),
        "full_rank": full_rank,
    }
    if isinstance(guide, str) and guide in makers:
        return makers[guide](weights, scale=scale)
    if not callable(guide):
        raise ValueError(
            "bayesian: guide must be 'mean_field', 'low_rank', 'full_rank' or a function from a "
            f"target to a guide, got {guide!r}"
        )
    made = guide(weights)
    if not isinstance(made, Guide) or made.target is not weights:
        raise TypeError(
            "bayesian: guide must give a guide for the target that it is handed, as "
            f"lambda target: fv.mean_field(target) does; got {type(made).__name__}"
        )
    return made


def _are_independent(posterior: Posterior) -> bool:
    try:
        posterior.marginals()
    except TypeError:
        return False
    return isinstance(posterior.unconstrained, Mapping) and not posterior.guide.blocks


_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def _check_is_no_module(function: Callable[..., Any]) -> None:
    """Refuses torch modules that are not converted, by the name of their class's package."""
    if any(each.__module__.split(".")[0] == "torch" for each in type(function).__mro__):
        raise TypeError(
            "bayesian: the function is a torch module: net = interop.to_jax(module) first, then "
            "fv.bayesian(net, net.params, prior)"
        )


def _check_has_state(function: Callable[..., Any], state: Params) -> None:
    """A converted module must not keep its batch statistics unnoticed."""
    buffers = getattr(function, "buffers", None)
    if state is not None or not isinstance(buffers, Mapping):
        return
    if statistics := [name for name in buffers if name.split(".")[-1] in _BUFFERS]:
        raise ValueError(
            f"bayesian: the function has buffers, {', '.join(map(repr, statistics[:3]))}, which it "
            "would read in evaluation mode and never update. To train them, pass state=net.buffers "
            "and a function of (params, *inputs, state=state) -> (output, new state), by net.train;"
            " to keep them as they are, pass lambda params, *inputs: net(params, *inputs)"
        )


def _check_are_weights(params: Params) -> None:
    """Refuses flax's other collections and torch's buffers: no likelihood is theirs to learn."""
    keys = set(params) if isinstance(params, Mapping) else set()
    others = sorted(map(str, keys - {"params"})) if "params" in keys else []
    names = [dotted(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    parts = {part for name in names for part in name.split(".")}
    if "batch_stats" in parts and not others:
        others = ["batch_stats"]
    if others:
        raise ValueError(
            f"bayesian: {', '.join(map(repr, others))} beside the weights: pass "
            "variables['params'] as params, and the other collections as state=, of a "
            "function(params, *inputs, state=state) -> (output, new state)"
        )
    if buffers := [name for name in names if name.split(".")[-1] in _BUFFERS]:
        raise ValueError(
            f"bayesian: {', '.join(map(repr, buffers[:6]))} are buffers, not weights: pass "
            "net.params as params and net.buffers as state="
        )


def _priors(prior: Prior, weights: Sites) -> dict[str, dist.Distribution]:
    """One for each weight, of its shape."""
    patterns = prior if isinstance(prior, Mapping) else {"*": prior}
    found = matching(patterns, tuple(weights), "bayesian: prior")
    if without := [name for name in weights if name not in found]:
        raise ValueError(
            f"bayesian: no prior for {', '.join(map(repr, without))}; add a pattern that matches, "
            "or '*'"
        )
    return {name: _fitting(patterns[found[name]], name, w.shape) for name, w in weights.items()}


def _fitting(prior: dist.Distribution, name: str, shape: tuple[int, ...]) -> dist.Distribution:
    if not isinstance(prior, dist.Distribution):
        raise TypeError(
            f"bayesian: the prior of '{name}' must be a numpyro distribution, "
            f"{instead_of_a_distribution(prior)}"
        )
    if prior.event_shape:
        raise ValueError(
            f"bayesian: the prior of '{name}' must be of single entries, got event shape "
            f"{prior.event_shape}"
        )
    if not isinstance(prior.support, type(constraints.real)):
        raise ValueError(
            f"bayesian: the prior of '{name}' has the support {constraint_name(prior.support)}; a "
            "weight may take any real value"
        )
    try:
        return prior.expand(shape) if prior.batch_shape != shape else prior
    except ValueError as error:
        raise ValueError(
            f"bayesian: the prior of '{name}' has shape {prior.batch_shape}, which does not "
            f"broadcast to the weight's {shape}"
        ) from error
