"""Any function of (params, inputs) as a Bayesian network: a family over its weights."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from funcvi._types import Key, Params
from funcvi.loops import slow_in_loops
from funcvi.networks.local import Estimator, apply_random
from funcvi.networks.names import flatten, matching, unflatten
from funcvi.networks.weights import LowRank, MeanField, WeightFamily

__all__ = ["BayesianNetwork", "bayesian"]


@dataclass(frozen=True)
class BayesianNetwork:
    """A network whose weights have a distribution; made by :func:`bayesian`.

    Its own params are a dict: ``"random"`` has the unconstrained parameters of the distribution,
    by weight; ``"point"`` has the weights that are not random, trained as they are.

    Attributes:
        params: the initial params, for ``fv.fit``.
        prior: the prior of each random weight, by name, of the weight's shape.
    """

    params: Params
    prior: Mapping[str, dist.Distribution]
    _function: Callable[..., Any] = field(repr=False)
    _family: WeightFamily = field(repr=False)
    _names: Sequence[str] = field(repr=False)
    _structure: Any = field(repr=False)

    def posterior(self, params: Params) -> Any:
        """The joint distribution of the random weights.

        A dict of normals by dotted name, each of its weight's shape; for a low-rank guide, one
        LowRankMultivariateNormal of all of them, ravelled, in the order of ``prior``.
        """
        return self._family.distribution(params["random"])

    def marginals(self, params: Params) -> dict[str, dist.Normal]:
        """The distribution of each random weight's entries, of the weight's shape, by name."""
        return self._family.marginals(params["random"])

    def mean(self, params: Params) -> Any:
        """Weights at the posterior mean, as the function takes them; for ``interop.load_into``."""
        means = {name: q.mean for name, q in self.marginals(params).items()}
        return self._weights({**params["point"], **means})

    def sample(self, params: Params, key: Key) -> Any:
        """One draw of all weights, as the function takes them."""
        own, noise = jax.random.split(key)
        random = self._family.weights(params["random"], own, "plain")
        weights = self._weights({**params["point"], **random})
        return apply_random(lambda weights: weights, weights, (), noise, "plain")

    def __call__(
        self, params: Params, *inputs: Any, key: Key, estimator: Estimator = "plain", **kwargs: Any
    ) -> Any:
        """The function's output for one draw of its weights.

        Args:
            params: as ``self.params``.
            *inputs: what the function takes after its params; ``kwargs`` too.
            key: for the draw.
            estimator: "plain" draws each weight once for all rows of a batch; "local" and "flipout"
                draw for each row, at a lower variance of the gradient
                (see :func:`funcvi.networks.local.apply_random`).
        """
        function = (lambda w, *x: self._function(w, *x, **kwargs)) if kwargs else self._function
        own, noise = jax.random.split(key)
        random = self._family.weights(params["random"], own, estimator)
        weights = self._weights({**params["point"], **random})
        return apply_random(function, weights, inputs, noise, estimator)

    def predict(
        self, params: Params, *inputs: Any, key: Key, num_samples: int, **kwargs: Any
    ) -> Any:
        """Outputs for ``num_samples`` draws, each of one network: axes (draw, *output).

        One network after the other. One that convolves runs faster outside of jit on CPU.
        """
        keys = jax.random.split(key, num_samples)

        def one(key: Key, params: Params, inputs: Any) -> Any:
            return self(params, *inputs, key=key, **kwargs)

        traced = any(
            isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((keys, params, inputs))
        )
        step = jax.jit(one)
        if not traced and slow_in_loops(lambda: step.trace(keys[0], params, inputs).jaxpr.jaxpr):
            drawn = [step(k, params, inputs) for k in keys]
            return jax.tree.map(lambda *each: jnp.stack(each), *drawn)
        return jax.lax.map(lambda k: one(k, params, inputs), keys)

    def kl(self, params: Params, key: Key | None = None) -> jax.Array:
        """KL from prior to posterior, summed over every weight; in closed form for normal priors.

        Args:
            params: as ``self.params``.
            key: needed where a prior has no closed form.
        """
        return self._family.kl(params["random"], self.prior, key)

    def negative_elbo(
        self,
        log_likelihood: Callable[..., jax.Array],
        *,
        data_size: int,
        num_samples: int = 1,
        estimator: Estimator | None = None,
    ) -> Callable[..., jax.Array]:
        r"""The loss ``loss(params, key, inputs, targets)`` of a minibatch, unbiased for all data.

        .. math:: KL(q(w) \| p(w)) - \frac{N}{B} \sum_{i=1}^B E_q \log p(y_i | x_i, w)

        with the KL summed over weights and each batch scaled to the data's size :math:`N`
        (Graves 2011; Blundell et al. 2015, arXiv:1505.05424).

        Args:
            log_likelihood: (output, targets) -> log density of each row, of shape (batch,).
            data_size: N, how many rows all the data have.
            num_samples: draws of the weights for one loss.
            estimator: see a call; "local" by default, and "plain" for a low-rank guide.

        Raises:
            ValueError: ``data_size`` is no positive integer, or smaller than a batch; the log
                likelihood is not one number a row.
        """
        if not isinstance(data_size, int) or data_size < 1:
            raise ValueError(
                "negative_elbo: data_size must be the number of rows of all data, got "
                f"{data_size!r}"
            )

        chosen: Estimator = estimator or (
            "local" if isinstance(self._family, MeanField) else "plain"
        )

        def loss(params: Params, key: Key, inputs: Any, targets: Any) -> jax.Array:
            def one(key: Key) -> jax.Array:
                given = inputs if isinstance(inputs, tuple) else (inputs,)
                rows = log_likelihood(self(params, *given, key=key, estimator=chosen), targets)
                batch = jax.tree.leaves(inputs)[0].shape[0]
                if jnp.shape(rows) != (batch,):
                    raise ValueError(
                        f"negative_elbo: log_likelihood must give one number for each of {batch} "
                        f"rows, got shape {jnp.shape(rows)}: sum over the other axes"
                    )
                if batch > data_size:
                    raise ValueError(
                        f"negative_elbo: a batch of {batch} rows is larger than data_size="
                        f"{data_size}"
                    )
                return data_size / batch * jnp.sum(rows)

            draws, own = jax.random.split(key)
            keys = jax.random.split(draws, num_samples)
            # One draw alone without vmap, which would turn convolutions into slower ones.
            expected = one(keys[0]) if num_samples == 1 else jnp.mean(jax.vmap(one)(keys))
            return self.kl(params, own) - expected

        return loss

    def to_mu_log_sigma(self, params: Params) -> dict[str, jax.Array]:
        """Flat arrays as Bayesian layers in torch name them: ``fc.weight_mu``,
        ``fc.weight_log_sigma``; weights that are not random under their own names.
        """
        found = dict(params["point"])
        for name, q in self.marginals(params).items():
            found[f"{name}_mu"] = jnp.broadcast_to(q.loc, q.batch_shape)
            found[f"{name}_log_sigma"] = jnp.log(q.scale)
        return found

    def from_mu_log_sigma(self, arrays: Mapping[str, Any]) -> Params:
        """Params of this network from arrays named as :meth:`to_mu_log_sigma` names them.

        Raises:
            ValueError: names are missing or unknown; all are listed.
        """
        random, point = tuple(self.prior), tuple(self.params["point"])
        expected = [f"{name}{end}" for name in random for end in ("_mu", "_log_sigma")]
        expected += point
        missing = [f"'{n}' is missing" for n in expected if n not in arrays]
        unknown = [f"'{n}' is unknown" for n in arrays if n not in expected]
        if missing or unknown:
            raise ValueError(f"from_mu_log_sigma: {'; '.join((missing + unknown)[:8])}")
        given = {
            name: dist.Normal(
                jnp.asarray(arrays[f"{name}_mu"]), jnp.exp(jnp.asarray(arrays[f"{name}_log_sigma"]))
            )
            for name in random
        }
        return {
            "random": self._family.inverse(given),
            "point": {name: jnp.asarray(arrays[name]) for name in point},
        }

    def _weights(self, named: Mapping[str, Any]) -> Any:
        return unflatten(self._structure, self._names, named)


def bayesian(
    function: Callable[..., Any],
    params: Any,
    prior: dist.Distribution | Mapping[str, dist.Distribution],
    *,
    only: Iterable[str] | None = None,
    scale: float = 1e-2,
    guide: Literal["mean_field", "low_rank"] = "mean_field",
    rank: int = 8,
    key: Key | None = None,
) -> BayesianNetwork:
    """A Bayesian version of any ``function(params, *inputs)``.

    The function may come from torch (``interop.to_jax``), flax, equinox or be written by hand. Its
    weights become independent normals around their present values; KL and minibatch scaling are
    right by construction.

    Args:
        function: pure, of ``(params, *inputs)``.
        params: a pytree of floating-point arrays, where the posterior starts.
        prior: of each entry of every random weight; or a dict from patterns of dotted names
            (``"*.bias"``) to priors, the first that matches counts. A prior may have arrays of the
            weight's shape, such as a pretrained checkpoint's values.
        only: patterns of the names of weights that become random, as ``["head.*"]`` for the last
            layer; the others are trained as they are. All, by default.
        scale: standard deviation of every weight at the start.
        guide: "mean_field", independent normals; or "low_rank", one normal of all random weights
            whose covariance is a diagonal and ``rank`` directions.
        rank: of the low-rank guide.
        key: for the low-rank guide's first directions; ``jax.random.key(0)`` by default.

    Raises:
        TypeError: a weight is no floating-point array.
        ValueError: a pattern matches nothing; a random weight has no prior, or one whose shape or
            support does not fit.

    Example:
        >>> import funcvi as fv, jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> linear = lambda w, x: x @ w["weight"] + w["bias"]
        >>> weights = {"weight": jnp.zeros(3), "bias": jnp.zeros(())}
        >>> net = fv.bayesian(linear, weights, dist.Normal(0.0, 1.0))
        >>> net(net.params, jnp.ones((5, 3)), key=jax.random.key(0)).shape
        (5,)
    """
    named, structure = flatten(params)
    names = tuple(named)
    for name, leaf in named.items():
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"bayesian: weight '{name}' is {leaf.dtype}; weights must be floating-point "
                "arrays. Close over what is no weight, or pass it as an input."
            )
    chosen = set(names) if only is None else set(matching(only, names, "bayesian: only"))
    priors = _priors(prior, {n: named[n] for n in names if n in chosen})
    values = {name: named[name] for name in priors}
    family: WeightFamily
    if guide == "mean_field":
        family = MeanField(values, scale)
    elif guide == "low_rank":
        family = LowRank(values, scale, rank, jax.random.key(0) if key is None else key)
    else:
        raise ValueError(f"bayesian: guide must be 'mean_field' or 'low_rank', got {guide!r}")
    point = {name: leaf for name, leaf in named.items() if name not in chosen}
    return BayesianNetwork(
        {"random": family.params, "point": point}, priors, function, family, names, structure
    )


def _priors(
    prior: dist.Distribution | Mapping[str, dist.Distribution], weights: Mapping[str, Any]
) -> dict[str, dist.Distribution]:
    """One for each weight, of its shape."""
    patterns = dict(prior) if isinstance(prior, Mapping) else {"*": prior}
    found = matching(patterns, tuple(weights), "bayesian: prior")
    without = [name for name in weights if name not in found]
    if without:
        raise ValueError(
            f"bayesian: no prior for {', '.join(map(repr, without))}; add a pattern that matches, "
            "or '*'"
        )
    return {name: _fitting(patterns[found[name]], name, w.shape) for name, w in weights.items()}


def _fitting(prior: dist.Distribution, name: str, shape: tuple[int, ...]) -> dist.Distribution:
    if prior.event_shape:
        raise ValueError(
            f"bayesian: the prior of '{name}' must be of single entries, got event shape "
            f"{prior.event_shape}"
        )
    try:
        return prior.expand(shape) if prior.batch_shape != shape else prior
    except ValueError as error:
        raise ValueError(
            f"bayesian: the prior of '{name}' has shape {prior.batch_shape}, which does not "
            f"broadcast to the weight's {shape}"
        ) from error
