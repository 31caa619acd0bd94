"""Fingerprints of a loss and its data: another for whatever is another."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcvi as fv
from funcvi import programs
from funcvi.fitting.fingerprint import fingerprint

KEY = jax.random.key(0)


def of(*arrays, function=lambda *arrays: 0.0):
    return tuple(np.asarray(fingerprint(programs.trace(function, *arrays), arrays)).tolist())


@pytest.mark.parametrize("dtype", [np.int32, np.float32, bool])
@pytest.mark.parametrize("size", [20, 100])
def test_permuted_labels_have_fingerprints_of_their_own(dtype, size):
    """Sums that are linear in the words were the same for one in thirty of them."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, 2, size).astype(dtype)
    traced = programs.trace(lambda y: y.sum(), start)
    rows = {p.tobytes(): p for p in (rng.permutation(start) for _ in range(3000))}
    for half in (slice(0, 2), slice(2, 4)):
        marks = {tuple(fingerprint(traced, (row,))[half].tolist()) for row in rows.values()}
        assert len(marks) == (len(rows) if half.start else 1)


def test_arrays_that_change_places_are_other_data():
    a, b = np.array([1.0, 2.0], np.float32), np.array([2.0, 1.0], np.float32)
    assert len({of(a, b), of(b, a), of(a, a), of(b, b)}) == 4


@pytest.mark.parametrize("powers", [(-1, -2), (2, 3)])
def test_programs_that_differ_in_one_integer_are_others(powers):
    first, second = (of(np.float32(2.0), function=lambda x, n=n: x**n) for n in powers)
    assert first != second


def test_traced_data_have_the_fingerprint_of_the_values():
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    batched = jax.vmap(lambda row: fingerprint(programs.trace(jnp.sum, rows[0]), (row,)))(rows)
    each = [fingerprint(programs.trace(jnp.sum, rows[0]), (row,)) for row in rows]
    np.testing.assert_array_equal(batched, np.stack(each))


def test_a_continuation_on_mirrored_labels_is_judged_from_there():
    def loss(params, key, y):
        return ((params - y) ** 2).sum()

    def train(params, y):
        args = (np.array(y, np.int32),)
        return fv.fit(loss, params, optax.sgd(0.1), key=KEY, num_steps=5, args=args)

    first = train(jnp.zeros(4), [0, 1, 1, 0])
    assert train(first, [1, 0, 0, 1]).judged_from == 5
    assert train(first, [0, 1, 1, 0]).judged_from == 0
