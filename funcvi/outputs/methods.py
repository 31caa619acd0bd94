"""What every posterior can be asked for, whatever it is made of."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpyro import handlers

from funcvi._checks import check_key
from funcvi._types import Key
from funcvi.outputs.inference_data import inference_data
from funcvi.outputs.plots import figure_of
from funcvi.outputs.predictive import predictions
from funcvi.outputs.summary import Summary, summary_of
from funcvi.targets import Shape, Sites, Target, on_all_rows

__all__ = ["Outputs"]

_GROUPS = ("posterior_predictive", "log_likelihood", "prior")


class Outputs:
    """Tables, predictions, ArviZ's data and figures of what has a target and can be sampled.

    These are for reading, outside of jit: they return arrays of numpy, and objects of Python.
    """

    target: Target

    def sample(self, key: Key, sample_shape: Shape = ()) -> Sites:
        """Draws by site."""
        raise NotImplementedError

    def by_chain(self, key: Key, num_samples: int) -> Sites:
        """Draws by site, of shape (chain, draw, *site); those of no chain are one."""
        return jax.tree.map(lambda x: x[None], self.sample(key, (num_samples,)))

    def _read(self, key: Key | None, num_samples: int) -> dict[str, np.ndarray]:
        key = jax.random.key(0) if key is None else key
        check_key(key)
        values = {n: np.asarray(x) for n, x in self.by_chain(key, num_samples).items()}
        for name, shape in self.target.value_shapes.items():
            if values[name].shape[2:] != shape:
                raise ValueError(
                    f"this is a batch of posteriors ({name!r} has shape {values[name].shape[2:]}, "
                    f"the target's is {shape}): take one, jax.tree.map(lambda x: x[0], posterior)."
                )
        return values

    def summary(self, *, key: Key | None = None, num_samples: int = 10_000) -> Summary:
        """Mean, standard deviation and quantiles of every entry of every site.

        Args:
            key: of the draws, by default ``jax.random.key(0)``; not read by a set of draws.
            num_samples: draws that are read; of a set of draws, all are.

        Returns:
            A mapping of names such as ``"theta[2]"`` to rows, printed as a table; with R-hat and
            effective sizes where the draws are of several chains.

        Example:
            >>> import jax, numpyro, numpyro.distributions as dist
            >>> import funcvi as fv
            >>> t = fv.target(lambda: numpyro.sample("a", dist.Normal(3.0, 0.5)))
            >>> posterior, report = fv.infer(t, key=jax.random.key(0))
            >>> round(posterior.summary()["a"].mean, 1), round(posterior.summary()["a"].sd, 1)
            (3.0, 0.5)
        """
        return summary_of(self._read(key, num_samples))

    def predict(
        self,
        model: Callable[..., Any],
        *args: Any,
        key: Key,
        num_samples: int = 1000,
        **kwargs: Any,
    ) -> Sites:
        """What the model draws, at data that may be new, for draws of this posterior.

        Every site that is not one of this posterior's is drawn, those that the model observes too.

        Args:
            model: a numpyro model whose latents these are; called as ``model(*args, **kwargs)``.
            *args: its data, perhaps new.
            key: of the draws.
            num_samples: draws.
            **kwargs: as ``args``.

        Returns:
            By site, observed and deterministic ones among them, shape (num_samples, *site).

        Example:
            >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
            >>> import funcvi as fv
            >>> def model(x, y=None):
            ...     slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
            ...     numpyro.sample("y", dist.Normal(slope * x, 0.1), obs=y)
            >>> x = jnp.linspace(0.0, 1.0, 50)
            >>> posterior, report = fv.infer(fv.target(model, x, 2 * x), key=jax.random.key(0))
            >>> y = posterior.predict(model, jnp.array([3.0]), key=jax.random.key(1))["y"]
            >>> y.shape, round(float(y.mean()))
            ((1000, 1), 6)
        """
        check_key(key)
        draw_key, model_key = jax.random.split(key)
        drawn = self.sample(draw_key, (num_samples,))
        latents = {name: drawn[name] for name in self.target.value_shapes}
        of_all = on_all_rows(self.target, model)
        at_points = handlers.substitute(of_all, data=dict(self.target.given))
        return predictions(at_points, args, kwargs, latents, model_key)

    def to_arviz(
        self,
        *,
        key: Key | None = None,
        num_samples: int = 1000,
        groups: Sequence[str] | None = None,
    ) -> Any:
        """These draws as ``arviz.InferenceData``, for ArviZ's tables, comparisons and plots.

        With a numpyro model there are also ``posterior_predictive``, ``log_likelihood``, ``prior``
        and ``prior_predictive`` draws, and ``observed_data``. Axes of plates have their names.

        Args:
            key: of the draws and predictions, by default ``jax.random.key(0)``.
            num_samples: draws, of a posterior that is no set of draws.
            groups: which of ``posterior_predictive``, ``log_likelihood`` and ``prior`` to make; by
                default all, but no log likelihoods where discrete sites are summed out. A flat
                prior cannot be drawn from, and log likelihoods of much data are large.

        Raises:
            ImportError: ArviZ is not installed.
            ValueError: an unknown group, or log likelihoods of a model that is random, or whose
                discrete sites are summed out.
        """
        summed = self.target.summed
        if groups is None:
            groups = [g for g in _GROUPS if not (summed and g == "log_likelihood")]
        if unknown := set(groups) - set(_GROUPS):
            raise ValueError(f"groups are some of {_GROUPS}, got {sorted(unknown)}.")
        if "log_likelihood" in groups and self.target.call is not None:
            self.target.check_exact("log_likelihood")
            if summed:
                raise ValueError(
                    f"log likelihoods are those of single observations, and {list(summed)} are "
                    'summed out over all: groups=["posterior_predictive", "prior"].'
                )
        values = self._read(key, num_samples)
        key = jax.random.key(0) if key is None else key
        return inference_data(self.target, values, jax.random.fold_in(key, 1), tuple(groups))

    def plot(
        self,
        *,
        sites: Sequence[str] | None = None,
        key: Key | None = None,
        num_samples: int = 10_000,
    ) -> Any:
        """A matplotlib figure with a panel for each site.

        Densities of a few entries, medians with 50 % and 90 % intervals of many.
        ``figure.savefig("posterior.png")`` writes it; a notebook shows it.

        Args:
            sites: those to show, by default all.
            key: of the draws, by default ``jax.random.key(0)``.
            num_samples: draws, of a posterior that is no set of draws.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: an unknown site.
        """
        values = self._read(key, num_samples)
        if unknown := [name for name in sites or () if name not in values]:
            raise ValueError(f"sites are some of {list(values)}, got {unknown}.")
        return figure_of({n: values[n] for n in sites or values if values[n].size})
