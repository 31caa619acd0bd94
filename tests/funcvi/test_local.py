"""Local reparameterisation and flipout: the catalogue of ways in which a weight enters, and laws.

Where a weight is "local", each row's output has the mean and the covariance of plain draws; where
it cannot be, that is an error which names it; nothing is "plain" in silence.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from jax.extend import core
from jax.extend.core import primitives

import funcvi as fv
from funcvi.networks import layers, layers_found
from funcvi.networks.local import Estimator, Gaussian, apply_random

KEY = jax.random.key(5)
DRAWS = 5_000


def numbers(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def gaussian(*shape: int, seed: int = 0) -> Gaussian:
    return Gaussian(numbers(*shape, seed=seed), jnp.abs(numbers(*shape, seed=seed + 1)) / 2)


X = numbers(4, 3, seed=8)
SQUARE = gaussian(3, 3)


class Case(NamedTuple):
    function: Callable[[Any, Any], Any]
    weights: dict[str, Any]
    plain: tuple[str, ...] = ()  # the weights that enter no product
    x: jax.Array = X
    positions: bool = False  # whether a row has positions, whose dependence is lost as usual


@jax.checkpoint
def hidden(x: Any, w: Any) -> Any:
    return jnp.tanh(x @ w)


def normalised(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


CASES = {
    "a matrix": Case(lambda w, x: x @ w["w"], {"w": gaussian(3, 2)}),
    "a vector": Case(lambda w, x: x @ w["w"], {"w": gaussian(3)}),
    "two layers and biases": Case(
        lambda w, x: jnp.tanh(x @ w["a"].T + w["b"]) @ w["c"] + w["d"],
        {"a": gaussian(5, 3), "b": gaussian(5), "c": gaussian(5, 2), "d": gaussian(2)},
        plain=("b", "d"),
    ),
    "within jit": Case(
        lambda w, x: jax.jit(lambda h, w: jnp.einsum("bi,oi->bo", h, w))(
            x, jax.jit(jnp.copy)(w["w"])
        ),
        {"w": gaussian(2, 3)},
    ),
    "moved": Case(
        lambda w, x: x @ jnp.expand_dims(w["w"].reshape(2, 3)[::-1].T, 0).squeeze(0),
        {"w": gaussian(6)},
    ),
    "scaled and shifted": Case(
        lambda w, x: x @ (1 - w["w"] * jnp.arange(6.0).reshape(3, 2) / -3.0),
        {"w": gaussian(3, 2)},
    ),
    "a point weight beside it": Case(
        lambda w, x: x @ (w["start"] + w["w"]), {"w": gaussian(3, 2), "start": numbers(3, 2)}
    ),
    "slices with nothing in common": Case(
        lambda w, x: jnp.tanh(x @ w["w"][:, :2]) * (x @ w["w"][:, 2:4]) + x @ w["w"][:, 4:],
        {"w": gaussian(3, 6)},
    ),
    "split": Case(
        lambda w, x: jnp.multiply(*(x @ part for part in jnp.split(w["w"], 2, axis=1))),
        {"w": gaussian(3, 4)},
    ),
    "heads": Case(
        lambda w, x: jnp.einsum("bhi,hio->bho", x, w["w"]),
        {"w": gaussian(2, 3, 2)},
        x=numbers(4, 2, 3),
    ),
    "row by row": Case(
        lambda w, x: jax.vmap(lambda row: jnp.tanh(row @ w["w"]))(x), {"w": gaussian(3, 2)}
    ),
    "checkpoint": Case(
        lambda w, x: hidden(hidden(x, w["a"]), w["b"]), {"a": gaussian(3, 4), "b": gaussian(4, 2)}
    ),
    "cond": Case(
        lambda w, x: lax.cond(x.sum() > 0, lambda x: jnp.tanh(x @ w["a"]), lambda x: x @ w["b"], x),
        {"a": gaussian(3, 2), "b": gaussian(3, 2, seed=3)},
    ),
    "layers in a scan": Case(
        lambda w, x: lax.scan(
            jax.checkpoint(lambda h, layer: (jnp.tanh(h @ layer["w"] + layer["b"]), None)), x, w
        )[0],
        {"w": gaussian(3, 3, 3), "b": gaussian(3, 3, seed=2)},
        plain=("b",),
    ),
    "outputs of a scan": Case(
        lambda w, x: jnp.moveaxis(
            lax.scan(lambda c, w: (c, c @ w), x, w["w"], reverse=True)[1], 0, 1
        ),
        {"w": gaussian(2, 3, 2)},
    ),
    "scales and embeddings": Case(
        lambda w, x: normalised(x + w["e"][jnp.argmax(x, 1)]) * w["s"] @ w["w"],
        {"e": gaussian(3, 3), "s": gaussian(3), "w": gaussian(3, 2)},
        plain=("e", "s"),
    ),
    "a first state that is learned": Case(
        lambda w, x: lax.scan(lambda h, w: (jnp.tanh(x + h @ w), None), w["h"], w["w"])[0],
        {"h": gaussian(4, 3), "w": gaussian(2, 3, 3)},
        plain=("h",),
    ),
    "a row of zeros": Case(lambda w, x: (0 * x) @ w["w"], {"w": gaussian(3, 2)}),
    "a convolution": Case(
        lambda w, x: lax.conv_general_dilated(x, w["w"], (1, 1), "SAME"),
        {"w": gaussian(4, 2, 3, 3)},
        x=numbers(2, 2, 4, 4, seed=8),
        positions=True,
    ),
}


def moments(case: Case, y: jax.Array) -> Any:
    """Of each row's outputs: the mean and the covariance, and the spread of both."""
    y = y.reshape(DRAWS, len(case.x), -1)
    mean = y.mean(0)
    deviations = y - mean
    if case.positions:
        products = deviations**2
    else:
        products = jnp.einsum("nri,nrj->nrij", deviations, deviations)
    return (mean, products.mean(0)), (y.std(0), products.std(0))


