"""Which sites of a model are latent, and those that a target cannot have."""

from collections.abc import Mapping

import numpyro.distributions as dist

from funcvi._numpyro import GATED
from funcvi.masks import masked
from funcvi.sampling.record import unwrapped
from funcvi.sampling.registry import record_of
from funcvi.targets.replay import WRAPPERS, Message

__all__ = ["latent_sites"]


def latent_sites(
    trace: Mapping[str, Message],
) -> tuple[dict[str, Message], dict[str, Message]]:
    """The continuous and the discrete latent sites of a trace.

    Raises:
        ValueError: there are none, or one that has no density on unconstrained space; it names it.
    """
    sites, discrete = {}, {}
    for name, site in trace.items():
        if site["type"] == "mutable":
            raise ValueError(
                f"the model has the mutable site {name!r}, which changes from call to call: a "
                "log density has no such state. Use layers without it (group or layer norms)."
            )
        if site["type"] != "sample" or site["is_observed"]:
            continue
        if site["fn"].is_discrete:
            discrete[name] = site
            continue
        _check(name, site["fn"])
        sites[name] = site
    if discrete and not sites:
        raise ValueError(
            f"the model has no continuous latent site, only discrete ones ({list(discrete)}): "
            "their posterior is a table of probabilities, for numpyro's infer_discrete."
        )
    if not sites:
        raise ValueError("the model has no latent sites: there is nothing to infer.")
    return sites, discrete


def _check(name: str, d: dist.Distribution) -> None:
    bare = unwrapped(d, *WRAPPERS)
    if isinstance(bare, dist.Delta):
        raise ValueError(
            f"latent site {name!r} is a Delta: use numpyro.deterministic for a computed value."
        )
    if _has_atom(bare):
        raise ValueError(
            f"latent site {name!r} is a {type(bare).__name__}, which gives single values a "
            "probability: a density of the rest is not its posterior. Sum it out, and observe "
            "the result."
        )
    if isinstance(bare, dist.ImproperUniform) and name.endswith("_unwrapped"):
        raise ValueError(
            f"latent site {name!r} is of numpyro's CircularReparam: its density repeats for ever "
            "on the line, and nothing has a finite spread there. Leave the reparam out: an angle's "
            "support is an interval here."
        )
    if masked(bare):
        raise ValueError(
            f"latent site {name!r} has a mask inside its {type(bare).__name__}: put the mask "
            "around it, as d.mask(...)."
        )


def _has_atom(d: dist.Distribution) -> bool:
    """Whether single values in a continuous support have a probability."""
    return isinstance(d, (dist.Delta, *GATED)) or any(map(_has_atom, record_of(d).parts(d)))
