import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from interop import to_jax
from interop.errors import ConversionError
from tests.interop.aten.cases import Case, check_cases, grouped
from tests.interop.aten.check import All, draw
from tests.interop.aten.check import draw_integers as integers

X = draw(4, 5, 3)
M = draw(4, 5, seed=1)
V = draw(6, seed=2)
ROWS = torch.tensor([2, 0, -1, 2])
COLUMNS = torch.tensor([4, -5, 0, 4])
MASK = draw(4, 5, seed=3) > 0
PLACES = integers(0, 4, 3, 5)
SOURCE = draw(4, 6, seed=4)
TIED = torch.tensor([[1.0, 0, 2, 2, -1], [0, 2, 1, 2, 0], [2, 0, 0, 2, 3], [1, 1, 2, 0, 0]])
ZEROS = torch.tensor([[0.0, 1, 2, 0, 3], [2, 0, 1, 1, 2], [0, 0, 2, 1, 1], [1, 2, 1, 1, 1]])


def reduced(reduce, include, x, source):
    def both(x, source):
        return (
            x.scatter_reduce(0, PLACES, source[:3], reduce, include_self=include),
            x.index_reduce(1, torch.tensor([1, 1, 4]), source[:, :3], reduce, include_self=include),
            x.index_reduce(
                0, torch.tensor([3, 3, 1]), source[:3, :5], reduce, include_self=include
            ),
        )

    kind = "with" if include else "without"
    return Case(f"scatter_reduce {reduce} {kind} self", both, (x, source))


CASES = [
    Case("index", lambda x, i, j: (x[i], x[i, j], x[:, j], x[i, :, i % 3]), (X, ROWS, COLUMNS)),
    Case(
        "index by matrices", lambda x, i: (x[i[:, None], i], x[None, i], x[..., i % 3]), (X, ROWS)
    ),
    Case("index broadcasts", lambda x, i: (x[i, 1], x[i[:1], i, i % 3]), (X, ROWS)),
    Case("index by a list", lambda x: (x[[0, -1]], x[[[1]], [2, 3]]), (X,)),
    Case("constant mask", lambda x: x[torch.tensor([True, False, True, True])], (X,)),
    Case("mask beside None", lambda x: x[:, torch.tensor([True, False, True, False, True])], (X,)),
    Case("index_put", lambda x, i, y: x.index_put((i,), y), (M, ROWS[:3], draw(3, 5))),
    Case(
        "index_put accumulates",
        lambda x, i, j, y: x.index_put((i, j), y, accumulate=True),
        (M, ROWS, COLUMNS, draw(4)),
    ),
    Case("index_put broadcasts", lambda x, i, y: _put(x, i, y), (X, ROWS[:3], draw(3, 3))),
    Case("index_put by a mask", lambda x, m: x.index_put((m,), torch.tensor(7.0)), (X, MASK)),
    Case("assign by a mask", lambda x, m: _assign(x, m), (X, MASK)),
    Case("assign rows by a mask", lambda x, m, y: _assign_rows(x, m, y), (X, MASK, draw(3))),
    Case(
        "assign values by a mask",
        lambda x, m, y: x.index_put((m,), y),
        (X, MASK, draw(int(MASK.sum()), 3)),
    ),
    Case("add by a mask", lambda x, m, y: x.index_put((m,), y, True), (X, MASK, draw(3))),
    Case(
        "gather",
        lambda x, i: (x.gather(0, i), x.gather(-1, i[:2, :2]), x[0].gather(0, i[0])),
        (M, PLACES),
    ),
    Case(
        "gather of a scalar",
        lambda x, i: (x[0].gather(0, i[0]), x.gather(0, i[0, 0])),
        (V, PLACES * 0),
    ),
    Case(
        "take_along_dim",
        lambda x, i: (torch.take_along_dim(x, i, 0), x.take_along_dim(i[:, 0] % 3)),
        (M, PLACES),
    ),
    Case(
        "index_select",
        lambda x, i: (x.index_select(0, i), x.index_select(-1, i[:1])),
        (M, ROWS % 4),
    ),
    Case("take", lambda x, i: (x.take(i), x.take(i[0] - 20)), (M, PLACES)),
    Case("put", lambda x, y: (x.put(ROWS[:3], y), x.put(ROWS, y[[0, 1, 2, 0]], True)), (M, V[:3])),
    Case(
        "scatter", lambda x, y: x.scatter(1, torch.tensor([[4, 1], [2, 0]]), y[:2, :2]), (M, SOURCE)
    ),
    Case(
        "scatter a number",
        lambda x, i: (x.scatter(0, i, 2.5), x.scatter(1, i[:, :1], -1)),
        (M, PLACES),
    ),
    Case(
        "scatter_add",
        lambda x, i, y: (x.scatter_add(0, i, y[:3, :5]), x.scatter_add(-1, i[:, :2], y[:3, :2])),
        (M, PLACES, SOURCE),
    ),
    Case("scatter of old", lambda x: x.scatter(0, PLACES, 1.5, reduce="add"), (M,), gradient=False),
    Case(
        "scatter multiplies",
        lambda x, y: x.scatter(0, PLACES, y, reduce="multiply"),
        (M, SOURCE),
        gradient=False,
    ),
    Case("one_hot", lambda i: torch.nn.functional.one_hot(i, 5), (PLACES,)),
    Case(
        "index_add",
        lambda x, i, y: (x.index_add(1, i, y[:, :3]), x.index_add(0, i, y[:3, :5], alpha=-2)),
        (M, ROWS[:3] % 4, SOURCE),
    ),
    Case(
        "index_add of integers",
        lambda x, i: x.index_add(0, i, x[:4], alpha=3),
        (integers(0, 9, 4, 2), ROWS % 4),
    ),
    Case("index_copy", lambda x, y: x.index_copy(1, torch.tensor([3, 0]), y[:, :2]), (M, SOURCE)),
    Case(
        "index_fill",
        lambda x, i: (x.index_fill(0, i, 2), x.index_fill(1, i, torch.tensor(3.0))),
        (M, ROWS),
    ),
    *(
        reduced(reduce, include, x, source)
        for reduce, values in (("prod", ZEROS), ("mean", TIED), ("amax", TIED), ("amin", ZEROS))
        for include in (True, False)
        for x, source in [(values, values.roll(2))]
    ),
    Case(
        "scatter_reduce sum",
        lambda x, y: (
            x.scatter_reduce(0, PLACES, y[:3, :5], "sum"),
            x.scatter_reduce(1, PLACES, y[:3, :5], "sum", include_self=False),
        ),
        (M, SOURCE),
    ),
    Case(
        "scatter_reduce of integers",
        lambda x, i: tuple(
            x.scatter_reduce(0, i, x, r, include_self=s)
            for r in ("sum", "mean", "amax", "amin", "prod")
            for s in (True, False)
        ),
        (integers(-5, 9, 5, 5), integers(0, 3, 5, 5)),
    ),
    Case(
        "scatter_reduce of a scalar",
        lambda x: x.sum().scatter_reduce(0, torch.tensor(0), x[0], "amax"),
        (V,),
    ),
    Case(
        "masked_fill",
        lambda x, m, v: (x.masked_fill(m, 2), x.masked_fill(m, v.sum()), x.masked_fill(m[0], 0)),
        (M, MASK, V),
    ),
    Case(
        "masked_scatter",
        lambda x, m, y: (x.masked_scatter(m, y), x.masked_scatter(m[0], y)),
        (M, MASK, draw(30)),
    ),
    Case(
        "nonzero_static",
        lambda x: (
            torch.nonzero_static(x, size=4),
            torch.nonzero_static(x[:0], size=2),
            torch.nonzero_static(x[0] > 0, size=9, fill_value=-7),
        ),
        (TIED,),
    ),
    Case(
        "isin",
        lambda x: (torch.isin(x, x[:2]), torch.isin(x, 3, invert=True)),
        (integers(0, 9, 7),),
    ),
    Case("embedded in place", lambda x, i: _in_place(x, i), (M, ROWS[:3])),
]


