"""What is wrong with a model or its data, in words that name the site."""

from collections.abc import Callable, Iterable, Mapping

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers
from numpyro.primitives import Messenger

from funcvi._jax import is_concrete
from funcvi.sampling.record import unwrapped
from funcvi.targets.record import Sites
from funcvi.targets.replay import WRAPPERS, Message

__all__ = ["check_data", "faults_of", "first_run"]


def first_run(
    model: Messenger, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> dict[str, Message]:
    """The trace of a model's first run, whose faults are said in full.

    Raises:
        ValueError: two sites have one name; a plate is empty; a parameter is outside its range.
    """
    tracer = handlers.trace(model)
    try:
        return dict(tracer.get_trace(*args, **kwargs))
    except AssertionError as error:
        text = str(error)
        if "unique names" in text:
            raise ValueError(
                f'two sites of the model have one name: {text}. In a loop, name them f"x_{{i}}".'
            ) from error
        if "size of plate" in text:
            raise ValueError(
                "a plate of the model has no rows: the data are empty. The posterior would be the "
                "prior; leave the plate out if that is meant."
            ) from error
        raise
    except ValueError as error:
        if "distribution got invalid" not in str(error):
            raise
        last = next(reversed(tracer.trace), None)
        where = "the first site" if last is None else f"the site after {last!r}"
        raise ValueError(
            f"{error} It is that of {where}, where latents are at the middle of their supports:\n"
            "it is NaN, or outside its range; make it of a latent with that support (a HalfNormal "
            "for a scale), or of jnp.exp."
        ) from error


def check_data(trace: Mapping[str, Message]) -> None:
    """Raises where a site observes what is no array, or nothing."""
    for name, site in trace.items():
        if site["type"] != "sample" or not site["is_observed"]:
            continue
        value, d = site["value"], site["fn"]
        if not hasattr(value, "dtype") and not isinstance(value, (bool, int, float)):
            raise TypeError(
                f"site {name!r} observes a {type(value).__name__}: give it an array, "
                "jnp.asarray(...)."
            )
        if jnp.size(value) == 0 and not isinstance(unwrapped(d, *WRAPPERS), dist.Unit):
            raise ValueError(
                f"site {name!r} observes no data, shape {jnp.shape(value)}: the posterior would "
                "be the prior. Leave the site out if that is meant."
            )


def faults_of(
    sites: Iterable[Message],
    values: Sites,
    log_probs: Callable[[Message], Array],
    all_values: bool = False,
) -> str:
    """Which of some sites have no finite log density, at these values of the latents.

    With all values of discrete sites at once, some of which may have no probability, only those
    that have none at any, or are NaN.
    """
    found = []
    for site in sites:
        name, value = site["name"], site["value"]
        bare = unwrapped(site["fn"], *WRAPPERS)
        kind = "factor" if isinstance(bare, dist.Unit) else type(bare).__name__
        each = log_probs(site)
        if not is_concrete((value, each)):
            continue
        if site["is_observed"] and (count := int(jnp.isnan(jnp.asarray(value, float)).sum())):
            found.append(f"site {name!r} observes NaN in {count} of {np.size(value)} entries")
            continue
        allowed = np.isfinite(each)
        if all_values and allowed.any():
            allowed |= np.isneginf(each)
        bad = np.asarray(each)[~allowed]
        if bad.size:
            entries = f" in {bad.size} of {np.size(each)} entries" if np.size(each) > 1 else ""
            found.append(f"site {name!r} ({kind}) has the log density {bad[0]:.3g}{entries}")
    if not found:
        return ""
    short = [f"{n} = {float(x):.3g}" for n, x in values.items() if jnp.ndim(x) == 0]
    at = f", at {', '.join(short[:3])}" if short else ""
    return "; ".join(found[:3]) + at
