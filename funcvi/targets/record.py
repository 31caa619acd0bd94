"""What a target is: functions on unconstrained space, and the shapes of its sites."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from jax.typing import ArrayLike
from numpyro import handlers
from numpyro.distributions import transforms
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.util import sum_rightmost

from funcvi._jax import is_concrete, read_inputs
from funcvi._types import Key
from funcvi.programs import program, trace, value_and_grad
from funcvi.runtime_checks import require

__all__ = [
    "Minibatch",
    "ModelCall",
    "Shape",
    "Sites",
    "Target",
    "check_shapes",
    "leading_shape",
    "log_det_of",
    "ravel",
    "unravel",
]

Sites: TypeAlias = dict[str, Array]
Shape: TypeAlias = tuple[int, ...]
Constants: TypeAlias = Sequence[Array | np.ndarray]
Found: TypeAlias = tuple[Array, Array]

_TRIES = 100


class ModelCall(NamedTuple):
    """A numpyro model and what it is called with."""

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Minibatch:
    """What is read of a target in a step, where latents are inside of subsampling plates.

    Attributes:
        sizes: by plate, how many rows there are and how many are read.
        axes: by latent site inside such plates, and by axis of its value, the plate.
        log_density: ``(unconstrained sites, rows) -> scalar``: an unbiased estimate of the
            target's, where rows are any few and each is as likely as the others. Of the sites
            inside plates it takes those rows alone.
    """

    sizes: Mapping[str, tuple[int, int]]
    axes: Mapping[str, Mapping[int, str]]
    log_density: Callable[[Sites, Mapping[str, Array]], Array]

    def rows(self, key: Key) -> dict[str, Array]:
        """By plate the indices of rows, drawn without replacement as numpyro draws them."""
        found = {}
        for name, one in zip(self.sizes, jax.random.split(key, len(self.sizes)), strict=True):
            plate = functools.partial(numpyro.plate, name, *self.sizes[name])
            with handlers.block(), handlers.seed(rng_seed=one), plate() as rows:
                found[name] = rows
        return found

    def count(self, site: str) -> float:
        """For how many rows of a site's each one that is read stands."""
        plates = self.axes.get(site, {}).values()
        return math.prod(self.sizes[name][0] / self.sizes[name][1] for name in plates)


