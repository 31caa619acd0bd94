"""Draws of mixtures of vectors: each coordinate moves given those before it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import funcvi as fv
from funcvi.sampling.mixture import at_fixed_quantile
from tests.funcvi.sampling.test_mixture import KEY, same, slopes, weights


def second_given_first(t: Any, x: Any, parts: Any) -> Any:
    """Distribution functions of the first coordinate, and of the second one given it.

    ``parts(t)`` lists, for each component, the first's law and the second's one given the first.
    """
    first, conditional = zip(*parts(t, x[0]), strict=True)
    w = np.array([t[0], 1 - t[0]])
    posterior = w * [c.pdf(x[0]) for c in first]
    posterior /= posterior.sum()
    return np.array(
        [
            w @ [c.cdf(x[0]) for c in first],
            posterior @ [c.cdf(x[1]) for c in conditional],
        ]
    )


def factors(t: Any) -> Any:
    return jnp.stack(
        [
            jnp.array([[t[5], 0.0], [t[6], t[7]]]),
            jnp.array([[t[8], 0.0], [t[9], t[10]]]),
        ]
    )


def normal_parts(t: Any, x: Any) -> Any:
    for k in range(2):
        loc, (a, b, c) = t[1 + 2 * k : 3 + 2 * k], t[5 + 3 * k : 8 + 3 * k]
        yield stats.norm(loc[0], a), stats.norm(loc[1] + b * (x - loc[0]) / a, c)


NORMALS = [0.3, 0.4, -0.2, 1.1, 0.7, 0.9, 0.4, 0.8, 1.2, -0.5, 0.6]
VECTORS: dict[str, tuple[Any, Any, list[float]]] = {
    "Independent Normal": (
        same(lambda t: dist.Normal(t[1:5].reshape(2, 2), t[5:9].reshape(2, 2)).to_event(1)),
        lambda t, x: [
            (stats.norm(t[1], t[5]), stats.norm(t[2], t[6])),
            (stats.norm(t[3], t[7]), stats.norm(t[4], t[8])),
        ],
        [0.3, 0.4, -0.2, 1.1, 0.7, 0.9, 0.4, 0.8, 1.2],
    ),
    "Independent Gamma": (
        same(lambda t: dist.Gamma(t[1:5].reshape(2, 2), t[5:9].reshape(2, 2)).to_event(1)),
        lambda t, x: [
            (stats.gamma(t[1], scale=1 / t[5]), stats.gamma(t[2], scale=1 / t[6])),
            (stats.gamma(t[3], scale=1 / t[7]), stats.gamma(t[4], scale=1 / t[8])),
        ],
        [0.3, 2.4, 0.7, 1.1, 3.7, 0.9, 0.4, 0.8, 1.2],
    ),
    "MultivariateNormal": (
        same(lambda t: dist.MultivariateNormal(t[1:5].reshape(2, 2), scale_tril=factors(t))),
        normal_parts,
        NORMALS,
    ),
    "MultivariateNormal by covariance": (
        same(
            lambda t: dist.MultivariateNormal(
                t[1:5].reshape(2, 2),
                covariance_matrix=factors(t) @ jnp.swapaxes(factors(t), -1, -2),
            )
        ),
        normal_parts,
        NORMALS,
    ),
    "LowRankMultivariateNormal": (
        same(
            lambda t: dist.LowRankMultivariateNormal(
                t[1:5].reshape(2, 2), t[5:9].reshape(2, 2, 1), jnp.full(2, 0.5)
            )
        ),
        lambda t, x: normal_parts(
            [
                *t[:5],
                *np.linalg.cholesky(np.outer(t[5:7], t[5:7]) + 0.5 * np.eye(2))[
                    [0, 1, 1], [0, 0, 1]
                ],
                *np.linalg.cholesky(np.outer(t[7:9], t[7:9]) + 0.5 * np.eye(2))[
                    [0, 1, 1], [0, 0, 1]
                ],
            ],
            x,
        ),
        [0.3, 0.4, -0.2, 1.1, 0.7, 0.9, 0.4, 0.8, -1.2],
    ),
    "MultivariateNormal and Independent Laplace": (
        lambda t: dist.MixtureGeneral(
            weights(t[0]),
            [
                dist.MultivariateNormal(t[1:3], scale_tril=jnp.array([[1.2, 0], [-0.5, 0.6]])),
                dist.Laplace(t[3:5], t[5]).to_event(1),
            ],
            support=dist.constraints.real_vector,
        ),
        lambda t, x: [
            (stats.norm(t[1], 1.2), stats.norm(t[2] - 0.5 * (x - t[1]) / 1.2, 0.6)),
            (stats.laplace(t[3], t[5]), stats.laplace(t[4], t[5])),
        ],
        [0.3, 0.4, -0.2, 1.1, 0.7, 0.9],
    ),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("name", VECTORS)
def test_coordinates_move_one_after_the_other(name: str) -> None:
    make, parts, theta = VECTORS[name]
    t = np.array(theta)
    points = np.array([[0.3, 0.4], [1.7, 0.2], [2.1, 2.6], [0.9, 1.4]])
    with jax.enable_x64(True):
        found = slopes(make, jnp.asarray(t), jnp.asarray(points))
    for x, slope in zip(points, found, strict=True):
        # dx = -(dS / dx)^-1 (dS / dtheta) of the two distribution functions, by differences.
        along = np.stack(
            [
                (second_given_first(t, x + e, parts) - second_given_first(t, x - e, parts)) / 2e-5
                for e in np.eye(2) * 1e-5
            ],
            axis=1,
        )
        across = np.stack(
            [
                (second_given_first(t + e, x, parts) - second_given_first(t - e, x, parts)) / 2e-5
                for e in np.eye(len(t)) * 1e-5
            ],
            axis=1,
        )
        np.testing.assert_allclose(slope, -np.linalg.solve(along, across), rtol=1e-5, atol=1e-6)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", VECTORS)
def test_draws_of_vectors_follow_the_mixture(name: str) -> None:
    make, parts, theta = VECTORS[name]
    t = np.array(theta)
    draws = np.asarray(fv.sample(make(jnp.asarray(t)), KEY, (500,)), np.float64)
    ranks = np.array([second_given_first(t, x, parts) for x in draws])
    # Ranks are uniform and independent of each other.
    for each in (*ranks.T, (ranks[:, 0] + ranks[:, 1]) % 1.0):
        assert stats.kstest(each, "uniform").pvalue > 1e-4


def test_many_coordinates_against_the_sum_over_components() -> None:
    """Ten coupled coordinates: KL by implicit draws and by enumeration, every gradient."""
    size = 10
    factor = jnp.eye(size) + jnp.tril(0.2 * jnp.sin(jnp.arange(100.0).reshape(size, size)), -1)
    params = {"w": jnp.array(0.3), "loc": jnp.linspace(-0.5, 0.5, 2 * size).reshape(2, size)}
    p = dist.Normal(jnp.zeros(size), 1.5).to_event(1)

    def loss(params: Any, key: Any, estimator: str) -> Any:
        q = dist.MixtureSameFamily(
            weights(params["w"]), dist.MultivariateNormal(params["loc"], scale_tril=factor)
        )
        return fv.kl(q, p, key=key, num_samples=20, estimator=estimator)

    def gradients(estimator: str) -> Any:
        keys = jax.random.split(KEY, 300)
        grad = jax.jit(jax.vmap(lambda k: jax.grad(loss)(params, k, estimator)))
        each = [np.asarray(g).reshape(300, -1) for g in jax.tree.leaves(grad(keys))]
        return np.concatenate(each, axis=1)

    one, other = gradients("pathwise"), gradients("enumeration")
    error = np.sqrt((one.var(0) + other.var(0)) / 300)
    assert np.all(np.abs(one.mean(0) - other.mean(0)) < 5 * error)


@pytest.mark.slow
def test_second_derivatives_of_vectors() -> None:
    """The derivative of the derivative, by differences of it along the moving point."""
    make, _, theta = VECTORS["MultivariateNormal"]
    t = np.array(theta)
    with jax.enable_x64(True):

        def moved(t: Any, x: Any) -> Any:
            return at_fixed_quantile(make(t), x)

        start, direction = jnp.array([0.3, 0.4]), jnp.asarray(np.cos(np.arange(len(t))))

        @jax.jit
        def velocity(s: Any, x: Any) -> Any:
            return jax.jvp(lambda s: moved(t + s * direction, x), (s,), (1.0,))[1]

        # The point at s = h and -h, by Runge and Kutta's step: its error is of order h**5.
        def at(h: float) -> Any:
            a = velocity(0.0, start)
            b = velocity(h / 2, start + h / 2 * a)
            c = velocity(h / 2, start + h / 2 * b)
            return start + h / 6 * (a + 2 * b + 2 * c + velocity(h, start + h * c))

        h = 1e-3
        expected = (velocity(h, at(h)) - velocity(-h, at(-h))) / (2 * h)
        _, found = jax.jvp(
            lambda s: jax.jvp(lambda s: moved(t + s * direction, start), (s,), (1.0,))[1],
            (0.0,),
            (1.0,),
        )
    np.testing.assert_allclose(found, expected, rtol=1e-4)
