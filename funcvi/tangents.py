"""Values with a derivative of their own, which every transformation keeps.

``jax.custom_jvp`` is no choice for what is differentiated twice: where a ``lax.scan`` is
differentiated in reverse and then again, JAX 0.10 runs the function in place of its rule, and a
draw that should move stands still, in silence. A primitive is never replaced by what it computes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.tree_util import PyTreeDef

__all__ = ["moved", "moved_p"]

T = TypeVar("T")

#: ``(primals, tangents) -> tangent of values``, of the arguments ``(values, *others)``; a tangent
#: that is known to be zero is a ``SymbolicZero``.
Rule: TypeAlias = Callable[[Any, Any], Any]

moved_p = Primitive("moved")
moved_p.multiple_results = True


def moved(rule: Rule, values: T, *others: object) -> T:
    """``values``, whose derivative is what ``rule`` says, to any order.

    Args:
        rule: ``(primals, tangents) -> tangent``, of ``(values, *others)``, linear in the tangents.
            One that is known to be zero comes as a ``SymbolicZero``, and may be returned so.
            Compiled programs of which all rules are equal are one.
        values: a pytree of arrays.
        *others: pytrees that the rule reads.

    Example:
        >>> import jax
        >>> def doubled(primals, tangents):
        ...     return 2 * tangents[1]
        >>> float(jax.grad(lambda x: moved(doubled, jnp.float32(0.0), x))(3.0))
        2.0
    """
    leaves, tree = jax.tree.flatten((values, *others))
    arrays = [x if isinstance(x, Array) else jnp.asarray(x) for x in leaves]
    count = len(jax.tree.leaves(values))
    found = moved_p.bind(*arrays, rule=_OfTrees(rule, tree), count=count)
    return jax.tree.unflatten(jax.tree.structure(values), found)


@dataclass(frozen=True)
class _OfTrees:
    """A rule of leaves, by one of pytrees."""

    rule: Rule
    tree: PyTreeDef

    def __call__(self, primals: Sequence[Array], tangents: Sequence[object]) -> list[object]:
        trees = self.tree.unflatten(primals), self.tree.unflatten(tangents)
        return jax.tree.leaves(self.rule(*trees))


@dataclass(frozen=True)
class _OfBatch:
    """A rule under ``jax.vmap``, of operands of which some have a leading axis."""

    rule: Any
    axes: tuple[int | None, ...]
    count: int

    def __call__(self, primals: Sequence[Array], tangents: Sequence[object]) -> list[object]:
        places = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]

        def single(primals: Sequence[Array], known: Sequence[object]) -> list[object]:
            given: list[object] = [SymbolicZero.from_primal_value(x) for x in primals]
            for place, tangent in zip(places, known, strict=True):
                given[place] = tangent
            found = self.rule(primals, given)
            return [jnp.zeros(t.shape, t.dtype) if _is_zero(t) else t for t in found]

        axes = [*self.axes], [self.axes[place] for place in places]
        found: list[object] = jax.vmap(single, axes)([*primals], [tangents[i] for i in places])
        return found


def _jvp(
    primals: Sequence[Array], tangents: Sequence[object], *, rule: Any, count: int
) -> tuple[list[Array], list[object]]:
    values = moved_p.bind(*primals, rule=rule, count=count)
    given = [
        SymbolicZero.from_primal_value(x) if _is_zero(t) else t
        for x, t in zip(primals, tangents, strict=True)
    ]
    # The rule sees the values as they move, so that what it says can be differentiated again.
    found = rule([*values, *primals[count:]], given)
    return values, [ad.Zero(t.aval) if isinstance(t, SymbolicZero) else t for t in found]


def _is_zero(tangent: object) -> bool:
    known = isinstance(tangent, (ad.Zero, SymbolicZero))
    return known or getattr(tangent, "dtype", None) == jax.dtypes.float0


def _batched(
    operands: Sequence[Array], axes: Sequence[int | None], *, rule: Any, count: int
) -> tuple[list[Array], list[int]]:
    size = next(x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None)
    front = [x if a is None else jnp.moveaxis(x, a, 0) for x, a in zip(operands, axes, strict=True)]
    for place in range(count):
        if axes[place] is None:
            front[place] = jnp.broadcast_to(front[place], (size, *front[place].shape))
    kept = tuple(0 if place < count or a is not None else None for place, a in enumerate(axes))
    return moved_p.bind(*front, rule=_OfBatch(rule, kept, count), count=count), [0] * count


def _same(*operands: Any, rule: object, count: int) -> list[Any]:
    return [*operands[:count]]


moved_p.def_impl(_same)
moved_p.def_abstract_eval(_same)
ad.primitive_jvps[moved_p] = _jvp
batching.primitive_batchers[moved_p] = _batched
mlir.register_lowering(moved_p, lambda ctx, *operands, rule, count: operands[:count])
