"""The members of what is drawn, and their draws: of independent noise, or of Sobol' points."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.lax import stop_gradient

from funcvi._types import Key
from funcvi.sampling.dtypes import noise_dtype
from funcvi.sampling.noise import split
from funcvi.sampling.of_normals import draw_of_normals, num_normals
from funcvi.sampling.points import Value
from funcvi.sampling.record import unwrapped
from funcvi.sampling.registry import raw_point
from funcvi.sampling.scored import scored_as_drawn, scored_point
from funcvi.sampling.sobol import MOST_SOBOL, sobol_normals

__all__ = ["NOISES", "Site", "check_noise", "drawn"]

#: What draws are made of: see ``fv.negative_elbo``.
NOISES = ("independent", "sobol")

#: Draws, and their log density where it comes with them.
Drawn: TypeAlias = tuple[Value, Array | None]


class Site(NamedTuple):
    """A member of a joint.

    Attributes:
        label: its name in errors.
        q: its distribution.
        estimator: of its gradient.
        times: how often its log density counts.
        has_draws: whether q has a batch element for each draw.
    """

    label: str
    q: dist.Distribution
    estimator: str
    times: float = 1.0
    has_draws: bool = False


def check_noise(sites: Sequence[Site], noise: str) -> None:
    """Raises a ValueError where draws cannot be made of this noise; it names the site."""
    if noise == "independent":
        return
    size = 0
    for label, q, estimator, *_ in sites:
        own = num_normals(q)
        if own is None or estimator not in ("pathwise", "sticking_the_landing"):
            how = "otherwise" if own is None else f"by {estimator}"
            raise ValueError(
                f'noise="sobol" needs draws that are maps of normal noise, and those of {label} = '
                f"{type(unwrapped(q)).__name__} are made {how}:\nuse fv.mean_field, fv.full_rank, "
                'fv.low_rank, fv.flow, or fv.blocks of these; or noise="independent".'
            )
        size += own
    if size > MOST_SOBOL:
        raise ValueError(
            f'noise="sobol" has {MOST_SOBOL} coordinates at most, and a draw needs {size}: use '
            'noise="independent".'
        )


def drawn(sites: Sequence[Site], key: Key, num_samples: int, noise: str) -> list[Drawn]:
    """Draws of each site."""
    if noise == "sobol":
        return _of_sobol(sites, key, num_samples)
    keys = [key] if len(sites) == 1 else list(split(key, len(sites)))
    return [_of_key(site, k, num_samples) for site, k in zip(sites, keys, strict=True)]


def _of_key(site: Site, key: Key, num_samples: int) -> Drawn:
    shape = () if site.has_draws else (num_samples,)
    if site.estimator == "pathwise":
        return scored_point(site.q, key, shape)
    if site.estimator == "score_function":
        return stop_gradient(raw_point(stop_gradient(site.q), key, shape)), None
    return raw_point(site.q, key, shape), None


def _of_sobol(sites: Sequence[Site], key: Key, num_samples: int) -> list[Drawn]:
    """Each site has some coordinates of the points."""
    dtype = jnp.result_type(*(noise_dtype(site.q) for site in sites))
    sizes = [num_normals(site.q) or 0 for site in sites]
    points = sobol_normals(key, num_samples, sum(sizes), dtype)
    pairs: list[Drawn] = []
    for i, site in enumerate(sites):
        own = points[:, sum(sizes[:i]) : sum(sizes[: i + 1])].astype(noise_dtype(site.q))
        if site.estimator == "pathwise":
            pairs.append(scored_as_drawn(site.q, partial(draw_of_normals, noise=own)))
        else:
            pairs.append((draw_of_normals(site.q, own), None))
    return pairs
