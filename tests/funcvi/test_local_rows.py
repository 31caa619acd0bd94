"""Where rows lie after an operation: what lies at one owes nothing to the others, by trial."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core
from jax.extend.core import primitives

from funcvi.networks import linear
from funcvi.networks.rows import Span, moved
from tests.funcvi.ways_in import numbers

SQUARE = numbers(4, 4)
CUBE = numbers(4, 4, 4, seed=1)
INDICES = jnp.array([[1, 0], [3, 3], [2, 0], [0, 1]])

OPERATIONS: dict[str, Callable[[], Any]] = {
    "entry by entry": lambda: jnp.where(CUBE > 0, jnp.tanh(CUBE) + CUBE, CUBE[:1]).clip(-1, 1),
    "transpose": lambda: CUBE.transpose(2, 0, 1),
    "reshape": lambda: (CUBE.reshape(16, 4), CUBE.reshape(2, 2, 4, 2, 2), CUBE.reshape(8, 8)),
    "broadcast": lambda: jnp.broadcast_to(SQUARE[:, None], (4, 3, 4)),
    "squeeze": lambda: CUBE[:, :1].squeeze(1),
    "reductions": lambda: (CUBE.sum(1), CUBE.max((0, 2)), CUBE.argmax(1), (CUBE > 0).any(0)),
    "reduce": lambda: lax.reduce(CUBE, 1.0, lax.mul, (1,)),
    "dot_general": lambda: (
        SQUARE @ SQUARE,
        jnp.einsum("abc,adc->abd", CUBE, CUBE),
        jnp.einsum("abc,dbc->ad", CUBE, CUBE),
        jnp.einsum("abc,cbd->bda", CUBE, CUBE),
    ),
    "convolutions": lambda: (
        lax.conv(CUBE[:, None], CUBE[:, None], (1, 1), "SAME"),
        lax.conv_general_dilated(
            CUBE, CUBE[:, :, :2], (1,), "SAME", dimension_numbers=("HNC", "IOH", "NHC")
        ),
        lax.conv_general_dilated(CUBE, CUBE[..., :2], (1,), "SAME", batch_group_count=2),
    ),
    "gathers": lambda: (
        SQUARE[:, INDICES],
        SQUARE[INDICES],
        CUBE[:, INDICES[:, 0], INDICES[:, 1]],
        jnp.take_along_axis(SQUARE, INDICES, 1),
        jax.vmap(lambda x, i: x[i])(CUBE, INDICES),
        jax.vmap(lambda x, i: lax.dynamic_slice(x, (i, 0), (2, 4)))(CUBE, INDICES[:, 0]),
        jax.vmap(lambda x, i: x[i], in_axes=(1, 0), out_axes=1)(CUBE, INDICES),
    ),
    "scatters": lambda: (
        SQUARE.at[:, 1].set(SQUARE[:, 0]),
        SQUARE.at[1].add(SQUARE[0]),
        SQUARE.at[INDICES[:, 0]].add(SQUARE),
        jax.vmap(lambda x, i, y: x.at[i].add(y))(CUBE, INDICES, CUBE[:, :2]),
        CUBE.at[:, INDICES[:, 0]].multiply(CUBE),
        jnp.put_along_axis(SQUARE, INDICES, SQUARE[:, :2], 1, inplace=False),
    ),
    "concatenate": lambda: (jnp.concatenate([SQUARE, SQUARE]), jnp.concatenate([CUBE, CUBE], 2)),
    "stack": lambda: (jnp.stack([SQUARE, SQUARE], 1), jnp.unstack(CUBE, axis=1)),
    "split": lambda: jnp.split(CUBE, 2, axis=1),
    "pad": lambda: (
        jnp.pad(SQUARE, ((0, 0), (1, 2))),
        lax.pad(SQUARE, 0.0, ((1, -1, 0), (0, 0, 1))),
    ),
    "rev": lambda: CUBE[:, ::-1],
    "slices": lambda: (SQUARE[1:3], SQUARE[:, ::2], lax.dynamic_slice(SQUARE, (0, 1), (4, 2))),
    "dynamic_update_slice": lambda: (
        lax.dynamic_update_slice(SQUARE, SQUARE[:, :2], (0, 1)),
        lax.dynamic_update_slice(SQUARE, SQUARE[:2], (1, 0)),
    ),
    "sort": lambda: (
        jnp.sort(CUBE, 1),
        jnp.argsort(SQUARE, 0),
        lax.top_k(CUBE, 4),
        lax.sort((SQUARE, SQUARE.T), num_keys=1),
    ),
    "tile": lambda: jnp.tile(SQUARE, (1, 2)),
    "fft": lambda: (jnp.fft.rfft(CUBE), jnp.fft.fftn(CUBE.astype(complex), axes=(1, 2))),
    "cumulative": lambda: (
        jnp.cumsum(CUBE, 1),
        jnp.cumprod(SQUARE, 0),
        lax.cummax(SQUARE, 1),
        lax.cumlogsumexp(SQUARE, 0),
    ),
    "windows": lambda: (
        lax.reduce_window(CUBE, 0.0, lax.add, (1, 2, 1), (1, 1, 1), "SAME"),
        lax.reduce_window(SQUARE, -jnp.inf, lax.max, (1, 3), (1, 1), "SAME"),
    ),
    "linear algebra": lambda: (
        jnp.linalg.cholesky(CUBE @ CUBE.transpose(0, 2, 1) + jnp.eye(4)),
        jax.scipy.linalg.solve_triangular(CUBE + 3 * jnp.eye(4), CUBE),
        jnp.linalg.eigh(CUBE + CUBE.transpose(0, 2, 1)),
        jnp.linalg.qr(CUBE),
        jnp.linalg.svd(CUBE),
        jax.scipy.linalg.lu_factor(CUBE),
        lax.linalg.tridiagonal_solve(SQUARE, SQUARE + 5, SQUARE, CUBE),
    ),
}

Step = tuple[core.JaxprEqn, list[Any], list[Any]]


def steps_of(jaxpr: core.Jaxpr, arguments: list[Any]) -> Iterator[Step]:
    """Each equation with its operands and results, those inside ``jit`` too."""
    values = dict(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        operands = [v.val if isinstance(v, core.Literal) else values[v] for v in equation.invars]
        if equation.primitive is primitives.jit_p:
            inner = equation.params["jaxpr"]
            assert not inner.consts
            yield from steps_of(inner.jaxpr, operands)
        out = results_of(equation, operands)
        values.update(zip(equation.outvars, out, strict=True))
        yield equation, operands, out


def results_of(equation: core.JaxprEqn, operands: list[Any]) -> list[Any]:
    out = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))
    return list(out) if equation.primitive.multiple_results else [out]


def along(span: Span, shape: tuple[int, ...]) -> np.ndarray:
    """The index of each entry of an array."""
    index = np.arange(shape[span.axis]) // span.inner % span.size
    return np.broadcast_to(index.reshape(-1, *[1] * (len(shape) - span.axis - 1)), shape)


def spans(shape: tuple[int, ...]) -> Iterator[Span]:
    """Whole axes, and what a reshape would have merged in them."""
    for axis, n in enumerate(shape):
        if n > 1:
            yield Span(axis, n)
        if n > 2 and n % 2 == 0:
            yield from (Span(axis, 2, n // 2), Span(axis, n // 2, 2), Span(axis, 2))


@pytest.mark.few(4)
@pytest.mark.parametrize("name", OPERATIONS)
def test_rows_are_kept_apart_where_they_are_said_to_be(name: str) -> None:
    operation = OPERATIONS[name]
    known = jax.make_jaxpr(operation)()
    kept = 0
    jaxpr = known.jaxpr.replace(constvars=[], invars=list(known.jaxpr.constvars))
    for equation, operands, out in steps_of(jaxpr, list(known.consts)):
        for place, x in enumerate(operands):
            if equation.primitive is primitives.jit_p or not jnp.ndim(x):
                continue
            for span in spans(jnp.shape(x)):
                if jnp.shape(x)[span.axis] % (span.size * span.inner):
                    continue
                places = moved(equation, place, span)
                if not any(places):
                    continue
                kept += 1
                index = along(span, jnp.shape(x))
                for i in (0, span.size - 1):
                    other = changed(x, index == i)
                    after = results_of(equation, [*operands[:place], other, *operands[place + 1 :]])
                    for at, a, b in zip(places, out, after, strict=True):
                        if at is not None:
                            same = along(at, a.shape) != i
                            np.testing.assert_array_equal(a[same], b[same], str(equation))
    assert kept > 0, known


def changed(x: Any, where: np.ndarray) -> Any:
    """Other values at some places; of indices, such as are in range."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.bool_):
        return jnp.where(where, ~x, x)
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.where(where, (x + 1) % 2, x)
    return jnp.where(where, 1.5 * x + 0.25, x).astype(x.dtype)


