"""What docs/promises.md says of each family holds on the corners of its range, in float32."""

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcvi as fv
from funcvi.densities.log_prob import log_prob
from tests.funcvi.promises import PROMISES, table

NUMBER = 1000


def corners(name: str) -> np.ndarray:
    """Smallest, largest and middle value of each parameter, in every combination."""
    each = []
    for low, high in PROMISES[name].ranges.values():
        middle = np.sqrt(low * high) if low > 0 else (low + high) / 2
        each.append((low, middle, high))
    return np.array(list(itertools.product(*each)), np.float32)


def widened(x: Any) -> Any:
    return np.asarray(x, np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


@pytest.mark.few(5)
@pytest.mark.parametrize("name", PROMISES)
def test_promises_hold_at_the_corners(name: str) -> None:
    promise = PROMISES[name]
    build = promise.build
    points = corners(name)

    each = jax.vmap(lambda point: build(*point))(points)  # not inside jit, which would not round it

    def at(d: Any, key: Any, point: Any) -> Any:
        x = fv.sample(d, key, (NUMBER,))
        slope = jax.grad(lambda point: jnp.mean(log_prob(build(*point), x)))(point)
        return x, log_prob(d, x), d.support(x), slope

    keys = jax.random.split(jax.random.key(1), len(points))
    x, log_p, inside, slope = jax.jit(jax.vmap(at))(each, keys, points)
    for what, good in (
        ("draws", np.isfinite(x)),
        ("support", inside),
        ("slope", np.isfinite(slope)),
    ):
        bad = ~np.asarray(good).reshape(len(points), -1).all(-1)
        assert not bad.any(), (what, points[bad])
    with jax.enable_x64(True):
        wide = widened(x)
        wide_each = jax.tree.map(widened, each)
        exact = np.stack([
            promise.exact(jax.tree.map(lambda leaf, i=i: leaf[i], wide_each), wide[i])
            for i in range(len(points))
        ])  # fmt: skip
    error = (np.abs(np.asarray(log_p) - exact) / (1 + np.abs(exact))).max(-1)
    assert error.max() < 2e-5, (points[error >= 2e-5], error[error >= 2e-5])


@pytest.mark.few(5)
@pytest.mark.parametrize("name", PROMISES)
def test_draws_move_by_finite_amounts(name: str) -> None:
    build = PROMISES[name].build
    points = corners(name)
    if fv.sampling.pathwise_obstacle(build(*points[0])) is not None:
        with pytest.raises(TypeError, match="no right pathwise gradient"):
            jax.grad(lambda p: fv.sample(build(*p), jax.random.key(0)).astype(float))(points[0])
        return
    keys = jax.random.split(jax.random.key(2), len(points))

    def total(point: Any, key: Any) -> Any:
        return jnp.mean(fv.sample(build(*point), key, (NUMBER,)))

    slope = jax.jit(jax.vmap(jax.grad(total)))(points, keys)
    assert np.all(np.isfinite(slope)), points[~np.isfinite(slope).all(-1)]


def test_the_page_is_that_of_the_laws() -> None:
    """Made again by: python tools/promises.py."""
    root = Path(__file__).parents[2]
    assert (root / "docs" / "promises.md").read_text().count(table()) == 1
