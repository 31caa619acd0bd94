"""A distribution of flowjax as one of numpyro; flowjax itself is not imported."""

import sys
from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from funcvi._types import Key

__all__ = ["FlowjaxLike", "from_flowjax"]

Arrays = dict[str, Array]


@runtime_checkable
class FlowjaxLike(Protocol):
    """What a flowjax distribution has: a pytree with these methods."""

    shape: tuple[int, ...]
    cond_shape: tuple[int, ...] | None

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws (*sample_shape, *shape)."""

    def log_prob(self, x: ArrayLike) -> Array:
        """Their log densities."""

    def sample_and_log_prob(
        self, key: Key, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Both at once."""


class FromFlowjax(dist.Distribution):
    """The distribution ``rebuild(arrays)``, with numpyro's methods.

    A pytree of the arrays alone: what else flowjax keeps in its pytrees (functions, say) is no
    business of ``jax.tree.map``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    pytree_data_fields = ("arrays",)
    pytree_aux_fields = ("rebuild",)
    has_rsample = True

    def __init__(self, arrays: Arrays, rebuild: Callable[[Arrays], FlowjaxLike]) -> None:
        self.arrays, self.rebuild = arrays, rebuild
        super().__init__(event_shape=rebuild(arrays).shape)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
        """As flowjax draws, differentiable in the arrays."""
        return self.rebuild(self.arrays).sample(key, sample_shape)

    def log_prob(self, value: ArrayLike) -> Array:
        """As flowjax scores."""
        return self.rebuild(self.arrays).log_prob(value)

    def sample_and_log_prob(
        self, key: Key, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Both at once, without the inverse."""
        return self.rebuild(self.arrays).sample_and_log_prob(key, sample_shape)


def from_flowjax(module: FlowjaxLike) -> tuple[Arrays, Callable[[Arrays], FromFlowjax]]:
    """Params, the floating-point arrays by their place, and their distribution.

    What paramax marks as not trainable stays as it is.
    """
    if module.cond_shape is not None:
        raise ValueError(
            "family must not be conditional, got a flowjax distribution of cond_shape "
            f"{module.cond_shape}."
        )
    paramax = sys.modules.get("paramax")
    kept = () if paramax is None else (paramax.NonTrainable,)
    leaves, tree = jax.tree_util.tree_flatten_with_path(
        module, is_leaf=lambda x: isinstance(x, kept)
    )
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
    learned = {
        name: jnp.asarray(leaf)
        for name, leaf in named
        if isinstance(leaf, Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)
    }

    def rebuild(arrays: Arrays) -> FlowjaxLike:
        return jax.tree.unflatten(tree, [arrays.get(name, leaf) for name, leaf in named])

    return learned, lambda arrays: FromFlowjax(arrays, rebuild)
