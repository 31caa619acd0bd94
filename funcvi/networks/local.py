"""Random weights without drawing them: the noise moves to what a layer gives.

A Gaussian weight that meets a layer's input in one matrix product or convolution makes that layer's
output Gaussian given its input; drawing the output instead of the weight has a gradient of much
lower variance. :mod:`funcvi.networks.layers` says which weights these are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.extend.core import primitives

from funcvi._types import Key, Params
from funcvi.networks.layers import Layer, Path, Rows, survey
from funcvi.networks.linear import JOINING, PRODUCTS, SLICING, called
from funcvi.networks.names import dotted, matching
from funcvi.networks.rows import Span, free_axes, split
from funcvi.sampling.noise import normal

__all__ = ["Estimator", "Gaussian", "apply_random", "check_estimator", "layers_of"]

Estimator: TypeAlias = Literal["plain", "local", "flipout"]

T = TypeVar("T")


def check_estimator(estimator: str | None) -> None:
    """Refuses any but the three, and None.

    Raises:
        ValueError: with their names.
    """
    if estimator is not None and estimator not in get_args(Estimator):
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
    estimator: Estimator | None,
    plain: Sequence[str] = (),
) -> T:
    r"""``function(weights, *inputs)`` for a draw of ``weights``.

    With "plain", every weight is drawn once. With "local", a weight that meets the rows of the
    inputs in one product :math:`y = xW` is never drawn: :math:`y \sim N(x\mu, x^2 \sigma^2)` is,
    anew for each row of :math:`x` (Kingma et al. 2015, arXiv:1506.02557). With "flipout", such a
    weight is drawn once, and each row flips the signs of its deviations (Wen et al. 2018,
    arXiv:1803.04386). Both keep the law of each row's output; rows that "plain" makes depend on
    each other through the weight become uncorrelated. Where one row has several outputs of the
    same entries, as a convolution or a sequence does at its positions, outputs drawn apart would
    lose their covariance: there, "local" flips signs too, the same at all positions of a row.

    Args:
        function: pure, of ``(weights, *inputs)``; each row of what it returns, along the first
            axis, is what keeps its law.
        weights: a pytree with :class:`Gaussian` leaves; other leaves are taken as they are.
        inputs: pytrees of arrays; what a layer multiplies must depend on them. The first axis of
            the arrays of the first is the batch.
        key: for the noise.
        estimator: "plain", "local" or "flipout"; None for "local" where it is right, and one draw
            of every other weight.
        plain: patterns of the names of weights to draw once, whatever the estimator.

    Raises:
        ValueError: "local" or "flipout", and a weight enters a product in a way in which its noise
            cannot be moved, and is not listed as plain; all are named. Or a pattern matches no
            weight, or ``estimator`` is none of the three.
    """
    check_estimator(estimator)
    flat, leaves, names = _flattened(function, weights)
    random = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Gaussian)]
    keys = iter(jax.random.split(key, max(len(random), 1)))
    listed = matching(plain, [names[i] for i in random], "plain")
    if estimator == "plain" or not random:
        draws = [x.draw(next(keys)) if isinstance(x, Gaussian) else x for x in leaves]
        return flat(draws, *inputs)
    traced, result, layers, rows = _surveyed(flat, leaves, random, inputs)
    refused = [i for i in random if layers[i].kind == "refused" and names[i] not in listed]
    if refused and estimator is not None:
        said = "; ".join(f"'{names[i]}' {layers[i].why}" for i in refused[:8])
        raise ValueError(
            f"estimator={estimator!r} cannot move the noise of some weights: {said}. List them in "
            f"plain={[names[i] for i in refused[:8]]}, to draw each once for the whole batch, or "
            "pass estimator=None, which does."
        )
    for i in random:
        weight, key = leaves[i], next(keys)
        by_row = layers[i].kind in ("local", "flipout") and names[i] not in listed
        leaves[i] = _Weight(weight.loc, weight.scale, key) if by_row else weight.draw(key)
    evaluate = _Evaluation(rows, estimator == "flipout")
    output: T = jax.tree.unflatten(result, evaluate(traced, [*leaves, *jax.tree.leaves(inputs)]))
    return output


def layers_of(
    function: Callable[..., object], weights: Params, inputs: tuple[object, ...]
) -> dict[str, Layer]:
    """How each weight enters, by dotted name; of Gaussian leaves alone, where there are any."""
    flat, leaves, names = _flattened(function, weights)
    random = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Gaussian)]
    chosen = random or list(range(len(leaves)))
    _, _, layers, _ = _surveyed(flat, leaves, chosen, inputs)
    return {names[i]: layer for i, layer in layers.items()}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Weight:
    """A weight on its way to its product."""

    loc: jax.Array
    scale: jax.Array
    key: Key


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
) -> tuple[core.ClosedJaxpr, jax.tree_util.PyTreeDef, dict[int, Layer], dict[Path, Rows]]:
    """The function's jaxpr of leaves and inputs, its result's structure, the chosen's layers."""
    means = [x.loc if isinstance(x, Gaussian) else x for x in leaves]
    traced, shapes = jax.make_jaxpr(flat, return_shape=True)(means, *inputs)
    first = len(leaves)
    has_rows = range(first, first + len(jax.tree.leaves(inputs[:1])))
    found = survey(traced.jaxpr, chosen, range(first, len(traced.jaxpr.invars)), has_rows)
    return traced, jax.tree.structure(shapes), *found


