"""A posterior as ArviZ's ``InferenceData``."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from funcvi._types import Key
from funcvi.outputs.predictive import log_likelihoods, observed, predictions, prior_predictions
from funcvi.targets import Sites, Target, on_all_rows

__all__ = ["inference_data"]


def inference_data(
    target: Target, values: Mapping[str, Any], key: Key, groups: tuple[str, ...]
) -> Any:
    """Draws by site, of shape (chain, draw, *site), and what a model makes of them.

    Args:
        target: whose posterior the draws are of.
        values: the draws.
        key: of predictions and of the prior.
        groups: of ``posterior_predictive``, ``log_likelihood``, ``prior``, ``observed_data``,
            those that are wanted beside the posterior.
    """
    try:
        import arviz
    except ImportError:
        raise ImportError('to_arviz needs ArviZ: pip install "arviz<1".') from None

    chains, count = next(iter(values.values())).shape[:2]
    found: dict[str, Any] = {"posterior": jax.tree.map(np.asarray, dict(values))}
    if target.call is not None and groups:
        call = target.call._replace(model=on_all_rows(target, target.call.model))
        flat = {n: x.reshape(chains * count, *x.shape[2:]) for n, x in values.items()}
        latents: Sites = {name: flat[name] for name in target.value_shapes}
        predictive_key, prior_key = jax.random.split(key)

        def by_chain(x: Any) -> np.ndarray:
            return np.asarray(x).reshape(chains, count, *x.shape[1:])

        data = observed(call, {name: x[0] for name, x in latents.items()}, key)
        found["observed_data"] = data
        if "posterior_predictive" in groups:
            drawn = predictions(call.model, call.args, call.kwargs, latents, predictive_key)
            of_data = {name: x for name, x in drawn.items() if name in data}
            found["posterior_predictive"] = jax.tree.map(by_chain, of_data)
        if "log_likelihood" in groups:
            of_all = log_likelihoods(call, latents)
            of_data = {name: x for name, x in of_all.items() if name in data}
            found["log_likelihood"] = jax.tree.map(by_chain, of_data)
        if "prior" in groups:
            drawn = prior_predictions(call, prior_key, count)
            parts = {True: "prior_predictive", False: "prior"}
            for is_data, group in parts.items():
                found[group] = {
                    n: np.asarray(x)[None]
                    for n, x in drawn.items()
                    if (n in data) == is_data and x.size
                }
    return arviz.from_dict(
        **{group: sites for group, sites in found.items() if sites}, dims=dict(_dims(target))
    )


def _dims(target: Target) -> dict[str, list[str]]:
    """The axes of sites that are plates have their names; the others get ArviZ's own."""
    return {
        site: [name or f"{site}_dim_{i}" for i, name in enumerate(axes)]
        for site, axes in target.plates.items()
        if any(axes)
    }
