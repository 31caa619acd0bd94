"""The ways in which a weight enters a function, and what becomes of its noise in each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from funcvi.networks.layers import Kind
from funcvi.networks.local import Gaussian

__all__ = ["KEY", "ROWS", "WAYS", "Way", "gaussian", "numbers"]

KEY = jax.random.key(5)
ROWS = 4


def numbers(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def gaussian(*shape: int, seed: int = 0) -> Gaussian:
    scale = np.abs(np.asarray(numbers(*shape, seed=seed + 1))) / 2 + np.float32(0.1)  # uncompiled
    return Gaussian(numbers(*shape, seed=seed), jnp.asarray(scale))


X = numbers(ROWS, 3, seed=8)
SEQUENCE = numbers(ROWS, 5, 3, seed=2)
IMAGE = numbers(ROWS, 2, 4, 4, seed=8)
MATRIX = gaussian(3, 2)


class Way(NamedTuple):
    """A function of (weights, x), and the kind of each of its weights that is not "local"."""

    function: Callable[[Any, Any], Any]
    weights: dict[str, Any]
    x: Any = X
    kinds: dict[str, Kind] = {}  # noqa: RUF012
    why: str = ""  # of the refused ones


@jax.checkpoint
def hidden(x: Any, w: Any) -> Any:
    return jnp.tanh(x @ w)


def normalised(x: Any, axis: int = -1) -> Any:
    return (x - x.mean(axis, keepdims=True)) / (x.std(axis, keepdims=True) + 1)


def attention(w: Any, x: Any) -> Any:
    q, k, v = (x @ w[name] for name in ("q", "k", "v"))
    return jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k)) @ v


def recurrent(w: Any, x: Any) -> Any:
    def step(h: Any, now: Any) -> Any:
        return jnp.tanh(now @ w["input"] + h @ w["hidden"]), None

    h, _ = lax.scan(step, jnp.zeros((len(x), 3)), jnp.moveaxis(x, 1, 0))
    return h @ w["output"]


def convolution(w: Any, x: Any) -> Any:
    return lax.conv_general_dilated(x, w, (1, 1), "SAME")


def along_rows(w: Any, x: Any) -> Any:
    numbers = ("HNC", "IOH", "HNC")
    return lax.conv_general_dilated(x, w["w"], (1,), "SAME", dimension_numbers=numbers)


def low_rank(w: Any, x: Any) -> Any:
    return x @ (w["base"] + w["a"] @ w["c"])


LAYERS: dict[str, Way] = {
    "a matrix": Way(lambda w, x: x @ w["w"], {"w": MATRIX}),
    "a vector": Way(lambda w, x: x @ w["w"], {"w": gaussian(3)}),
    "features first": Way(lambda w, x: (w["w"].T @ x.T).T, {"w": MATRIX}),
    "two layers and biases": Way(
        lambda w, x: jnp.tanh(x @ w["a"].T + w["b"]) @ w["c"] + w["d"],
        {"a": gaussian(5, 3), "b": gaussian(5), "c": gaussian(5, 2), "d": gaussian(2)},
        kinds={"b": "plain", "d": "plain"},
    ),
    "within jit": Way(
        lambda w, x: jax.jit(lambda h, w: jnp.einsum("bi,oi->bo", h, w))(
            x, jax.jit(jnp.copy)(w["w"])
        ),
        {"w": gaussian(2, 3)},
    ),
    "slices with nothing in common": Way(
        lambda w, x: jnp.tanh(x @ w["w"][:, :2]) * (x @ w["w"][:, 2:4]) + x @ w["w"][:, 4:],
        {"w": gaussian(3, 6)},
    ),
    "split": Way(
        lambda w, x: jnp.multiply(*(x @ part for part in jnp.split(w["w"], 2, axis=1))),
        {"w": gaussian(3, 4)},
    ),
    "unstacked": Way(
        lambda w, x: jnp.multiply(*(x @ part for part in jnp.unstack(w["w"]))),
        {"w": gaussian(2, 3, 2)},
    ),
    "heads": Way(
        lambda w, x: jnp.einsum("bhi,hio->bho", x, w["w"]),
        {"w": gaussian(2, 3, 2)},
        x=numbers(ROWS, 2, 3),
    ),
    "row by row": Way(lambda w, x: jax.vmap(lambda row: jnp.tanh(row @ w["w"]))(x), {"w": MATRIX}),
    "a weight of each row's own": Way(
        lambda w, x: jnp.einsum("bi,bio->bo", x, w["w"]), {"w": gaussian(ROWS, 3, 2)}
    ),
    "bilinear": Way(
        lambda w, x: jnp.einsum("bi,ijk,bj->bk", x, w["w"], x), {"w": gaussian(3, 3, 2)}
    ),
    "one-hot": Way(lambda w, x: jax.nn.one_hot(jnp.argmax(x, 1), 3) @ w["w"], {"w": MATRIX}),
    "a sequence as one vector": Way(
        lambda w, x: x.reshape(-1, 3).reshape(ROWS, -1) @ w["w"], {"w": gaussian(15, 2)}, SEQUENCE
    ),
    "an image as one position": Way(
        lambda w, x: lax.conv_general_dilated(x, w["w"], (1, 1), "VALID"),
        {"w": gaussian(3, 2, 4, 4)},
        IMAGE,
    ),
    "rows that have met before": Way(lambda w, x: normalised(x, 0) @ w["w"], {"w": MATRIX}),
    "checkpoint": Way(
        lambda w, x: hidden(hidden(x, w["a"]), w["b"]), {"a": gaussian(3, 4), "b": gaussian(4, 2)}
    ),
    "cond": Way(
        lambda w, x: lax.cond(x.sum() > 0, lambda x: jnp.tanh(x @ w["a"]), lambda x: x @ w["b"], x),
        {"a": MATRIX, "b": gaussian(3, 2, seed=3)},
    ),
    "layers in a scan": Way(
        lambda w, x: lax.scan(
            jax.checkpoint(lambda h, layer: (jnp.tanh(h @ layer["w"] + layer["b"]), None)), x, w
        )[0],
        {"w": gaussian(3, 3, 3), "b": gaussian(3, 3, seed=2)},
        kinds={"b": "plain"},
    ),
    "outputs of a scan": Way(
        lambda w, x: jnp.moveaxis(
            lax.scan(lambda c, w: (c, c @ w), x, w["w"], reverse=True)[1], 0, 1
        ),
        {"w": gaussian(2, 3, 2)},
    ),
    "scales and embeddings": Way(
        lambda w, x: normalised(x + w["e"][jnp.argmax(x, 1)]) * w["s"] @ w["w"],
        {"e": gaussian(3, 3), "s": gaussian(3), "w": MATRIX},
        kinds={"e": "plain", "s": "plain"},
    ),
    "a first state that is learned": Way(
        lambda w, x: lax.scan(lambda h, w: (jnp.tanh(x + h @ w), None), w["h"], w["w"])[0],
        {"h": gaussian(ROWS, 3), "w": gaussian(2, 3, 3)},
        kinds={"h": "plain"},
    ),
    "a row of zeros": Way(lambda w, x: (0 * x) @ w["w"], {"w": MATRIX}),
    "low rank, one factor after the other": Way(
        lambda w, x: x @ w["base"] + x @ w["a"] @ w["c"],
        {"base": numbers(3, 2), "a": gaussian(3, 2), "c": gaussian(2, 2)},
    ),
}

FOLLOWED: dict[str, Way] = {
    "moved": Way(
        lambda w, x: x @ jnp.expand_dims(w["w"].reshape(2, 3)[::-1].T, 0).squeeze(0),
        {"w": gaussian(6)},
    ),
    "scaled and shifted": Way(
        lambda w, x: x @ (1 - w["w"] * jnp.arange(6.0).reshape(3, 2) / -3.0), {"w": MATRIX}
    ),
    "scaled by another that is random": Way(
        lambda w, x: x @ (w["w"] * jnp.exp(w["s"])[:, None] / jnp.ones((1, 2))),
        {"w": MATRIX, "s": gaussian(3)},
        kinds={"s": "refused"},
        why="is used by exp",
    ),
    "a point weight beside it": Way(
        lambda w, x: x @ (w["start"] + w["w"]), {"w": MATRIX, "start": numbers(3, 2)}
    ),
    "masked": Way(lambda w, x: x @ jnp.where(jnp.eye(3, 2) > 0, w["w"], 0), {"w": MATRIX}),
    "two in one, side by side": Way(
        lambda w, x: x @ jnp.concatenate([w["a"], -w["b"], jnp.ones((3, 1))], 1),
        {"a": MATRIX, "b": gaussian(3, 2, seed=3)},
    ),
    "two in one, stacked": Way(
        lambda w, x: jnp.einsum("bi,kio->bko", x, jnp.stack([w["a"], w["b"]])),
        {"a": MATRIX, "b": gaussian(3, 2, seed=3)},
    ),
    "a sum of two": Way(
        lambda w, x: x @ (w["a"] - 2 * w["b"]), {"a": MATRIX, "b": gaussian(3, 2, seed=3)}
    ),
    "padded": Way(lambda w, x: x @ jnp.pad(w["w"], ((1, 0), (0, 2))), {"w": gaussian(2, 2)}),
    "summed": Way(lambda w, x: x @ w["w"].mean(0), {"w": gaussian(4, 3, 2)}),
    "times a vector that no input reaches": Way(
        lambda w, x: x @ (w["w"] @ jnp.arange(1.0, 3.0)), {"w": MATRIX}
    ),
    "times a vector of the inputs": Way(
        lambda w, x: x[0] @ (w["w"] @ x[1]), {"w": MATRIX}, (X, numbers(2))
    ),
    "times a vector of all rows": Way(lambda w, x: x @ (w["w"] @ x.mean(0)), {"w": gaussian(3, 3)}),
}

POSITIONS: dict[str, Way] = {
    "a convolution": Way(
        lambda w, x: convolution(w["w"], x),
        {"w": gaussian(2, 2, 3, 3)},
        IMAGE,
    ),
    "a convolution of groups, channels last": Way(
        lambda w, x: lax.conv_general_dilated(
            x,
            w["w"],
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        ),
        {"w": gaussian(2, 2, 2, 4)},
        numbers(2, 3, 3, 4),
    ),
    "a network of convolutions": Way(
        lambda w, x: jax.nn.relu(convolution(w["a"], x)).reshape(len(x), -1) @ w["b"],
        {"a": gaussian(2, 2, 3, 3), "b": gaussian(32, 2)},
        IMAGE,
        {"a": "flipout"},
    ),
    "a sequence": Way(lambda w, x: x @ w["w"], {"w": MATRIX}, SEQUENCE),
    "a sequence and its sum": Way(
        lambda w, x: jnp.tanh(x @ w["w"]).sum(1), {"w": MATRIX}, SEQUENCE
    ),
    "rows and positions in one axis": Way(
        lambda w, x: x.reshape(-1, 3) @ w["w"], {"w": MATRIX}, SEQUENCE
    ),
    "positions and rows in one axis": Way(
        lambda w, x: (
            (jnp.swapaxes(x, 0, 1).reshape(-1, 3) @ w["w"]).reshape(5, ROWS, 2).swapaxes(0, 1)
        ),
        {"w": MATRIX},
        SEQUENCE,
    ),
    "a sequence that came as one vector": Way(
        lambda w, x: x.reshape(ROWS, 2, 3) @ w["w"], {"w": MATRIX}, numbers(ROWS, 6)
    ),
    "time first": Way(
        lambda w, x: jnp.moveaxis(jnp.moveaxis(x, 1, 0) @ w["w"], 0, 1), {"w": MATRIX}, SEQUENCE
    ),
    "heads of a sequence": Way(
        lambda w, x: jnp.einsum("btd,hdk->bhtk", x, w["w"]), {"w": gaussian(2, 3, 2)}, SEQUENCE
    ),
    "tokens": Way(
        lambda w, x: jnp.eye(5)[x] @ w["w"], {"w": gaussian(5, 2)}, jnp.arange(24).reshape(4, 6) % 5
    ),
    "attention": Way(attention, {n: gaussian(3, 2, seed=i) for i, n in enumerate("qkv")}, SEQUENCE),
    "outputs of a scan over time": Way(
        lambda w, x: jnp.moveaxis(
            lax.scan(lambda h, now: (h + now, jnp.tanh(h)), x[:, 0], jnp.moveaxis(x, 1, 0))[1]
            @ w["w"],
            0,
            1,
        ),
        {"w": MATRIX},
        SEQUENCE,
    ),
    "an outer product": Way(lambda w, x: jnp.einsum("bi,o->bio", x, w["w"]), {"w": gaussian(2)}),
    "positions contracted": Way(
        lambda w, x: jnp.swapaxes(x, 1, 2) @ w["w"], {"w": gaussian(5, 2)}, SEQUENCE
    ),
    "mixed along features and along positions": Way(
        lambda w, x: jnp.swapaxes(jnp.swapaxes(x @ w["a"], 1, 2) @ w["b"], 1, 2),
        {"a": gaussian(3, 3), "b": gaussian(5, 5)},
        SEQUENCE,
    ),
    "pairs of rows": Way(lambda w, x: (x[:, None] - x) @ w["w"], {"w": MATRIX}),
    "with each row of the batch": Way(
        lambda w, x: jnp.einsum("bi,ij,cj->bc", x, w["w"], x, optimize=[(0, 1), (0, 1)]),
        {"w": gaussian(3, 3)},
        kinds={"w": "local"},
    ),
    "inputs side by side": Way(lambda w, x: jnp.stack([x, -x], 1) @ w["w"], {"w": MATRIX}),
    "copies of a row": Way(lambda w, x: jnp.repeat(x, 2, 0) @ w["w"], {"w": MATRIX}),
}

_TWICE = "is used more than once"
_NO_ROWS = "does not keep the rows of the batch"
_MEET = "gives outputs whose rows meet in"

DRAWN: dict[str, Way] = {
    "rows of the batch in another order": Way(
        lambda w, x: jnp.tanh(x[jnp.array([2, 0, 3, 1])] @ w["w"]), {"w": MATRIX}, why=_NO_ROWS
    ),
    "used twice": Way(
        lambda w, x: jnp.tanh(x @ w["w"]) @ w["w"], {"w": gaussian(3, 3)}, why=_TWICE
    ),
    "tied": Way(lambda w, x: jnp.tanh(x @ w["w"]) @ w["w"].T, {"w": MATRIX}, why=_TWICE),
    "with itself": Way(lambda w, x: x @ (w["w"] @ w["w"]), {"w": gaussian(3, 3)}, why=_TWICE),
    "times a matrix that no input reaches": Way(
        lambda w, x: x @ (w["w"] @ jnp.array([[1.0, 2, 3], [1, 1, 1]])), {"w": MATRIX}, why=_NO_ROWS
    ),
    "times a matrix of the inputs": Way(
        lambda w, x: x[0] @ (w["w"] @ x[1]), {"w": MATRIX}, (X, numbers(2, 3)), why=_NO_ROWS
    ),
    "times a matrix of the inputs, as long as the batch": Way(
        lambda w, x: x[0] @ (w["w"] @ x[1]),
        {"w": gaussian(3, ROWS)},
        (X, numbers(ROWS, 3)),
        why=_NO_ROWS,
    ),
    "times all rows": Way(
        lambda w, x: x @ (w["w"] @ x.T), {"w": gaussian(3, 3)}, why="first axis is not the batch"
    ),
    "times all rows, and summed": Way(
        lambda w, x: x @ (w["w"] @ x.T) @ jnp.ones((ROWS, 2)), {"w": gaussian(3, 3)}, why=_MEET
    ),
    "both factors random": Way(
        low_rank,
        {"base": numbers(3, 3), "a": MATRIX, "c": gaussian(2, 3, seed=3)},
        kinds={"a": "refused", "c": "refused"},
        why="enters a product with another random weight",
    ),
    "one factor random": Way(
        low_rank, {"base": numbers(3, 3), "a": MATRIX, "c": numbers(2, 3)}, why=_NO_ROWS
    ),
    "every step of time": Way(
        recurrent,
        {"input": gaussian(3, 3), "hidden": gaussian(3, 3, seed=4), "output": MATRIX},
        SEQUENCE,
        {"input": "refused", "hidden": "refused"},
        why="is used at every step of a scan",
    ),
    "a product entry by entry": Way(
        lambda w, x: (x * w["w"]).sum(-1),
        {"w": gaussian(3)},
        why="is multiplied with the inputs entry by entry",
    ),
    "a mean over rows": Way(
        lambda w, x: x - jnp.tanh(x.mean(0) @ w["w"]), {"w": gaussian(3, 3)}, why=_NO_ROWS
    ),
    "normalised over the batch": Way(
        lambda w, x: normalised(x @ w["a"], 0) @ w["b"],
        {"a": gaussian(3, 3), "b": MATRIX},
        kinds={"a": "refused"},
        why=f"{_MEET} reduce_sum",
    ),
    "a graph": Way(
        lambda w, x: jnp.tanh(x[1] @ jnp.tanh(x[1] @ x[0] @ w["a"]) @ w["b"]),
        {"a": gaussian(3, 3), "b": MATRIX},
        (X, jnp.eye(ROWS) + 0.5),
        {"a": "refused"},
        why=f"{_MEET} dot_general",
    ),
    "differences of rows": Way(
        lambda w, x: x @ w["w"] - jnp.roll(x @ w["w"], 1, 0), {"w": MATRIX}, why=_TWICE
    ),
    "differences of outputs of rows": Way(
        lambda w, x: (lambda y: y - jnp.roll(y, 1, 0))(x @ w["w"]),
        {"w": MATRIX},
        why=f"{_MEET} slice",
    ),
    "attention between rows": Way(
        lambda w, x: jax.nn.softmax((x @ w["q"]) @ (x @ w["k"]).T) @ x,
        {"q": MATRIX, "k": gaussian(3, 2, seed=4)},
        kinds={"q": "local", "k": "refused"},
        why=f"{_MEET} ",
    ),
    "a running sum of rows": Way(
        lambda w, x: jnp.cumsum(x @ w["w"], 0), {"w": MATRIX}, why=f"{_MEET} cumsum"
    ),
    "copies of the batch": Way(
        lambda w, x: (lambda y: y[:ROWS] + y[ROWS:])(jnp.concatenate([x, x + 1]) @ w["w"]),
        {"w": MATRIX},
        why=_NO_ROWS,
    ),
    "a convolution along rows": Way(along_rows, {"w": gaussian(3, 2, 1)}, SEQUENCE, why=_NO_ROWS),
    "steps along rows": Way(
        lambda w, x: lax.scan(lambda h, row: (h + row, h), jnp.zeros(2), x @ w["w"])[1],
        {"w": MATRIX},
        why=f"{_MEET} scan",
    ),
    "rows that decide": Way(
        lambda w, x: lax.cond((x @ w["w"]).sum() > 0, jnp.sin, jnp.cos, x),
        {"w": MATRIX},
        why=f"{_MEET} reduce_sum",
    ),
}


def all_are(way: Way, kind: Kind) -> Way:
    random = [n for n, w in way.weights.items() if isinstance(w, Gaussian)]
    return way._replace(kinds=dict.fromkeys(random, kind))


WAYS: dict[str, Way] = {
    **LAYERS,
    **FOLLOWED,
    **{n: w if w.kinds else all_are(w, "flipout") for n, w in POSITIONS.items()},
    **{n: w if w.kinds else all_are(w, "refused") for n, w in DRAWN.items()},
}
