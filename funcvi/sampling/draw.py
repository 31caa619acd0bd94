"""``sample``: one call for a distribution, a joint, or a posterior."""

from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
import numpyro.distributions as dist

from funcvi import _numpyro
from funcvi._checks import check_key
from funcvi._types import Joint, Key
from funcvi.joints import is_joint, map_members
from funcvi.sampling.gradients import pathwise_sample
from funcvi.sampling.registry import raw_sample
from funcvi.wrong_kinds import instead_of_a_distribution

__all__ = ["checked_shape", "raw_sample", "sample", "unvalidated"]

D = TypeVar("D")


@runtime_checkable
class DrawsItself(Protocol):
    """A posterior: it knows how its draws are constrained."""

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> dict[str, jax.Array]:
        """Constrained values, site by site."""

    def sample_unconstrained(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Any:
        """Unconstrained ones."""


def sample(d: Joint | DrawsItself, key: Key, sample_shape: tuple[int, ...] = ()) -> Any:
    """Independent draws, with pathwise gradients wherever they are right.

    Args:
        d: a numpyro distribution, a dict, tuple or list of them, or a posterior made by a guide.
        key: a key from ``jax.random.key``.
        sample_shape: leading axes of independent draws.

    Returns:
        An array of shape (*sample_shape, *batch, *event); for a joint the same container of
        arrays; for a posterior a dict of constrained values, deterministic sites included.
        Continuous draws have the dtype of the distribution's parameters and lie strictly inside
        its support. In bfloat16 and float16 they are drawn in float32 and rounded; counts stay
        integers or float32.

    Raises:
        TypeError: differentiating the draws with respect to a distribution whose pathwise gradient
            would be zero or partial (a discrete one, a hurdle). The message says what to use.
            Also bfloat16 or float16 parameters of a distribution whose draws a rounding would move
            out of the support (a simplex, a factor).
            ``jax.lax.stop_gradient(d)`` asks for draws without gradients.

    Example:
        >>> import jax, numpyro.distributions as dist
        >>> import funcvi as fv
        >>> fv.sample({"a": dist.Normal(0.0, 1.0)}, jax.random.key(0), (4,))["a"].shape
        (4,)
    """
    check_key(key, "fv.sample(d, key, sample_shape)")
    sample_shape = checked_shape(sample_shape)
    if isinstance(d, DrawsItself):
        return d.sample(key, sample_shape)
    if is_joint(d):
        return map_members(lambda member, k: sample(member, k, sample_shape), d, key)
    if not isinstance(d, dist.Distribution):
        raise TypeError(
            "expected a numpyro distribution, a joint or a posterior, "
            f"{instead_of_a_distribution(d)}."
        )
    return pathwise_sample(d, key, sample_shape)


def checked_shape(sample_shape: object) -> tuple[int, ...]:
    """``sample_shape`` as a tuple, or a TypeError that says how to write it."""
    if isinstance(sample_shape, tuple | list) and all(
        isinstance(n, int | np.integer) for n in sample_shape
    ):
        return tuple(int(n) for n in sample_shape)
    hint = f": write ({sample_shape},)" if isinstance(sample_shape, int) else ""
    raise TypeError(f"sample_shape must be a tuple of integers, got {sample_shape!r}{hint}.")


def unvalidated(d: D) -> D:
    """The same distribution with numpyro's checks of values off, all the way down.

    Its own draws need none, and inside jit they cost tracing time and cannot raise.
    """
    return _numpyro.unvalidated(d) if isinstance(d, dist.Distribution) else d