@pytest.mark.few(4)
@pytest.mark.parametrize("name", CASES)
def test_each_row_has_the_mean_and_covariance_of_plain_draws(name: str) -> None:
    case = CASES[name]
    random = {n for n, w in case.weights.items() if isinstance(w, Gaussian)}
    found = layers_found(case.function, case.weights, case.x)
    assert {n: layer.kind for n, layer in found.items()} == {
        n: "plain" if n in case.plain else "local" for n in random
    }
    twins = jnp.broadcast_to(case.x[:1], case.x.shape)
    names = sorted(random)

    def draws(estimator: Estimator, key: jax.Array) -> jax.Array:
        one = lambda k: apply_random(case.function, case.weights, (case.x,), k, estimator)  # noqa: E731
        return jax.vmap(one)(jax.random.split(key, DRAWS))

    def apart(estimator: Estimator, has_noise: jax.Array) -> jax.Array:
        """How far twins are apart where only some weights have noise."""
        weights = dict(case.weights)
        for name, on in zip(names, has_noise, strict=True):
            weights[name] = Gaussian(weights[name].loc, on * weights[name].scale)
        y = apply_random(case.function, weights, (twins,), KEY, estimator)
        return jnp.abs(y[0] - y[1]).max()

    @jax.jit
    def run(keys: jax.Array) -> Any:
        estimators: tuple[Estimator, ...] = ("plain", "local", "flipout")
        by_weight = [
            jax.vmap(lambda on, e=e: apart(e, on))(jnp.eye(len(names))) for e in estimators[1:]
        ]
        moved = [moments(case, draws(e, k)) for e, k in zip(estimators, keys, strict=True)]
        return moved, by_weight

    (plain, *others), distances = run(jax.random.split(KEY, 3))
    for other in others:
        for a, b, s, t in zip(other[0], plain[0], other[1], plain[1], strict=True):
            error = np.sqrt((s**2 + t**2) / DRAWS)
            assert (jnp.abs(a - b) <= 5.5 * error + 1e-6).all()
    if name not in ("a row of zeros", "a first state that is learned", "cond"):
        for distance in distances:
            assert (distance > 1e-4).tolist() == [n not in case.plain for n in names]


