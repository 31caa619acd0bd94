"""Refusing an initial value on or next to a boundary, and saying which value would do."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from numpyro.distributions import transforms as nt

from funcvi.bijections import Bijection, Floats, Interval
from funcvi.families.roles import Learned
from funcvi.runtime_checks import concrete
from funcvi.vector_bijections import CovarianceFactor

__all__ = ["check_interior", "shown"]

_LIMIT = 80.0  # the largest |u| at which every bijection is finite in float32


def check_interior(
    value: object, u: jax.Array, bijection: nt.Transform, role: Learned, label: str
) -> None:
    """Raise unless ``u``, the unconstrained form of ``value``, is finite and maps back to it.

    Values that are traced are not known yet: they pass.
    """
    x, image = concrete(value), concrete(u)
    if x is None or image is None:
        return
    x = np.asarray(x, float)
    if np.isnan(x).any():
        trouble = f"is NaN, where a finite initial value is needed ({role})"
    elif not _is_interior(image, bijection):
        trouble = (
            f"lies on, next to or outside the boundary of its constraint ({role}), where the "
            "unconstrained value is not finite"
        )
    elif role.carried is None and not _maps_back(x, u, bijection):
        trouble = f"is outside its constraint ({role})"
    else:
        return
    works = _nearby(x, u, bijection, role)
    raise ValueError(
        f"{label} = {shown(x)} {trouble}.\nA value that works: {shown(works, digits=9)}."
    )


def _is_interior(u: Floats, bijection: nt.Transform) -> bool:
    return bool(np.isfinite(u).all() and (np.abs(_exponents(u, bijection)) <= _LIMIT).all())


def _maps_back(x: Floats, u: jax.Array, bijection: nt.Transform) -> bool:
    """Whether the inverse was one: that of a simplex, say, gives some u for any positive vector."""
    if isinstance(bijection, nt.IndependentTransform) or bijection.domain.event_dim == 0:
        return True
    return bool(np.allclose(bijection(u), x, rtol=1e-3, atol=1e-4 * np.abs(x).max()))


def _innermost(bijection: nt.Transform) -> nt.Transform:
    """The elementwise transform of an independent one, the first of several."""
    while isinstance(bijection, (nt.IndependentTransform, nt.ComposeTransform)):
        is_several = isinstance(bijection, nt.ComposeTransform)
        bijection = bijection.parts[0] if is_several else bijection.base_transform
    return bijection


def _exponents(u: Floats, bijection: nt.Transform) -> Floats:
    """The coordinates of ``u`` that go through exp or a sigmoid; the others may be any size."""
    bijection = _innermost(bijection)
    if isinstance(bijection, nt.LowerCholeskyTransform):
        return CovarianceFactor().exponents(u)
    if isinstance(bijection, Bijection):
        return bijection.exponents(u)
    return np.zeros(0) if isinstance(bijection, nt.IdentityTransform) else u


def _nearby(x: Floats, u: jax.Array, bijection: nt.Transform, role: Learned) -> npt.ArrayLike:
    """A value close to ``x`` that does work; at worst, the image of zero."""
    if role.carried is not None:
        return role.carried.nearest(x)
    candidate = _nearest(x, bijection)
    if np.isfinite(candidate).all():
        image = np.asarray(bijection.inv(jnp.asarray(candidate, u.dtype)))
        if _is_interior(image, bijection):
            return candidate
    return np.asarray(bijection(jnp.zeros_like(u)))


def _nearest(x: Floats, bijection: nt.Transform) -> Floats:
    inner = _innermost(bijection)
    if isinstance(inner, nt.SigmoidTransform):
        inner = Interval(0.0, 1.0)
    if not isinstance(inner, Bijection):  # of a matrix, or one that says nothing of its edges
        inner = CovarianceFactor() if x.ndim >= 2 else Bijection()
    return inner.nearest_interior(x)


def shown(value: object, digits: int = 4) -> str:
    """A number or array in a message; long arrays by their edges."""
    array = np.asarray(value, float)
    if array.ndim == 0:
        return f"{float(array):.6g}"
    text = np.array2string(array, precision=digits, threshold=12, edgeitems=2, separator=", ")
    return " ".join(text.split())
