"""Random weights without drawing them: the noise moves to what a layer gives.

A Gaussian weight that enters one matrix product or convolution, and nothing else, makes that
layer's output Gaussian given its input; drawing the output instead of the weight has a gradient of
much lower variance. Layers are found by reading the function's jaxpr, so any function will do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from funcvi.sampling.noise import normal

__all__ = ["Gaussian", "apply_random", "layers_found"]

Estimator = Literal["plain", "local", "flipout"]

_REARRANGING = frozenset(
    {
        "transpose",
        "reshape",
        "squeeze",
        "rev",
        "copy",
        "copy_p",
        "convert_element_type",
        "expand_dims",
    }
)
"""Primitives that only move the entries of a weight."""

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr"}
"""Primitives that call a jaxpr, and the parameter that holds it."""


@dataclass(frozen=True)
class Gaussian:
    """Independent Gaussian entries: ``loc`` and ``scale`` of the same shape and dtype."""

    loc: jax.Array
    scale: jax.Array


jax.tree_util.register_dataclass(Gaussian, ["loc", "scale"], [])


def apply_random(
    function: Callable[..., Any],
    weights: Any,
    inputs: tuple[Any, ...],
    key: jax.Array,
    estimator: Estimator,
) -> Any:
    r"""``function(weights, *inputs)`` for a draw of ``weights``.

    With "plain", every weight is drawn once. With "local", a weight that enters one product
    :math:`y = xW` and nothing else is never drawn:
    :math:`y \sim N(x\mu, x^2 \sigma^2)` is, anew for each row of :math:`x` (Kingma et al. 2015,
    arXiv:1506.02557). With "flipout", such a weight is drawn once, and each row flips the signs of
    its deviations (Wen et al. 2018, arXiv:1803.04386). Both keep the law of each row's output; rows
    that "plain" makes depend on each other through the weight become independent of each other.
    Where rows are positions in one example, as in a convolution or a sequence, that is the usual
    approximation of these methods, not an identity.

    Args:
        function: pure, of ``(weights, *inputs)``.
        weights: a pytree with :class:`Gaussian` leaves; other leaves are taken as they are.
        inputs: pytrees of arrays.
        key: for the noise.
        estimator: "plain", "local" or "flipout".
    """
    leaves, structure = _leaves(weights)
    random = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Gaussian)]
    keys = dict(zip(random, jax.random.split(key, max(len(random), 1)), strict=False))
    if estimator == "plain":
        drawn = [_draw(x, keys[i]) if i in keys else x for i, x in enumerate(leaves)]
        return function(jax.tree.unflatten(structure, drawn), *inputs)
    traced, result = _trace(function, leaves, structure, inputs)
    jaxpr = traced.jaxpr
    given = []
    for i, leaf in enumerate(leaves):
        if i not in keys:
            given.append(leaf)
        elif _ends_in_product(jaxpr, jaxpr.invars[i]):
            given.append(_Weight(leaf.loc, leaf.scale, keys[i], estimator))
        else:
            given.append(_draw(leaf, keys[i]))
    outputs = _evaluate(jaxpr, traced.consts, [*given, *jax.tree.leaves(inputs)])
    return jax.tree.unflatten(result, outputs)


def layers_found(function: Callable[..., Any], weights: Any, inputs: tuple[Any, ...]) -> Any:
    """A pytree like ``weights``: whether each enters one product and nothing else."""
    leaves, structure = _leaves(weights)
    jaxpr = _trace(function, leaves, structure, inputs)[0].jaxpr
    found = [_ends_in_product(jaxpr, v) for v in jaxpr.invars[: len(leaves)]]
    return jax.tree.unflatten(structure, found)


@dataclass(frozen=True)
class _Weight:
    """A weight on its way to its product."""

    loc: jax.Array
    scale: jax.Array
    key: jax.Array
    estimator: Estimator


def _leaves(weights: Any) -> tuple[list[Any], Any]:
    return jax.tree.flatten(weights, is_leaf=lambda x: isinstance(x, Gaussian))


def _draw(weight: Gaussian, key: jax.Array) -> jax.Array:
    return weight.loc + weight.scale * normal(key, weight.loc.shape, weight.loc.dtype)


def _trace(
    function: Callable[..., Any], leaves: list[Any], structure: Any, inputs: tuple[Any, ...]
) -> tuple[Any, Any]:
    """The function's jaxpr, in which each weight is one input, and the structure of its result."""
    means = [x.loc if isinstance(x, Gaussian) else x for x in leaves]
    shapes: list[Any] = []

    def flat(means: list[Any], *inputs: Any) -> list[Any]:
        out, out_structure = jax.tree.flatten(
            function(jax.tree.unflatten(structure, means), *inputs)
        )
        shapes.append(out_structure)
        return out

    traced = jax.make_jaxpr(flat)(means, *inputs)
    return traced, shapes[0]


