"""What is promised of a family in float32, and in which range of its parameters.

The laws of test_promises.py hold on the corners of each range; docs/promises.md is made of it by
tools/promises.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy import stats

__all__ = ["PROMISES", "Promise", "table"]

Range = tuple[float, float]

SCALE: Range = (1e-10, 1e10)
#: In units of the scale: farther out float32 cannot tell draws from one another.
LOC: Range = (-1e3, 1e3)


class Promise(NamedTuple):
    """A family and ranges of its parameters.

    Attributes:
        build: the parameters, in the order of ``ranges``, to a distribution.
        ranges: the name of each parameter to its smallest and largest value.
        exact: a distribution of float64 and values to log densities, where numpyro's own are wrong.
    """

    build: Callable[..., Any]
    ranges: dict[str, Range]
    exact: Callable[..., Any] = lambda d, x: d.log_prob(x)


def _located(family: Callable[..., Any], **more: Range) -> Promise:
    def build(loc: Any, scale: Any, *rest: Any) -> Any:
        return family(*rest, loc * scale, scale)

    return Promise(build, {"loc / scale": LOC, "scale": SCALE, **more})


def _truncated(low: Any, width: Any) -> Any:
    return dist.TruncatedNormal(0.0, 1.0, low=low, high=low + width)


PROMISES: dict[str, Promise] = {
    "Normal": _located(dist.Normal),
    "Cauchy": Promise(lambda s: dist.Cauchy(0.0, s), {"scale": SCALE}),
    "Laplace": _located(dist.Laplace),
    "Logistic": _located(dist.Logistic),
    "Gumbel": _located(dist.Gumbel),
    "SoftLaplace": _located(dist.SoftLaplace),
    "StudentT": Promise(
        lambda df, s: dist.StudentT(df, 0.0, s), {"df": (0.5, 1e4), "scale": SCALE}
    ),
    "HalfNormal": Promise(dist.HalfNormal, {"scale": SCALE}),
    "HalfCauchy": Promise(dist.HalfCauchy, {"scale": SCALE}),
    "Exponential": Promise(dist.Exponential, {"rate": SCALE}),
    "LogNormal": Promise(dist.LogNormal, {"loc": (-20.0, 20.0), "scale": (1e-3, 10.0)}),
    "Gamma": Promise(dist.Gamma, {"concentration": (1e-5, 1e5), "rate": SCALE}),
    "InverseGamma": Promise(dist.InverseGamma, {"concentration": (0.5, 1e4), "rate": (1e-5, 1e5)}),
    "Chi2": Promise(dist.Chi2, {"df": (1e-4, 1e5)}),
    "Beta": Promise(dist.Beta, {"concentration1": (1e-3, 1e4), "concentration0": (1e-3, 1e4)}),
    "Dirichlet": Promise(
        lambda one, rest: dist.Dirichlet(jnp.stack([one, rest, rest])),
        {"one concentration": (1e-3, 100.0), "the others": (1e-3, 100.0)},
    ),
    "Kumaraswamy": Promise(
        dist.Kumaraswamy, {"concentration1": (0.1, 50.0), "concentration0": (0.1, 50.0)}
    ),
    "Weibull": Promise(dist.Weibull, {"scale": (1e-5, 1e5), "concentration": (0.2, 50.0)}),
    "Gompertz": Promise(dist.Gompertz, {"concentration": (0.01, 100.0), "rate": (1e-3, 1e3)}),
    "Pareto": Promise(dist.Pareto, {"scale": (1e-5, 1e5), "alpha": (0.5, 50.0)}),
    "Uniform": Promise(
        lambda low, width: dist.Uniform(low, low + width), {"low": (-1e3, 1e3), "width": (1, 1e6)}
    ),
    "VonMises": Promise(dist.VonMises, {"loc": (-3.0, 3.0), "concentration": (1e-3, 1e4)}),
    "TruncatedNormal": Promise(
        _truncated,
        {"low": (-1e3, 1e3), "width": (0.1, 100.0)},
        lambda d, x: stats.truncnorm(np.asarray(d.low), np.asarray(d.high)).logpdf(x),
    ),
    "Poisson": Promise(dist.Poisson, {"rate": (1e-3, 1e5)}),
    "Binomial of 100": Promise(lambda p: dist.Binomial(100, p), {"probs": (1e-4, 0.999)}),
    "GammaPoisson": Promise(dist.GammaPoisson, {"concentration": (0.1, 1e3), "rate": (0.01, 100)}),
}


def table() -> str:
    """The ranges, as docs/promises.md has them."""
    rows = ["| family | range |", "|---|---|"]
    for name, promise in PROMISES.items():
        each = (
            f"{what} {_shown(low)} to {_shown(high)}"
            for what, (low, high) in promise.ranges.items()
        )
        rows.append(f"| {name} | {', '.join(each)} |")
    return "\n".join(rows) + "\n"


def _shown(x: float) -> str:
    return f"{x:g}".replace("e+", "e").replace("e-0", "e-").replace("e0", "e")
