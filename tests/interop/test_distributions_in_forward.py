"""Modules that build torch's distributions in forward: draws, densities, divergences, gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import distributions as td
from torch import nn

import interop
from tests.interop.module_cases import KEY

COUNT = 4_000
Make = Callable[[torch.Tensor], Any]

#: Of three numbers; moments up to the fourth are finite, so that standard errors mean something.
PATHWISE: dict[str, Make] = {
    "Normal": lambda p: td.Normal(p, p.exp()),
    "Gamma": lambda p: td.Gamma(p.exp(), 1 + p.exp()),
    "small Gamma": lambda p: td.Gamma(0.2 * p.exp(), p.exp()),
    "Chi2": lambda p: td.Chi2(p.exp()),
    "Beta": lambda p: td.Beta(p.exp(), 1 + p.exp()),
    "Dirichlet": lambda p: td.Dirichlet(p.exp()),
    "StudentT": lambda p: td.StudentT(9 + p.exp(), p, p.exp()),
    "Exponential": lambda p: td.Exponential(p.exp()),
    "Laplace": lambda p: td.Laplace(p, p.exp()),
    "HalfNormal": lambda p: td.HalfNormal(p.exp()),
    "Gumbel": lambda p: td.Gumbel(p, p.exp()),
    "LogNormal": lambda p: td.LogNormal(p, 0.3 * p.exp()),
    "Uniform": lambda p: td.Uniform(p, p + p.exp()),
    "Weibull": lambda p: td.Weibull(p.exp(), 1 + p.exp()),
    "Pareto": lambda p: td.Pareto(p.exp(), 9 + p.exp()),
    "Kumaraswamy": lambda p: td.Kumaraswamy(1 + p.exp(), 1 + p.exp()),
    "FisherSnedecor": lambda p: td.FisherSnedecor(3 + p.exp(), 20 + p.exp()),
    "InverseGamma": lambda p: td.InverseGamma(9 + p.exp(), p.exp()),
    "GeneralizedPareto": lambda p: td.GeneralizedPareto(p, p.exp(), 0.05 * p.exp()),
    "ContinuousBernoulli": lambda p: td.ContinuousBernoulli(logits=p),
    "LogisticNormal": lambda p: td.LogisticNormal(p, p.exp()),
    "RelaxedBernoulli": lambda p: td.RelaxedBernoulli(torch.tensor(0.7), logits=p),
    "RelaxedOneHotCategorical": lambda p: td.RelaxedOneHotCategorical(torch.tensor(0.7), logits=p),
    "OneHotCategoricalStraightThrough": lambda p: td.OneHotCategoricalStraightThrough(logits=p),
    "MultivariateNormal": lambda p: td.MultivariateNormal(p, scale_tril=torch.diag(p.exp())),
    "covariance": lambda p: td.MultivariateNormal(p, covariance_matrix=torch.diag(p.exp())),
    "precision": lambda p: td.MultivariateNormal(p, precision_matrix=torch.diag(p.exp())),
    "LowRank": lambda p: td.LowRankMultivariateNormal(p, p.exp()[:, None], p.exp()),
    "Wishart": lambda p: td.Wishart(4 + p.exp().sum(), torch.diag(p.exp())),
    "Independent": lambda p: td.Independent(td.Normal(p, p.exp()), 1),
    "Transformed": lambda p: td.TransformedDistribution(
        td.Normal(p, p.exp()), [td.TanhTransform(), td.AffineTransform(1.0, 2.0)]
    ),
}

DRAWN: dict[str, Make] = {
    "Categorical": lambda p: td.Categorical(logits=p),
    "OneHotCategorical": lambda p: td.OneHotCategorical(logits=p),
    "Bernoulli": lambda p: td.Bernoulli(logits=p),
    "Binomial": lambda p: td.Binomial(10, logits=p),
    "Poisson": lambda p: td.Poisson(p.exp()),
    "Geometric": lambda p: td.Geometric(logits=p),
    "NegativeBinomial": lambda p: td.NegativeBinomial(5.0, logits=p),
    "Multinomial": lambda p: td.Multinomial(10, logits=p),
    "MixtureSameFamily": lambda p: td.MixtureSameFamily(
        td.Categorical(logits=p), td.Normal(p, p.exp())
    ),
}


class Draws(nn.Module):
    """Draws and their log density."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.make, self.p = make, nn.Parameter(torch.tensor([0.3, -0.2, 0.5]))

    def forward(self) -> Any:
        d = self.make(self.p)
        x = d.rsample((COUNT,)) if d.has_rsample else d.sample((COUNT,))
        return x.float().reshape(COUNT, -1), d.log_prob(x).reshape(COUNT, -1)


def by_torch(module: Draws) -> list[np.ndarray]:
    torch.manual_seed(0)
    return [x.detach().numpy() for x in module()]


