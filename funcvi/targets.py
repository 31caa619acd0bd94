"""Targets: a model or a log density as a function on unconstrained space."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro import handlers
from numpyro.distributions import constraints, transforms
from numpyro.distributions.util import sum_rightmost
from numpyro.infer.util import log_density as model_log_density
from numpyro.primitives import Messenger

from funcvi._types import Key, LogDensity
from funcvi.constraints import bijection_for, constraint_name
from funcvi.runtime_checks import require

__all__ = ["Shape", "Sites", "Target", "leading_shape", "target"]

Sites: TypeAlias = dict[str, Array]
Model: TypeAlias = Callable[..., object]
Bijection: TypeAlias = transforms.Transform
Shape: TypeAlias = tuple[int, ...]
Support: TypeAlias = constraints.Constraint | tuple[constraints.Constraint, Shape]

_TRIES = 100


class LogDensityOfSites(Protocol):
    """``log_density(z, key=None) -> scalar``."""

    def __call__(self, z: Sites, key: Key | None = None, /) -> Array: ...


@dataclass(frozen=True, eq=False)
class Target:
    """An unnormalised posterior on unconstrained space, made by :func:`target`.

    Attributes:
        shapes: unconstrained shape of each latent site.
        value_shapes: constrained shape of each latent site.
        supports: the support of each latent site, in words.
        log_density: ``(unconstrained sites, key=None) -> scalar``: the log joint density plus the
            log determinant of the bijections. The key seeds random choices in the model other than
            its latents (subsampling, dropout).
        log_det: ``(unconstrained sites) -> scalar``: log |det| of the bijections, summed.
        constrain: ``(unconstrained sites) -> values``: constrained latents and deterministic sites.
        unconstrain: ``(constrained latents) -> unconstrained sites``.
    """

    shapes: Mapping[str, Shape]
    value_shapes: Mapping[str, Shape]
    supports: Mapping[str, str]
    log_density: LogDensityOfSites
    log_det: Callable[[Sites], Array]
    constrain: Callable[[Sites], Sites]
    unconstrain: Callable[[Mapping[str, ArrayLike]], Sites]

    @property
    def size(self) -> int:
        """The dimension of unconstrained space."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def ravel(self, z: Sites) -> Array:
        """Unconstrained sites, with any leading axes, as vectors (*leading, size)."""
        lead = leading_shape(z, self.shapes)
        return jnp.concatenate([jnp.reshape(z[n], (*lead, -1)) for n in self.shapes], axis=-1)

    def unravel(self, vector: Array) -> Sites:
        """The unconstrained sites of vectors (*leading, size); the inverse of :meth:`ravel`."""
        lead = vector.shape[:-1]
        if vector.shape[-1:] != (self.size,):
            raise ValueError(
                f"unravel expects vectors of shape (*leading, {self.size}), got {vector.shape}."
            )
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])
        parts = jnp.split(vector, ends[:-1], axis=-1)
        return {
            name: part.reshape(*lead, *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def start(self, key: Key) -> Sites:
        """Unconstrained sites at which the log density and its gradient are finite.

        Uniform in (-2, 2); every other try after the first comes closer to zero. Works under jit
        and vmap: other keys start elsewhere.

        Raises:
            ValueError: none of the tries was finite (under jit a ``JaxRuntimeError`` with the same
                message, when the program runs).
        """
        z, finite = jax.jit(self._first_finite)(key)
        return require(finite, z, _no_start)

    def _first_finite(self, key: Key) -> tuple[Sites, Array]:
        def draw(index: Array) -> Array:
            radius = jnp.where(index % 2 == 0, 2.0, 2.0 * 0.9**index)
            unit = jax.random.uniform(jax.random.fold_in(key, index), (self.size,), minval=-1)
            return radius.astype(unit.dtype) * unit

        def attempt(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            vector = draw(state[0])
            result = jax.value_and_grad(lambda v: self.log_density(self.unravel(v)))(vector)
            finite = [jnp.all(jnp.isfinite(x)) for x in result]
            return state[0] + 1, vector, finite[0] & finite[1]

        def searching(state: tuple[Array, Array, Array]) -> Array:
            return ~state[2] & (state[0] < _TRIES)

        index = jnp.zeros((), jnp.int32)
        state = (index, jnp.zeros_like(draw(index)), jnp.zeros((), bool))
        _, vector, finite = jax.lax.while_loop(searching, attempt, state)
        return self.unravel(vector), finite

    def __repr__(self) -> str:
        lines = [f"Target with {len(self.shapes)} latent site(s)"]
        for name, shape in self.shapes.items():
            lines.append(f"  {name}: {self.supports[name]}, unconstrained shape {shape}")
        return "\n".join(lines)


def _no_start() -> ValueError:
    return ValueError(
        f"the log density or its gradient was non-finite at {_TRIES} starts around zero on "
        "unconstrained space: check the data for NaN, and that each prior's support holds what "
        "the likelihood needs; float64 (jax_enable_x64) helps where densities overflow."
    )


def leading_shape(values: Mapping[str, ArrayLike], shapes: Mapping[str, Shape]) -> Shape:
    """The leading axes that all sites share in front of their own ``shapes``."""
    _check_sites(values, shapes)
    leads = {}
    for name, shape in shapes.items():
        actual = jnp.shape(values[name])
        count = len(actual) - len(shape)
        if count < 0 or actual[count:] != shape:
            raise ValueError(
                f"site {name!r} must have shape {shape} behind any leading axes, got {actual}."
            )
        leads[name] = actual[:count]
    if len(set(leads.values())) > 1:
        listed = ", ".join(f"{name!r} {lead}" for name, lead in leads.items())
        raise ValueError(f"all sites must have the same leading axes, got {listed}.")
    return next(iter(leads.values()))


def target(
    model: Callable[..., object],
    *args: object,
    supports: Mapping[str, Support] | None = None,
    **kwargs: object,
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
    arrays = jax.tree.map(_as_array, (args, kwargs))
    return _from_model(model, *arrays)


def _as_array(leaf: object) -> object:
    return jnp.asarray(leaf) if hasattr(leaf, "dtype") else leaf


# ---- a log density ------------------------------------------------------------------------------


def _from_log_density(log_density: LogDensity, supports: Mapping[str, Support]) -> Target:
    if not supports:
        raise ValueError("supports is empty: name each argument of the log density.")
    pairs = {name: _constraint_and_shape(name, support) for name, support in supports.items()}
    bijections = {name: bijection_for(constraint) for name, (constraint, _) in pairs.items()}
    value_shapes = {name: shape for name, (_, shape) in pairs.items()}
    shapes = {name: tuple(b.inverse_shape(value_shapes[name])) for name, b in bijections.items()}

    def constrain(z: Sites) -> Sites:
        _check_shapes(z, shapes)
        return {name: b(z[name]) for name, b in bijections.items()}

    def unconstrain(values: Mapping[str, ArrayLike]) -> Sites:
        _check_shapes(values, value_shapes)
        return {name: b.inv(jnp.asarray(values[name])) for name, b in bijections.items()}

    def log_det(z: Sites) -> Array:
        x = constrain(z)
        return sum((_log_det(b, z[n], x[n]) for n, b in bijections.items()), jnp.zeros(()))

    def density(z: Sites, key: Key | None = None, /) -> Array:
        total = log_density(constrain(z))
        if jnp.shape(total) != ():
            raise ValueError(
                f"the log density must return a scalar, got shape {jnp.shape(total)}: sum it."
            )
        return total + log_det(z)

    names = {name: constraint_name(constraint) for name, (constraint, _) in pairs.items()}
    return Target(shapes, value_shapes, names, density, log_det, constrain, unconstrain)


def _constraint_and_shape(name: str, support: Support) -> tuple[constraints.Constraint, Shape]:
    constraint, shape = (
        support if isinstance(support, tuple) and len(support) == 2 else (support, ())
    )
    if not isinstance(constraint, constraints.Constraint) or not isinstance(shape, tuple):
        raise TypeError(
            f"supports[{name!r}] must be a constraint or (constraint, shape) with a tuple for a "
            f"shape, got {support!r}."
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


def _log_det(bijection: Bijection, z: Array, x: Array) -> Array:
    each = bijection.log_abs_det_jacobian(z, x)
    return sum_rightmost(each, jnp.ndim(each))


def _check_sites(values: Mapping[str, ArrayLike], shapes: Mapping[str, Shape]) -> None:
    missing = [n for n in shapes if n not in values]
    if missing:
        raise ValueError(f"values are missing for {missing}: give every latent site.")


def _check_shapes(values: Mapping[str, ArrayLike], shapes: Mapping[str, Shape]) -> None:
    _check_sites(values, shapes)
    for name, shape in shapes.items():
        if jnp.shape(values[name]) != shape:
            raise ValueError(
                f"site {name!r} must have shape {shape}, got {jnp.shape(values[name])}: jax.vmap "
                "over draws."
            )


# ---- a numpyro model ----------------------------------------------------------------------------


class _Constrain(Messenger):
    """Gives each latent site the constrained image of its unconstrained value.

    The bijection is that of the site's support at that moment, so a support may depend on the
    values of earlier sites. Collects the log determinants as it goes.
    """

    def __init__(self, fn: Model, z: Sites) -> None:
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

    def __init__(self, fn: Model, names: Mapping[str, Shape]) -> None:
        super().__init__(fn)
        self.names = names
        self.z: Sites = {}

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] in self.names:
            self.z[msg["name"]] = bijection_for(msg["fn"].support).inv(msg["value"])


def _from_model(model: Model, args: tuple[object, ...], kwargs: dict[str, object]) -> Target:
    fixed_key = jax.random.key(0)
    seeded = handlers.seed(model, fixed_key)
    sites = _latent_sites(handlers.trace(seeded).get_trace(*args, **kwargs))
    value_shapes = {name: jnp.shape(site["value"]) for name, site in sites.items()}
    shapes = {
        name: tuple(bijection_for(site["fn"].support).inverse_shape(value_shapes[name]))
        for name, site in sites.items()
    }
    names = {name: constraint_name(site["fn"].support) for name, site in sites.items()}

    def density(z: Sites, key: Key | None = None, /) -> Array:
        _check_shapes(z, shapes)
        bijected = _Constrain(seeded if key is None else handlers.seed(model, key), z)
        log_joint, _ = model_log_density(bijected, args, kwargs, {})
        return log_joint + bijected.log_det

    def replay(z: Sites) -> tuple[Array, dict[str, Any]]:
        _check_shapes(z, shapes)
        bijected = _Constrain(seeded, z)
        trace = handlers.trace(bijected).get_trace(*args, **kwargs)
        return bijected.log_det, trace

    def constrain(z: Sites) -> Sites:
        return {
            name: site["value"]
            for name, site in replay(z)[1].items()
            if name in shapes or site["type"] == "deterministic"
        }

    def unconstrain(values: Mapping[str, ArrayLike]) -> Sites:
        _check_shapes(values, value_shapes)
        latents = {n: jnp.asarray(values[n]) for n in shapes}
        recorder = _Unconstrain(handlers.substitute(seeded, data=latents), shapes)
        handlers.trace(recorder).get_trace(*args, **kwargs)
        return {name: recorder.z[name] for name in shapes}

    def log_det(z: Sites) -> Array:
        return replay(z)[0]

    return Target(shapes, value_shapes, names, density, log_det, constrain, unconstrain)


def _latent_sites(trace: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
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
