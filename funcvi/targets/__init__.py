"""Targets: a model or a log density as a function on unconstrained space."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from funcvi._checks import takes
from funcvi.targets.data import batch_axes, traced_data, with_data
from funcvi.targets.of_density import Support, from_log_density
from funcvi.targets.of_model import from_model
from funcvi.targets.record import Minibatch, ModelCall, Shape, Sites, Target, leading_shape
from funcvi.targets.rows import on_all_rows

__all__ = [
    "Minibatch",
    "ModelCall",
    "Shape",
    "Sites",
    "Target",
    "batch_axes",
    "leading_shape",
    "on_all_rows",
    "target",
    "traced_data",
    "with_data",
]


def target(
    model: Callable[..., Any],
    *args: object,
    supports: Mapping[str, Support] | None = None,
    **kwargs: object,
) -> Target:
    """A target from a numpyro model, or from a log density with the supports of its arguments.

    Args:
        model: a numpyro model, called as ``model(*args, **kwargs)``; or, with ``supports``, a
            function of a dict of constrained values that returns their joint log density.
        *args: the model's data. Arrays become JAX arrays once, here.
        supports: for a log density, the constraint of each argument: a constraint of
            ``numpyro.distributions.constraints`` (shape ()), or ``(constraint, shape)``.
        **kwargs: as ``args``.

    Returns:
        A :class:`Target`.

    Raises:
        ValueError: the model has no continuous latent site, or a discrete one that cannot be summed
            out, or latents inside of a subsampling plate whose rows depend on each other; the
            message names it.
        TypeError: ``model`` is not callable, or does not take these arguments; or a support is not
            a constraint.

    Example:
        >>> import numpyro.distributions as dist
        >>> from numpyro.distributions import constraints
        >>> import funcvi as fv
        >>> t = fv.target(lambda x: dist.Gamma(2.0, 1.0).log_prob(x["a"]),
        ...               supports={"a": constraints.positive})
        >>> t
        Target with 1 latent site(s)
          a: positive, unconstrained shape ()
    """
    if not callable(model):
        raise TypeError(f"model must be a function, got {type(model).__name__}.")
    if supports is not None:
        if args or kwargs:
            raise TypeError("a log density takes the dict of values alone: close over its data.")
        return from_log_density(model, supports)
    if not takes(model, *args, **kwargs):
        raise TypeError(
            f"the model takes {inspect.signature(model)}, and gets {len(args)} argument(s) and "
            f"{list(kwargs)}: fv.target(model, *data).\nA log density of values by site names "
            'their supports: fv.target(log_density, supports={"a": constraints.positive}).'
        )
    arrays = jax.tree.map(_as_array, (args, kwargs))
    return from_model(model, *arrays)


def _as_array(leaf: object) -> object:
    return jnp.asarray(leaf) if hasattr(leaf, "dtype") else leaf
