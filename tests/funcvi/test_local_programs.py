"""Programs at random: noise by row, wherever it is given, keeps each row's mean and covariance.

Rows, positions and features have the same length, so that nothing tells them apart but the survey.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from funcvi.networks import layers_found
from funcvi.networks.local import Gaussian, apply_random

N = 3
DRAWS = 4_000
PERMUTATION = jnp.array([2, 0, 1])

#: Of two values and a fresh weight, all cubes but the weight, a square; not each uses all.
STEPS: list[Callable[[Any, Any, Any], Any]] = [
    lambda a, b, w: a @ w,
    lambda a, b, w: a @ w + b,
    lambda a, b, w: jnp.tanh(a @ w) @ w,
    lambda a, b, w: w @ a,
    lambda a, b, w: jnp.einsum("btd,bc->ctd", a, w),
    lambda a, b, w: b * jnp.einsum("btd,td->b", a, w)[:, None, None],
    lambda a, b, w: b + (a.reshape(N, N * N)[:, 2:5] @ w)[:, None],
    lambda a, b, w: b + jnp.einsum("bi,ij,bj->b", a[:, 1], w, b[:, 2])[:, None, None],
    lambda a, b, w: (a.reshape(N * N, N) @ w).reshape(N, N, N),
    lambda a, b, w: (a.swapaxes(0, 1).reshape(N * N, N) @ w).reshape(N, N, N).swapaxes(0, 1),
    lambda a, b, w: a + (a[:, 0] @ w)[:, None],
    lambda a, b, w: a + (a[0] @ w),
    lambda a, b, w: a @ (w @ b[0]),
    lambda a, b, w: a @ (w @ b[0, 0])[:, None] + b,
    lambda a, b, w: a @ jnp.concatenate([w[:, :1], jnp.ones((N, 2))], 1),
    lambda a, b, w: a * w[0] + b,
    lambda a, b, w: lax.cond(a[0, 0, 0] > 0, lambda: a @ w, lambda: b),
    lambda a, b, w: lax.scan(lambda h, v: (jnp.tanh(h @ v), None), a, w[:, None] * jnp.eye(N))[0],
    lambda a, b, w: lax.scan(lambda h, v: (jnp.tanh(h + v), h), b[0], a @ w)[1],
    lambda a, b, w: lax.scan(lambda h, v: (jnp.tanh(h + v), h), b[:, 0], (a @ w).swapaxes(0, 1))[
        1
    ].swapaxes(0, 1),
    lambda a, b, w: jax.vmap(lambda x, y: x @ w + y)(a, b),
    lambda a, b, w: jax.vmap(lambda x, y: x @ w + y, in_axes=1, out_axes=1)(a, b),
    lambda a, b, w: lax.conv_general_dilated(a, w[:, :, None], (1,), "SAME"),
    lambda a, b, w: lax.conv_general_dilated(
        a, w[:, :, None], (1,), "SAME", dimension_numbers=("HNC", "IOH", "HNC")
    ),
    lambda a, b, w: jnp.tanh(a) + b,
    lambda a, b, w: a - b.mean(0),
    lambda a, b, w: a - b.mean(1, keepdims=True),
    lambda a, b, w: a.swapaxes(0, 1),
    lambda a, b, w: a.swapaxes(1, 2) + b,
    lambda a, b, w: a[::-1] + b,
    lambda a, b, w: a[:, ::-1] + b,
    lambda a, b, w: a[PERMUTATION] * b,
    lambda a, b, w: a[:, PERMUTATION] + b,
    lambda a, b, w: jax.nn.softmax(a, 1) @ b,
    lambda a, b, w: jax.nn.softmax(a, 0) * b,
    lambda a, b, w: jnp.cumsum(a, 0) / 2,
    lambda a, b, w: jnp.cumsum(a, 1) / 2,
    lambda a, b, w: jnp.sort(a, 1) + jnp.sort(b, 2),
    lambda a, b, w: jnp.where(a > b, a, -b),
    lambda a, b, w: jnp.concatenate([a[:, :1], b[:, 1:]], 1),
    lambda a, b, w: jnp.concatenate([a[:1], b[1:]]),
    lambda a, b, w: jnp.einsum("btd,ctd->btc", a, b),
    lambda a, b, w: a.at[:, 0].set(b[:, 1]),
    lambda a, b, w: a.at[0].set(b[1]),
    lambda a, b, w: jax.checkpoint(lambda a: jax.nn.gelu(a @ w))(a) + b,
    lambda a, b, w: lax.fori_loop(0, 2, lambda _, h: jnp.tanh(h + b), a @ w),
    lambda a, b, w: lax.while_loop(lambda h: h.sum() > 1, lambda h: h / 2 - 0.1, a @ w) + b,
    lambda a, b, w: jax.vmap(
        lambda x, y: lax.while_loop(lambda h: h.sum() > 1, lambda h: h / 2 - 0.1, x @ w) + y
    )(a, b),
    lambda a, b, w: jnp.take_along_axis(a @ w, jnp.argmax(b, 1, keepdims=True), 1) + b,
    lambda a, b, w: jnp.take_along_axis(a @ w, jnp.argmax(b, 0, keepdims=True), 0) + b,
    lambda a, b, w: a @ jnp.where(b[0] > 0, w, 0),
    lambda a, b, w: a @ jnp.where(jnp.eye(N) > 0, w, 0.5),
    lambda a, b, w: jnp.stack([a @ w, b, a], 1).sum(1),
    lambda a, b, w: jnp.stack([a[i] @ w for i in range(N)]) + b,
    lambda a, b, w: lax.map(lambda x: x @ w, a) + b,
    lambda a, b, w: jnp.einsum("btd,bsd->bts", a @ w[:, :2], b @ w[:, :2]),
    lambda a, b, w: b + (a @ w[:, :1]) * (b @ w[:, 1:]).sum(-1, keepdims=True),
    lambda a, b, w: lax.cond((a @ w).sum() > 0, lambda a: a, lambda a: -a, b),
    lambda a, b, w: jnp.einsum("btd,cd->btc", a, (b @ w)[:, 0]),
    lambda a, b, w: jnp.einsum("btd,cd->btc", a @ w, b[:, 0]),
]


def program(seed: int) -> tuple[Callable[[Any, Any], Any], dict[str, Gaussian], jax.Array]:
    rng = np.random.default_rng(seed)
    length = int(rng.integers(2, 5))
    chosen = [STEPS[0], *(STEPS[i] for i in rng.integers(len(STEPS), size=length))]
    rng.shuffle(chosen)
    places = [rng.integers(k + 1, size=2) for k in range(len(chosen))]
    weights = {
        str(k): Gaussian(
            jnp.asarray(rng.standard_normal((N, N)), jnp.float32),
            jnp.asarray(rng.uniform(0.2, 0.8, (N, N)), jnp.float32),
        )
        for k in range(len(chosen))
    }

    def function(w: Any, x: Any) -> Any:
        values = [x]
        for k, (step, (first, _)) in enumerate(zip(chosen, places, strict=True)):
            a = values[-1] if k % 2 else values[max(first, len(values) - 2)]
            values.append(step(a, values[places[k][1]], w[str(k)]))
        return values[-1]

    return function, weights, jnp.asarray(rng.standard_normal((N, N, N)), jnp.float32)


def moments(y: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Of each row: the mean and the covariance, and the standard error of each."""
    y = jnp.tanh(y / 2).reshape(DRAWS, N, -1)
    deviations = y - y.mean(0)
    products = jnp.einsum("nri,nrj->nrij", deviations, deviations)
    return [(each.mean(0), each.std(0) / DRAWS**0.5) for each in (y, products)]


@pytest.mark.few(3)
@pytest.mark.parametrize("seed", range(40))
def test_rows_keep_their_law(seed: int) -> None:
    function, weights, x = program(seed)
    rng = np.random.default_rng(seed)
    noise = {n: rng.standard_normal((DRAWS, N, N)).astype("float32") for n in weights}

    @jax.jit
    def run(keys: jax.Array, noise: Any) -> Any:
        draw = lambda key: apply_random(function, weights, (x,), key, None)  # noqa: E731
        plain = lambda e: function({n: w.loc + w.scale * e[n] for n, w in weights.items()}, x)  # noqa: E731
        return moments(jax.vmap(draw)(keys)), moments(jax.vmap(plain)(noise))

    ours, expected = run(jax.random.split(jax.random.key(seed), DRAWS), noise)
    told = {n: layer.kind for n, layer in layers_found(function, weights, x).items()}
    for (a, s), (b, t) in zip(ours, expected, strict=True):
        assert (jnp.abs(a - b) <= 6 * jnp.hypot(s, t) + 1e-5).all(), told
