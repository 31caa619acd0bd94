"""Supports that are known when a program is written, and those that only its run knows."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import funcvi as fv
from funcvi.objectives.supports import checked_pair
from tests.funcvi.objectives.oracles import KEY


def uniforms(high, p_high=2.0):
    return fv.kl(dist.Uniform(0.0, high), dist.Uniform(0.0, p_high), key=KEY, num_samples=4)


def test_bounds_that_are_arrays_are_compared_by_the_program():
    for run in (uniforms, jax.jit(uniforms)):
        assert float(run(jnp.array(1.0))) == pytest.approx(np.log(2), rel=1e-5)
        with pytest.raises(Exception, match=r"KL\(q \|\| p\) is infinite: q = Uniform") as refused:
            jax.block_until_ready(run(jnp.array(3.0)))
        assert "Choose a q whose support lies inside p's" in str(refused.value)
    assert float(jax.jit(jax.grad(uniforms))(1.0)) == pytest.approx(-1.0, rel=1e-4)
    with pytest.raises(Exception, match="is infinite"):
        jax.block_until_ready(jax.jit(jax.grad(uniforms))(3.0))
    highs = jnp.array([0.5, 1.0])
    np.testing.assert_allclose(jax.vmap(uniforms)(highs), np.log(2 / highs), rtol=1e-5)


def test_constants_are_compared_when_the_program_is_written():
    high = jnp.array(2.0)

    def constant(key):
        return fv.kl(dist.Uniform(0.0, 3.0), dist.Uniform(0.0, high), key=key)

    for run in (constant, jax.jit(constant)):
        with pytest.raises(ValueError, match="is infinite"):
            run(KEY)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (lambda x: dist.Normal(x, 1.0), lambda x: dist.Normal(0.0, x)),
        (lambda x: dist.Gamma(x, 1.0), lambda x: dist.LogNormal(0.0, x)),
        (lambda x: dist.Uniform(0.0, x), lambda x: dist.Normal(0.0, x)),
        (lambda x: dist.Beta(x, x), lambda x: dist.Uniform(0.0, 1.0)),
        (lambda x: dist.Bernoulli(x), lambda x: dist.Poisson(x)),
    ],
    ids=["real", "positive", "in the line", "in the interval", "counts"],
)
def test_what_is_known_beforehand_costs_the_program_nothing(q, p):
    def check(x, value):
        return checked_pair(q(x), p(x), "")(value)

    program = str(jax.make_jaxpr(check)(0.5, 1.0))
    assert not any(name in program for name in ("cond", "pure_callback", "select_n"))


def test_an_infinite_bound_that_is_an_array_is_no_bound():
    p = dist.TruncatedDistribution(dist.Normal(), low=jnp.array(-jnp.inf), high=jnp.array(5.0))
    q = dist.TruncatedDistribution(dist.Normal(), low=-3.0, high=4.0)
    assert float(checked_pair(q, p, "")(jnp.array(1.0))) == 1.0


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: d.to_event(1), lambda d: d.mask(True)])
def test_a_support_is_known_inside_jit_although_numpyro_loses_it(wrap):
    def of(low):
        return wrap(dist.Levy(jnp.array([low, low]), 1.0))

    value = jax.jit(lambda q, p: fv.kl(q, p, key=KEY))
    assert float(value(of(0.0), of(0.0))) == pytest.approx(0, abs=1e-5)
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="greater than"):
        value(of(-1.0), of(0.0)).block_until_ready()
