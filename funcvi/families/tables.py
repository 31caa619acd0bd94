"""What numpyro does not say about its constructors, or says wrongly."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi.bijections import CovarianceFactor, Exp, LowerBound, SignedExp, Wrap
from funcvi.families.parameter import MISSING, Parameter, Recipe

__all__ = [
    "ALTERNATIVES",
    "ATTRIBUTE",
    "CORRECTIONS",
    "FACTORED",
    "KEPT_AS",
    "NESTED",
    "TRANSFORMS",
    "TRANSPARENT",
    "present",
]

NESTED = {
    "base_dist",
    "base_distribution",
    "mixing_distribution",
    "component_distribution",
    "component_distributions",
    "marginal_dist",
    "init_dist",
    "transforms",
}

ATTRIBUTE = {
    (dist.TransformedDistribution, "base_distribution"): "base_dist",
    (dist.MaskedDistribution, "mask"): "_mask",
    (dist.MixtureGeneral, "support"): "_support",
    (dist.GaussianStateSpace, "initial_value"): "_initial_value",
}

TRANSPARENT = {
    dist.Independent: "base_dist",
    dist.ExpandedDistribution: "base_dist",
    dist.MaskedDistribution: "base_dist",
}


def present(table: Mapping[str, Any]) -> dict[Any, Any]:
    """The entries whose names this version of numpyro has, by what they name."""
    return {getattr(dist, n): entry for n, entry in table.items() if hasattr(dist, n)}


def _above(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda values: LowerBound(values[name])


def _more_than_dimension(values: Mapping[str, Any]) -> Any:
    # Wishart: concentration > p - 1 for p x p matrices.
    return LowerBound(values["scale_tril"].shape[-1] - 1.0)


def _marginal(name: str) -> Parameter:
    # numpyro declares a scalar, but the last axis of the marginals is the event.
    return Parameter(
        "free",
        constraints.independent(constraints.positive, 1),
        read=lambda d: jnp.broadcast_to(
            getattr(d.marginal_dist, name), d.marginal_dist.batch_shape
        ),
    )


_REAL = Parameter("free", constraints.real)
_BOUND = replace(_REAL, held=True)
_POSITIVE_BOUND = Parameter("free", constraints.positive, held=True)
_HIGH = Parameter("free", "greater than low", bijection=_above("low"))
_ANGLE = Parameter("free", constraints.circular, bijection=Wrap())
_WISHART = Parameter("free", "greater than dimension - 1", bijection=_more_than_dimension)
_CONSTANT = Parameter("constant")

CORRECTIONS: dict[Any, dict[str, Parameter]] = {
    dist.Uniform: {"low": _REAL, "high": _HIGH},
    dist.LogUniform: {"high": _HIGH},
    dist.DoublyTruncatedPowerLaw: {
        "low": _POSITIVE_BOUND,
        "high": replace(_HIGH, held=True),
    },
    dist.LowerTruncatedPowerLaw: {"low": _POSITIVE_BOUND},
    dist.LeftTruncatedDistribution: {"low": _BOUND},
    dist.RightTruncatedDistribution: {"high": _BOUND},
    dist.TwoSidedTruncatedDistribution: {"low": _BOUND, "high": replace(_HIGH, held=True)},
    dist.Delta: {"v": _REAL, "log_density": replace(_REAL, held=True)},
    dist.CAR: {"adj_matrix": _CONSTANT},
    dist.GaussianCopulaBeta: {n: _marginal(n) for n in ("concentration1", "concentration0")},
    dist.EulerMaruyama: {"t": replace(_CONSTANT, constraint=constraints.ordered_vector)},
    dist.MatrixNormal: {"loc": Parameter("free", constraints.real_matrix)},
    dist.SineBivariateVonMises: {"phi_loc": _ANGLE, "psi_loc": _ANGLE},
    dist.GaussianStateSpace: {"initial_value": replace(_CONSTANT, default=None)},
    dist.Wishart: {"concentration": _WISHART},
    dist.WishartCholesky: {"concentration": _WISHART},
    dist.InverseWishart: {"concentration": _WISHART},
    dist.InverseWishartCholesky: {"concentration": _WISHART},
}

CORRECTIONS |= present(  # new in numpyro 0.22
    {
        "LeftTruncatedGamma": {"low": _POSITIVE_BOUND},
        "RightTruncatedGamma": {"high": _POSITIVE_BOUND},
        "TwoSidedTruncatedGamma": {"low": _POSITIVE_BOUND, "high": replace(_HIGH, held=True)},
    }
)

# Exactly one of these is given; second, the object whose attributes say which one it was.
_MATRIX = ("covariance_matrix", "precision_matrix", "scale_tril")
_SCALE = ("scale_matrix", "rate_matrix", "scale_tril")
ALTERNATIVES: dict[Any, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    dist.MultivariateNormal: (_MATRIX, lambda d: d),
    dist.GaussianStateSpace: (_MATRIX, lambda d: d.base_dist.base_dist),
    dist.WishartCholesky: (_SCALE, lambda d: d),
    dist.InverseWishartCholesky: (_SCALE, lambda d: d),
    dist.Wishart: (_SCALE, lambda d: d.base_dist),
    dist.InverseWishart: (_SCALE, lambda d: d.base_dist),
    dist.CirculantNormal: (("covariance_row", "covariance_rfft"), lambda d: d),
    dist.GaussianCopula: (("correlation_matrix", "correlation_cholesky"), lambda d: d.base_dist),
    dist.GaussianCopulaBeta: (
        ("correlation_matrix", "correlation_cholesky"),
        lambda d: d.base_dist,
    ),
    dist.SineBivariateVonMises: (("correlation", "weighted_correlation"), lambda d: d),
}

# The name under which the copula's inner normal keeps each alternative.
KEPT_AS = {"correlation_matrix": "covariance_matrix", "correlation_cholesky": "scale_tril"}

_FACTOR = Parameter(
    "free", constraints.positive_definite, CovarianceFactor(), argument="scale_tril"
)
FACTORED = {
    "covariance_matrix": _FACTOR,
    "precision_matrix": _FACTOR,
    "scale_matrix": _FACTOR,
    "rate_matrix": _FACTOR,
    "correlation_matrix": Parameter(
        "free",
        constraints.corr_matrix,
        nt.CorrCholeskyTransform(),
        argument="correlation_cholesky",
        read=lambda d: d.base_dist.scale_tril,
    ),
    "correlation_cholesky": Parameter(
        "free", constraints.corr_cholesky, read=lambda d: d.base_dist.scale_tril
    ),
    "covariance_row": Parameter(
        "free",
        constraints.positive_definite_circulant_vector,
        nt.IndependentTransform(Exp(), 1),
        argument="covariance_rfft",
    ),
    "weighted_correlation": Parameter(
        "free",
        constraints.real,
        read=lambda d: d.correlation / jnp.sqrt(d.phi_concentration * d.psi_concentration),
    ),
}


# ---- transforms with parameters


def _attribute(name: str) -> Callable[[Any], Any]:
    return lambda instance: getattr(instance, name)


def _signed(name: str, default: Any = MISSING) -> Parameter:
    return Parameter(
        "free",
        "non-zero real",
        SignedExp(False),
        read=_attribute(name),
        default=default,
        per_instance=lambda value: SignedExp(jnp.asarray(value) < 0),
    )


def _free(name: str, constraint: Any) -> Parameter:
    return Parameter("free", constraint, read=_attribute(name))


def _static(name: str, default: Any = MISSING) -> Parameter:
    return Parameter("static", read=_attribute(name), default=default)


def _nested(name: str) -> Parameter:
    return Parameter("nested", read=_attribute(name))


TRANSFORMS: dict[Any, Recipe] = {
    nt.AffineTransform: Recipe(
        "AffineTransform",
        nt.AffineTransform,
        {
            "loc": _free("loc", constraints.real),
            "scale": _signed("scale"),
            "domain": _static("domain", constraints.real),
        },
    ),
    nt.PowerTransform: Recipe(
        "PowerTransform", nt.PowerTransform, {"exponent": _signed("exponent")}
    ),
    nt.LowerCholeskyAffine: Recipe(
        "LowerCholeskyAffine",
        nt.LowerCholeskyAffine,
        {
            "loc": _free("loc", constraints.real_vector),
            "scale_tril": _free("scale_tril", constraints.lower_cholesky),
        },
    ),
    nt.RecursiveLinearTransform: Recipe(
        "RecursiveLinearTransform",
        nt.RecursiveLinearTransform,
        {
            "transition_matrix": _free("transition_matrix", constraints.real_matrix),
            "initial_value": _static("initial_value", None),
        },
    ),
    nt.ComposeTransform: Recipe(
        "ComposeTransform", nt.ComposeTransform, {"parts": _nested("parts")}
    ),
    nt.IndependentTransform: Recipe(
        "IndependentTransform",
        nt.IndependentTransform,
        {
            "base_transform": _nested("base_transform"),
            "reinterpreted_batch_ndims": _static("reinterpreted_batch_ndims"),
        },
    ),
    nt._InverseTransform: Recipe(
        "InverseTransform", lambda inverse_of: inverse_of.inv, {"inverse_of": _nested("inv")}
    ),
}
