"""Draws of what a model observes, given draws of its latents."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers
from numpyro.infer import Predictive, log_likelihood

from funcvi._types import Key
from funcvi.targets import ModelCall, Sites

__all__ = ["log_likelihoods", "observed", "predictions", "prior_predictions"]


def predictions(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    latents: Sites,
    key: Key,
) -> Sites:
    """Of a model, perhaps at other data, what it draws and computes given draws of its latents."""
    found = Predictive(handlers.uncondition(model), latents)(key, *args, **kwargs)
    return {name: x for name, x in found.items() if name not in latents and x.size}


def prior_predictions(call: ModelCall, key: Key, num_samples: int) -> Sites:
    """Of a model before it saw its data, all sites."""
    model = handlers.uncondition(call.model)
    return dict(Predictive(model, num_samples=num_samples)(key, *call.args, **call.kwargs))


def log_likelihoods(call: ModelCall, latents: Sites) -> dict[str, Array]:
    """By observed site, of shape (draw, *site)."""
    return dict(log_likelihood(call.model, latents, *call.args, **call.kwargs))


def observed(call: ModelCall, latents: Mapping[str, Any], key: Key) -> dict[str, np.ndarray]:
    """The data by site, seen in a run with one draw of the latents."""
    model = handlers.substitute(handlers.seed(call.model, key), data=latents)
    trace = handlers.trace(model).get_trace(*call.args, **call.kwargs)
    return {
        name: np.asarray(site["value"])
        for name, site in trace.items()
        if site["type"] == "sample"
        and site["is_observed"]
        and not isinstance(site["fn"], dist.Unit)  # of numpyro.factor
    }