def test_every_primitive_that_is_recognised_is_one_that_jax_makes() -> None:
    """If JAX writes an operation with another primitive, layers would be refused or lost."""
    w = jnp.ones((4, 4))
    identity = jax.custom_vjp(lambda x: 1 * x)
    identity.defvjp(lambda x: (x, None), lambda _, slope: (slope,))
    square = lambda x: x @ x  # noqa: E731
    made = {
        lax.dot_general_p: lambda: square(w),
        lax.conv_general_dilated_p: lambda: lax.conv(w[None, None], w[None, None], (1, 1), "SAME"),
        primitives.jit_p: lambda: jax.jit(square)(w),
        primitives.remat_p: lambda: jax.checkpoint(square)(w),
        primitives.closed_call_p: lambda: core.jaxpr_as_fun(jax.make_jaxpr(square)(w))(w),
        primitives.custom_jvp_call_p: lambda: jax.nn.relu(w),
        primitives.custom_vjp_call_p: lambda: identity(w),
        lax.scan_p: lambda: lax.scan(lambda c, _: (c @ c, None), w, length=2)[0],
        lax.while_p: lambda: lax.while_loop(lambda x: x.sum() < 0, square, w),
        lax.cond_p: lambda: lax.cond(w.sum() > 0, square, square, w),
        lax.slice_p: lambda: w[1:],
        lax.split_p: lambda: jnp.split(w, 2)[0],
        lax.unstack_p: lambda: jnp.unstack(w)[0],
        lax.stack_p: lambda: jnp.stack([w, w]),
        lax.concatenate_p: lambda: jnp.concatenate([w, w]),
        lax.select_n_p: lambda: jnp.where(w > 0, w, 0),
        lax.pad_p: lambda: jnp.pad(w, 1),
        lax.transpose_p: lambda: w.T,
        lax.reshape_p: lambda: w.reshape(-1),
        lax.squeeze_p: lambda: w[0],
        lax.broadcast_in_dim_p: lambda: w[None],
        lax.rev_p: lambda: w[::-1],
        lax.copy_p: lambda: jnp.copy(w),
        lax.convert_element_type_p: lambda: w.astype(jnp.bfloat16),
        lax.add_p: lambda: w + w,
        lax.sub_p: lambda: w - w,
        lax.mul_p: lambda: w * w,
        lax.div_p: lambda: w / w,
        lax.neg_p: lambda: -w,
        primitives.linear_solve_p: lambda: lax.custom_linear_solve(
            lambda x: 2 * x, w, lambda _, b: b / 2, lambda _, b: b / 2
        ),
        primitives.triangular_solve_p: lambda: jax.scipy.linalg.solve_triangular(w, w),
        lax.fft_p: lambda: jnp.fft.fft(w),
        lax.reduce_sum_p: lambda: w.sum(),
        lax.cumsum_p: lambda: jnp.cumsum(w),
        lax.reduce_window_sum_p: lambda: lax.reduce_window(
            w, 0.0, lax.add, (2, 2), (1, 1), "VALID"
        ),
        primitives.tridiagonal_solve_p: lambda: lax.linalg.tridiagonal_solve(w, w, w, w[..., None]),
    }
    known = {
        getattr(linear, n)
        for n in ("PRODUCTS", "CALLS", "CUSTOM", "MOVING", "JOINING", "LINEAR", "SOLVES", "SUMS")
    }
    for primitive in {p for group in known for p in group} | {lax.scan_p, lax.while_p, lax.cond_p}:
        jaxpr = jax.make_jaxpr(made[primitive])().jaxpr
        assert primitive in set(_all(jaxpr)) | {primitives.closed_call_p}, primitive


def _all(jaxpr: core.Jaxpr) -> Any:
    for equation in jaxpr.eqns:
        yield equation.primitive
        for inner in core.jaxprs_in_params(equation.params):
            yield from _all(inner)
