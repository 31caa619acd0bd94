"""A sampler of one's own: the exponentiated Kumaraswamy distribution, by its cdf and density."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from funcvi.sampling import from_cdf

__all__ = ["ExponentiatedKumaraswamy"]


class ExponentiatedKumaraswamy(dist.Distribution):
    """``F(x) = (1 - (1 - x**a)**b)**c`` on the unit interval (doi:10.1080/00949655.2012.657197)."""

    arg_constraints = {  # noqa: RUF012
        "a": constraints.positive,
        "b": constraints.positive,
        "c": constraints.positive,
    }
    support = constraints.unit_interval
    sampling_record = from_cdf("unit")

    def __init__(self, a: Any, b: Any, c: Any, *, validate_args: bool | None = None) -> None:
        self.a, self.b, self.c = jnp.broadcast_arrays(*(jnp.asarray(p) for p in (a, b, c)))
        super().__init__(self.a.shape, validate_args=validate_args)

    def _log_base_cdf(self, x: Array) -> Array:
        return jnp.log(-jnp.expm1(self.b * jnp.log1p(-jnp.power(x, self.a))))

    def cdf(self, x: Array) -> Array:
        return jnp.exp(self.c * self._log_base_cdf(x))

    def log_prob(self, x: Array) -> Array:
        a, b, c = self.a, self.b, self.c
        base = jnp.log(a * b) + (a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-jnp.power(x, a))
        return jnp.log(c) + (c - 1) * self._log_base_cdf(x) + base
