"""Which bijection each constraint gets: from unconstrained reals onto the constraint.

Every forward map here is finite and strictly inside its constraint for any unconstrained value
in [-80, 80], in float32 too: an optimiser that overshoots lands on an extreme but valid parameter.
"""

from collections.abc import Callable

import numpy as np
from numpyro.distributions import constraints
from numpyro.distributions import transforms as nt

from funcvi.bijections import Exp, Interval, LowerBound, Softplus, UpperBound
from funcvi.runtime_checks import concrete
from funcvi.vector_bijections import (
    CorrelationFactor,
    CovarianceFactor,
    Ordered,
    PositiveOrdered,
    Simplex,
)

__all__ = ["bijection_for", "constraint_name"]


def bijection_for(constraint: constraints.Constraint) -> nt.Transform:
    """The bijection from unconstrained space onto ``constraint``.

    Where numpyro's registry (``numpyro.distributions.biject_to``) has a float32-safe map, that one
    is used; the simplex gets the isometric log-ratio map, which has no preferred corner.

    Args:
        constraint: a constraint of ``numpyro.distributions.constraints``.

    Returns:
        A numpyro ``Transform``; ``bijection(u)`` is constrained, ``bijection.inv(x)`` is not.

    Raises:
        NotImplementedError: no bijection from a real vector exists for this constraint.

    Example:
        >>> from numpyro.distributions import constraints
        >>> float(bijection_for(constraints.positive)(0.0))
        1.0
    """
    if isinstance(constraint, nt.Transform):
        return constraint
    for kind, build in _REGISTRY:
        if isinstance(constraint, kind):
            return build(constraint)
    try:
        return nt.biject_to(constraint)
    except NotImplementedError:
        raise NotImplementedError(
            f"no bijection onto {constraint_name(constraint)}: give one of your own "
            "(a numpyro Transform), or fix the parameter with fv.fixed()."
        ) from None


def constraint_name(constraint: constraints.Constraint) -> str:
    """How a constraint reads in messages: ``positive``, ``interval(0, 1)``, ``real vector``."""
    if isinstance(constraint, constraints.independent):
        return constraint_name(constraint.base_constraint)
    if isinstance(constraint, constraints.dependent_property):
        return "dependent"
    name = type(constraint).__name__.lstrip("_")
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
    bounds = [getattr(constraint, b, None) for b in ("lower_bound", "upper_bound")]
    known = [concrete(b) for b in bounds if b is not None]
    # An array, or what is not known under jit, is no number to show.
    shown = [f"{float(b):.4g}" if b is not None and np.ndim(b) == 0 else "..." for b in known]
    if words in ("positive", "nonnegative", "unit interval", "circular", "softplus positive"):
        shown = []
    return f"{words}({', '.join(shown)})" if shown else words


def _independent(constraint: constraints.Constraint) -> nt.Transform:
    base = bijection_for(constraint.base_constraint)
    return nt.IndependentTransform(base, constraint.reinterpreted_batch_ndims)


# First match wins, so a subclass stands before its base class.
_REGISTRY: tuple[tuple[type, Callable[[constraints.Constraint], nt.Transform]], ...] = (
    (constraints.independent, _independent),
    (type(constraints.softplus_positive), lambda c: Softplus()),
    (type(constraints.positive), lambda c: Exp()),
    (type(constraints.nonnegative), lambda c: Exp()),
    (constraints.greater_than, lambda c: LowerBound(c.lower_bound)),
    (constraints.less_than, lambda c: UpperBound(c.upper_bound)),
    (type(constraints.unit_interval), lambda c: nt.SigmoidTransform()),
    (constraints.interval, lambda c: Interval(c.lower_bound, c.upper_bound)),
    (type(constraints.simplex), lambda c: Simplex()),
    (type(constraints.corr_cholesky), lambda c: CorrelationFactor()),
    (type(constraints.positive_ordered_vector), lambda c: PositiveOrdered()),
    (type(constraints.ordered_vector), lambda c: Ordered()),
    (
        type(constraints.positive_definite),
        lambda c: nt.ComposeTransform([CovarianceFactor(), nt.CholeskyTransform().inv]),
    ),
)
