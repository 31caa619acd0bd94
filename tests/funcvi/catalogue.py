"""One instance of every numpyro distribution, parameterisation and nesting, at interior values.

Entries are functions, so that each test makes them in its own precision. The part of a name before
``/`` is the public numpyro name that the entry covers.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from tests.funcvi.values import (
    Pair,
    a,
    correlation,
    covariance,
    drift,
    factor,
    flags,
    gamma,
    logits,
    normal,
    probs,
)

__all__ = ["CATALOGUE", "NOT_DISTRIBUTIONS", "REFUSED", "REPRESENTATIVES", "covered"]

#: Public names of ``numpyro.distributions`` that make no distribution.
NOT_DISTRIBUTIONS = {"biject_to", "constraints", "kl_divergence", "transforms"}

#: Name to the documented error (a regular expression) of what cannot be a family.
REFUSED: dict[str, str] = {
    "Distribution": "Distribution is abstract: name one of its subclasses",
}


SINGLE: dict[str, Callable[[], Any]] = {
    "AsymmetricLaplace": lambda: dist.AsymmetricLaplace(a(0.4, -1.2), 0.7, 1.4),
    "AsymmetricLaplaceQuantile": lambda: dist.AsymmetricLaplaceQuantile(a(0.4, -1.2), 0.7, 0.3),
    "Bernoulli/probs": lambda: dist.Bernoulli(probs=a(0.3, 0.8)),
    "Bernoulli/logits": lambda: dist.Bernoulli(logits=a(0.3, -0.8)),
    "BernoulliLogits": lambda: dist.BernoulliLogits(a(0.3, -0.8)),
    "BernoulliProbs": lambda: dist.BernoulliProbs(a(0.3, 0.8)),
    "Beta": lambda: dist.Beta(a(1.7, 2.4), 1.3),
    "BetaBinomial": lambda: dist.BetaBinomial(a(1.7, 2.4), 1.3, total_count=5),
    "BetaNegativeBinomial": lambda: dist.BetaNegativeBinomial(a(2.7, 3.4), 1.3, a(3.5, 4.5)),
    "BetaProportion": lambda: dist.BetaProportion(a(0.3, 0.6), 4.5),
    "Binomial/probs": lambda: dist.Binomial(a(5, 7), probs=a(0.3, 0.8)),
    "Binomial/logits": lambda: dist.Binomial(5, logits=a(0.3, -0.8)),
    "BinomialLogits": lambda: dist.BinomialLogits(a(0.3, -0.8), 5),
    "BinomialProbs": lambda: dist.BinomialProbs(a(0.3, 0.8), a(5, 7)),
    "CAR": lambda: dist.CAR(
        a(0.2, -0.4, 0.9), 0.4, 1.7, jnp.array([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
    ),
    "Categorical/probs": lambda: dist.Categorical(probs=probs()),
    "Categorical/logits": lambda: dist.Categorical(logits=logits()),
    "CategoricalLogits": lambda: dist.CategoricalLogits(logits()),
    "CategoricalProbs": lambda: dist.CategoricalProbs(probs()),
    "Cauchy": lambda: dist.Cauchy(a(0.4, -1.2), 0.7),
    "Chi2": lambda: dist.Chi2(a(2.7, 4.2)),
    "CirculantNormal/row": lambda: dist.CirculantNormal(
        a(0.2, -0.4, 0.9, 0.3), covariance_row=a(1.7, 0.4, 0.2, 0.4)
    ),
    "CirculantNormal/row, odd": lambda: dist.CirculantNormal(
        jnp.array([[0.2, -0.4, 0.9], [0.1, 0.5, -0.3]]), covariance_row=a(1.7, 0.4, 0.4)
    ),
    "CirculantNormal/rfft": lambda: dist.CirculantNormal(
        a(0.2, -0.4, 0.9, 0.3), covariance_rfft=a(1.7, 0.4, 0.8)
    ),
    "Dagum": lambda: dist.Dagum(a(1.7, 2.4), 2.3, 0.8),
    "Delta": lambda: dist.Delta(a(0.4, -1.2)),
    "Delta/event": lambda: dist.Delta(a(0.4, -1.2), log_density=-0.3, event_dim=1),
    "Dirichlet": lambda: dist.Dirichlet(a([1.7, 2.4, 3.1], [0.8, 1.3, 2.2])),
    "DirichletMultinomial": lambda: dist.DirichletMultinomial(
        a([1.7, 2.4, 3.1], [0.8, 1.3, 2.2]), total_count=5
    ),
    "DiscreteUniform": lambda: dist.DiscreteUniform(a(2, 3), 7),
    "DoublyTruncatedPowerLaw": lambda: dist.DoublyTruncatedPowerLaw(a(-1.6, 0.7), 0.6, 3.2),
    "EulerMaruyama": lambda: dist.EulerMaruyama(
        jnp.array([0.0, 0.1, 0.3]), drift, dist.Normal(0.4, 1.3)
    ),
    "ExpandedDistribution": lambda: dist.Gamma(1.7, 1.3).expand((2,)),
    "ExpandedDistribution/class": lambda: dist.ExpandedDistribution(normal(), (3, 2)),
    "Exponential": lambda: dist.Exponential(a(1.7, 0.6)),
    "FoldedDistribution": lambda: dist.FoldedDistribution(normal()),
    "Gamma": gamma,
    "GammaPoisson": lambda: dist.GammaPoisson(a(1.7, 2.4), 1.3),
    "GaussianCopula/matrix": lambda: dist.GaussianCopula(
        dist.Normal(a(0.4, -0.8, 0.3), 1.3), correlation_matrix=correlation()
    ),
    "GaussianCopula/cholesky": lambda: dist.GaussianCopula(
        dist.Exponential(a(1.4, 0.8, 0.7)), correlation_cholesky=jnp.linalg.cholesky(correlation())
    ),
    "GaussianCopulaBeta/matrix": lambda: dist.GaussianCopulaBeta(
        a(1.7, 2.4, 3.1), 1.3, correlation_matrix=correlation()
    ),
    "GaussianCopulaBeta/cholesky": lambda: dist.GaussianCopulaBeta(
        a(1.7, 2.4, 3.1),
        1.3 * jnp.ones(3),
        correlation_cholesky=jnp.linalg.cholesky(correlation()),
    ),
    "GaussianRandomWalk": lambda: dist.GaussianRandomWalk(a(0.7, 1.4), num_steps=3),
    "GaussianStateSpace/covariance": lambda: dist.GaussianStateSpace(
        3, a([0.6, 0.2], [-0.3, 0.5]), covariance_matrix=covariance()
    ),
    "GaussianStateSpace/precision": lambda: dist.GaussianStateSpace(
        3, a([0.6, 0.2], [-0.3, 0.5]), precision_matrix=covariance()
    ),
    "GaussianStateSpace/scale_tril": lambda: dist.GaussianStateSpace(
        3, a([0.6, 0.2], [-0.3, 0.5]), scale_tril=factor(), initial_value=a(0.4, -0.7)
    ),
    "Geometric/probs": lambda: dist.Geometric(probs=a(0.3, 0.8)),
    "Geometric/logits": lambda: dist.Geometric(logits=a(0.3, -0.8)),
    "GeometricLogits": lambda: dist.GeometricLogits(a(0.3, -0.8)),
    "GeometricProbs": lambda: dist.GeometricProbs(a(0.3, 0.8)),
    "Gompertz": lambda: dist.Gompertz(a(1.7, 0.6), 1.3),
    "Gumbel": lambda: dist.Gumbel(a(0.4, -1.2), 0.7),
    "HalfCauchy": lambda: dist.HalfCauchy(a(0.7, 1.4)),
    "HalfNormal": lambda: dist.HalfNormal(a(0.7, 1.4)),
    "HurdleDistribution/probs": lambda: dist.HurdleDistribution(
        dist.Poisson(a(1.7, 2.4)), gate=0.3
    ),
    "HurdleDistribution/logits": lambda: dist.HurdleDistribution(
        dist.Poisson(a(1.7, 2.4)), gate_logits=0.3
    ),
    "HurdleGamma": lambda: dist.HurdleGamma(a(0.3, 0.6), 1.7, 1.3),
    "HurdleLogits": lambda: dist.HurdleLogits(dist.Poisson(a(1.7, 2.4)), 0.3),
    "HurdleLogNormal": lambda: dist.HurdleLogNormal(a(0.3, 0.6), 0.4, 0.7),
    "HurdleNegativeBinomial2": lambda: dist.HurdleNegativeBinomial2(a(0.3, 0.6), 1.7, 2.3),
    "HurdlePoisson": lambda: dist.HurdlePoisson(a(0.3, 0.6), 1.7),
    "HurdleProbs": lambda: dist.HurdleProbs(dist.Poisson(a(1.7, 2.4)), 0.3),
    "ImproperUniform": lambda: dist.ImproperUniform(constraints.positive, (2,), (3,)),
    "Independent": lambda: dist.Independent(normal(), 1),
    "InverseGamma": lambda: dist.InverseGamma(a(2.7, 3.4), 1.3),
    "InverseWishart/scale_matrix": lambda: dist.InverseWishart(4.7, scale_matrix=covariance()),
    "InverseWishart/rate_matrix": lambda: dist.InverseWishart(4.7, rate_matrix=covariance()),
    "InverseWishart/scale_tril": lambda: dist.InverseWishart(4.7, scale_tril=factor()),
    "InverseWishartCholesky/scale_matrix": lambda: dist.InverseWishartCholesky(
        4.7, scale_matrix=covariance()
    ),
    "InverseWishartCholesky/rate_matrix": lambda: dist.InverseWishartCholesky(
        4.7, rate_matrix=covariance()
    ),
    "InverseWishartCholesky/scale_tril": lambda: dist.InverseWishartCholesky(
        4.7, scale_tril=factor()
    ),
    "IntervalCensoredDistribution": lambda: dist.IntervalCensoredDistribution(
        normal(), flags(), jnp.array([False, False])
    ),
    "Kumaraswamy": lambda: dist.Kumaraswamy(a(1.7, 2.4), 1.3),
    "Laplace": lambda: dist.Laplace(a(0.4, -1.2), 0.7),
    "LeftCensoredDistribution": lambda: dist.LeftCensoredDistribution(normal(), flags()),
    "LeftTruncatedDistribution": lambda: dist.LeftTruncatedDistribution(normal(), -0.3),
    "LeftTruncatedGamma": lambda: dist.LeftTruncatedGamma(gamma(), 0.3),
    "Levy": lambda: dist.Levy(a(0.4, -1.2), 0.7),
    "LKJ": lambda: dist.LKJ(3, a(1.4, 0.8)),
    "LKJCholesky": lambda: dist.LKJCholesky(3, a(1.4, 0.8), sample_method="cvine"),
    "Logistic": lambda: dist.Logistic(a(0.4, -1.2), 0.7),
    "LogNormal": lambda: dist.LogNormal(a(0.4, -1.2), 0.7),
    "LogUniform": lambda: dist.LogUniform(a(0.4, 0.6), 3.2),
    "LowerTruncatedPowerLaw": lambda: dist.LowerTruncatedPowerLaw(a(-2.6, -1.7), 0.6),
    "LowRankMultivariateNormal": lambda: dist.LowRankMultivariateNormal(
        a([0.2, -0.4, 0.9], [0.4, 0.1, 0.3]), a([0.5], [-0.3], [0.2]), a(0.7, 1.2, 0.9)
    ),
    "MaskedDistribution": lambda: normal().mask(flags()),
    "MaskedDistribution/flag": lambda: dist.MaskedDistribution(gamma(), True),
    "MatrixNormal": lambda: dist.MatrixNormal(
        a([0.2, -0.4, 0.9], [0.4, 0.1, 0.3]), factor(2), factor(3)
    ),
    "Mixture/same": lambda: dist.Mixture(
        dist.Categorical(probs=a(0.3, 0.7)), dist.Normal(a(0.4, -1.2), 0.7)
    ),
    "Mixture/general": lambda: dist.Mixture(
        dist.Categorical(logits=a(0.3, -0.7)), [dist.Normal(0.4, 0.7), dist.Laplace(-1.2, 1.4)]
    ),
    "MixtureGeneral": lambda: dist.MixtureGeneral(
        dist.Categorical(probs=a(0.3, 0.7)), [dist.Gamma(1.7, 1.3), dist.LogNormal(0.4, 0.7)]
    ),
    "MixtureGeneral/support": lambda: dist.MixtureGeneral(
        dist.Categorical(probs=a(0.3, 0.7)),
        [dist.Normal(0.4, 0.7), dist.HalfNormal(1.4)],
        support=constraints.real,
    ),
    "MixtureSameFamily": lambda: dist.MixtureSameFamily(
        dist.Categorical(probs=a(0.3, 0.7)),
        dist.Normal(a([0.4, -0.6], [1.2, 0.3]), a(0.7, 1.4)),
    ),
    "Multinomial/probs": lambda: dist.Multinomial(5, probs=probs()),
    "Multinomial/logits": lambda: dist.Multinomial(5, logits=logits()),
    "MultinomialLogits": lambda: dist.MultinomialLogits(logits(), 5),
    "MultinomialProbs": lambda: dist.MultinomialProbs(
        probs(), jnp.array([5, 7]), total_count_max=7
    ),
    "MultivariateNormal/covariance": lambda: dist.MultivariateNormal(
        a([0.2, -0.4], [0.9, 0.3]), covariance_matrix=covariance()
    ),
    "MultivariateNormal/precision": lambda: dist.MultivariateNormal(
        a(0.2, -0.4), precision_matrix=covariance()
    ),
    "MultivariateNormal/scale_tril": lambda: dist.MultivariateNormal(
        a([0.2, -0.4], [0.9, 0.3]), scale_tril=jnp.stack([factor(), 1.5 * factor()])
    ),
    "MultivariateStudentT": lambda: dist.MultivariateStudentT(
        a(4.7, 6.2), a(0.2, -0.4), scale_tril=factor()
    ),
    "NegativeBinomial/probs": lambda: dist.NegativeBinomial(3, probs=a(0.3, 0.6)),
    "NegativeBinomial/logits": lambda: dist.NegativeBinomial(a(3.2, 4.6), logits=a(0.3, -0.6)),
    "NegativeBinomial2": lambda: dist.NegativeBinomial2(a(1.7, 2.4), 2.3),
    "NegativeBinomialLogits": lambda: dist.NegativeBinomialLogits(3.2, a(0.3, -0.6)),
    "NegativeBinomialProbs": lambda: dist.NegativeBinomialProbs(3.2, a(0.3, 0.6)),
    "Normal": lambda: dist.Normal(a(0.4, -1.2, 0.7), 0.7),
    "OrderedLogistic": lambda: dist.OrderedLogistic(a(0.4, -0.2), a(-0.8, 0.3, 1.1)),
    "Pareto": lambda: dist.Pareto(a(0.7, 1.4), 2.6),
    "Poisson": lambda: dist.Poisson(a(1.7, 2.4)),
    "ProjectedNormal": lambda: dist.ProjectedNormal(a([0.7, -0.4, 0.9], [0.1, 0.6, -0.3])),
    "RelaxedBernoulli/probs": lambda: dist.RelaxedBernoulli(0.7, probs=a(0.3, 0.8)),
    "RelaxedBernoulli/logits": lambda: dist.RelaxedBernoulli(0.7, logits=a(0.3, -0.8)),
    "RelaxedBernoulliLogits": lambda: dist.RelaxedBernoulliLogits(a(0.7, 0.9), a(0.3, -0.8)),
    "RightCensoredDistribution": lambda: dist.RightCensoredDistribution(normal(), flags()),
    "RightTruncatedDistribution": lambda: dist.RightTruncatedDistribution(normal(), 1.7),
    "RightTruncatedGamma": lambda: dist.RightTruncatedGamma(gamma(), 3.7),
    "SineBivariateVonMises/correlation": lambda: dist.SineBivariateVonMises(
        a(0.4, -0.9), 0.3, 2.7, 3.4, correlation=0.8
    ),
    "SineBivariateVonMises/weighted": lambda: dist.SineBivariateVonMises(
        a(0.4, -0.9), 0.3, 2.7, 3.4, weighted_correlation=0.4
    ),
    "SineSkewed": lambda: dist.SineSkewed(
        dist.VonMises(a(0.4, -0.9), a(1.7, 2.4)).to_event(1), a(0.3, -0.4)
    ),
    "SoftLaplace": lambda: dist.SoftLaplace(a(0.4, -1.2), 0.7),
    "StudentT": lambda: dist.StudentT(a(3.7, 5.4), 0.4, 0.7),
    "TransformedDistribution": lambda: dist.TransformedDistribution(
        normal(), nt.AffineTransform(0.3, 1.7)
    ),
    "TruncatedCauchy/low": lambda: dist.TruncatedCauchy(a(0.4, -0.8), 1.3, low=-0.6),
    "TruncatedCauchy/none": lambda: dist.TruncatedCauchy(a(0.4, -0.8), 1.3),
    "TruncatedDistribution/low": lambda: dist.TruncatedDistribution(normal(), low=-0.6),
    "TruncatedDistribution/high": lambda: dist.TruncatedDistribution(normal(), high=1.6),
    "TruncatedDistribution/both": lambda: dist.TruncatedDistribution(normal(), -0.6, 1.6),
    "TruncatedGamma/low": lambda: dist.TruncatedGamma(a(1.7, 2.4), 1.3, low=0.3),
    "TruncatedGamma/high": lambda: dist.TruncatedGamma(a(1.7, 2.4), 1.3, high=3.6),
    "TruncatedGamma/both": lambda: dist.TruncatedGamma(a(1.7, 2.4), 1.3, low=0.3, high=3.6),
    "TruncatedNormal/low": lambda: dist.TruncatedNormal(a(0.4, -0.8), 1.3, low=-0.6),
    "TruncatedNormal/high": lambda: dist.TruncatedNormal(a(0.4, -0.8), 1.3, high=1.6),
    "TruncatedNormal/both": lambda: dist.TruncatedNormal(a(0.4, -0.8), 1.3, low=-0.6, high=1.6),
    "TruncatedNormal/none": lambda: dist.TruncatedNormal(a(0.4, -0.8), 1.3),
    "TruncatedPolyaGamma": lambda: dist.TruncatedPolyaGamma((2,)),
    "TwoSidedTruncatedDistribution": lambda: dist.TwoSidedTruncatedDistribution(normal(), -1, 1.6),
    "TwoSidedTruncatedGamma": lambda: dist.TwoSidedTruncatedGamma(gamma(), 0.3, 3.7),
    "Uniform": lambda: dist.Uniform(a(0.4, -1.2), 2.7),
    "Unit": lambda: dist.Unit(a(0.4, -1.2)),
    "VonMises": lambda: dist.VonMises(a(0.4, -0.9), 1.7),
    "Weibull": lambda: dist.Weibull(a(0.7, 1.4), 1.6),
    "Wishart/scale_matrix": lambda: dist.Wishart(4.7, scale_matrix=covariance()),
    "Wishart/rate_matrix": lambda: dist.Wishart(4.7, rate_matrix=covariance()),
    "Wishart/scale_tril": lambda: dist.Wishart(4.7, scale_tril=factor()),
    "WishartCholesky/scale_matrix": lambda: dist.WishartCholesky(4.7, scale_matrix=covariance()),
    "WishartCholesky/rate_matrix": lambda: dist.WishartCholesky(4.7, rate_matrix=covariance()),
    "WishartCholesky/scale_tril": lambda: dist.WishartCholesky(4.7, scale_tril=factor()),
    "ZeroInflatedDistribution/probs": lambda: dist.ZeroInflatedDistribution(
        dist.Poisson(a(1.7, 2.4)), gate=0.3
    ),
    "ZeroInflatedDistribution/logits": lambda: dist.ZeroInflatedDistribution(
        dist.Poisson(a(1.7, 2.4)), gate_logits=0.3
    ),
    "ZeroInflatedLogits": lambda: dist.ZeroInflatedLogits(dist.Poisson(a(1.7, 2.4)), 0.3),
    "ZeroInflatedNegativeBinomial2/probs": lambda: dist.ZeroInflatedNegativeBinomial2(
        a(1.7, 2.4), 2.3, gate=0.3
    ),
    "ZeroInflatedNegativeBinomial2/logits": lambda: dist.ZeroInflatedNegativeBinomial2(
        a(1.7, 2.4), 2.3, gate_logits=0.3
    ),
    "ZeroInflatedPoisson": lambda: dist.ZeroInflatedPoisson(a(0.3, 0.6), 1.7),
    "ZeroInflatedProbs": lambda: dist.ZeroInflatedProbs(dist.Poisson(a(1.7, 2.4)), 0.3),
    "ZeroSumNormal": lambda: dist.ZeroSumNormal(0.7, (3,)),
}

NESTINGS: dict[str, Callable[[], Any]] = {
    "Normal/to_event": lambda: normal().to_event(1),
    "Gamma/expand to_event": lambda: dist.Gamma(1.7, 1.3).expand((3, 2)).to_event(1),
    "Normal/expand a batch": lambda: normal().expand((3, 2)),
    "Normal/mask to_event expand": lambda: normal().mask(True).to_event(1).expand((3,)),
    "MultivariateNormal/to_event": lambda: dist.MultivariateNormal(
        a([0.2, -0.4], [0.9, 0.3]), covariance_matrix=covariance()
    ).to_event(1),
    "MixtureSameFamily/normals": lambda: dist.MixtureSameFamily(
        dist.Categorical(logits=a(0.3, -0.7, 0.2)),
        dist.MultivariateNormal(jnp.array([[0.2, 1], [-0.4, 0], [0.9, 2]]), scale_tril=factor()),
    ),
    "MixtureGeneral/nested": lambda: dist.MixtureGeneral(
        dist.Categorical(probs=a(0.3, 0.7)),
        [
            dist.TransformedDistribution(dist.Normal(0.4, 0.7), nt.AffineTransform(0.3, 1.7)),
            dist.MixtureSameFamily(
                dist.Categorical(probs=a(0.4, 0.6)), dist.Normal(a(0.4, -1.2), 0.7)
            ),
        ],
    ),
    "TransformedDistribution/negative scale": lambda: dist.TransformedDistribution(
        normal(), nt.AffineTransform(a(0.3, 0.8), a(-1.7, 0.9))
    ),
    "TransformedDistribution/affine exp": lambda: dist.TransformedDistribution(
        normal(), [nt.AffineTransform(0.3, 0.7), nt.ExpTransform()]
    ),
    "TransformedDistribution/power": lambda: dist.TransformedDistribution(
        gamma(), nt.PowerTransform(1.6)
    ),
    "TransformedDistribution/cholesky": lambda: dist.TransformedDistribution(
        dist.Normal(a(0.4, -0.8), 1.3).to_event(1), nt.LowerCholeskyAffine(a(0.2, -0.4), factor())
    ),
    "TransformedDistribution/compose": lambda: dist.TransformedDistribution(
        normal(),
        nt.ComposeTransform(
            [nt.AffineTransform(0.3, 0.7), nt.ComposeTransform([nt.ExpTransform()])]
        ),
    ),
    "TransformedDistribution/independent": lambda: dist.TransformedDistribution(
        normal().to_event(1), nt.IndependentTransform(nt.AffineTransform(0.3, a(0.7, 1.2)), 1)
    ),
    "TransformedDistribution/inverse": lambda: dist.TransformedDistribution(
        normal(), nt.AffineTransform(0.3, 0.7).inv
    ),
    "TransformedDistribution/recursive": lambda: dist.TransformedDistribution(
        dist.Normal(0.3, 1.4).expand((3, 2)).to_event(2),
        nt.RecursiveLinearTransform(a([0.6, 0.2], [-0.3, 0.5])),
    ),
    "TransformedDistribution/sigmoid": lambda: dist.TransformedDistribution(
        normal(), nt.SigmoidTransform()
    ),
    "TransformedDistribution/truncated": lambda: dist.TransformedDistribution(
        dist.TruncatedNormal(a(0.4, -0.8), 1.3, low=-0.6), nt.AffineTransform(0.3, 1.7)
    ),
    "TransformedDistribution/wider": lambda: dist.TransformedDistribution(
        dist.Normal(0.4, 1.3), nt.AffineTransform(a(0.3, -0.8), 1.7)
    ),
    "FoldedDistribution/affine": lambda: dist.FoldedDistribution(
        dist.TransformedDistribution(normal(), nt.AffineTransform(0.3, 1.7))
    ),
    "FoldedDistribution/cauchy": lambda: dist.FoldedDistribution(dist.Cauchy(a(0.4, -0.8), 1.3)),
    "LeftTruncatedDistribution/student": lambda: dist.LeftTruncatedDistribution(
        dist.Laplace(a(0.4, -0.8), 1.3), a(-0.3, 0.2)
    ),
}

JOINTS: dict[str, Callable[[], Any]] = {
    "joint/dict": lambda: {"x": normal(), "y": gamma()},
    "joint/tuple": lambda: (normal(), gamma()),
    "joint/list": lambda: [normal(), dist.Poisson(1.7)],
    "joint/NamedTuple": lambda: Pair(normal(), gamma()),
    "joint/nested": lambda: {
        "x": Pair(normal(), [gamma(), dist.Beta(1.7, 2.4)]),
        "y": {"z": dist.MultivariateNormal(a(0.2, -0.4), precision_matrix=covariance())},
    },
}


def _known(entries: dict[str, Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    """Those of a class that this version of numpyro has (0.21 lacks eleven)."""
    return {name: make for name, make in entries.items() if hasattr(dist, name.split("/")[0])}


SINGLE, NESTINGS = _known(SINGLE), _known(NESTINGS)
CATALOGUE = {**SINGLE, **NESTINGS, **JOINTS}

#: One entry for each way of being made and drawn: the quick tests of laws marked catalogue_law.
REPRESENTATIVES = {
    "Normal",
    "Gamma",
    "Uniform",
    "VonMises",
    "Bernoulli/probs",
    "Categorical/logits",
    "Dirichlet",
    "MultivariateNormal/covariance",
    "joint/nested",
    *[n for n in CATALOGUE if n.startswith(("MixtureSameFamily", "ExpandedDistribution"))][:3],
    *[n for n in CATALOGUE if n.startswith(("TruncatedNormal", "Independent", "Masked"))][:3],
    "TransformedDistribution/affine exp",
}
assert set(CATALOGUE) >= REPRESENTATIVES


def covered() -> set[str]:
    """The public numpyro names that the catalogue and its exceptions speak of."""
    return {name.split("/")[0] for name in (*CATALOGUE, *REFUSED)} - {"joint"}
