"""Random weights without drawing them: the noise moves to what a layer gives.

A Gaussian weight that meets a layer's input in one matrix product or convolution makes that layer's
output Gaussian given its input; drawing the output instead of the weight has a gradient of much
lower variance. :mod:`funcvi.networks.layers` says which weights these are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.extend.core import primitives

from funcvi._types import Key, Params
from funcvi.networks.layers import CALLS, PRODUCTS, SLICING, Layer, called, survey
from funcvi.networks.names import dotted, matching
from funcvi.sampling.noise import normal

__all__ = ["Estimator", "Gaussian", "apply_random", "check_estimator", "layers_of"]

Estimator: TypeAlias = Literal["plain", "local", "flipout"]

T = TypeVar("T")


def check_estimator(estimator: str) -> None:
    """Refuses any but the three.

    Raises:
        ValueError: with their names.
    """
    if estimator not in get_args(Estimator):
        raise ValueError(f"estimator must be 'plain', 'local' or 'flipout', got {estimator!r}")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian:
    """Independent Gaussian entries: ``loc`` and ``scale`` of the same shape and dtype."""

    loc: jax.Array
    scale: jax.Array

    def astype(self, dtype: jnp.dtype) -> "Gaussian":
        """The same in another dtype."""
        return Gaussian(self.loc.astype(dtype), self.scale.astype(dtype))

    def draw(self, key: Key) -> jax.Array:
        """All entries at once."""
        return self.loc + _noise(self.scale, key)


def apply_random(
    function: Callable[..., T],
    weights: Params,
    inputs: tuple[object, ...],
    key: Key,
    estimator: Estimator,
    plain: Sequence[str] = (),
) -> T:
    r"""``function(weights, *inputs)`` for a draw of ``weights``.

    With "plain", every weight is drawn once. With "local", a weight that meets the inputs in one
    product :math:`y = xW` is never drawn: :math:`y \sim N(x\mu, x^2 \sigma^2)` is, anew for each
    row of :math:`x` (Kingma et al. 2015, arXiv:1506.02557). With "flipout", such a weight is drawn
    once, and each row flips the signs of its deviations (Wen et al. 2018, arXiv:1803.04386). Both
    keep the law of each row's output; rows that "plain" makes depend on each other through the
    weight become independent of each other. Where rows are positions in one example, as in a
    convolution or a sequence, that is the usual approximation of these methods, not an identity.

    Args:
        function: pure, of ``(weights, *inputs)``.
        weights: a pytree with :class:`Gaussian` leaves; other leaves are taken as they are.
        inputs: pytrees of arrays; what a layer multiplies must depend on them. The first axis of
            the arrays of the first is the batch.
        key: for the noise.
        estimator: "plain", "local" or "flipout".
        plain: patterns of the names of weights to draw once, whatever the estimator.

    Raises:
        ValueError: a weight enters a product in a way in which its noise cannot be moved, and is
            not listed as plain; all are named. Or a pattern matches no weight, or ``estimator`` is
            none of the three.
    """
    check_estimator(estimator)
    flat, leaves, names = _flattened(function, weights)
    random = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Gaussian)]
    keys = iter(jax.random.split(key, max(len(random), 1)))
    listed = matching(plain, [names[i] for i in random], "plain")
    if estimator == "plain":
        draws = [x.draw(next(keys)) if isinstance(x, Gaussian) else x for x in leaves]
        return flat(draws, *inputs)
    traced, result, layers = _surveyed(flat, leaves, random, inputs)
    refused = [i for i in random if layers[i].kind == "refused" and names[i] not in listed]
    if refused:
        said = "; ".join(f"'{names[i]}' {layers[i].why}" for i in refused[:8])
        raise ValueError(
            f"estimator={estimator!r} cannot move the noise of some weights: {said}. List them in "
            f"plain={[names[i] for i in refused[:8]]}, to draw each once for the whole batch."
        )
    for i in random:
        weight, key = leaves[i], next(keys)
        is_local = layers[i].kind == "local" and names[i] not in listed
        moved = _Weight(weight.loc, weight.scale, key, estimator)
        leaves[i] = moved if is_local else weight.draw(key)
    output: T = jax.tree.unflatten(result, _evaluate(traced, [*leaves, *jax.tree.leaves(inputs)]))
    return output


def layers_of(
    function: Callable[..., object], weights: Params, inputs: tuple[object, ...]
) -> dict[str, Layer]:
    """How each weight enters, by dotted name; of Gaussian leaves alone, where there are any."""
    flat, leaves, names = _flattened(function, weights)
    random = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Gaussian)]
    chosen = random or list(range(len(leaves)))
    _, _, layers = _surveyed(flat, leaves, chosen, inputs)
    return {names[i]: layer for i, layer in layers.items()}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Weight:
    """A weight on its way to its product."""

    loc: jax.Array
    scale: jax.Array
    key: Key
    estimator: Estimator = field(metadata={"static": True})


_Values: TypeAlias = list[Any]  # arrays, and _Weights among them


def _flattened(
    function: Callable[..., T], weights: Params
) -> tuple[Callable[..., T], list[Any], list[str]]:
    """The function of (leaves, *inputs), the leaves, and their names."""
    paths, structure = jax.tree_util.tree_flatten_with_path(
        weights, is_leaf=lambda x: isinstance(x, Gaussian)
    )

    def flat(leaves: list[Any], *inputs: object) -> T:
        return function(jax.tree.unflatten(structure, leaves), *inputs)

    return flat, [leaf for _, leaf in paths], [dotted(path) for path, _ in paths]


def _noise(scale: jax.Array, key: Key) -> jax.Array:
    """Of the scale's dtype, although normal noise is drawn at no less than single precision."""
    return (scale * normal(key, scale.shape, scale.dtype)).astype(scale.dtype)