def _ends_in_product(jaxpr: Any, variable: Any) -> bool:
    """Whether a chain of rearrangements leads from ``variable`` to one product and nowhere else."""
    if any(v is variable for v in jaxpr.outvars):
        return False
    readers = [(e, i) for e in jaxpr.eqns for i, v in enumerate(e.invars) if v is variable]
    if len(readers) != 1:
        return False
    equation, place = readers[0]
    name = equation.primitive.name
    if name in _REARRANGING and jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
        return _ends_in_product(jaxpr, equation.outvars[0])
    if name in _CALLS:
        inner = _inner(equation)
        return _ends_in_product(inner.jaxpr, inner.jaxpr.invars[place])
    if name == "dot_general":
        return not equation.params["dimension_numbers"][1][0]  # no batch axes in common
    return bool(name == "conv_general_dilated" and place == 1)


def _inner(equation: Any) -> Any:
    found = equation.params[_CALLS[equation.primitive.name]]
    return found if isinstance(found, core.ClosedJaxpr) else core.ClosedJaxpr(found, ())


def _evaluate(jaxpr: Any, consts: Any, arguments: list[Any]) -> list[Any]:
    """The jaxpr's outputs; ``_Weight``s travel until a product takes them."""
    values: dict[Any, Any] = {}

    def read(v: Any) -> Any:
        return v.val if isinstance(v, core.Literal) else values[v]

    values.update(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        given = [read(v) for v in equation.invars]
        name = equation.primitive.name
        if not any(isinstance(x, _Weight) for x in given):
            out = _bind(equation, given)
        elif name in _CALLS:
            inner = _inner(equation)
            out = _evaluate(inner.jaxpr, inner.consts, given)
        elif name in _REARRANGING:
            weight = given[0]
            loc, scale = (_bind(equation, [x])[0] for x in (weight.loc, weight.scale))
            out = [_Weight(loc, scale, weight.key, weight.estimator)]
        else:
            out = [_product(equation, given)]
        values.update(zip(equation.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _bind(equation: Any, given: list[Any]) -> list[Any]:
    params = equation.primitive.get_bind_params(equation.params)
    out = equation.primitive.bind(*given, **params)
    return list(out) if equation.primitive.multiple_results else [out]


def _product(equation: Any, given: list[Any]) -> jax.Array:
    """The layer's output: the product is linear in the weight, so it does moments too."""
    place = next(i for i, x in enumerate(given) if isinstance(x, _Weight))
    weight, x = given[place], given[1 - place]

    def product(x: Any, w: Any) -> Any:
        return _bind(equation, [w, x] if place == 0 else [x, w])[0]

    center = product(x, weight.loc)
    if weight.estimator == "local":
        variance = product(x**2, weight.scale**2)
        positive = variance > 0  # a row of zeros; the root's slope there would be infinite
        spread = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
        return center + spread * normal(weight.key, center.shape, center.dtype)
    noise, before, after = jax.random.split(weight.key, 3)
    deviation = weight.scale * normal(noise, weight.scale.shape, weight.scale.dtype)
    signs_in, signs_out = _sign_shapes(equation, x, center)
    flipped = x * jax.random.rademacher(before, signs_in, x.dtype)
    return center + product(flipped, deviation) * jax.random.rademacher(
        after, signs_out, center.dtype
    )


def _sign_shapes(equation: Any, x: Any, out: Any) -> tuple[Any, Any]:
    """Shapes of the signs: a product's rows each have theirs, a convolution's examples do."""
    if equation.primitive.name == "dot_general":
        return x.shape, out.shape
    numbers: lax.ConvDimensionNumbers = equation.params["dimension_numbers"]

    def keep(shape: tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
        return tuple(n if i in axes[:2] else 1 for i, n in enumerate(shape))

    return keep(x.shape, numbers.lhs_spec), keep(out.shape, numbers.out_spec)
