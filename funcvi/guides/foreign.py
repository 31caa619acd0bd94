"""A distribution of flowjax as one of numpyro; flowjax itself is not imported."""

import sys
from collections.abc import Callable
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from funcvi._types import Key

__all__ = ["FlowjaxLike", "from_flowjax"]

T = TypeVar("T")
Arrays = dict[str, Array]


@runtime_checkable
class FlowjaxLike(Protocol):
    """What a flowjax distribution has: a pytree with these methods, of numpyro's arguments."""

    shape: tuple[int, ...]
    cond_shape: tuple[int, ...] | None
    sample: Callable[..., Array]
    log_prob: Callable[[ArrayLike], Array]
    sample_and_log_prob: Callable[..., tuple[Array, Array]]


class FromFlowjax(dist.Distribution):
    """The distribution ``rebuild(arrays)``, with numpyro's methods; of stacked arrays, a batch.

    A pytree of the arrays alone: what else flowjax keeps in its pytrees (functions, say) is no
    business of ``jax.tree.map``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    pytree_data_fields = ("arrays",)
    pytree_aux_fields = ("rebuild", "ndims")
    has_rsample = True

    def __init__(
        self,
        arrays: Arrays,
        rebuild: Callable[[Arrays], FlowjaxLike],
        ndims: tuple[tuple[str, int], ...],
        event_shape: tuple[int, ...],
    ) -> None:
        self.arrays, self.rebuild, self.ndims = arrays, rebuild, ndims
        super().__init__(self._batch(), event_shape)

    def _batch(self) -> tuple[int, ...]:
        """The axes in front of flowjax's own, in all arrays."""
        shapes = {jnp.shape(self.arrays[n])[: jnp.ndim(self.arrays[n]) - k] for n, k in self.ndims}
        if len(shapes) > 1:
            raise ValueError(f"the params have different leading axes: {sorted(shapes)}.")
        return next(iter(shapes), ())

    def _each(
        self, function: Callable[..., T], arg: Array, own: int, behind: int | tuple[int, ...]
    ) -> T:
        """``function(flow, arg)``: batch axes stand before the last ``own`` axes of ``arg``.

        In the results they stand before the last ``behind`` axes.
        """

        def one(arrays: Arrays, arg: Array) -> T:
            return function(self.rebuild(arrays), arg)

        for i in range(1, len(self._batch()) + 1):
            places = jax.tree.map(lambda k, i=i: -k - i, behind)
            one = jax.vmap(one, in_axes=(0, -own - i), out_axes=places)
        return one(self.arrays, arg)

    def _drawn(self, draw: Callable[..., T], key: Key, behind: int | tuple[int, ...]) -> T:
        batch = self._batch()
        keys = jax.random.split(key, batch) if batch else key
        return self._each(draw, keys, jnp.ndim(key), behind)

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
        """As flowjax draws, differentiable in the arrays."""
        return self._drawn(lambda flow, k: flow.sample(k, sample_shape), key, self.event_dim)

    def log_prob(self, value: ArrayLike) -> Array:
        """As flowjax scores."""
        value = jnp.asarray(value)
        if batch := self._batch():
            shape = jnp.broadcast_shapes(value.shape, (*batch, *self.event_shape))
            value = jnp.broadcast_to(value, shape)
        return self._each(lambda flow, x: flow.log_prob(x), value, self.event_dim, 0)

    def sample_and_log_prob(
        self, key: Key, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Both at once, without the inverse."""
        return self._drawn(
            lambda flow, k: flow.sample_and_log_prob(k, sample_shape), key, (self.event_dim, 0)
        )


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

    ndims = tuple((name, jnp.ndim(leaf)) for name, leaf in learned.items())
    return learned, lambda arrays: FromFlowjax(arrays, rebuild, ndims, module.shape)
