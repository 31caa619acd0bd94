"""What is known of a discrete latent that is to be summed out."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from numpyro.distributions.constraints import Constraint

from funcvi._numpyro import SCAN_INDEX
from funcvi.targets.replay import Message

__all__ = ["DiscreteSite", "discrete_site"]

_MOST = 1000  # values of a site


class DiscreteSite(NamedTuple):
    """A discrete latent.

    Attributes:
        values: all of them.
        batch_shape: in a scan, that of one step.
        plates: of the long axes of the batch shape.
        support: as it was where the model was looked at.
        length: of the scan that it is in, if it is in one.
    """

    values: Array
    batch_shape: tuple[int, ...]
    plates: tuple[str, ...]
    support: Constraint
    length: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values that a run draws."""
        steps = () if self.length is None else (self.length,)
        return (*steps, *self.batch_shape)


def discrete_site(name: str, site: Message) -> DiscreteSite:
    """What is known of a discrete latent of a trace.

    Raises:
        ValueError: it has too many values, or batch axes outside of plates.
    """
    d, kind = site["fn"], type(site["fn"]).__name__
    frames = {frame.dim: frame.name for frame in site["cond_indep_stack"]}
    length = int(d.batch_shape[0]) if SCAN_INDEX in site["infer"] else None
    batch_shape = tuple(d.batch_shape[0 if length is None else 1 :])
    dims = range(-len(batch_shape), 0)
    long = [dim for dim, size in zip(dims, batch_shape, strict=True) if size > 1]
    what = f"latent site {name!r} is discrete ({kind})"
    if jnp.shape(site["value"]) != tuple(d.shape()):
        raise ValueError(f"{what} with a sample_shape: put it in numpyro.plate instead.")
    if not d.has_enumerate_support or d.event_shape:
        raise ValueError(
            f"{what} without a few single values: sum it out by hand, and observe the result."
        )
    if outside := [dim for dim in long if dim not in frames]:
        raise ValueError(
            f"{what} with the batch shape {batch_shape}, of which axis {outside[0]} is no plate: "
            "put it in numpyro.plate, so that it can be summed out."
        )
    try:
        values = jnp.asarray(d.enumerate_support(expand=False)).reshape(-1)
    except NotImplementedError as error:
        raise ValueError(f"{what}, whose values cannot be listed: {error}") from None
    if len(values) > _MOST:
        raise ValueError(
            f"{what} with {len(values)} values, more than {_MOST}: sum it out by hand."
        )
    plates = tuple(frames[dim] for dim in long)
    return DiscreteSite(values, batch_shape, plates, d.support, length)