def _put(x, i, y):
    x = x.clone()
    x[i, :2] = y[:, None]
    x[..., 2] = 5
    return x


def _assign(x, m):
    x = x.clone()
    x[m] = -1.5
    x[0, m[0]] = 3
    x[:, m[1]] = 4
    return x


def _assign_rows(x, m, y):
    x = x.clone()
    x[m] = y
    return x


def _in_place(x, i):
    x = x.clone()
    x[i] += 1
    x.index_add_(0, i % 4, x.clone()[:3], alpha=2)
    x.masked_fill_(x > 2, 2)
    x[-1, ::2] *= x[0, 0].clone()
    return x


@pytest.mark.filterwarnings("ignore:index_reduce", "ignore:The reduce argument of torch.scatter")
@grouped(CASES)
def test_agrees_with_torch(group, wide):
    check_cases(group, wide)


def converted(function):
    net = to_jax(All({"": function}))
    return lambda *inputs: net({}, list(inputs))[0]


@pytest.mark.parametrize(
    "read",
    [
        lambda x, i: x[i],
        lambda x, i: x.gather(0, i),
        lambda x, i: x.take(i),
        lambda x, i: x.index_select(0, i),
    ],
)
def test_reads_out_of_range_are_nan(read):
    found = converted(read)(V.numpy(), np.array([6, 0, 99], np.int32))
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])


def test_negative_reads_out_of_range_are_nan():
    found = converted(lambda x, i: x[i])(V.numpy(), np.array([-7, -6, -99], np.int32))
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "write",
    [
        lambda x, i: x.index_put((i,), torch.tensor(9.0)),
        lambda x, i: x.index_put((i,), torch.tensor(9.0), True),
        lambda x, i: x.scatter(0, i, 9.0),
        lambda x, i: x.scatter_add(0, i, x),
        lambda x, i: x.scatter_reduce(0, i, x, "amax"),
        lambda x, i: x.scatter_reduce(0, i, x, "mean"),
        lambda x, i: x.index_add(0, i, x),
        lambda x, i: x.index_copy(0, i, x),
        lambda x, i: x.index_fill(0, i, 9.0),
    ],
)
def test_writes_out_of_range_are_dropped(write):
    index = np.array([6, 99, -7, 7, -8, -99], np.int32)
    np.testing.assert_array_equal(converted(write)(V.numpy(), index), V)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.nonzero(),
        lambda x: torch.argwhere(x),
    ],
)
def test_what_depends_on_values_names_its_line(function):
    with pytest.raises(ConversionError, match=r"test_indexing.py|check.py"):
        converted(function)(V.numpy())


def test_second_derivatives_of_scatter_reduce():
    index = torch.tensor([0, 1, 0])
    function = converted(lambda x, y: x.scatter_reduce(0, index, y, "prod"))
    x, y = jnp.array([2.0, 3.0]), jnp.array([4.0, 5.0, 6.0])
    found = jax.jacfwd(jax.grad(lambda y: function(x, y)[0]))(y)
    np.testing.assert_allclose(found, [[0, 0, 2], [0, 0, 0], [2, 0, 0]])