def _surveyed(
    flat: Callable[..., object], leaves: list[Any], chosen: list[int], inputs: tuple[object, ...]
) -> tuple[core.ClosedJaxpr, jax.tree_util.PyTreeDef, dict[int, Layer]]:
    """The function's jaxpr of leaves and inputs, its result's structure, the chosen's layers."""
    means = [x.loc if isinstance(x, Gaussian) else x for x in leaves]
    traced, shapes = jax.make_jaxpr(flat, return_shape=True)(means, *inputs)
    first = len(leaves)
    has_rows = range(first, first + len(jax.tree.leaves(inputs[:1])))
    layers = survey(traced.jaxpr, chosen, range(first, len(traced.jaxpr.invars)), has_rows)
    return traced, jax.tree.structure(shapes), layers


def _evaluate(closed: core.ClosedJaxpr, arguments: _Values) -> _Values:
    """The jaxpr's outputs; ``_Weight``s travel until a product takes them."""
    jaxpr = closed.jaxpr
    inputs = (*jaxpr.constvars, *jaxpr.invars)
    values: dict[core.Var, Any] = dict(zip(inputs, (*closed.consts, *arguments), strict=True))

    def read(v: core.Var | core.Literal) -> Any:
        return v.val if isinstance(v, core.Literal) else values[v]

    for position, equation in enumerate(jaxpr.eqns):
        operands = [read(v) for v in equation.invars]
        has_weight = any(isinstance(x, _Weight) for x in operands)
        out = _apply(equation, operands, position) if has_weight else _bind(equation, operands)
        values.update(zip(equation.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _bind(equation: core.JaxprEqn, operands: _Values) -> _Values:
    params = equation.primitive.get_bind_params(equation.params)
    out = equation.primitive.bind(*operands, **params)
    return list(out) if equation.primitive.multiple_results else [out]


def _apply(equation: core.JaxprEqn, operands: _Values, position: int) -> _Values:
    """One equation of which an operand is a ``_Weight``; ``position`` tells slices apart."""
    primitive, params = equation.primitive, equation.params
    if primitive in PRODUCTS:
        return [_product(equation, operands)]
    if primitive in CALLS:
        run: Callable[[_Values], _Values] = partial(_evaluate, called(equation))
        if primitive is primitives.remat_p:
            run = jax.checkpoint(run, prevent_cse=params["prevent_cse"], policy=params["policy"])
        return run(operands)
    if primitive is lax.cond_p:
        branches = [partial(_evaluate, branch) for branch in params["branches"]]
        outputs: _Values = lax.switch(operands[0], branches, operands[1:])
        return outputs
    if primitive is lax.scan_p:
        return _scan(params, operands)
    place, weight = _find(operands)

    def moved(x: jax.Array) -> list[jax.Array]:
        return _bind(equation, [*operands[:place], x, *operands[place + 1 :]])

    locs = moved(weight.loc)
    shifts = primitive in (lax.add_p, lax.sub_p, lax.neg_p)
    scales = [weight.scale] if shifts else moved(weight.scale)
    if primitive in (lax.mul_p, lax.div_p):
        scales = [jnp.abs(x) for x in scales]
    keys = [weight.key]
    if primitive in SLICING:
        keys = list(jax.random.split(jax.random.fold_in(weight.key, position), len(locs)))
    parts = zip(locs, scales, keys, strict=True)
    return [_Weight(loc, scale, key, weight.estimator) for loc, scale, key in parts]


def _find(operands: _Values) -> tuple[int, _Weight]:
    """The one weight of these, and its place."""
    (found,) = ((i, x) for i, x in enumerate(operands) if isinstance(x, _Weight))
    return found


def _scan(params: Mapping[str, Any], operands: _Values) -> _Values:
    """Each step has its own slice of a weight, and its own noise."""
    fixed, carried, body = params["num_consts"], params["num_carry"], params["jaxpr"]
    constants, start = operands[:fixed], operands[fixed : fixed + carried]
    xs = [
        replace(x, key=jax.random.split(x.key, params["length"])) if isinstance(x, _Weight) else x
        for x in operands[fixed + carried :]
    ]

    def step(carry: _Values, x: _Values) -> tuple[_Values, _Values]:
        out = _evaluate(body, [*constants, *carry, *x])
        return out[:carried], out[carried:]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, rest = lax.scan(step, start, xs, **options)
    return [*carry, *rest]


def _product(equation: core.JaxprEqn, operands: _Values) -> jax.Array:
    """The layer's output: the product is linear in the weight, so it does moments too."""
    place, weight = _find(operands)
    x = operands[1 - place]

    def product(x: jax.Array, w: jax.Array) -> jax.Array:
        return _bind(equation, [w, x] if place == 0 else [x, w])[0]

    center = product(x, weight.loc)
    if weight.estimator == "local":
        variance = product(x**2, weight.scale**2)
        positive = variance > 0  # a row of zeros; the root's slope there would be infinite
        spread = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
        return center + _noise(spread, weight.key)
    noise, before, after = jax.random.split(weight.key, 3)
    deviation = _noise(weight.scale, noise)
    numbers = equation.params["dimension_numbers"]
    specs = [getattr(numbers, name, None) for name in ("lhs_spec", "out_spec")]
    flipped = x * _signs(before, x, specs[0])
    return center + product(flipped, deviation) * _signs(after, center, specs[1])


def _signs(key: Key, x: jax.Array, spec: Sequence[int] | None) -> jax.Array:
    """Each entry its own; of a convolution (which has a spec), each channel of an example."""
    shape = x.shape if spec is None else [n if i in spec[:2] else 1 for i, n in enumerate(x.shape)]
    return jax.random.rademacher(key, shape, x.dtype)