@dataclass(frozen=True, eq=False)
class Target:
    """An unnormalised posterior on unconstrained space, made by :func:`target`.

    Attributes:
        shapes: unconstrained shape of each latent site.
        value_shapes: constrained shape of each latent site.
        supports: the support of each latent site, in words.
        log_density: ``(unconstrained sites, key=None) -> scalar``: the log joint density plus the
            log determinant of the bijections. The key seeds random choices in the model other than
            its latents (subsampling, dropout; see ``is_random``).
        log_det: ``(unconstrained sites) -> scalar``: log |det| of the bijections, summed.
        constrain: ``(unconstrained sites) -> values``: constrained latents and deterministic sites.
        unconstrain: ``(constrained latents) -> unconstrained sites``.
        is_prior: whether it is a prior alone, as of a network's weights, whose loss has the data.
        place: where its starts are; by default they are searched.
        corner: the name of a distribution whose log density has a corner, if there is one.
        edges: ``(unconstrained sites) -> arrays``: what the edges of the data's distributions are
            made of.
        call: the numpyro model and its data; None for a log density.
        points: unconstrained point parameters (``numpyro.param``) to start from, by name: any
            pytrees. All else here is at these; ``at`` moves them.
        at: ``points -> target`` whose point parameters are these, and which has none to learn.
        point_values: ``points -> constrained values``.
        given: the constrained values that point parameters have here.
        summed: the discrete latent sites that the log density is summed over.
        constraints: the support of each latent site, as it was where the model was looked at.
        plates: by site, the name of the plate that each axis of its value is, None for another.
        faults: ``(unconstrained sites) -> words``: which sites have no finite log density there,
            and why; empty where all have one. None for a log density.
        minibatch: where latents are inside of subsampling plates, what ``fv.negative_elbo`` reads
            in a step; all else here is of all rows.
    """

    shapes: Mapping[str, Shape]
    value_shapes: Mapping[str, Shape]
    supports: Mapping[str, str]
    log_density: Callable[..., Array]
    log_det: Callable[[Sites], Array]
    constrain: Callable[[Sites], Sites]
    unconstrain: Callable[[Mapping[str, ArrayLike]], Sites]
    is_prior: bool = False
    place: Sites | None = None
    corner: str | None = None
    edges: Callable[[Sites], list[Array]] | None = None
    call: ModelCall | None = None
    summed: tuple[str, ...] = ()
    points: Mapping[str, Any] = field(default_factory=dict)
    at: "Callable[[Mapping[str, Any]], Target] | None" = None
    point_values: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    given: Mapping[str, Any] = field(default_factory=dict)
    constraints: Mapping[str, Constraint] = field(default_factory=dict)
    plates: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    faults: Callable[[Sites], str] | None = None
    minibatch: Minibatch | None = None

    @functools.cached_property
    def is_random(self) -> bool:
        """Whether the log density reads its key: that of a minibatch, say, unbiased and no more.

        Its mean is all that may be used then, as ``fv.negative_elbo`` does; a mode, importance
        weights or a diagnosis would need the log density itself.
        """
        closed = jax.make_jaxpr(lambda key, z: self.log_density(z, key))(
            jax.random.key(0), self._any_sites()
        )
        return read_inputs(closed.jaxpr, [True])[0]

    @functools.cached_property
    def jumps(self) -> bool:
        """Whether the log density jumps to minus infinity inside: the data end where a site is."""
        if self.edges is None:
            return False
        jaxpr = jax.make_jaxpr(self.edges)(self._any_sites()).jaxpr
        return any(read_inputs(jaxpr, [True] * len(jaxpr.outvars)))

    def _any_sites(self) -> dict[str, jax.ShapeDtypeStruct]:
        dtype = jnp.result_type(float)
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in self.shapes.items()}

    def check_exact(self, reader: str) -> None:
        """Raises a ValueError where the log density is random, which ``reader`` cannot use."""
        if self.is_random:
            raise ValueError(
                f"{reader} needs the log density itself, and this target's is random (a "
                "subsampling plate, dropout): fit by fv.negative_elbo, which needs its mean only.\n"
                "For the rest make the same guide over the model of all data: it takes the same "
                "params."
            )

    def check_known(self, reader: str) -> None:
        """Raises a ValueError where point parameters are to be learned, which ``reader`` cannot."""
        if self.points:
            raise ValueError(
                f"{reader} learns no point parameters, and the model has {list(self.points)} "
                "(numpyro.param):\nfit them with fv.fit(fv.negative_elbo(guide), ...) first and "
                "take fit's target, guide(fit.params).target; or give them priors."
            )

    @property
    def size(self) -> int:
        """The dimension of unconstrained space."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def ravel(self, z: Sites) -> Array:
        """Unconstrained sites, with any leading axes, as vectors (*leading, size)."""
        return ravel(z, self.shapes)

    def unravel(self, vector: Array) -> Sites:
        """The unconstrained sites of vectors (*leading, size); the inverse of :meth:`ravel`."""
        return unravel(vector, self.shapes)

    def start(self, key: Key, sample_shape: Shape = (), *, mark_failed: bool = False) -> Sites:
        """Unconstrained sites at which the log density and its gradient are finite.

        Uniform in (-2, 2); every other try after the first comes closer to zero. Works under jit
        and vmap: other keys start elsewhere.

        Args:
            key: a key.
            sample_shape: leading axes of independent starts.
            mark_failed: under jit and vmap NaN stands where no start was found: of a batch the
                others go on.

        Raises:
            ValueError: none of the tries was finite (under jit a ``JaxRuntimeError`` with the same
                message, when the program runs).
        """
        if self.place is not None:
            return {
                n: jnp.broadcast_to(z, (*sample_shape, *z.shape)) for n, z in self.place.items()
            }
        vector, finite = self._first_finite(key, sample_shape)
        if mark_failed and not is_concrete(finite):
            return self.unravel(jnp.where(finite[..., None], vector, jnp.nan))
        failed = is_concrete(finite) and not bool(jnp.all(finite))
        why = f"\nAt zero {self._why_non_finite()}." if failed else ""
        return require(
            finite,
            self.unravel(vector),
            lambda: ValueError(
                f"the log density or its gradient was non-finite at {_TRIES} starts around zero on "
                "unconstrained space: check the data for NaN, and that each prior's support holds "
                "what the likelihood needs; float64 (jax_enable_x64) helps where densities "
                f"overflow.{why}"
            ),
        )

    def _why_non_finite(self) -> str:
        """What is not finite at zero, of a target with no start."""
        z = {name: jnp.zeros(shape) for name, shape in self.shapes.items()}
        value, slope = jax.value_and_grad(self.log_density)(z)
        if not jnp.isfinite(value):
            return (self.faults and self.faults(z)) or f"it is {float(value):.3g}"
        steep = [name for name, s in slope.items() if not bool(jnp.all(jnp.isfinite(s)))]
        return f"its gradient by {steep} is not finite" if steep else "it is finite"

    def _first_finite(self, key: Key, sample_shape: Shape) -> Found:
        def density(vector: Array) -> Array:
            return self.log_density(self.unravel(vector))

        place = jax.ShapeDtypeStruct((self.size,), jnp.result_type(float))
        traced = trace(density, place)
        slope = value_and_grad(traced, place)

        def searches(constants: Constants, constants_of_slope: Constants, key: Key) -> Found:
            def value_and_slope(vector: Array) -> Found:
                return slope.function(constants_of_slope, constants, vector)

            search = functools.partial(_first_finite, value_and_slope, self.size)
            for _ in sample_shape:
                search = jax.vmap(search)
            return search(jax.random.split(key, sample_shape) if sample_shape else key)

        constants, constants_of_slope = traced.constants, slope.constants
        if not is_concrete((constants, constants_of_slope, key)):
            return searches(constants, constants_of_slope, key)
        name = ("start", traced.key, slope.key, sample_shape)
        compiled = program(name, lambda: jax.jit(searches))
        return compiled(constants, constants_of_slope, key)

    def __repr__(self) -> str:
        lines = [f"Target with {len(self.shapes)} latent site(s)"]
        for name, shape in self.shapes.items():
            lines.append(f"  {name}: {self.supports[name]}, unconstrained shape {shape}")
        return "\n".join(lines)


def _first_finite(value_and_slope: Callable[[Array], Found], size: int, key: Key) -> Found:
    """The first place of the search at which both are finite, and whether there is one."""

    def attempt(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        index, _, _ = state
        radius = jnp.where(index % 2 == 0, 2.0, 2.0 * 0.9**index)
        unit = jax.random.uniform(jax.random.fold_in(key, index), (size,), minval=-1)
        vector = radius.astype(unit.dtype) * unit
        value, slope = value_and_slope(vector)
        return index + 1, vector, jnp.isfinite(value) & jnp.all(jnp.isfinite(slope))

    def searching(state: tuple[Array, Array, Array]) -> Array:
        return ~state[2] & (state[0] < _TRIES)

    first = jnp.zeros((), jnp.int32), jnp.zeros(size), jnp.zeros((), bool)
    return jax.lax.while_loop(searching, attempt, first)[1:]


def ravel(z: Sites, shapes: Mapping[str, Shape]) -> Array:
    """The sites of these names, with any leading axes, as vectors (*leading, size)."""
    lead = leading_shape(z, shapes)
    return jnp.concatenate([jnp.reshape(z[n], (*lead, -1)) for n in shapes], axis=-1)


def unravel(vector: Array, shapes: Mapping[str, Shape]) -> Sites:
    """The sites of vectors (*leading, size), by name; the inverse of :func:`ravel`."""
    lead = vector.shape[:-1]
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    if vector.shape[-1:] != (ends[-1],):
        raise ValueError(
            f"unravel expects vectors of shape (*leading, {ends[-1]}), got {vector.shape}."
        )
    parts = jnp.split(vector, ends[:-1], axis=-1)
    return {
        name: part.reshape(*lead, *shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def leading_shape(values: Mapping[str, ArrayLike], shapes: Mapping[str, Shape]) -> Shape:
    """The leading axes that all sites share in front of their own ``shapes``."""
    if missing := [name for name in shapes if name not in values]:
        raise ValueError(f"values are missing for {missing}: give every latent site.")
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


def check_shapes(values: Mapping[str, ArrayLike], shapes: Mapping[str, Shape]) -> None:
    """Raises a ValueError unless every site is there, in its own shape."""
    for name, shape in shapes.items():
        if name in values and jnp.shape(values[name]) != shape:
            raise ValueError(
                f"site {name!r} must have shape {shape}, got {jnp.shape(values[name])}: jax.vmap "
                "over draws."
            )
    leading_shape(values, shapes)


def log_det_of(bijection: transforms.Transform, z: Array, x: Array) -> Array:
    """log |det| of one site's bijection, summed over its entries."""
    each = bijection.log_abs_det_jacobian(z, x)
    return sum_rightmost(each, jnp.ndim(each))
