"""Distributions of one's own that bring a record along, known by their cdf and density alone."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

import funcvi as fv
from funcvi.sampling import Record, from_cdf, pathwise_obstacle, score_obstacle
from tests.funcvi.sampling.exponentiated import ExponentiatedKumaraswamy

KEY = jax.random.key(5)
NUMBER = 40_000


class Lomax(dist.Distribution):
    """``F(x) = 1 - (1 + x)**-a`` on the half line."""

    arg_constraints: ClassVar[Any] = {"a": constraints.positive}
    support = constraints.positive
    sampling_record = from_cdf("positive")

    def __init__(self, a: Any) -> None:
        self.a = jnp.asarray(a)
        super().__init__(self.a.shape, validate_args=False)

    def cdf(self, x: Any) -> Any:
        return -jnp.expm1(-self.a * jnp.log1p(x))

    def log_prob(self, x: Any) -> Any:
        return jnp.log(self.a) - (self.a + 1) * jnp.log1p(x)


class SkewLogistic(dist.Distribution):
    """``F(x) = sigmoid(x)**a`` on the line."""

    arg_constraints: ClassVar[Any] = {"a": constraints.positive}
    support = constraints.real
    sampling_record = from_cdf("real")

    def __init__(self, a: Any) -> None:
        self.a = jnp.asarray(a)
        super().__init__(self.a.shape, validate_args=False)

    def cdf(self, x: Any) -> Any:
        return jnp.exp(self.a * jax.nn.log_sigmoid(x))

    def log_prob(self, x: Any) -> Any:
        return jnp.log(self.a) + self.a * jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x)


OWN: dict[str, tuple[Any, tuple[float, ...]]] = {
    "ExponentiatedKumaraswamy": (ExponentiatedKumaraswamy, (1.7, 2.3, 0.6)),
    "Lomax": (Lomax, (2.6,)),
    "SkewLogistic": (SkewLogistic, (0.4,)),
}


def bounded(x: Any) -> Any:
    return jnp.sin(jnp.tanh(x - 0.3) + 0.4)


def expectation(make: Any, params: Any) -> float:
    """By the trapezoid rule over quantiles, in float64."""
    with jax.enable_x64(True):
        d = make(*(jnp.float64(p) for p in params))
        low, high = {"unit": (-40.0, 40.0), "positive": (-60.0, 25.0), "real": (-80.0, 80.0)}[
            "unit"
            if d.support is constraints.unit_interval
            else "positive"
            if d.support is constraints.positive
            else "real"
        ]
        t = jnp.linspace(low, high, 40_001)
        if d.support is constraints.unit_interval:
            x, log_slope = jax.nn.sigmoid(t), jax.nn.log_sigmoid(t) + jax.nn.log_sigmoid(-t)
        elif d.support is constraints.positive:
            x, log_slope = jnp.exp(t), t
        else:
            x, log_slope = t, jnp.zeros_like(t)
        inside = (x > 0) & (x < 1) if d.support is constraints.unit_interval else x == x
        x = jnp.where(inside, x, 0.5)
        weight = jnp.where(inside, jnp.exp(d.log_prob(x) + log_slope), 0)
        return float(jnp.trapezoid(weight * bounded(x), t))


@pytest.mark.parametrize("name", OWN)
def test_law_mean_and_gradient(name: str) -> None:
    make, params = OWN[name]

    def value(params: Any, key: Any) -> Any:
        return bounded(fv.sample(make(*params), key))

    x = fv.sample(make(*params), KEY, (NUMBER,))
    assert x.dtype == jnp.float32
    assert stats.kstest(np.asarray(x), lambda t: np.asarray(make(*params).cdf(t))).pvalue > 1e-3
    f = np.asarray(bounded(x), np.float64)
    exact = expectation(make, params)
    assert abs(f.mean() - exact) < 5 * f.std() / np.sqrt(NUMBER)

    keys = jax.random.split(KEY, NUMBER)
    slopes = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(tuple(map(jnp.float32, params)), keys)
    for i, slope in enumerate(np.asarray(s, np.float64) for s in slopes):
        ends = [
            expectation(make, [p + h * (i == j) for j, p in enumerate(params)])
            for h in (1e-4, -1e-4)
        ]
        error = slope.std() / np.sqrt(NUMBER)
        assert abs(slope.mean() - (ends[0] - ends[1]) / 2e-4) < 5 * error + 1e-5


@pytest.mark.parametrize("name", OWN)
def test_eager_equals_jit_and_nothing_stands_in_the_way(name: str) -> None:
    make, params = OWN[name]

    def total(params: Any) -> Any:
        return bounded(fv.sample(make(*params), KEY, (3,))).sum()

    start = tuple(map(jnp.float32, params))
    np.testing.assert_allclose(total(start), jax.jit(total)(start), rtol=1e-5)
    for a, b in zip(jax.grad(total)(start), jax.jit(jax.grad(total))(start), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    assert pathwise_obstacle(make(*params)) is None
    assert score_obstacle(make(*params)) is None


def test_float64_to_the_last_bits_and_bad_parameters_are_nan() -> None:
    with jax.enable_x64(True):
        d = Lomax(jnp.float64(2.6))
        x = fv.sample(d, KEY, (5,))
        assert x.dtype == jnp.float64
        assert np.isnan(jax.jit(lambda a: fv.sample(Lomax(a), KEY, (5,)))(jnp.nan)).all()


@pytest.mark.parametrize("name", OWN)
def test_a_mixture_of_them_moves_with_its_weights(name: str) -> None:
    """The derivative of a quantile is ``-(dF/dw) / p``."""
    make, params = OWN[name]
    pair = tuple(jnp.stack([jnp.float32(p), jnp.float32(1.9 * p)]) for p in params)

    def mixture(w: Any) -> Any:
        return dist.MixtureSameFamily(dist.Categorical(probs=jnp.stack([w, 1 - w])), make(*pair))

    def draw(w: Any) -> Any:
        return fv.sample(mixture(w), KEY, (4,))

    w = jnp.float32(0.3)
    x, slope = jax.jvp(draw, (w,), (jnp.ones(()),))
    first, second = make(*pair).cdf(x[:, None]).T
    np.testing.assert_allclose(
        slope, (second - first) * jnp.exp(-mixture(w).log_prob(x)), rtol=2e-3, atol=1e-5
    )


# ---- whose record it is --------------------------------------------------------------------------


def test_a_record_that_is_none_is_refused() -> None:
    class Wrong(dist.Normal):
        sampling_record = "normal"

    with pytest.raises(TypeError, match=r"Wrong.sampling_record must be a funcvi.sampling.Record"):
        fv.sample(Wrong(), KEY)


def test_a_record_counts_before_the_table() -> None:
    class Sevens(dist.Normal):
        sampling_record = Record(
            lambda d, key, shape: jnp.full(shape, 7.0), pathwise=lambda d: "sevens do not move"
        )

    assert fv.sample(Sevens(), KEY, (2,)).tolist() == [7.0, 7.0]
    with pytest.raises(TypeError, match="sevens do not move"):
        jax.grad(lambda loc: fv.sample(Sevens(loc), KEY))(0.3)
