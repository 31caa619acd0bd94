"""Laws of one number: what numpyro calls them, and what the oracle knows of them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.stats as st
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from fuzzing import vectors
from fuzzing.exact import (
    Exact,
    affine,
    atom,
    beta,
    categorical,
    exp,
    folded,
    inflated,
    kumaraswamy,
    laplace,
    mixed,
    of,
    sigmoid,
    soft_laplace,
    truncated,
    unit,
)


class Law(NamedTuple):
    """The name of a kind, and the laws that it is made of; numbers come apart from it."""

    kind: str
    parts: tuple["Law", ...] = ()

    def __repr__(self):
        return f"{self.kind}({', '.join(map(repr, self.parts))})" if self.parts else self.kind


class Kind(NamedTuple):
    """A kind of law: the domain of its values, the roles of its own numbers, and both sides."""

    domain: str
    roles: tuple[str, ...]
    make: Callable[..., dist.Distribution]
    exact: Callable[..., Any]


# What a notch, a small integer, stands for: zero is the plainest value.
ROLES: dict[str, Callable[[int], float]] = {
    "real": lambda n: n / 4,
    "positive": lambda n: 2.0 ** (n / 4),
    "shape": lambda n: 1.5 * 2.0 ** (n / 4),
    "df": lambda n: 7 * 2.0 ** (n / 8),
    "unit": lambda n: 1 / (1 + np.exp(-n / 4)),
    "signed": lambda n: (-1.0) ** (n < 0) * 2.0 ** (n / 4),
}


def speed(role: str, value: float) -> float:
    """By how much a number of this role moves along a direction."""
    if role == "real":
        return 1.0
    return value * (1 - value) if role == "unit" else abs(value)


def plain(domain, roles, make, exact):
    return Kind(domain, tuple(roles.split()), make, lambda n: of(exact(*n)))


def mixing_of(weight):
    # In half precision the two need not add up to one, which numpyro would refuse.
    return dist.Categorical(probs=jnp.stack([weight, 1 - weight], axis=-1), validate_args=False)


def general(parts, n):
    supports = [p.support for p in parts]
    same = all(s is supports[0] for s in supports)
    support = None if same else constraints.real
    return dist.MixtureGeneral(mixing_of(n[0]), list(parts), support=support)


def gamma(shape, rate):
    return of(st.gamma(shape, scale=1 / rate))


def transformed(*transforms):
    return lambda parts, n: dist.TransformedDistribution(parts[0], [t(*n) for t in transforms])


KINDS: dict[str, Kind] = {
    "Normal": plain("real", "real positive", dist.Normal, st.norm),
    "Laplace": Kind("real", ("real", "positive"), dist.Laplace, lambda n: laplace(*n)),
    "Logistic": plain("real", "real positive", dist.Logistic, st.logistic),
    "Gumbel": plain("real", "real positive", dist.Gumbel, st.gumbel_r),
    "Cauchy": plain("real", "real positive", dist.Cauchy, st.cauchy),
    "StudentT": plain("real", "df real positive", dist.StudentT, st.t),
    "SoftLaplace": Kind("real", ("real", "positive"), dist.SoftLaplace, lambda n: soft_laplace(*n)),
    "AsymmetricLaplace": Kind(
        "real",
        ("real", "positive", "positive"),
        dist.AsymmetricLaplace,
        lambda n: of(st.laplace_asymmetric(n[2], n[0], n[1]), (n[0],)),
    ),
    "Gamma": plain("positive", "shape positive", dist.Gamma, lambda a, b: st.gamma(a, scale=1 / b)),
    "Exponential": plain("positive", "positive", dist.Exponential, lambda b: st.expon(scale=1 / b)),
    "LogNormal": plain(
        "positive", "real positive", dist.LogNormal, lambda m, s: st.lognorm(s, scale=np.exp(m))
    ),
    "Weibull": plain(
        "positive", "positive shape", dist.Weibull, lambda s, k: st.weibull_min(k, scale=s)
    ),
    "HalfNormal": plain("positive", "positive", dist.HalfNormal, lambda s: st.halfnorm(scale=s)),
    "HalfCauchy": plain("positive", "positive", dist.HalfCauchy, lambda s: st.halfcauchy(scale=s)),
    "InverseGamma": plain(
        "positive", "df positive", dist.InverseGamma, lambda a, b: st.invgamma(a, scale=b)
    ),
    "Chi2": plain("positive", "df", dist.Chi2, st.chi2),
    "Gompertz": plain(
        "positive", "shape positive", dist.Gompertz, lambda c, b: st.gompertz(c, scale=1 / b)
    ),
    "Pareto": plain("edge", "positive df", dist.Pareto, lambda s, a: st.pareto(a, scale=s)),
    "Uniform": plain(
        "edge",
        "real positive",
        lambda low, width: dist.Uniform(low, low + width),
        lambda low, width: st.uniform(low, width),
    ),
    "LogUniform": plain(
        "edge",
        "positive positive",
        lambda low, width: dist.LogUniform(low, low + width),
        lambda low, width: st.loguniform(low, low + width),
    ),
    "Unit": Kind(
        "unit", (), lambda: dist.Uniform(0.0, 1.0), lambda n: unit(lambda x, c: np.zeros_like(x))
    ),
    "Beta": Kind("unit", ("shape", "shape"), dist.Beta, lambda n: beta(*n)),
    "Kumaraswamy": Kind("unit", ("shape", "shape"), dist.Kumaraswamy, lambda n: kumaraswamy(*n)),
    "Delta": Kind("atom", ("real",), dist.Delta, lambda n: atom(*n)),
    "VonMises": Kind(
        "circle",
        ("real", "positive"),
        dist.VonMises,
        lambda n: Exact(
            lambda x, c: st.vonmises.logpdf(x, n[1], n[0]), (-np.pi, np.pi), (-2.0, -1.0, 0.0, 1.0)
        ),
    ),
    "Bernoulli": plain("two", "unit", lambda p: dist.Bernoulli(probs=p), st.bernoulli),
    "BernoulliLogits": plain(
        "two",
        "real",
        lambda x: dist.Bernoulli(logits=x),
        lambda x: st.bernoulli(1 / (1 + np.exp(-x))),
    ),
    "Binomial": plain("six", "unit", lambda p: dist.Binomial(5, probs=p), lambda p: st.binom(5, p)),
    "BetaBinomial": plain(
        "six",
        "shape shape",
        lambda a, b: dist.BetaBinomial(a, b, 5),
        lambda a, b: st.betabinom(5, a, b),
    ),
    "Categorical": Kind(
        "three",
        ("real", "real", "real"),
        lambda *x: dist.Categorical(logits=jnp.stack(x, axis=-1)),
        lambda n: categorical(*n),
    ),
    "CategoricalProbs": Kind(
        "three",
        ("unit", "unit"),
        lambda a, b: dist.Categorical(  # whose sum is not one in half precision
            probs=jnp.stack([a * b, a * (1 - b), 1 - a], axis=-1), validate_args=False
        ),
        lambda n: categorical(*np.log([n[0] * n[1], n[0] * (1 - n[1]), 1 - n[0]])),
    ),
    "Poisson": plain("count", "positive", dist.Poisson, st.poisson),
    "Geometric": plain(
        "count", "unit", lambda p: dist.Geometric(probs=p), lambda p: st.geom(p, loc=-1)
    ),
    "NegativeBinomial2": plain(
        "count",
        "positive shape",
        dist.NegativeBinomial2,
        lambda m, k: st.nbinom(k, k / (k + m)),
    ),
    "ZeroInflatedPoisson": Kind(
        "count", ("unit", "positive"), dist.ZeroInflatedPoisson, lambda n: inflated(*n)
    ),
}

# numpyro 0.21 lacks these.
if hasattr(dist, "LeftTruncatedGamma"):
    KINDS |= {
        "GammaAbove": Kind(
            "edge",
            ("shape", "positive", "positive"),
            lambda a, b, low: dist.LeftTruncatedGamma(dist.Gamma(a, b), low),
            lambda n: truncated(gamma(*n[:2]), n[2], np.inf),
        ),
        "GammaBelow": Kind(
            "edge",
            ("shape", "positive", "positive"),
            lambda a, b, high: dist.RightTruncatedGamma(dist.Gamma(a, b), high),
            lambda n: truncated(gamma(*n[:2]), 0.0, n[2]),
        ),
        "GammaBetween": Kind(
            "edge",
            ("shape", "positive", "positive", "positive"),
            lambda a, b, low, width: dist.TwoSidedTruncatedGamma(
                dist.Gamma(a, b), low, low + width
            ),
            lambda n: truncated(gamma(*n[:2]), n[2], n[2] + n[3]),
        ),
    }

_PLANE = ("real", "real", "positive", "real", "positive")

# Of vectors: only divergences are known of them.
KINDS |= {
    "Dirichlet": Kind(
        "simplex",
        ("shape", "shape", "shape"),
        vectors.dirichlet,
        lambda n: vectors.Simplex(np.asarray(n)),
    ),
    "NormalTril": Kind("plane", _PLANE, *vectors.normal("scale_tril")),
    "NormalCovariance": Kind("plane", _PLANE, *vectors.normal("covariance_matrix")),
    "NormalPrecision": Kind("plane", _PLANE, *vectors.normal("precision_matrix")),
    "NormalLowRank": Kind(
        "plane",
        ("real", "real", "real", "real", "positive", "positive"),
        vectors.low_rank,
        vectors.low_rank_exact,
    ),
    "NormalDiagonal": Kind(
        "plane",
        ("real", "real", "positive", "positive"),
        vectors.diagonal,
        vectors.diagonal_exact,
    ),
}

# Of other laws: ``make`` takes them and numbers, ``exact`` too.
COMPOSED: dict[str, Kind] = {
    "TruncatedLow": Kind(
        "edge",
        ("real",),
        lambda parts, n: dist.TruncatedDistribution(parts[0], low=n[0]),
        lambda parts, n: truncated(parts[0], n[0], np.inf),
    ),
    "TruncatedHigh": Kind(
        "edge",
        ("real",),
        lambda parts, n: dist.TruncatedDistribution(parts[0], high=n[0]),
        lambda parts, n: truncated(parts[0], -np.inf, n[0]),
    ),
    "TruncatedBoth": Kind(
        "edge",
        ("real", "positive"),
        lambda parts, n: dist.TruncatedDistribution(parts[0], n[0], n[0] + n[1]),
        lambda parts, n: truncated(parts[0], n[0], n[0] + n[1]),
    ),
    "Folded": Kind(
        "positive",
        (),
        lambda parts, n: dist.FoldedDistribution(parts[0]),
        lambda parts, n: folded(parts[0]),
    ),
    "Affine": Kind(
        "same",
        ("real", "signed"),
        transformed(nt.AffineTransform),
        lambda parts, n: affine(parts[0], *n),
    ),
    "Exp": Kind("positive", (), transformed(nt.ExpTransform), lambda parts, n: exp(parts[0])),
    "Sigmoid": Kind(
        "unit", (), transformed(nt.SigmoidTransform), lambda parts, n: sigmoid(parts[0])
    ),
    "MixtureGeneral": Kind("same", ("unit",), general, lambda parts, n: mixed(*parts, n[0])),
    "MixtureSame": Kind("same", ("unit",), general, lambda parts, n: mixed(*parts, n[0])),
}


def kind_of(law: Law) -> Kind:
    return KINDS.get(law.kind) or COMPOSED[law.kind]


def roles_of(law: Law) -> tuple[str, ...]:
    """The roles of a law's numbers, its own before those of its parts."""
    return sum(map(roles_of, law.parts), kind_of(law).roles)


