"""Sampled activations: moments, gradients as torch gives them, and variances that went negative."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import torch

import funcvi as fv

KINDS = [
    dist.Normal,
    dist.Laplace,
    dist.Logistic,
    dist.Gumbel,
    dist.LogNormal,
    dist.Gamma,
    dist.InverseGamma,
]
MEAN, VARIANCE = jnp.array([0.3, 1.0, 4.0]), jnp.array([0.2, 3.0, 0.01])


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_moments_are_those_asked_for(kind: Any) -> None:
    q = fv.from_moments(kind, MEAN, VARIANCE)
    np.testing.assert_allclose(q.mean, MEAN, rtol=1e-5)
    np.testing.assert_allclose(q.variance, VARIANCE, rtol=1e-3)
    slope = jax.jit(jax.grad(lambda m: fv.sample(fv.from_moments(kind, m, VARIANCE), KEY).sum()))
    assert jnp.isfinite(slope(MEAN)).all()


def test_moments_of_a_beta() -> None:
    q = fv.from_moments(dist.Beta, jnp.array([0.3, 0.9]), jnp.array([0.2, 0.01]))
    np.testing.assert_allclose(q.mean, [0.3, 0.9], rtol=1e-5)
    np.testing.assert_allclose(q.variance, [0.2, 0.01], rtol=1e-4)


KEY = jax.random.key(0)
SHAPE = (1, 16, 300, 300)


def test_a_sampled_image_has_torchs_gradients_for_the_same_noise() -> None:
    """Layers before, z = mean + sqrt(variance) noise, a 3 x 3 convolution after."""
    torch.manual_seed(0)
    before = torch.nn.Conv2d(16, 32, 1)
    after = torch.nn.Conv2d(16, 32, 3, padding=1)
    x = torch.randn(SHAPE)
    q = dist.Normal(jnp.zeros(SHAPE), 1.0)
    noise = fv.sample(q, KEY)
    mean, raw = before(x).chunk(2, dim=1)
    mean.retain_grad()
    variance = torch.nn.functional.softplus(raw)
    variance.retain_grad()
    z = mean + variance.sqrt() * torch.from_numpy(np.array(noise))
    after(z).square().mean().backward()

    weights = {n: jnp.asarray(p.detach().numpy()) for n, p in before.named_parameters()}
    kernel, bias = (jnp.asarray(p.detach().numpy()) for p in (after.weight, after.bias))

    def end(mean: Any, variance: Any) -> Any:
        z = fv.sample(fv.from_moments(dist.Normal, mean, variance), KEY)
        y = jax.lax.conv_general_dilated(z, kernel, (1, 1), "SAME") + bias[:, None, None]
        return jnp.mean(y**2)

    def start(weights: Any) -> Any:
        y = jnp.einsum("oi,bihw->bohw", weights["weight"][..., 0, 0], jnp.asarray(x.numpy()))
        mean, raw = jnp.split(y + weights["bias"][:, None, None], 2, axis=1)
        return mean, jax.nn.softplus(raw)

    moments = start(weights)
    slopes = jax.jit(jax.grad(end, (0, 1)))(*moments)
    for found, expected in zip(slopes, (mean.grad, variance.grad), strict=True):
        scale = float(expected.abs().max())
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * scale)
    upstream = jax.jit(jax.grad(lambda w: end(*start(w))))(weights)
    for name, parameter in before.named_parameters():
        scale = float(parameter.grad.abs().max())
        np.testing.assert_allclose(upstream[name], parameter.grad, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("kind", [dist.Normal, dist.Gamma], ids=lambda k: k.__name__)
def test_a_negative_variance_names_the_bijection(kind: Any) -> None:
    variance = jax.random.normal(KEY, (1, 16, 30, 30))
    mean = jnp.ones_like(variance)
    message = r"variance must be positive; 7\d{3} of 14400 entries are not.*fv.Softplus"
    with pytest.raises(ValueError, match=message):
        fv.from_moments(kind, mean, variance)
    draw = jax.jit(lambda m, v: fv.sample(fv.from_moments(kind, m, v), KEY))
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"variance must be positive.*fv.Softplus"):
        jax.block_until_ready(draw(mean, variance))
    assert jnp.isfinite(draw(mean, jax.nn.softplus(variance))).all()


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match=r"mean of Gamma must be positive; 1 of 2"):
        fv.from_moments(dist.Gamma, jnp.array([1.0, -1.0]), 1.0)
    with pytest.raises(ValueError, match=r"mean of Beta must be in \(0, 1\).*sigmoid"):
        fv.from_moments(dist.Beta, jnp.array([1.0, 0.5]), 0.1)
    with pytest.raises(ValueError, match=r"below mean \* \(1 - mean\)"):
        fv.from_moments(dist.Beta, 0.5, 0.25)
    with pytest.raises(ValueError, match=r"mean has shape \(2,\), variance \(3,\)"):
        fv.from_moments(dist.Normal, jnp.ones(2), jnp.ones(3))
    with pytest.raises(TypeError, match="no solution for Poisson; there are Beta, Gamma"):
        fv.from_moments(dist.Poisson, 1.0, 1.0)
    with pytest.raises(ValueError, match="variance must be positive"):
        fv.from_moments(dist.Normal, 1.0, jnp.nan)
