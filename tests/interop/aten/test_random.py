"""Random operations have torch's law, not its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as f

from interop import ConversionError, to_jax
from tests.interop.aten.check import All

COUNT = 4000
X = np.full(COUNT, 0.3, np.float32)

LAWS = {
    "rand": (lambda x: torch.rand_like(x), 0.5, 1 / 12),
    "randn": (lambda x: torch.randn(COUNT), 0.0, 1.0),
    "randint": (lambda x: torch.randint_like(x, 2, 6), 3.5, 1.25),
    "bernoulli": (lambda x: torch.bernoulli(x), 0.3, 0.21),
    "normal": (lambda x: torch.normal(x, 2.0), 0.3, 4.0),
    "uniform_": (lambda x: torch.empty_like(x).uniform_(-1, 3), 1.0, 16 / 12),
    "normal_": (lambda x: torch.empty_like(x).normal_(2, 0.5), 2.0, 0.25),
    "bernoulli_": (lambda x: torch.empty_like(x).bernoulli_(0.2), 0.2, 0.16),
    "exponential_": (lambda x: torch.empty_like(x).exponential_(2.0), 0.5, 0.25),
    "geometric_": (lambda x: torch.empty_like(x).geometric_(0.5), 2.0, 2.0),
    "log_normal_": (lambda x: torch.empty_like(x).log_normal_(0, 0.25).log(), 0.0, 0.0625),
    "cauchy_": (lambda x: torch.empty_like(x).cauchy_(0, 2).gt(2).float(), 0.25, 0.1875),
    "poisson": (lambda x: torch.poisson(x * 10), 3.0, 3.0),
    "gamma": (lambda x: torch._standard_gamma(x * 10), 3.0, 3.0),
    "multinomial": (
        lambda x: torch.multinomial(torch.tensor([1.0, 0, 3]), COUNT, True).float(),
        1.5,
        0.75,
    ),
    "dropout": (lambda x: f.dropout(x, 0.4), 0.3, 0.06),
    "dropout2d": (lambda x: f.dropout2d(x[:, None, None], 0.4), 0.3, 0.06),
    "alpha_dropout": (lambda x: f.alpha_dropout((x - 0.3).abs(), 0.5).var(0)[None], 1.0, 0.0),
}


def test_laws():
    """Means and variances, within five standard errors or so."""
    net = to_jax(All({k: v[0] for k, v in LAWS.items()}))
    found = net.train({}, *[[X]] * len(LAWS), key=jax.random.key(0))[0]
    for (name, (_, mean, variance)), x in zip(LAWS.items(), found, strict=True):
        if name == "alpha_dropout":
            continue
        scale = max(variance, 0.05)
        np.testing.assert_allclose(np.mean(x), mean, atol=5 * (scale / COUNT) ** 0.5, err_msg=name)
        np.testing.assert_allclose(np.var(x), variance, rtol=0.25, err_msg=name)


def test_permutations_and_draws_without_replacement():
    functions = {
        "randperm": lambda x: torch.randperm(50),
        "multinomial": lambda x: torch.multinomial(torch.arange(50.0).flip(0) + 1, 50),
    }
    net = to_jax(All(functions))
    for drawn in net({}, [X], [X], key=jax.random.key(1)):
        np.testing.assert_array_equal(np.sort(drawn), np.arange(50))
        assert (drawn != np.arange(50)).any()


def test_gradients():
    """Those of dropout are its scaled mask's; what normal() draws is constant, as in torch."""
    net = to_jax(
        All({"dropout": lambda x: f.dropout(x, 0.5), "normal": lambda x: torch.normal(x, x)})
    )
    x = jnp.asarray(X[:100])

    def total(x, i):
        return net.train({}, [x], [x], key=jax.random.key(0))[0][i].sum()

    kept = net.train({}, [x], [x], key=jax.random.key(0))[0][0] != 0
    np.testing.assert_allclose(jax.grad(total)(x, 0), np.where(kept, 2.0, 0.0))
    np.testing.assert_array_equal(jax.grad(total)(x, 1), 0)


def test_dropout_in_evaluation_needs_no_key():
    net = to_jax(All({"dropout": lambda x: f.dropout(x, 0.5, training=False)}))
    np.testing.assert_array_equal(net({}, [X])[0], X)
    module = to_jax(torch.nn.Dropout(0.5))
    np.testing.assert_array_equal(module({}, X), X)
    with pytest.raises(ConversionError, match="key"):
        module.train({}, X)
