"""What is linear in a weight, operation by operation of a jaxpr."""

from collections.abc import Sequence
from itertools import combinations

import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend import core
from jax.extend.core import primitives

from funcvi.networks.rows import shape_of

__all__ = [
    "CUSTOM",
    "JOINING",
    "LINEAR",
    "MOVING",
    "PRODUCTS",
    "SLICING",
    "SOLVES",
    "SUMS",
    "are_disjoint",
    "called",
    "keeps_entries",
    "summed",
]

PRODUCTS = (lax.dot_general_p, lax.conv_general_dilated_p)
"""Linear in each operand: what a Gaussian weight gives is Gaussian, given the other operand."""

CALLS = (primitives.jit_p, primitives.closed_call_p, primitives.remat_p)
"""Run a jaxpr on their operands."""

CUSTOM = (primitives.custom_jvp_call_p, primitives.custom_vjp_call_p)
"""Run a jaxpr whose derivative is written by hand."""

SLICING = (lax.slice_p, lax.split_p, lax.unstack_p)
"""Give some of the entries."""

MOVING = (
    lax.transpose_p,
    lax.reshape_p,
    lax.squeeze_p,
    lax.broadcast_in_dim_p,
    lax.rev_p,
    lax.copy_p,
    lax.convert_element_type_p,
    lax.reduce_sum_p,
    *SLICING,
)
"""Give each entry once, or not at all, elsewhere, in a sum or in another floating dtype."""

JOINING = (lax.concatenate_p, lax.stack_p, lax.select_n_p, lax.pad_p)
"""Give each entry once, or not at all, among those of other weights or of what is not random."""

LINEAR = (lax.add_p, lax.sub_p, lax.mul_p, lax.div_p, lax.neg_p)
"""Scale or shift each entry, where the other operand is neither random in it nor of the inputs."""

SOLVES = (
    primitives.linear_solve_p,
    primitives.triangular_solve_p,
    primitives.tridiagonal_solve_p,
    lax.fft_p,
)
"""Products in which a weight may stand, but not with the law of a layer."""

SUMS = (lax.reduce_sum_p, lax.cumsum_p, lax.reduce_window_sum_p, lax.fft_p)
"""With what is multiplied entry by entry before, a product."""


def called(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """The jaxpr that it runs on its last operands, if that is all it does.

    Of a ``lax.platform_dependent`` that of every platform: the others mean the same.
    """
    platforms = equation.params.get("branches_platforms") or ()
    if equation.primitive is lax.cond_p and None in platforms:
        general: core.ClosedJaxpr = equation.params["branches"][list(platforms).index(None)]
        return general
    if equation.primitive not in CALLS:
        return None
    name = "call_jaxpr" if equation.primitive is primitives.closed_call_p else "jaxpr"
    inner = equation.params[name]
    return inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())


def keeps_entries(equation: core.JaxprEqn, places: Sequence[int]) -> bool:
    """Whether the result has the entries of the operands at these places, in a linear way.

    The other operands may be anything that is neither random in them nor of the inputs.
    """
    primitive = equation.primitive
    after, shapes = _shaped(equation.outvars[0]), [_shaped(equation.invars[i]) for i in places]
    if not jnp.issubdtype(after.dtype, jnp.floating):
        return False
    if primitive in JOINING:
        return primitive is not lax.pad_p or list(places) == [0]
    if primitive in (lax.add_p, lax.sub_p):
        return all(each.shape == after.shape for each in shapes)
    if len(places) > 1 or (primitive is lax.div_p and places[0] == 1):
        return False
    if primitive in LINEAR:
        return shapes[0].shape == after.shape
    return primitive in MOVING and after.size <= shapes[0].size


def summed(equation: core.JaxprEqn) -> set[int]:
    """The axes that one of ``SUMS`` sums along."""
    params = equation.params
    if equation.primitive is lax.reduce_window_sum_p:
        return {i for i, n in enumerate(params["window_dimensions"]) if n > 1}
    if equation.primitive is lax.fft_p:
        rank = len(shape_of(equation.invars[0]))
        return set(range(rank - len(params["fft_lengths"]), rank))
    return set(params["axes"]) if "axes" in params else {params["axis"]}


def are_disjoint(uses: list[core.JaxprEqn | None]) -> bool:
    """Whether all are slices that have no entry in common."""
    slices = [e.params for e in uses if e is not None and e.primitive is lax.slice_p]
    boxes = [list(zip(p["start_indices"], p["limit_indices"], strict=True)) for p in slices]
    return len(boxes) == len(uses) and all(
        any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(one, other, strict=True))
        for one, other in combinations(boxes, 2)
    )


def _shaped(v: core.Var | core.Literal) -> ShapedArray:
    assert isinstance(v.aval, ShapedArray)  # weights, and what is made of them, are arrays
    return v.aval
