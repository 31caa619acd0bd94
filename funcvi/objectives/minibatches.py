"""What is drawn of a posterior whose target has latents inside of subsampling plates.

Each draw reads rows of its own. Its loss is

    log q(g) - log p(g) + (N / B) sum over B rows of [log q(z_i) - log p(z_i, y_i | g)],

whose mean over draws and rows is that of all N rows, and its gradient by the other rows' parameters
is zero (Hoffman et al. 2013, arXiv:1206.7051).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from funcvi.families.rows import elements
from funcvi.guides import Posterior
from funcvi.targets import Minibatch

__all__ = ["check_linear", "of_rows"]

Rows: TypeAlias = Mapping[str, Array]


def of_rows(
    posterior: Posterior, minibatch: Minibatch, rows: Rows
) -> tuple[dict[str, dist.Distribution], dict[str, float]]:
    """The distributions of the sites at some rows, and how often each one's log density counts.

    Args:
        posterior: of all rows.
        minibatch: of its target.
        rows: by plate those of each draw, shape (draw, row).

    Returns:
        By site: those inside of plates have batch shape (draw,), the others none.

    Raises:
        ValueError: the posterior holds rows of a site in one distribution; it names the site.
    """
    q = posterior.unconstrained
    site = next(iter(minibatch.axes))
    if not isinstance(q, Mapping):
        raise _whole(site, q, minibatch)
    for name, sites in posterior.guide.blocks.items():
        if inside := [site for site in sites if site in minibatch.axes]:
            raise _whole(inside[0], q[name], minibatch)
    members = dict(q)
    for site, axes in minibatch.axes.items():
        d = q[site]
        while isinstance(d, dist.Independent):
            d = d.base_dist
        if max(axes) >= len(d.batch_shape):
            raise _whole(site, d, minibatch)
        try:
            some = elements(d, partial(_taken, axes=axes, rows=rows))
        except (TypeError, ValueError) as error:
            raise _whole(site, d, minibatch, f": {error}") from error
        members[site] = some.to_event(len(some.batch_shape) - 1)
    return members, {name: minibatch.count(name) for name in members}


def check_linear(minibatch: Minibatch | None, reader: str) -> None:
    """Raises a ValueError where latents are inside of subsampling plates."""
    if minibatch is None:
        return
    site, axes = next(iter(minibatch.axes.items()))
    raise ValueError(
        f"{reader} is not linear in the log density, of which a minibatch gives an unbiased "
        f"estimate and no more; latent site {site!r} is inside the subsampling plate "
        f"{next(iter(axes.values()))!r}.\nFit by fv.negative_elbo, or leave subsample_size out."
    )


def _taken(value: Array, *, axes: Mapping[int, str], rows: Rows) -> Array:
    """The rows of each draw, shape (draw, *value)."""

    def one(rows: Rows) -> Array:
        taken = value
        for axis, plate in axes.items():
            taken = jnp.take(taken, rows[plate], axis=axis)
        return taken

    return jax.vmap(one)({plate: rows[plate] for plate in axes.values()})


def _whole(site: str, d: Any, minibatch: Minibatch, why: str = "") -> ValueError:
    plate = next(iter(minibatch.axes[site].values()))
    size, some = minibatch.sizes[plate]
    return ValueError(
        f"a step reads {some} of the {size} rows of plate {plate!r}, and this guide holds latent "
        f"site {site!r} of all rows in one {type(d).__name__}{why}.\nUse fv.mean_field(target), or "
        f"fv.blocks(target, {{{site!r}: fv.mean_field, ...}}), or an encoder (docs/posteriors.md, "
        "Amortised guides); or leave subsample_size out."
    )