@dataclass(frozen=True)
class _Evaluation:
    """Runs a jaxpr in which ``_Weight``s travel until a product takes them.

    Attributes:
        rows: the rows in the products that do.
        flips: whether all of these flip signs, or only those with positions.
    """

    rows: Mapping[Path, Rows]
    flips: bool

    def __call__(self, closed: core.ClosedJaxpr, arguments: _Values, path: Path = ()) -> _Values:
        """The jaxpr's outputs."""
        jaxpr = closed.jaxpr
        inputs = (*jaxpr.constvars, *jaxpr.invars)
        values: dict[core.Var, Any] = dict(zip(inputs, (*closed.consts, *arguments), strict=True))

        def read(v: core.Var | core.Literal) -> Any:
            return v.val if isinstance(v, core.Literal) else values[v]

        for i, equation in enumerate(jaxpr.eqns):
            operands = [read(v) for v in equation.invars]
            has_weight = any(isinstance(x, _Weight) for x in operands)
            out = (
                self._apply(equation, operands, (*path, i))
                if has_weight
                else _bind(equation, operands)
            )
            values.update(zip(equation.outvars, out, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _apply(self, equation: core.JaxprEqn, operands: _Values, path: Path) -> _Values:
        """One equation of which an operand is a ``_Weight``."""
        primitive, params = equation.primitive, equation.params
        if primitive in PRODUCTS:
            return [self._product(equation, operands, path)]
        if (inner := called(equation)) is not None:
            run: Callable[[_Values], _Values] = partial(self, inner, path=path)
            if primitive is primitives.remat_p:
                options = {name: params[name] for name in ("prevent_cse", "policy")}
                run = jax.checkpoint(run, **options)
            return run(operands[len(operands) - len(inner.jaxpr.invars) :])
        if primitive is lax.cond_p:
            branches = [
                partial(self, branch, path=(*path, i))
                for i, branch in enumerate(params["branches"])
            ]
            outputs: _Values = lax.switch(operands[0], branches, operands[1:])
            return outputs
        if primitive is lax.scan_p:
            return self._scan(params, operands, path)
        return list(_moved(equation, operands, path[-1]))

    def _scan(self, params: Mapping[str, Any], operands: _Values, path: Path) -> _Values:
        """Each step has its own slice of a weight, and its own noise."""
        fixed, carried, body = params["num_consts"], params["num_carry"], params["jaxpr"]
        constants, start = operands[:fixed], operands[fixed : fixed + carried]
        xs = [
            replace(x, key=jax.random.split(x.key, params["length"]))
            if isinstance(x, _Weight)
            else x
            for x in operands[fixed + carried :]
        ]

        def step(carry: _Values, x: _Values) -> tuple[_Values, _Values]:
            out = self(body, [*constants, *carry, *x], path)
            return out[:carried], out[carried:]

        options = {name: params[name] for name in ("length", "reverse", "unroll")}
        carry, rest = lax.scan(step, start, xs, **options)
        return [*carry, *rest]

    def _product(
        self, equation: core.JaxprEqn, operands: _Values, path: Path
    ) -> jax.Array | _Weight:
        """The layer's output: the product is linear in the weight, so it does moments too."""
        (place,) = (i for i, x in enumerate(operands) if isinstance(x, _Weight))
        weight, x = operands[place], operands[1 - place]

        def product(x: jax.Array, w: jax.Array) -> jax.Array:
            return _bind(equation, [w, x] if place == 0 else [x, w])[0]

        center = product(x, weight.loc)
        rows = self.rows.get(path)
        if rows is None or not (self.flips or rows.positions):
            spread = _root(product(x**2, weight.scale**2))
            moved = _Weight(center, spread, weight.key)
            return moved if rows is None else Gaussian(center, spread).draw(weight.key)
        noise, *keys = jax.random.split(weight.key, 3)
        deviation = _noise(weight.scale, noise)
        free = free_axes(equation, 1 - place)
        before = _signs(keys[0], x, rows.before, set(free))
        after = _signs(keys[1], center, rows.after, set(free.values()))
        return center + product(x * before, deviation) * after


def _bind(equation: core.JaxprEqn, operands: _Values) -> _Values:
    params = equation.primitive.get_bind_params(equation.params)
    out = equation.primitive.bind(*operands, **params)
    return list(out) if equation.primitive.multiple_results else [out]


def _moved(equation: core.JaxprEqn, operands: _Values, position: int) -> list[_Weight]:
    """What is linear in the weights among the operands; ``position`` tells slices apart."""
    primitive = equation.primitive
    weights = [x for x in operands if isinstance(x, _Weight)]

    def bind(of: Callable[[Any], Any]) -> list[jax.Array]:
        return _bind(equation, [of(x) for x in operands])

    locs = bind(lambda x: x.loc if isinstance(x, _Weight) else x)
    if primitive in (lax.add_p, lax.sub_p):
        scales = [_root(sum((x.scale**2 for x in weights[1:]), weights[0].scale ** 2))]
    elif primitive is lax.reduce_sum_p:
        scales = [_root(each) for each in bind(lambda x: x.scale**2)]
    elif primitive in JOINING:
        scales = bind(lambda x: x.scale if isinstance(x, _Weight) else _without_noise(x))
    else:
        scales = [jnp.abs(x) for x in bind(lambda x: x.scale if isinstance(x, _Weight) else x)]
    keys = [weights[0].key]
    if primitive in SLICING:
        keys = list(jax.random.split(jax.random.fold_in(keys[0], position), len(locs)))
    return [_Weight(*each) for each in zip(locs, scales, keys, strict=True)]


def _without_noise(x: jax.Array) -> jax.Array:
    """The scale of what is not random; a choice between weights stays as it is."""
    return jnp.zeros_like(x) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x


def _root(variance: jax.Array) -> jax.Array:
    """Where there is no variance, as of a row of zeros, the root's slope would be infinite."""
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)


def _signs(key: Key, x: jax.Array, rows: Span | None, free: set[int]) -> jax.Array:
    """Each entry its own, but the same along axes that the weight does not have, within a row."""
    factors = split(x.shape, rows)
    own = [
        [1 if axis in free and len(sizes) == 1 else n for n in sizes]
        for axis, sizes in enumerate(factors)
    ]
    if rows is not None and rows.axis in free:
        own[rows.axis] = [1, rows.size, 1]
    signs = jax.random.rademacher(key, [n for sizes in own for n in sizes], x.dtype)
    return jnp.broadcast_to(signs, [n for sizes in factors for n in sizes]).reshape(x.shape)
