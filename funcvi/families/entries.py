"""What numpyro does not say about its constructors, or says wrongly: one entry for each class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi._numpyro import BATCHED_AFFINE, INITIAL_VALUE, MASK, SUPPORT, InverseTransform, named
from funcvi.bijections import Exp, SignedExp, Wrap
from funcvi.families.signatures import Argument, Carried, Dependent, Instance, Kind, Shape, shape_of
from funcvi.vector_bijections import CovarianceFactor

__all__ = ["ENTRIES", "NESTED", "Entry"]

#: Constructor arguments that are distributions or transforms.
NESTED = {
    "base_dist",
    "base_distribution",
    "mixing_distribution",
    "component_distribution",
    "component_distributions",
    "marginal_dist",
    "init_dist",
    "transforms",
    "parts",
    "base_transform",
    "inverse_of",
}


@dataclass(frozen=True)
class Entry:
    """What to know of a class beyond its signature and ``arg_constraints``.

    Exactly one of the ``alternatives`` is given (by the name that ``holder`` stores it under); the
    params of a ``transparent`` class are those of what it wraps.
    """

    arguments: Mapping[str, Argument] = field(default_factory=dict)
    alternatives: Mapping[str, str] = field(default_factory=dict)
    holder: type | None = None
    transparent: str | None = None
    build: Callable[..., Instance] | None = None


# ---- constructors that need help ----------------------------------------------------------------


def _expand(base_dist: dist.Distribution, batch_shape: Shape = ()) -> dist.Distribution:
    # New leading batch dimensions of the params pass through the expansion.
    shape = jnp.broadcast_shapes(batch_shape, base_dist.batch_shape)
    return dist.ExpandedDistribution(base_dist, shape)


def _zero_sum(scale: jax.Array, event_shape: Shape) -> dist.Distribution:
    # numpyro would broadcast a batch of scales against the event, silently.
    if jnp.ndim(scale) > 0:
        raise ValueError(
            "ZeroSumNormal has no batch in numpyro: scale must be a scalar, got shape "
            f"{jnp.shape(scale)}. Map over the params with jax.vmap instead."
        )
    return dist.ZeroSumNormal(scale, event_shape)


def _inverse(inverse_of: nt.Transform) -> nt.Transform:
    return inverse_of.inv


# ---- bijections that depend on siblings or on the first value -----------------------------------


def _least_concentration(matrix: object) -> float:
    """Of a Wishart's p x p matrices: p - 1."""
    return shape_of(matrix)[-1] - 1.0


def _with_its_sign(value: npt.ArrayLike) -> nt.Transform:
    return SignedExp(jnp.asarray(value) < 0)


# ---- valid matrices near invalid ones -----------------------------------------------------------