@pytest.mark.parametrize("name", ["two layers and biases", "layers in a scan", "cond", "split"])
def test_eager_equals_jit(name: str) -> None:
    case = CASES[name]
    run = lambda key: apply_random(case.function, case.weights, (case.x,), key, "local")  # noqa: E731
    np.testing.assert_allclose(run(KEY), jax.jit(run)(KEY), rtol=1e-4, atol=1e-5)


# ---- what cannot be moved ------------------------------------------------------------------------


@jax.custom_vjp
def clipped(x: Any, w: Any) -> Any:
    return x @ w


def forward(x: Any, w: Any) -> Any:
    return x @ w, (x, w)


def backward(kept: Any, slope: Any) -> Any:
    x, w = kept
    return jnp.clip(slope @ w.T, -1, 1), x.T @ slope


clipped.defvjp(forward, backward)


@jax.custom_jvp
def straight_through(x: Any, w: Any) -> Any:
    return jnp.round(x) @ w


straight_through.defjvp(lambda p, t: (straight_through(*p), t[0] @ p[1] + p[0] @ t[1]))


def recurrent(w: Any, x: Any) -> Any:
    return lax.scan(lambda h, row: (jnp.tanh(h @ w["w"] + row), None), x, x[None])[0]


def repeated(w: Any, x: Any) -> Any:
    return lax.fori_loop(0, jnp.argmax(x[0]) + 1, lambda _, h: jnp.tanh(h @ w["w"]), x)