def split(law: Law, numbers: Sequence[Any]) -> tuple[list[Any], list[list[Any]]]:
    """A law's own numbers, and those of each part."""
    own = len(kind_of(law).roles)
    rest, each = list(numbers[own:]), []
    for part in law.parts:
        size = len(roles_of(part))
        each.append(rest[:size])
        rest = rest[size:]
    return list(numbers[:own]), each


def make(law: Law, numbers: Sequence[Any]) -> dist.Distribution:
    """numpyro's distribution, of the numbers' shape."""
    own, each = split(law, numbers)
    if law.kind == "MixtureSame":
        both = [jnp.stack(pair, axis=-1) for pair in zip(*each, strict=True)]
        return dist.MixtureSameFamily(mixing_of(own[0]), make(law.parts[0], both))
    if law.kind in KINDS:
        return KINDS[law.kind].make(*own)
    parts = [make(part, n) for part, n in zip(law.parts, each, strict=True)]
    return COMPOSED[law.kind].make(parts, own)


def exact(law: Law, numbers: Sequence[float]) -> Any:
    """What the oracle knows of it."""
    own, each = split(law, numbers)
    if law.kind in KINDS:
        return KINDS[law.kind].exact(own)
    parts = [exact(part, n) for part, n in zip(law.parts, each, strict=True)]
    return COMPOSED[law.kind].exact(parts, own)


def is_discrete(law: Law) -> bool:
    """Whether the oracle sums over values."""
    if law.kind in ("MixtureGeneral", "MixtureSame"):
        return is_discrete(law.parts[0])
    return kind_of(law).domain in ("two", "three", "six", "count", "atom")
