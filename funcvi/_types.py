"""The types that the public functions speak of, on one screen."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import numpyro.distributions as dist

#: A typed key from ``jax.random.key`` (a legacy ``uint32`` key works too).
Key: TypeAlias = jax.Array

#: A pytree of unconstrained floating-point arrays.
Params: TypeAlias = Any

#: A distribution, or a joint of independent ones: a dict, tuple or list of distributions.
Joint: TypeAlias = dist.Distribution | Mapping[str, Any] | tuple[Any, ...] | list[Any]

#: ``loss(params, key, *args) -> scalar``.
Loss: TypeAlias = Callable[..., jax.Array]