def near(found: Any, expected: np.ndarray, errors: float = 5.0) -> None:
    """Two means of draws, within their standard errors."""
    a, b = np.asarray(found, float), expected.astype(float)
    spread = np.sqrt((a.var(0) + b.var(0)) / COUNT)
    assert (np.abs(a.mean(0) - b.mean(0)) <= errors * spread + 1e-6).all()


@pytest.mark.filterwarnings("ignore:Singular sample")  # torch's own, of its Wishart
@pytest.mark.few(6)
@pytest.mark.parametrize("name", {**PATHWISE, **DRAWN})
def test_draws_and_densities_are_of_torchs_law(name: str) -> None:
    module = Draws({**PATHWISE, **DRAWN}[name])
    net = interop.to_jax(module)
    x, log_p = net(net.params, key=KEY)
    theirs = by_torch(module)
    near(x, theirs[0])
    near(np.asarray(x) ** 2, theirs[0] ** 2)
    near(log_p, theirs[1])
    with pytest.raises(interop.ConversionError, match="pass key="):
        net(net.params)


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "name", [n for n in PATHWISE if n != "Wishart"]
)  # torch's own backward fails
def test_gradients_are_torchs_in_mean(name: str) -> None:
    """Of a bounded function of the draws, and of their log density, averaged over eight runs."""
    module = Draws(PATHWISE[name])
    net = interop.to_jax(module)

    def ours(p: Any, key: Any) -> Any:
        x, log_p = net({"p": p}, key=key)
        return jnp.tanh(x).mean() + 0.1 * log_p.mean()

    keys = jax.random.split(KEY, 8)
    found = np.asarray(jax.jit(jax.vmap(jax.grad(ours), (None, 0)))(net.params["p"], keys))
    expected = []
    for seed in range(8):
        torch.manual_seed(seed)
        x, log_p = module()
        (slope,) = torch.autograd.grad(x.tanh().mean() + 0.1 * log_p.mean(), module.p)
        expected.append(slope.numpy())
    theirs = np.array(expected)
    spread = np.sqrt((found.var(0) + theirs.var(0)) / 7)
    assert (np.abs(found.mean(0) - theirs.mean(0)) <= 6 * spread + 1e-5).all()


class Divergence(nn.Module):
    def __init__(self, make: Make) -> None:
        super().__init__()
        self.make, self.p = make, nn.Parameter(torch.tensor([0.3, -0.2, 0.5]))

    def forward(self) -> torch.Tensor:
        q, p = self.make(self.p), self.make(torch.tensor([0.1, 0.2, -0.4]))
        return td.kl_divergence(q, p).sum() + q.entropy().sum() + q.mean.sum()


@pytest.mark.parametrize(
    "name", ["Normal", "Gamma", "Beta", "Dirichlet", "Categorical", "MultivariateNormal", "Uniform"]
)
def test_divergences_entropies_and_moments(name: str) -> None:
    make = {**PATHWISE, **DRAWN}[name]
    if name == "Categorical":
        module = Divergence(lambda p: td.Categorical(logits=p))
        module.forward = lambda: td.kl_divergence(  # type: ignore[method-assign]
            make(module.p), make(torch.tensor([0.1, 0.2, -0.4]))
        )
    elif name == "Uniform":
        module = Divergence(lambda p: td.Uniform(p.sum() * 0, 2 + p.sum().exp()))
    else:
        module = Divergence(make)
    net = interop.to_jax(module)
    expected = module()
    (slope,) = torch.autograd.grad(expected, module.p)
    np.testing.assert_allclose(net(net.params), expected.detach(), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(net)(net.params)["p"], slope, rtol=1e-4, atol=1e-6)


def test_a_variational_autoencoder_as_people_write_it() -> None:
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = nn.Linear(4, 4), nn.Linear(2, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean, log_scale = self.encode(x).chunk(2, -1)
            q = td.Normal(mean, log_scale.exp())
            z = q.rsample()
            log_p = td.Normal(self.decode(z), 1.0).log_prob(x).sum(-1)
            return log_p - td.kl_divergence(q, td.Normal(0.0, 1.0)).sum(-1)

    net = interop.to_jax(Autoencoder())
    x = jnp.ones((5, 4))
    elbo = jax.jit(lambda p, k: net(p, x, key=k).mean())
    assert elbo(net.params, KEY) != elbo(net.params, jax.random.key(8))
    slope = jax.grad(elbo)(net.params, KEY)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(slope))


def test_von_mises_draws() -> None:
    """torch draws it in float64."""
    module = Draws(lambda p: td.VonMises(p, p.exp()))
    net = interop.to_jax(module, downcast=True)
    x, log_p = net(net.params, key=KEY)
    theirs = by_torch(module)
    near(np.cos(x), np.cos(theirs[0]))
    near(np.sin(x), np.sin(theirs[0]))
    near(log_p, theirs[1])
