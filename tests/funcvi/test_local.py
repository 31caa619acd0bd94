"""Local reparameterisation and flipout, held to plain draws over the ways in which a weight enters.

Each row's output has the mean and the covariance of plain draws, by every estimator; what has no
noise by row is drawn once by default, and an error names it where an estimator is asked for.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

import funcvi as fv
from funcvi.networks import layers_found
from funcvi.networks.local import Estimator, Gaussian, apply_random
from tests.funcvi.ways_in import KEY, ROWS, WAYS, Way, gaussian, numbers

DRAWS = 5_000
X = numbers(ROWS, 3, seed=8)
SQUARE = gaussian(3, 3)


def random_of(way: Way) -> list[str]:
    return sorted(n for n, w in way.weights.items() if isinstance(w, Gaussian))


def plain_draws(way: Way) -> Any:
    """Of the weights, by numpy."""
    rng = np.random.default_rng(3)

    def draw(w: Gaussian) -> jax.Array:
        noise = rng.standard_normal((DRAWS, *w.loc.shape))
        return jnp.asarray(w.loc + w.scale * noise, w.loc.dtype)

    return {n: draw(way.weights[n]) for n in random_of(way)}


def moments(y: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Of each row's outputs: the mean and the covariance, and the standard error of each."""
    y = y.reshape(DRAWS, min(ROWS, y.shape[1]), -1)
    deviations = y - y.mean(0)
    products = jnp.einsum("nri,nrj->nrij", deviations, deviations)
    return [(each.mean(0), each.std(0) / DRAWS**0.5) for each in (y, products)]


@pytest.mark.parametrize("name", WAYS)
def test_what_becomes_of_a_weight_is_told(name: str) -> None:
    way = WAYS[name]
    found = layers_found(way.function, way.weights, way.x)
    kinds = {n: layer.kind for n, layer in found.items()}
    assert kinds == {n: way.kinds.get(n, "local") for n in random_of(way)}
    assert all(way.why in layer.why for layer in found.values() if layer.kind == "refused")


@pytest.mark.few(8)
@pytest.mark.parametrize("name", WAYS)
def test_each_row_has_the_mean_and_covariance_of_plain_draws(name: str) -> None:
    way = WAYS[name]

    def by(estimator: Estimator | None, keys: jax.Array) -> Any:
        one = lambda k: apply_random(way.function, way.weights, (way.x,), k, estimator)  # noqa: E731
        return moments(jax.vmap(one)(keys))

    @jax.jit
    def run(key: jax.Array, draws: Any) -> Any:
        estimators: list[Estimator | None] = [None]
        if "refused" not in way.kinds.values():
            estimators += ["local", "flipout"]
        keys = jax.random.split(key, (len(estimators), DRAWS))
        expected = jax.vmap(lambda w: way.function({**way.weights, **w}, way.x))(draws)
        return moments(expected), [by(e, k) for e, k in zip(estimators, keys, strict=True)]

    expected, others = run(KEY, plain_draws(way))
    for other in others:
        for (a, s), (b, t) in zip(other, expected, strict=True):
            assert (jnp.abs(a - b) <= 5.5 * jnp.hypot(s, t) + 1e-5).all()


WITHOUT_TWINS = ("a row of zeros", "a first state that is learned", "pairs of rows", "cond")
WITHOUT_TWINS += ("rows that have met before",)
BY_ROW = [
    n for n, w in WAYS.items() if "refused" not in w.kinds.values() and n not in WITHOUT_TWINS
]


@pytest.mark.few(4)
@pytest.mark.parametrize("name", BY_ROW)
def test_the_noise_of_rows_is_apart_where_it_is_said_to_be(name: str) -> None:
    """Equal rows, with one weight's noise alone, differ unless it is drawn once."""
    way = WAYS[name]
    twins = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape) if len(x) == ROWS else x, way.x)

    @jax.jit
    def apart(on: jax.Array) -> list[jax.Array]:
        weights = dict(way.weights)
        for n, scale in zip(random_of(way), on, strict=True):
            weights[n] = Gaussian(weights[n].loc, scale * weights[n].scale)
        estimators: tuple[Estimator, ...] = ("local", "flipout")
        ys = [apply_random(way.function, weights, (twins,), KEY, e) for e in estimators]
        return [jnp.ptp(y.reshape(min(ROWS, len(y)), -1), axis=0).max() for y in ys]

    for distance in jax.vmap(apart)(jnp.eye(len(random_of(way)))):
        kinds = [way.kinds.get(n, "local") for n in random_of(way)]
        assert (distance > 1e-4).tolist() == [kind != "plain" for kind in kinds]


@pytest.mark.few(6)
@pytest.mark.parametrize("name", [n for n, w in WAYS.items() if "refused" in w.kinds.values()])
def test_what_has_no_noise_by_row_is_drawn_once_or_named(name: str) -> None:
    way = WAYS[name]
    refused = [n for n, kind in way.kinds.items() if kind == "refused"]

    def run(estimator: Estimator | None, *plain: str) -> Any:
        return apply_random(way.function, way.weights, (way.x,), KEY, estimator, plain)

    jitted = jax.jit(run, static_argnums=(0, 1, 2))
    for call, estimator in ((run, "local"), (jitted, "flipout")):
        with pytest.raises(ValueError, match=re.escape(f"'{refused[0]}' ")) as error:
            call(estimator)
        assert all(f"'{n}'" in str(error.value) for n in refused)
        assert str(error.value).count("\n") < 3
    np.testing.assert_array_equal(jitted("local", *refused), jitted(None))
    if refused == random_of(way):
        np.testing.assert_array_equal(jitted(None), jitted("plain"))


