"""Targets: a model or a log density as a function on unconstrained space."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.util import sum_rightmost
from numpyro.infer.util import log_density as model_log_density
from numpyro.primitives import Messenger

from funcvi._types import Key, LogDensity
from funcvi.constraints import bijection_for, constraint_name

__all__ = ["Target", "target"]

Sites = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Target:
    """An unnormalised posterior on unconstrained space, made by :func:`target`.

    Attributes:
        shapes: unconstrained shape of each latent site.
        log_density: ``(unconstrained sites, key=None) -> scalar``: the log joint density plus the
            log determinant of the bijections. The key seeds random choices in the model other than
            its latents (subsampling, dropout).
        constrain: ``(unconstrained sites) -> values``: constrained latents and deterministic sites.
        unconstrain: ``(constrained latents) -> unconstrained sites``.
    """

    shapes: Mapping[str, tuple[int, ...]]
    supports: Mapping[str, str]
    log_density: Callable[..., Array]
    constrain: Callable[[Sites], Sites]
    unconstrain: Callable[[Mapping[str, Any]], Sites]

    def __repr__(self) -> str:
        lines = [f"Target with {len(self.shapes)} latent site(s)"]
        for name, shape in self.shapes.items():
            lines.append(f"  {name}: {self.supports[name]}, unconstrained shape {shape}")
        return "\n".join(lines)


def target(
    model: Callable[..., Any],
    *args: Any,
    supports: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Target:
    """A target from a numpyro model, or from a log density with the supports of its arguments.

    Args:
        model: a numpyro model, called as ``model(*args, **kwargs)``; or, with ``supports``, a
            function of a dict of constrained values that returns their joint log density.
        *args: the model's data. Arrays become JAX arrays once, here.
        supports: for a log density, the constraint of each argument: a constraint of
            ``numpyro.distributions.constraints`` (shape ()), or ``(constraint, shape)``.
        **kwargs: as ``args``.

    Returns:
        A :class:`Target`.

    Raises:
        ValueError: the model has no latent site, or a discrete one; the message names it.
        TypeError: ``model`` is not callable, or a support is not a constraint.

    Example:
        >>> import numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: dist.Gamma(2.0, 1.0).log_prob(x["a"]),
        ...               supports={"a": constraints.positive})
        >>> t
        Target with 1 latent site(s)
          a: positive, unconstrained shape ()
    """
    if not callable(model):
        raise TypeError(f"model must be a function, got {type(model).__name__}.")
    if supports is not None:
        if args or kwargs:
            raise TypeError("a log density takes the dict of values alone: close over its data.")
        return _from_log_density(model, supports)
    args, kwargs = jax.tree.map(_as_array, (args, kwargs))
    return _from_model(model, args, kwargs)


def _as_array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if hasattr(leaf, "dtype") else leaf


# ---- a log density ------------------------------------------------------------------------------


def _from_log_density(log_density: LogDensity, supports: Mapping[str, Any]) -> Target:
    if not supports:
        raise ValueError("supports is empty: name each argument of the log density.")
    bijections, shapes, names = {}, {}, {}
    for name, given in supports.items():
        constraint, shape = _constraint_and_shape(name, given)
        bijections[name] = bijection_for(constraint)
        shapes[name] = tuple(bijections[name].inverse_shape(shape))
        names[name] = constraint_name(constraint)

    def constrain(z: Sites) -> Sites:
        _check_sites(z, shapes)
        return {name: b(z[name]) for name, b in bijections.items()}

    def unconstrain(values: Mapping[str, Any]) -> Sites:
        _check_sites(values, shapes)
        return {name: b.inv(jnp.asarray(values[name])) for name, b in bijections.items()}

    def density(z: Sites, key: Key | None = None) -> Array:
        _check_sites(z, shapes)
        _check_shapes(z, shapes)
        x = constrain(z)
        total = log_density(x)
        if jnp.shape(total) != ():
            raise ValueError(
                f"the log density must return a scalar, got shape {jnp.shape(total)}: sum it."
            )
        return total + sum(_log_det(b, z[n], x[n]) for n, b in bijections.items())

    return Target(shapes, names, density, constrain, unconstrain)


def _constraint_and_shape(name: str, given: Any) -> tuple[Any, tuple[int, ...]]:
    constraint, shape = given if isinstance(given, tuple) and len(given) == 2 else (given, ())
    if not isinstance(constraint, constraints.Constraint) or not isinstance(shape, tuple):
        raise TypeError(
            f"supports[{name!r}] must be a constraint or (constraint, shape) with a tuple for a "
            f"shape, got {given!r}."
        )
    if constraints.is_dependent(constraint) or constraint.is_discrete:
        raise TypeError(
            f"supports[{name!r}] is {constraint_name(constraint)}: give a continuous constraint "
            "with known bounds."
        )
    if len(shape) < constraint.event_dim:
        raise ValueError(
            f"supports[{name!r}] is {constraint_name(constraint)}, of {constraint.event_dim} event "
            f"dimension(s), but its shape is {shape}: write (constraint, shape)."
        )
    return constraint, shape


def _log_det(bijection: Any, z: Array, x: Array) -> Array:
    each = bijection.log_abs_det_jacobian(z, x)
    return sum_rightmost(each, jnp.ndim(each))


def _check_sites(values: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    missing = [n for n in shapes if n not in values]
    if missing:
        raise ValueError(f"values are missing for {missing}: give every latent site.")


def _check_shapes(z: Sites, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if jnp.shape(z[name]) != shape:
            raise ValueError(
                f"site {name!r} has unconstrained shape {shape}, got {jnp.shape(z[name])}: "
                "jax.vmap over draws."
            )


# ---- a numpyro model ----------------------------------------------------------------------------


class _Constrain(Messenger):
    """Gives each latent site the constrained image of its unconstrained value.

    The bijection is that of the site's support at that moment, so a support may depend on the
    values of earlier sites. Collects the log determinants as it goes.
    """

    def __init__(self, fn: Any, z: Sites) -> None:
        super().__init__(fn)
        self.z = z
        self.log_det: Array = jnp.zeros(())

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or msg["is_observed"] or msg["name"] not in self.z:
            return
        bijection = bijection_for(msg["fn"].support)
        z = self.z[msg["name"]]
        value = bijection(z)
        msg["value"] = value
        self.log_det = self.log_det + _log_det(bijection, z, value)


class _Unconstrain(Messenger):
    """Records the unconstrained value of each latent site of a substituted model."""

    def __init__(self, fn: Any, names: Mapping[str, Any]) -> None:
        super().__init__(fn)
        self.names = names
        self.z: Sites = {}

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] in self.names:
            self.z[msg["name"]] = bijection_for(msg["fn"].support).inv(msg["value"])


def _from_model(model: Callable[..., Any], args: Any, kwargs: Any) -> Target:
    fixed_key = jax.random.key(0)
    sites = _latent_sites(model, args, kwargs, fixed_key)
    shapes = {
        name: tuple(bijection_for(site["fn"].support).inverse_shape(jnp.shape(site["value"])))
        for name, site in sites.items()
    }
    names = {name: constraint_name(site["fn"].support) for name, site in sites.items()}

    def density(z: Sites, key: Key | None = None) -> Array:
        _check_sites(z, shapes)
        _check_shapes(z, shapes)
        seeded = handlers.seed(model, fixed_key if key is None else key)
        placed = _Constrain(seeded, z)
        log_joint, _ = model_log_density(placed, args, kwargs, {})
        return log_joint + placed.log_det

    def constrain(z: Sites) -> Sites:
        _check_sites(z, shapes)
        placed = _Constrain(handlers.seed(model, fixed_key), z)
        trace = handlers.trace(placed).get_trace(*args, **kwargs)
        return {
            name: site["value"]
            for name, site in trace.items()
            if name in shapes or site["type"] == "deterministic"
        }

    def unconstrain(values: Mapping[str, Any]) -> Sites:
        _check_sites(values, shapes)
        given = {n: jnp.asarray(values[n]) for n in shapes}
        substituted = handlers.substitute(handlers.seed(model, fixed_key), data=given)
        recorder = _Unconstrain(substituted, shapes)
        handlers.trace(recorder).get_trace(*args, **kwargs)
        return {name: recorder.z[name] for name in shapes}

    return Target(shapes, names, density, constrain, unconstrain)


def _latent_sites(model: Any, args: Any, kwargs: Any, key: Key) -> dict[str, Any]:
    trace = handlers.trace(handlers.seed(model, key)).get_trace(*args, **kwargs)
    sites = {}
    for name, site in trace.items():
        if site["type"] == "param":
            raise ValueError(
                f"the model has a param site {name!r}: a target has none. Give it a prior "
                "(numpyro.sample), or pass its value as an argument."
            )
        if site["type"] != "sample" or site["is_observed"]:
            continue
        if site["fn"].is_discrete:
            raise ValueError(
                f"latent site {name!r} is discrete ({type(site['fn']).__name__}): sum it out, for "
                "instance with dist.MixtureSameFamily, and observe the result."
            )
        if isinstance(site["fn"], dist.Delta):
            raise ValueError(
                f"latent site {name!r} is a Delta: use numpyro.deterministic for a computed value."
            )
        sites[name] = site
    if not sites:
        raise ValueError("the model has no latent sites: there is nothing to infer.")
    return sites