def until(w: Any, x: Any) -> Any:
    return lax.while_loop(lambda h: (h @ w["w"]).sum() > 1e9, lambda h: h + 1, x)


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "used twice": (lambda w, x: jnp.tanh(x @ w["w"]) @ w["w"], "is used more than once"),
    "used beside its product": (lambda w, x: x @ w["w"] + w["w"][0], "is used more than once"),
    "slices with something in common": (
        lambda w, x: x @ w["w"][:, :2] + x @ w["w"][:, 1:],
        "is used more than once",
    ),
    "returned": (lambda w, x: (x @ w["w"], w["w"]), "is used more than once"),
    "with itself": (lambda w, x: x @ (w["w"] @ w["w"]), "is used more than once"),
    "a function of it": (lambda w, x: x @ jnp.exp(w["w"]), "is used by exp"),
    "normalised": (
        lambda w, x: x @ (w["w"] / jnp.linalg.norm(w["w"])),
        "is used more than once",
    ),
    "gated by the inputs": (lambda w, x: x @ (w["w"] * x[:3].T), "is used by mul"),
    "copies": (lambda w, x: x @ jnp.tile(w["w"], (1, 2)), "is used by"),
    "masked": (lambda w, x: x @ jnp.where(jnp.eye(3) > 0, w["w"], 0), "is used by select_n"),
    "with what no input reaches": (
        lambda w, x: x @ (w["w"] @ jnp.ones((3, 2))),
        "enters a product with what does not depend on the inputs",
    ),
    "every step of a scan": (recurrent, "is used at every step of a scan"),
    "carried through a scan": (
        lambda w, x: lax.scan(lambda c, _: ((c[0] @ c[1], c[1].T), None), (x, w["w"]), length=2)[0][
            0
        ],
        "is carried through a scan",
    ),
    "returned by a scan": (
        lambda w, x: x @ lax.scan(lambda c, w: (c, -w), 0, w["w"])[1],
        "is returned by a scan",
    ),
    "a while loop": (repeated, "is used in a while loop"),
    "a while loop's condition": (until, "is used in a while loop"),
    "returned by cond": (
        lambda w, x: x @ lax.cond(x.sum() > 0, lambda w: w, lambda w: -w, w["w"]),
        "is returned by a branch of cond",
    ),
    "custom_vjp": (lambda w, x: clipped(x, w["w"]), "custom_vjp_call, whose own derivative"),
    "custom_jvp": (lambda w, x: straight_through(x, w["w"]), "custom_jvp_call, whose own"),
    "the right side of a solve": (
        lambda w, x: x @ jax.scipy.linalg.solve_triangular(jnp.eye(3), w["w"]),
        "is used by triangular_solve",
    ),
    "the matrix of a solve": (
        lambda w, x: jnp.linalg.solve(jnp.eye(3) + w["w"], x.T).T,
        "is used",
    ),
    "an image": (
        lambda w, x: lax.conv(w["w"][None, None], x[:1, :][None, None], (1, 1), "SAME"),
        "is convolved, as if it were an image",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_local_is_an_error_unless_it_is_listed(name: str) -> None:
    function, why = REFUSED[name]
    (layer,) = layers_found(function, {"w": SQUARE}, X).values()
    assert layer.kind == "refused"
    assert why in layer.why

    def run(estimator: Estimator, *plain: str) -> Any:
        return apply_random(function, {"w": SQUARE}, (X,), KEY, estimator, plain)

    jitted = jax.jit(run, static_argnums=(0, 1))
    for call, estimator in ((run, "local"), (jitted, "flipout")):
        with pytest.raises(ValueError, match=rf"'w' .*{why}.*plain=\['w'\]"):
            call(estimator)
    expected = jitted("plain")
    for a, b in zip(*map(jax.tree.leaves, (jitted("local", "w"), expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_custom_rule_is_kept() -> None:
    """A network of which another part has a rule of its own keeps that rule under local."""

    @jax.custom_vjp
    def reversed_slope(x: Any) -> Any:
        return x

    reversed_slope.defvjp(lambda x: (x, None), lambda _, slope: (-slope,))
    weight = Gaussian(jnp.ones((3, 2)), jnp.zeros((3, 2)))

    def total(x: Any) -> Any:
        return apply_random(lambda w, x: reversed_slope(x) @ w, weight, (x,), KEY, "local").sum()

    np.testing.assert_allclose(jax.grad(total)(X), jnp.full_like(X, -2.0))


def test_the_rewrite_is_the_layer_written_by_hand() -> None:
    """Same key, same noise: y = x mu + sqrt(x^2 sigma^2) e."""
    weight = gaussian(3, 2)
    found = apply_random(lambda w, x: x @ w, weight, (X,), KEY, "local")
    noise = fv.sample(dist.Normal(jnp.zeros((4, 2)), 1.0), jax.random.split(KEY, 1)[0])
    by_hand = X @ weight.loc + jnp.sqrt(X**2 @ weight.scale**2) * noise
    np.testing.assert_allclose(found, by_hand, rtol=1e-5, atol=1e-6)


def test_every_primitive_that_is_recognised_is_one_that_jax_makes() -> None:
    """If JAX writes an operation with another primitive, layers would be refused or lost."""
    w = jnp.ones((4, 4))
    square = lambda x: x @ x  # noqa: E731
    made = {
        lax.dot_general_p: lambda: square(w),
        lax.conv_general_dilated_p: lambda: lax.conv(w[None, None], w[None, None], (1, 1), "SAME"),
        primitives.jit_p: lambda: jax.jit(square)(w),
        primitives.remat_p: lambda: jax.checkpoint(square)(w),
        primitives.closed_call_p: lambda: core.jaxpr_as_fun(jax.make_jaxpr(square)(w))(w),
        primitives.custom_jvp_call_p: lambda: jax.nn.relu(w),
        primitives.custom_vjp_call_p: lambda: clipped(w, w),
        lax.scan_p: lambda: lax.scan(lambda c, _: (c @ c, None), w, length=2)[0],
        lax.while_p: lambda: lax.while_loop(lambda x: x.sum() < 0, square, w),
        lax.cond_p: lambda: lax.cond(w.sum() > 0, square, square, w),
        lax.slice_p: lambda: w[1:],
        lax.split_p: lambda: jnp.split(w, 2)[0],
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
        getattr(layers, n)
        for n in ("PRODUCTS", "CALLS", "CUSTOM", "MOVING", "LINEAR", "SOLVES", "SUMS")
    }
    for primitive in {p for group in known for p in group} | {lax.scan_p, lax.while_p, lax.cond_p}:
        jaxpr = jax.make_jaxpr(made[primitive])().jaxpr
        assert primitive in set(_all(jaxpr)) | {primitives.closed_call_p}, primitive


def _all(jaxpr: core.Jaxpr) -> Any:
    for equation in jaxpr.eqns:
        yield equation.primitive
        for inner in core.jaxprs_in_params(equation.params):
            yield from _all(inner)
