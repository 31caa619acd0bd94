"""Which axes a layer keeps: rows and positions have noise of their own, nothing else may."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from funcvi.networks import layers_found
from funcvi.networks.local import Estimator, Gaussian, apply_random
from tests.funcvi.test_local import DRAWS, KEY, X, gaussian, numbers

SEQUENCE = numbers(4, 5, 3, seed=2)
Case: TypeAlias = tuple[Callable[[Any, Any], Any], Gaussian, Any]

EXACT: dict[str, Case] = {
    "one example": (lambda w, x: x @ w, gaussian(3, 2), X[0]),
    "features first": (lambda w, x: (w.T @ x.T).T, gaussian(3, 2), X),
    "a mean over rows": (lambda w, x: x.mean(0) @ w, gaussian(3, 2), X),
    "a sequence as one vector": (
        lambda w, x: x.reshape(-1, 3).reshape(4, -1) @ w,
        gaussian(15, 2),
        SEQUENCE,
    ),
    "bilinear": (lambda w, x: jnp.einsum("bi,ijk,bj->bk", x, w, x), gaussian(3, 3, 2), X),
    "one feature": (lambda w, x: x[:, :1] @ w, gaussian(1, 2), X),
    "a weight of each row's own": (
        lambda w, x: jnp.einsum("bi,bio->bo", x, w),
        gaussian(4, 3, 2),
        X,
    ),
    "a last step": (lambda w, x: x[:, -1] @ w, gaussian(3, 2), SEQUENCE),
    "the same features twice": (lambda w, x: jnp.tile(x, (1, 2)) @ w, gaussian(6, 2), X),
    "one-hot": (lambda w, x: jax.nn.one_hot(jnp.argmax(x, 1), 3) @ w, gaussian(3, 2), X),
}

POSITIONS: dict[str, Case] = {
    "a sequence": (lambda w, x: x @ w, gaussian(3, 2), SEQUENCE),
    "rows and positions in one axis": (
        lambda w, x: x.reshape(-1, 3) @ w,
        gaussian(3, 2),
        SEQUENCE,
    ),
    "a sequence that came as one vector": (
        lambda w, x: x.reshape(4, 2, 3) @ w,
        gaussian(3, 2),
        numbers(4, 6),
    ),
    "time first": (lambda w, x: jnp.moveaxis(x, 1, 0) @ w, gaussian(3, 2), SEQUENCE),
    "heads": (lambda w, x: jnp.einsum("btd,hdk->bhtk", x, w), gaussian(2, 3, 2), SEQUENCE),
    "tokens": (
        lambda w, x: jnp.eye(5)[x] @ w,
        gaussian(5, 2),
        jnp.zeros((4, 6), jnp.int32),
    ),
    "patches": (
        lambda w, x: (
            jnp.moveaxis(
                lax.conv(x, jnp.ones((3, 1, 2, 2)), (2, 2), "VALID").reshape(len(x), 3, -1), 1, 2
            )
            @ w
        ),
        gaussian(3, 2),
        numbers(2, 1, 4, 4),
    ),
    "outputs of a scan over time": (
        lambda w, x: (
            lax.scan(lambda h, now: (h + now, jnp.tanh(h)), x[:, 0], jnp.moveaxis(x, 1, 0))[1] @ w
        ),
        gaussian(3, 2),
        SEQUENCE,
    ),
}

SHARED = "is shared within a row"
SUMMED = "is multiplied with the inputs entry by entry, and the result summed"

REFUSED: dict[str, tuple[Case, str]] = {
    "an outer product": ((lambda w, x: jnp.einsum("bi,o->bio", x, w), gaussian(2), X), SHARED),
    "scalars embedded": ((lambda w, x: x[..., None] @ w[None], gaussian(2), X), SHARED),
    "rows contracted": ((lambda w, x: x.T @ w, gaussian(4, 2), X), SHARED),
    "positions contracted": (
        (lambda w, x: jnp.einsum("btc,ts->bsc", x, w), gaussian(5, 2), SEQUENCE),
        SHARED,
    ),
    "positions contracted, moved": (
        (lambda w, x: jnp.swapaxes(x, 1, 2) @ w, gaussian(5, 2), SEQUENCE),
        SHARED,
    ),
    "positions contracted, from one vector": (
        (lambda w, x: jnp.swapaxes(x.reshape(4, 2, 3), 1, 2) @ w, gaussian(2, 2), numbers(4, 6)),
        SHARED,
    ),
    "heads with one weight": (
        (
            lambda w, x: (x @ jnp.ones((3, 4))).reshape(4, 5, 2, 2) @ w,
            gaussian(2, 2),
            SEQUENCE,
        ),
        SHARED,
    ),
    "rows that are not the batch's": (
        (lambda w, x: x[1] @ w + 0 * x[0].sum(), gaussian(3, 2), (X, numbers(7, 3))),
        SHARED,
    ),
    "pairs of rows": ((lambda w, x: (x[:, None] - x) @ w, gaussian(3, 2), X), SHARED),
    "inputs side by side": ((lambda w, x: jnp.stack([x, -x], 1) @ w, gaussian(3, 2), X), SHARED),
    "copies of a row": (
        (lambda w, x: jnp.broadcast_to(x[:, None], (4, 5, 3)) @ w, gaussian(3, 2), X),
        SHARED,
    ),
    "copies of the batch": (
        (lambda w, x: jnp.concatenate([x, -x]) @ w, gaussian(3, 2), X),
        SHARED,
    ),
    "copies of the batch, tiled": (
        (lambda w, x: jnp.tile(x, (2, 1)) @ w, gaussian(3, 2), X),
        SHARED,
    ),
    "copies of the batch, repeated": (
        (lambda w, x: jnp.repeat(x, 2, 0) @ w, gaussian(3, 2), X),
        SHARED,
    ),
    "copies of the batch, reshaped": (
        (
            lambda w, x: jnp.broadcast_to(x[:, None], (4, 5, 3)).reshape(20, 3) @ w,
            gaussian(3, 2),
            X,
        ),
        SHARED,
    ),
    "a matrix and a sum": ((lambda w, x: (x[:, :, None] * w).sum(1), gaussian(3, 2), X), SUMMED),
    "a matrix and a mean": (
        (lambda w, x: jnp.mean(w * x[:, :, None], axis=1), gaussian(3, 2), X),
        SUMMED,
    ),
    "a vector and a sum": ((lambda w, x: (-2 * (x * w)).sum(-1), gaussian(3), X), SUMMED),
    "a vector and a running sum": (
        (lambda w, x: jnp.cumsum(x * w, axis=1)[:, -1], gaussian(3), X),
        SUMMED,
    ),
    "in Fourier space": (
        (
            lambda w, x: jnp.real(jnp.fft.ifft(jnp.fft.fft(x) * jnp.fft.fft(w))),
            gaussian(3),
            X,
        ),
        "is ",
    ),
    "a matrix gated by each row": (
        (
            lambda w, x: jnp.einsum("bi,bio->bo", x, w * jnp.tanh(x)[:, :, None]),
            gaussian(3, 2),
            X,
        ),
        "is used by",
    ),
}

PLAIN: dict[str, Case] = {
    "a scale": (lambda w, x: jnp.tanh(x * w + 1).sum(-1), gaussian(3), X),
    "a scale before a product": (lambda w, x: (x * w) @ jnp.ones((3, 2)), gaussian(3), X),
    "a scale of channels, and a pool": (
        lambda w, x: lax.reduce_window(x * w, 0.0, lax.add, (1, 2, 1), (1, 2, 1), "VALID"),
        gaussian(3),
        SEQUENCE,
    ),
    "a scale of channels, and a sum over positions": (
        lambda w, x: (x * w).sum(1),
        gaussian(3),
        SEQUENCE,
    ),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", EXACT)
def test_the_whole_row_has_the_covariance_of_plain_draws(name: str) -> None:
    function, weight, x = EXACT[name]
    (layer,) = layers_found(function, weight, x).values()
    assert layer.kind == "local"
    rows = len(x) if name not in ("one example", "a mean over rows") else 1

    @jax.jit
    def moments(keys: jax.Array) -> list[Any]:
        estimators: tuple[Estimator, ...] = ("plain", "local", "flipout")
        result = []
        for estimator, key in zip(estimators, keys, strict=True):
            draw = lambda k, e=estimator: apply_random(function, weight, (x,), k, e)  # noqa: E731
            y = jax.vmap(draw)(jax.random.split(key, DRAWS)).reshape(DRAWS, rows, -1)
            deviations = y - y.mean(0)
            products = jnp.einsum("nri,nrj->nrij", deviations, deviations)
            result.append((y.mean(0), y.std(0), products.mean(0), products.std(0)))
        return result

    plain, *others = moments(jax.random.split(KEY, 3))
    for other in others:
        for a, s, b, t in ((*other[:2], *plain[:2]), (*other[2:], *plain[2:])):
            assert (jnp.abs(a - b) <= 5.5 * np.sqrt((s**2 + t**2) / DRAWS) + 1e-6).all()


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_are_local(name: str) -> None:
    function, weight, x = POSITIONS[name]
    (layer,) = layers_found(function, weight, x).values()
    assert layer.kind == "local", layer.why


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_row_shares_is_refused_unless_it_is_listed(name: str) -> None:
    (function, weight, x), why = REFUSED[name]
    (layer,) = layers_found(lambda w, x: function(w["w"], x), {"w": weight}, x).values()
    assert layer.kind == "refused"
    assert why in layer.why

    def run(estimator: Estimator, *plain: str) -> Any:
        return apply_random(
            lambda w, x: function(w["w"], x), {"w": weight}, (x,), KEY, estimator, plain
        )

    for estimator in ("local", "flipout"):
        with pytest.raises(ValueError, match=rf"'w' .*{why}.*plain=\['w'\]"):
            run(estimator)
    np.testing.assert_allclose(run("local", "w"), run("plain"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_scales_are_plain(name: str) -> None:
    function, weight, x = PLAIN[name]
    (layer,) = layers_found(function, weight, x).values()
    assert layer.kind == "plain", layer.why
