"""Gradients of expectations, in every parameter, against differences of a quadrature over the
density, for each scalar family."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import funcvi as fv

DRAWS = 50_000

# Double exponential quadrature (Takahasi and Mori 1974, doi:10.2977/prims/1195192451).
_T = np.linspace(-4.2, 4.2, 4001)
_SINH, _SLOPE = np.pi / 2 * np.sinh(_T), np.pi / 2 * np.cosh(_T) * (_T[1] - _T[0])
NODES: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "real": (np.sinh(_SINH), np.cosh(_SINH) * _SLOPE),
    "positive": (np.exp(_SINH), np.exp(_SINH) * _SLOPE),
    "unit": (
        1 / (1 + np.exp(-2 * _SINH)),
        2 * _SLOPE * np.exp(-2 * np.abs(_SINH)) / (1 + np.exp(-2 * np.abs(_SINH))) ** 2,
    ),
}

CASES: dict[str, tuple[Callable[..., Any], tuple[float, ...], str]] = {
    "Normal": (dist.Normal, (0.4, 1.3), "real"),
    "Laplace": (dist.Laplace, (0.4, 1.3), "real"),
    "Logistic": (dist.Logistic, (0.4, 0.7), "real"),
    "Gumbel": (dist.Gumbel, (0.4, 1.3), "real"),
    "Cauchy": (dist.Cauchy, (0.4, 1.3), "real"),
    "AsymmetricLaplace": (dist.AsymmetricLaplace, (0.4, 1.3, 0.8), "real"),
    "StudentT": (dist.StudentT, (3.5, 0.4, 1.3), "real"),
    "StudentT/heavy": (dist.StudentT, (0.6, 0.4, 1.3), "real"),
    "HalfNormal": (dist.HalfNormal, (1.3,), "positive"),
    "HalfCauchy": (dist.HalfCauchy, (1.3,), "positive"),
    "Exponential": (dist.Exponential, (1.3,), "positive"),
    "LogNormal": (dist.LogNormal, (0.4, 0.8), "positive"),
    "Weibull": (dist.Weibull, (1.3, 1.7), "positive"),
    "Gamma/small": (dist.Gamma, (0.3, 0.8), "positive"),
    "Gamma": (dist.Gamma, (2.5, 1.8), "positive"),
    "Gamma/large": (dist.Gamma, (60.0, 50.0), "positive"),
    "InverseGamma": (dist.InverseGamma, (2.5, 1.8), "positive"),
    "Chi2": (dist.Chi2, (1.7,), "positive"),
    "Beta": (dist.Beta, (2.5, 0.8), "unit"),
    "Beta/small": (dist.Beta, (0.3, 0.4), "unit"),
    "BetaProportion": (dist.BetaProportion, (0.4, 3.5), "unit"),
    "Kumaraswamy": (dist.Kumaraswamy, (1.5, 2.5), "unit"),
}


def bounded(x: Any) -> Any:
    return jnp.sin(2 * jnp.tanh(x - 0.3))


def expectation(family: Callable[..., Any], params: np.ndarray, where: str) -> tuple[float, float]:
    """Of ``bounded``, and of one."""
    x, weights = NODES[where]
    kept = (x > 0) & (x < 1) if where == "unit" else np.isfinite(x)
    x, weights = x[kept], weights[kept]
    with jax.enable_x64(True):
        d = family(*(jnp.float64(p) for p in params), validate_args=False)
        density = np.exp(np.asarray(d.log_prob(jnp.asarray(x))))
        values = np.asarray(bounded(jnp.asarray(x)))
    density = np.where(np.isnan(density), 0.0, density)
    return float(values @ (weights * density)), float(weights @ density)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gradient_of_an_expectation(name: str) -> None:
    family, params, where = CASES[name]
    start, h = np.array(params), 1e-4
    assert expectation(family, start, where)[1] == pytest.approx(1.0, abs=1e-6)

    def value(params: Any, key: Any) -> Any:
        return bounded(fv.sample(family(*params, validate_args=False), key))

    keys = jax.random.split(jax.random.key(zlib.crc32(name.encode())), DRAWS)
    each = jax.jit(jax.vmap(jax.value_and_grad(value), (None, 0)))(
        tuple(map(jnp.float32, params)), keys
    )
    values, slopes = np.asarray(each[0], float), np.stack(each[1]).astype(float)
    error = values.std() / np.sqrt(DRAWS)
    assert abs(values.mean() - expectation(family, start, where)[0]) < 4.5 * error
    for i, slope in enumerate(slopes):
        step = h * np.eye(len(start))[i]
        up, down = (expectation(family, start + s * step, where)[0] for s in (1, -1))
        error = slope.std() / np.sqrt(DRAWS)
        assert np.isfinite(slope).all()
        assert abs(slope.mean() - (up - down) / (2 * h)) < 4.5 * error + 1e-6, (name, i)


def test_gradient_in_a_moving_bound() -> None:
    """The mean of ``bounded`` over (0, high) is an integral, so its derivative is two values."""

    def mean(high: Any, key: Any) -> Any:
        return bounded(fv.sample(dist.Uniform(0.0, high), key))

    keys = jax.random.split(jax.random.key(0), DRAWS)
    slopes = np.asarray(jax.jit(jax.vmap(jax.grad(mean), (None, 0)))(1.0, keys), float)
    inside, _ = expectation(lambda validate_args: dist.Uniform(0.0, 1.0), np.array([]), "unit")
    exact = float(bounded(1.0)) - inside
    assert abs(slopes.mean() - exact) < 4.5 * slopes.std() / np.sqrt(DRAWS)
