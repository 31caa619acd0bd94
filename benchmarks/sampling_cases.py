"""The rows of ``sampling.py``: every continuous numpyro distribution that torch has as well.

A case names its parameters and how to draw them, and builds the same distribution in numpyro, torch
and, where it has one, TFP. Parameters are float32 arrays, another value for every draw.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["CASES", "Case", "absent_from_numpyro"]

Params = Mapping[str, Any]
Build = Callable[[Any, Params], Any]
"""``(module of distributions, params) -> distribution``"""

MODERATE, WIDE = (0.3, 8.0), (1e-2, 1e3)


@dataclass(frozen=True)
class Source:
    """Where parameters come from: random numbers, how many draws, and which of the two sets."""

    rng: np.random.Generator
    draws: int
    wide: bool

    def uniform(self, low: float, high: float, *event: int) -> np.ndarray:
        u = self.rng.random((self.draws, *event), dtype=np.float32)
        return np.float32(low) + np.float32(high - low) * u

    def normal(self, *event: int) -> np.ndarray:
        return self.rng.standard_normal((self.draws, *event), dtype=np.float32)


Kind = Callable[[Source], np.ndarray]


def loc(*event: int) -> Kind:
    return lambda source: source.normal(*event)


def scale(*event: int) -> Kind:
    return lambda source: source.uniform(0.5, 2.0, *event)


def shape(*event: int, above: float = 0.0) -> Kind:
    """Uniform in the moderate set, log-uniform in the wide one; more than ``above``."""

    def values(source: Source) -> np.ndarray:
        if source.wide:
            low, high = np.log(WIDE)
            return above + np.exp(source.uniform(low, high, *event))
        return above + source.uniform(*MODERATE, *event)

    return values


def tril(size: int) -> Kind:
    def values(source: Source) -> np.ndarray:
        below = np.float32(0.5) * np.tril(source.normal(size, size), -1)
        return below + source.uniform(0.5, 2.0, size)[..., None] * np.eye(size, dtype=np.float32)

    return values


def negative(kind: Kind) -> Kind:
    return lambda source: -kind(source)


def by_name(name: str) -> Build:
    """The class of this name, its parameters named as ours."""
    return lambda module, params: getattr(module, name)(**params)


@dataclass(frozen=True)
class Case:
    """One row: a distribution, its parameters, and how each library builds it."""

    name: str
    params: Mapping[str, Kind]
    numpyro: Build
    torch: Build
    tfp: Build | None
    entries: int = 1
    """Numbers in one draw; the number of draws is divided by it, so that all rows write as much."""
    has_shape: bool = False
    """Whether a parameter differs between the two sets."""
    no_gradient: Mapping[str, str] = field(default_factory=dict)
    """Sides whose draws carry no gradient, or a wrong one, and how the table says so."""

    def generate(self, rng: np.random.Generator, size: int, wide: bool) -> dict[str, np.ndarray]:
        """Parameters of draws with ``size`` entries in all."""
        source = Source(rng, max(1, size // self.entries), wide)
        return {name: kind(source).astype(np.float32) for name, kind in self.params.items()}


def same(name: str, tfp: Build | None = None, *, shaped: bool = False, **params: Kind) -> Case:
    """A scalar distribution that all three call alike; TFP unless told."""
    build = by_name(name)
    return Case(name, params, build, build, tfp or build, has_shape=shaped)


def _torch_logistic(td: Any, p: Params) -> Any:
    base = td.Uniform(0 * p["loc"], 0 * p["loc"] + 1)
    return td.TransformedDistribution(
        base, [td.SigmoidTransform().inv, td.AffineTransform(p["loc"], p["scale"])]
    )


def _mixture(module: Any, p: Params) -> Any:
    return module.MixtureSameFamily(
        module.Categorical(logits=p["logits"]), module.Normal(p["loc"], p["scale"])
    )


def _tfp_mixture(tfd: Any, p: Params) -> Any:
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=p["logits"]), tfd.Normal(p["loc"], p["scale"]), reparameterize=True
    )


def _independent(module: Any, p: Params) -> Any:
    return module.Independent(module.Normal(p["loc"], p["scale"]), 1)


CASES: tuple[Case, ...] = (
    same("Normal", loc=loc(), scale=scale()),
    same("LogNormal", loc=loc(), scale=scale()),
    same("HalfNormal", scale=scale()),
    same("Laplace", loc=loc(), scale=scale()),
    same("Cauchy", loc=loc(), scale=scale()),
    same("HalfCauchy", lambda tfd, p: tfd.HalfCauchy(0.0, p["scale"]), scale=scale()),
    same("Gumbel", loc=loc(), scale=scale()),
    Case(
        "Logistic",
        {"loc": loc(), "scale": scale()},
        numpyro=by_name("Logistic"),
        torch=_torch_logistic,
        tfp=by_name("Logistic"),
    ),
    same("Exponential", rate=scale()),
    same("Uniform", low=negative(scale()), high=scale()),
    same("Weibull", shaped=True, scale=scale(), concentration=shape()),
    same(
        "Pareto",
        lambda tfd, p: tfd.Pareto(p["alpha"], p["scale"]),
        shaped=True,
        scale=scale(),
        alpha=shape(),
    ),
    same("Kumaraswamy", shaped=True, concentration1=shape(), concentration0=shape()),
    same("Gamma", shaped=True, concentration=shape(), rate=scale()),
    same(
        "InverseGamma",
        lambda tfd, p: tfd.InverseGamma(p["concentration"], p["rate"]),
        shaped=True,
        concentration=shape(),
        rate=scale(),
    ),
    same("Chi2", shaped=True, df=shape()),
    same("Beta", shaped=True, concentration1=shape(), concentration0=shape()),
    Case(
        "Dirichlet of 4",
        {"concentration": shape(4)},
        numpyro=by_name("Dirichlet"),
        torch=by_name("Dirichlet"),
        tfp=by_name("Dirichlet"),
        entries=4,
        has_shape=True,
    ),
    same("StudentT", shaped=True, df=shape(), loc=loc(), scale=scale()),
    Case(
        "VonMises",
        {"loc": loc(), "concentration": shape()},
        numpyro=by_name("VonMises"),
        torch=by_name("VonMises"),
        tfp=by_name("VonMises"),
        has_shape=True,
        no_gradient={"numpyro": "none"},
    ),
    Case(
        "RelaxedBernoulli",
        {"temperature": scale(), "logits": loc()},
        numpyro=by_name("RelaxedBernoulliLogits"),
        torch=by_name("RelaxedBernoulli"),
        tfp=by_name("RelaxedBernoulli"),
    ),
    Case(
        "Independent Normal of 4",
        {"loc": loc(4), "scale": scale(4)},
        numpyro=_independent,
        torch=_independent,
        tfp=_independent,
        entries=4,
    ),
    Case(
        "MultivariateNormal of 4",
        {"loc": loc(4), "scale_tril": tril(4)},
        numpyro=by_name("MultivariateNormal"),
        torch=by_name("MultivariateNormal"),
        tfp=by_name("MultivariateNormalTriL"),
        entries=4,
    ),
    Case(
        "LowRankMultivariateNormal of 4, rank 2",
        {"loc": loc(4), "cov_factor": loc(4, 2), "cov_diag": scale(4)},
        numpyro=by_name("LowRankMultivariateNormal"),
        torch=by_name("LowRankMultivariateNormal"),
        tfp=lambda tfd, p: tfd.MultivariateNormalDiagPlusLowRankCovariance(
            p["loc"], p["cov_diag"], p["cov_factor"]
        ),
        entries=4,
    ),
    Case(
        "Wishart of 3 x 3",
        {"df": shape(above=2.0), "scale_tril": tril(3)},
        numpyro=lambda nd, p: nd.Wishart(p["df"], scale_tril=p["scale_tril"]),
        torch=by_name("Wishart"),
        tfp=by_name("WishartTriL"),
        entries=9,
        has_shape=True,
    ),
    Case(
        "LKJCholesky of 4 x 4",
        {"concentration": shape()},
        numpyro=lambda nd, p: nd.LKJCholesky(4, p["concentration"]),
        torch=lambda td, p: td.LKJCholesky(4, p["concentration"]),
        tfp=lambda tfd, p: tfd.CholeskyLKJ(4, p["concentration"]),
        entries=16,
        has_shape=True,
    ),
    Case(
        "Mixture of 3 Normals",
        {"logits": loc(3), "loc": loc(3), "scale": scale(3)},
        numpyro=_mixture,
        torch=_mixture,
        tfp=_tfp_mixture,
        no_gradient={"numpyro": "none for weights"},
    ),
)

# Classes of torch that are no continuous distribution, or are in the table within another.
_NOT_ROWS = {"Distribution", "ExponentialFamily", "TransformedDistribution", "Independent"}
_OTHER_NAMES = {"RelaxedBernoulli": "RelaxedBernoulliLogits"}


def absent_from_numpyro(td: Any, nd: Any) -> list[str]:
    """torch's continuous distributions without a class of that name in numpyro."""
    names = []
    for name in td.__all__:
        found = getattr(td, name, None)
        if not (isinstance(found, type) and issubclass(found, td.Distribution)):
            continue
        try:
            discrete = found.support.is_discrete
        except (AttributeError, TypeError, NotImplementedError):
            discrete = False  # a support that depends on the parameters
        if name in _NOT_ROWS or discrete or hasattr(nd, _OTHER_NAMES.get(name, name)):
            continue
        names.append(name)
    return sorted(names)
