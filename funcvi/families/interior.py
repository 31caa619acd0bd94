"""Refusing an initial value on or next to a boundary, and saying which value would do."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import transforms as nt

from funcvi.bijections import (
    CovarianceFactor,
    Exp,
    LowerBound,
    Ordered,
    SignedExp,
    Softplus,
    UpperBound,
)
from funcvi.constraints import constraint_name
from funcvi.families.slots import Free

__all__ = ["check_interior", "shown"]

_LIMIT = 80.0  # the largest |u| at which every bijection is finite in float32
_LARGE = 1e30


def check_interior(given: Any, u: Any, bijection: Any, slot: Free, label: str) -> None:
    """Raise unless ``u``, the unconstrained form of ``given``, is finite and maps back to it."""
    given = np.asarray(given, float)
    what = constraint_name(slot.constraint if slot.constraint is not None else bijection.codomain)
    if np.isnan(given).any():
        trouble = f"is NaN, where a finite initial value is needed ({what})"
    elif not _is_interior(u, bijection):
        trouble = (
            f"lies on, next to or outside the boundary of its constraint ({what}), where the "
            "unconstrained value is not finite"
        )
    elif slot.argument is None and not _maps_back(given, u, bijection):
        trouble = f"is outside its constraint ({what})"
    else:
        return
    works = _nearby(given, u, bijection, slot)
    raise ValueError(
        f"{label} = {shown(given)} {trouble}.\nA value that works: {shown(works, digits=9)}."
    )


def _is_interior(u: Any, bijection: Any) -> bool:
    u = np.asarray(u)
    return bool(np.isfinite(u).all() and (np.abs(_log_scaled(u, bijection)) <= _LIMIT).all())


def _maps_back(given: np.ndarray, u: Any, bijection: Any) -> bool:
    """Whether the inverse was one: that of a simplex, say, gives some u for any positive vector."""
    if isinstance(bijection, nt.IndependentTransform) or bijection.domain.event_dim == 0:
        return True
    return bool(np.allclose(bijection(u), given, rtol=1e-3, atol=1e-4 * np.abs(given).max()))


def _log_scaled(u: np.ndarray, bijection: Any) -> np.ndarray:
    """The coordinates of ``u`` that go through exp or a sigmoid; the others may be any size."""
    while isinstance(bijection, nt.IndependentTransform):
        bijection = bijection.base_transform
    if isinstance(bijection, nt.ComposeTransform):
        bijection = bijection.parts[0]
    if isinstance(bijection, Softplus):
        return np.minimum(u, 0)
    if isinstance(bijection, (CovarianceFactor, nt.LowerCholeskyTransform)):
        n = CovarianceFactor._size(u.shape[-1])
        return u[..., -n:]
    if isinstance(bijection, Ordered) and type(bijection) is Ordered:
        return u[..., 1:]
    if isinstance(bijection, nt.IdentityTransform) or getattr(
        bijection.codomain, "base_constraint", bijection.codomain
    ) in (nt.constraints.real, nt.constraints.circular):
        return np.zeros(1)
    return u


def _nearby(given: np.ndarray, u: Any, bijection: Any, slot: Free) -> np.ndarray:
    """A value close to ``given`` that does work; at worst, the image of zero."""
    if slot.argument == "covariance_rfft":
        spectrum = np.fft.rfft(given).real
        spectrum = np.maximum(spectrum, 1e-3 * max(spectrum.max(), 1.0))
        return np.fft.irfft(spectrum, given.shape[-1])
    if slot.argument is not None and given.ndim >= 2:
        return _definite(given, slot.argument == "correlation_cholesky")
    for candidate in _candidates(given, bijection):
        x = jnp.asarray(candidate, u.dtype)
        if np.isfinite(candidate).all() and _is_interior(bijection.inv(x), bijection):
            return np.asarray(candidate)
    return np.asarray(bijection(jnp.zeros_like(u)))


def _definite(matrix: np.ndarray, is_correlation: bool) -> np.ndarray:
    """The matrix with its eigenvalues raised to a thousandth of the largest."""
    matrix = np.nan_to_num((matrix + np.swapaxes(matrix, -1, -2)) / 2)
    values, vectors = np.linalg.eigh(matrix)
    top = values.max(-1, keepdims=True)
    values = np.maximum(values, 1e-3 * np.where(top > 0, top, 1.0))
    raised = (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    if is_correlation:
        scale = np.sqrt(np.diagonal(raised, axis1=-2, axis2=-1))
        raised = raised / scale[..., None] / scale[..., None, :]
    return raised


def _candidates(value: np.ndarray, bijection: Any) -> Iterator[np.ndarray]:
    while isinstance(bijection, nt.IndependentTransform):
        bijection = bijection.base_transform
    name = constraint_name(bijection.codomain)
    if isinstance(bijection, (Exp, Softplus, LowerBound)):
        bound = np.asarray(getattr(bijection, "floor", getattr(bijection, "bound", 0.0)))
        yield np.clip(value, bound + 1e-3 * np.maximum(1, np.abs(bound)), _LARGE)
    elif isinstance(bijection, UpperBound):
        bound = np.asarray(bijection.bound)
        yield np.clip(value, -_LARGE, bound - 1e-3 * np.maximum(1, np.abs(bound)))
    elif isinstance(bijection, SignedExp):
        yield np.where(bijection.negative, -1.0, 1.0) * np.clip(np.abs(value), 1e-3, _LARGE)
    elif "interval" in name:
        low, high = (
            np.asarray(getattr(bijection.codomain, f"{s}_bound")) for s in ("lower", "upper")
        )
        margin = 1e-3 * (high - low)
        yield np.clip(value, low + margin, high - margin)
    elif name == "simplex":
        raised = np.maximum(value, 1e-3)
        yield raised / raised.sum(-1, keepdims=True)
    elif "ordered" in name:
        gaps = 1e-3 * np.maximum(1, np.abs(value).max(-1, keepdims=True))
        spread = np.sort(value, -1) + gaps * np.arange(value.shape[-1])
        yield (
            spread
            if "positive" not in name
            else np.maximum(spread, gaps * (1 + np.arange(value.shape[-1])))
        )
    elif value.ndim >= 2:
        eye = np.eye(value.shape[-1])
        size = np.maximum(np.abs(np.nan_to_num(value)).max(), 1.0)
        yield np.nan_to_num(value) + 1e-3 * size * eye


def shown(value: Any, digits: int = 4) -> str:
    """A number or array in a message; long arrays by their edges."""
    value = np.asarray(value, float)
    if value.ndim == 0:
        return f"{float(value):.6g}"
    text = np.array2string(value, precision=digits, threshold=12, edgeitems=2, separator=", ")
    return " ".join(text.split())