def _nearest_definite(matrix: npt.NDArray) -> npt.NDArray:
    """The matrix with its eigenvalues raised to a thousandth of the largest."""
    matrix = np.nan_to_num((matrix + np.swapaxes(matrix, -1, -2)) / 2)
    values, vectors = np.linalg.eigh(matrix)
    top = values.max(-1, keepdims=True)
    values = np.maximum(values, 1e-3 * np.where(top > 0, top, 1.0))
    return (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def _nearest_correlation(matrix: npt.NDArray) -> npt.NDArray:
    raised = _nearest_definite(matrix)
    scale = np.sqrt(np.diagonal(raised, axis1=-2, axis2=-1))
    return raised / scale[..., None] / scale[..., None, :]


def _nearest_circulant(row: npt.NDArray) -> npt.NDArray:
    spectrum = np.fft.rfft(row).real
    spectrum = np.maximum(spectrum, 1e-3 * max(spectrum.max(), 1.0))
    return np.fft.irfft(spectrum, row.shape[-1])


# ---- what an instance keeps in another form -----------------------------------------------------


def _of_marginals(name: str, d: Instance) -> object:
    assert isinstance(d, dist.GaussianCopulaBeta)
    return jnp.broadcast_to(getattr(d.marginal_dist, name), d.marginal_dist.batch_shape)


def _folded(d: Instance) -> object:
    # numpyro merges the transforms of a transformed base with its own.
    assert isinstance(d, dist.FoldedDistribution)
    inner = d.transforms[:-1]
    return dist.TransformedDistribution(d.base_dist, inner) if inner else d.base_dist


def _weighted_correlation(d: Instance) -> object:
    assert isinstance(d, dist.SineBivariateVonMises)
    return d.correlation / jnp.sqrt(d.phi_concentration * d.psi_concentration)


def _reinterpreted_axes(d: dist.Distribution) -> Shape:
    return tuple(d.event_shape[: d.reinterpreted_batch_ndims])


def _component_axis(d: dist.Distribution) -> Shape:
    return tuple(d.component_distribution.batch_shape[-1:])


# ---- the table ----------------------------------------------------------------------------------

_REAL = Argument(constraint=constraints.real)
_BOUND = replace(_REAL, kind=Kind.HELD)
_POSITIVE_BOUND = Argument(Kind.HELD, constraints.positive)
_HIGH = Argument(bijection=Dependent(("low",), jnp.asarray, "greater than low"))
_HELD_HIGH = replace(_HIGH, kind=Kind.HELD)
_ANGLE = Argument(constraint=constraints.circular, bijection=Wrap())
_SIGNED = Argument(bijection=SignedExp(False), from_value=_with_its_sign)
_MATRIX = Argument(constraint=constraints.real_matrix)
_CONSTANT = Argument(Kind.CONSTANT)
_INSIDE = Argument(Kind.NESTED, attribute="base_dist")
_FACTORED = Argument(
    constraint=constraints.positive_definite,
    bijection=CovarianceFactor(),
    carried=Carried("scale_tril", "scale_tril", _nearest_definite),
)
_CORRELATION = {
    "correlation_matrix": Argument(
        constraint=constraints.corr_matrix,
        bijection=nt.CorrCholeskyTransform(),
        carried=Carried("correlation_cholesky", "base_dist.scale_tril", _nearest_correlation),
    ),
    "correlation_cholesky": Argument(
        constraint=constraints.corr_cholesky, attribute="base_dist.scale_tril"
    ),
}
_STORED_CORRELATION = {
    "covariance_matrix": "correlation_matrix",
    "scale_tril": "correlation_cholesky",
}
_COVARIANCE = {"covariance_matrix": _FACTORED, "precision_matrix": _FACTORED}


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _of_beta_marginals(name: str) -> Argument:
    # numpyro declares scalars, but the last axis of the marginals is the event.
    positive = constraints.independent(constraints.positive, 1)
    return Argument(constraint=positive, attribute=partial(_of_marginals, name))


_SCALES = _same("scale_matrix", "rate_matrix", "scale_tril")
_WISHART = {
    "scale_matrix": _FACTORED,
    "rate_matrix": _FACTORED,
    "concentration": Argument(
        bijection=Dependent(tuple(_SCALES), _least_concentration, "greater than dimension - 1")
    ),
}
_COVARIANCES = _same("covariance_matrix", "precision_matrix", "scale_tril")

#: Of the transforms, those with parameters: every other one is held whole.
ENTRIES: dict[type, Entry] = {
    dist.CAR: Entry({"adj_matrix": _CONSTANT}),
    dist.CirculantNormal: Entry(
        {
            "covariance_row": Argument(
                constraint=constraints.positive_definite_circulant_vector,
                bijection=nt.IndependentTransform(Exp(), 1),
                carried=Carried("covariance_rfft", "covariance_rfft", _nearest_circulant),
            )
        },
        _same("covariance_row", "covariance_rfft"),
        dist.CirculantNormal,
    ),
    dist.Delta: Entry({"v": _REAL, "log_density": _BOUND}),
    dist.DoublyTruncatedPowerLaw: Entry({"low": _POSITIVE_BOUND, "high": _HELD_HIGH}),
    dist.EulerMaruyama: Entry({"t": Argument(Kind.CONSTANT, constraints.ordered_vector)}),
    dist.ExpandedDistribution: Entry(transparent="base_dist", build=_expand),
    dist.FoldedDistribution: Entry({"base_dist": replace(_INSIDE, attribute=_folded)}),
    dist.GaussianCopula: Entry(
        {
            **_CORRELATION,
            "marginal_dist": Argument(Kind.NESTED, inner_axes=attrgetter("event_shape")),
        },
        _STORED_CORRELATION,
        dist.MultivariateNormal,
    ),
    dist.GaussianCopulaBeta: Entry(
        {
            **_CORRELATION,
            "concentration1": _of_beta_marginals("concentration1"),
            "concentration0": _of_beta_marginals("concentration0"),
        },
        _STORED_CORRELATION,
        dist.MultivariateNormal,
    ),
    dist.GaussianStateSpace: Entry(
        {
            **_COVARIANCE,
            "transition_matrix": replace(_MATRIX, batched=False),
            "initial_value": replace(_CONSTANT, attribute=INITIAL_VALUE),
        },
        _COVARIANCES,
        dist.MultivariateNormal,
    ),
    dist.Independent: Entry(
        {"base_dist": replace(_INSIDE, inner_axes=_reinterpreted_axes)}, transparent="base_dist"
    ),
    dist.InverseWishart: Entry(_WISHART, _SCALES, dist.InverseWishartCholesky),
    dist.InverseWishartCholesky: Entry(_WISHART, _SCALES, dist.InverseWishartCholesky),
    dist.LeftTruncatedDistribution: Entry({"low": _BOUND}),
    dist.LogUniform: Entry({"high": _HIGH}),
    dist.LowerTruncatedPowerLaw: Entry({"low": _POSITIVE_BOUND}),
    dist.MaskedDistribution: Entry(
        {"mask": Argument(Kind.CONSTANT, constraints.boolean, attribute=MASK)},
        transparent="base_dist",
    ),
    dist.MatrixNormal: Entry({"loc": _MATRIX}),
    dist.MixtureGeneral: Entry({"support": Argument(Kind.STATIC, attribute=SUPPORT)}),
    dist.MixtureSameFamily: Entry(
        {"component_distribution": Argument(Kind.NESTED, inner_axes=_component_axis)}
    ),
    dist.MultivariateNormal: Entry(_COVARIANCE, _COVARIANCES, dist.MultivariateNormal),
    dist.RightTruncatedDistribution: Entry({"high": _BOUND}),
    dist.SineBivariateVonMises: Entry(
        {
            "phi_loc": _ANGLE,
            "psi_loc": _ANGLE,
            "weighted_correlation": replace(_REAL, attribute=_weighted_correlation),
        },
        _same("correlation", "weighted_correlation"),
        dist.SineBivariateVonMises,
    ),
    dist.TransformedDistribution: Entry({"base_distribution": _INSIDE}),
    dist.TwoSidedTruncatedDistribution: Entry({"low": _BOUND, "high": _HELD_HIGH}),
    dist.Uniform: Entry({"low": _REAL, "high": _HIGH}),
    dist.Wishart: Entry(_WISHART, _SCALES, dist.WishartCholesky),
    dist.WishartCholesky: Entry(_WISHART, _SCALES, dist.WishartCholesky),
    dist.ZeroSumNormal: Entry(build=_zero_sum),
    **dict.fromkeys(named("LeftTruncatedGamma"), Entry({"low": _POSITIVE_BOUND})),
    **dict.fromkeys(named("RightTruncatedGamma"), Entry({"high": _POSITIVE_BOUND})),
    **dict.fromkeys(
        named("TwoSidedTruncatedGamma"), Entry({"low": _POSITIVE_BOUND, "high": _HELD_HIGH})
    ),
    nt.AffineTransform: Entry({"loc": _REAL, "scale": _SIGNED}),
    nt.ComposeTransform: Entry(),
    nt.IndependentTransform: Entry(),
    nt.LowerCholeskyAffine: Entry(
        {
            "loc": Argument(constraint=constraints.real_vector),
            "scale_tril": Argument(constraint=constraints.lower_cholesky, batched=BATCHED_AFFINE),
        }
    ),
    nt.PowerTransform: Entry({"exponent": _SIGNED}),
    nt.RecursiveLinearTransform: Entry({"transition_matrix": _MATRIX}),
    InverseTransform: Entry({"inverse_of": Argument(Kind.NESTED, attribute="inv")}, build=_inverse),
}