ELBOS = ["times a matrix of the inputs", "with each row of the batch", "both factors random"]
ELBOS += ["times all rows", "a convolution", "a sequence and its sum"]


@pytest.mark.few(2)
@pytest.mark.parametrize("name", ELBOS)
def test_the_elbo_is_that_of_plain_draws(name: str) -> None:
    """Of a likelihood that sees the covariance of a row's outputs, against numpy's draws."""
    way = WAYS[name]
    means = {n: w.loc if isinstance(w, Gaussian) else w for n, w in way.weights.items()}
    random = random_of(way)
    net = fv.bayesian(way.function, means, dist.Normal(0.0, 1.0), only=random, scale=0.3)
    x = way.x if isinstance(way.x, tuple) else (way.x,)
    if isinstance(way.x, tuple):
        net = fv.bayesian(
            lambda w, *x: way.function(w, x), means, dist.Normal(0.0, 1.0), only=random, scale=0.3
        )

    def log_likelihood(output: Any, y: Any) -> Any:
        return -0.5 * (output.reshape(ROWS, -1).sum(1) - y) ** 2

    y = jnp.zeros(ROWS)
    loss = net.negative_elbo(log_likelihood, data_size=ROWS)
    keys = jax.random.split(KEY, DRAWS)
    values = jax.jit(jax.vmap(lambda k: loss(net.params, k, x, y)))(keys)
    draws = plain_draws(
        way._replace(weights={n: Gaussian(means[n], jnp.full_like(means[n], 0.3)) for n in random})
    )
    rows = jax.vmap(lambda w: log_likelihood(way.function({**means, **w}, way.x), y))(draws)
    expected = net.kl(net.params) - rows.sum(1)
    error = np.hypot(values.std(), expected.std()) / DRAWS**0.5
    assert abs(values.mean() - expected.mean()) < 5 * error


@pytest.mark.parametrize("name", ["a convolution", "attention", "time first", "layers in a scan"])
def test_one_row_is_a_batch(name: str) -> None:
    """Although JAX drops its axis on the way: the last batch of an epoch may be one row."""
    way = WAYS[name]
    found = layers_found(way.function, way.weights, way.x[:1])
    assert {n: v.kind for n, v in found.items()} == {
        n: way.kinds.get(n, "local") for n in random_of(way)
    }
    for estimator in ("local", "flipout"):
        y = apply_random(way.function, way.weights, (way.x[:1],), KEY, estimator)
        assert jnp.isfinite(y).all()


@pytest.mark.parametrize("name", ["two layers and biases", "layers in a scan", "cond", "attention"])
def test_eager_equals_jit(name: str) -> None:
    way = WAYS[name]
    run = lambda key: apply_random(way.function, way.weights, (way.x,), key, "local")  # noqa: E731
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


def repeated(w: Any, x: Any) -> Any:
    return lax.fori_loop(0, jnp.argmax(x[0]) + 1, lambda _, h: jnp.tanh(h @ w["w"]), x)


def until(w: Any, x: Any) -> Any:
    return lax.while_loop(lambda h: (h @ w["w"]).sum() > 1e9, lambda h: h + 1, x)


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "used beside its product": (lambda w, x: x @ w["w"] + w["w"][0], "is used more than once"),
    "slices with something in common": (
        lambda w, x: x @ w["w"][:, :2] + x @ w["w"][:, 1:],
        "is used more than once",
    ),
    "returned": (lambda w, x: (x @ w["w"], w["w"]), "is used more than once"),
    "a function of it": (lambda w, x: x @ jnp.exp(w["w"]), "is used by exp"),
    "normalised": (
        lambda w, x: x @ (w["w"] / jnp.linalg.norm(w["w"])),
        "is used more than once",
    ),
    "gated by the inputs": (lambda w, x: x @ (w["w"] * x[:3].T), "is used by mul"),
    "copies": (lambda w, x: x @ jnp.tile(w["w"], (1, 2)), "is used by"),
    "one example": (lambda w, x: x[0] @ w["w"], "does not keep the rows of the batch"),
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
    "rows contracted": (lambda w, x: x.T @ jnp.ones((4, 3)) @ w["w"], "does not keep the rows"),
    "a vector and a running sum": (
        lambda w, x: jnp.cumsum(x * w["w"][0], axis=1)[:, -1],
        "is ",
    ),
    "in Fourier space": (
        lambda w, x: jnp.real(jnp.fft.ifft(jnp.fft.fft(x) * jnp.fft.fft(w["w"][0]))),
        "is ",
    ),
    "a matrix gated by each row": (
        lambda w, x: jnp.einsum("bi,bio->bo", x, w["w"] * jnp.tanh(x)[:, :, None]),
        "is used by",
    ),
    "a matrix and a mean": (
        lambda w, x: jnp.mean(w["w"] * x[:, :, None], axis=1),
        "is multiplied with the inputs entry by entry, and the result summed",
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


PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "a scale": lambda w, x: jnp.tanh(x * w[0] + 1).sum(-1),
    "a scale before a product": lambda w, x: (x * w[0]) @ jnp.ones((3, 2)),
    "a scale of channels, and a pool": lambda w, x: lax.reduce_window(
        jnp.stack([x, -x], 1) * w[0], 0.0, lax.add, (1, 2, 1), (1, 2, 1), "VALID"
    ),
    "a scale of channels, and a sum over positions": lambda w, x: (
        jnp.stack([x, -x], 1) * w[0]
    ).sum(1),
}


@pytest.mark.parametrize("name", PLAIN)
def test_scales_are_plain(name: str) -> None:
    (layer,) = layers_found(PLAIN[name], SQUARE, X).values()
    assert layer.kind == "plain", layer.why


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
