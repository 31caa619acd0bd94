"""Family: a pure function from a pytree of unconstrained parameters to a distribution, and back."""

from collections.abc import Mapping
from typing import Any

from funcvi._types import Joint, Params
from funcvi.families.describe import describe
from funcvi.families.evaluate import Evaluation
from funcvi.families.invert import invert
from funcvi.families.nodes import node_of

__all__ = ["Family", "family", "unconstrain"]


class Family:
    """Unconstrained params to a distribution: ``q(params)``; and back: ``q.inverse(distribution)``.

    Calling it rebuilds the distribution by its constructor, so gradients flow from the
    distribution to ``params`` at every call and nothing can go stale. It holds no state and works
    under jit, grad and vmap. The batch shape follows the params, so they may come from a network.

    Made by :func:`family` and :func:`unconstrain`.
    """

    def __init__(self, root: Any) -> None:
        self._root = root

    def __call__(self, params: Params) -> Any:
        """The distribution at ``params``.

        Args:
            params: a pytree as :meth:`inverse` gives it, each leaf a floating-point array of shape
                (*batch, *unconstrained event).

        Returns:
            A numpyro distribution, or a dict, tuple or list of them for a joint.

        Raises:
            ValueError: names are missing or unknown, or shapes do not fit together.
            TypeError: a leaf is not a floating-point array.
        """
        return Evaluation(self._root, params).build()

    def inverse(self, distribution: Joint) -> Params:
        """The params at which this family gives ``distribution``.

        Raises:
            ValueError: a value lies on or next to the boundary of its constraint (the message names
                a value that works), or differs from one that the family holds fixed or tied.
            TypeError: the distribution is of another kind than the family's.
        """
        return invert(self._root, distribution)

    def __repr__(self) -> str:
        return describe(self._root)


def family(of: Any, overrides: Mapping[str, Any] | None = None, /, **parameters: Any) -> Family:
    """The family of a distribution: a function from unconstrained params to it, and back.

    Args:
        of: a class or constructor of ``numpyro.distributions``, an instance (as a template, of any
            nesting), or a dict, tuple or list of these for a joint of independent members.
        overrides: what to do with single parameters, by name; nested mappings for nested
            distributions and for the members of a joint.
        **parameters: the same by keyword. Each is a value (held fixed), ``fv.fixed()``,
            ``fv.free()``, ``fv.tied(...)``, a numpyro Transform or constraint (its own bijection),
            or a distribution, class or family for a nested argument.

    Returns:
        A :class:`Family`.

    Raises:
        TypeError: ``of`` is not a numpyro distribution.
        ValueError: an override names no parameter.

    Example:
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> q = fv.family(dist.Gamma)
        >>> params = q.inverse(dist.Gamma(2.0, 1.0))
        >>> {name: round(float(u), 4) for name, u in params.items()}
        {'concentration': 0.6931, 'rate': 0.0}
        >>> round(float(q(params).mean), 4)
        2.0
    """
    if isinstance(of, Family):
        if overrides or parameters:
            raise ValueError("this is a family already: give the overrides where it is made.")
        return of
    return Family(node_of(of, {**(overrides or {}), **parameters}))


def unconstrain(
    distribution: Joint, overrides: Mapping[str, Any] | None = None, /, **parameters: Any
) -> tuple[Params, Family]:
    """Params and family of a distribution at once, as ``ravel_pytree`` does for a pytree.

    What has no meaning to learn stays as the distribution has it: counts, flags, masks, truncation
    bounds, an adjacency matrix. ``fv.free()`` frees it, ``fv.fixed()`` holds more.

    Args:
        distribution: any nesting of numpyro distributions, or a dict, tuple or list of them.
        overrides: as for :func:`family`.
        **parameters: as for :func:`family`.

    Returns:
        ``(params, family)`` with ``family(params)`` equal to ``distribution``.

    Raises:
        ValueError: an initial value lies on or next to a boundary of its constraint.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import funcvi as fv
        >>> params, q = fv.unconstrain(dist.Normal(jnp.zeros(3), jnp.ones(3)).to_event(1))
        >>> q(params).event_shape
        (3,)
    """
    q = family(distribution, overrides, **parameters)
    return q.inverse(distribution), q
