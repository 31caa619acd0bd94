"""A network whose weights have a distribution: draws of its output, and its negative ELBO."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike

from funcvi._checks import check_key, check_not_fit
from funcvi._jax import is_concrete
from funcvi._types import Key, Params
from funcvi.densities.log_prob import log_prob
from funcvi.guides import Guide, Posterior
from funcvi.loops import slow_in_loops
from funcvi.networks.layers import Layer
from funcvi.networks.local import Estimator, Gaussian, apply_random, check_estimator, layers_of
from funcvi.networks.mu_log_sigma import from_mu_log_sigma
from funcvi.objectives.kl import kl

__all__ = ["BayesianNetwork", "layers_found"]

#: A pytree of arrays, as the user's function takes or returns it.
Inputs: TypeAlias = Any
Output: TypeAlias = Any


@dataclass(frozen=True, repr=False)
class BayesianNetwork:
    """A network whose weights have a distribution; made by :func:`fv.bayesian`.

    Its own params are a dict: ``"random"`` has the params of the guide, ``"point"`` the weights
    that are not random, trained as point values.

    Attributes:
        params: the initial params, for ``fv.fit``.
        prior: the prior of each random weight, by name, of the weight's shape.
        state: the initial state, of a function that has one; else None.
        guide: the family of posteriors of the random weights; its sites are their dotted names.
    """

    params: Params
    prior: Mapping[str, dist.Distribution]
    state: Params
    guide: Guide
    _independent: bool  # whether its weights are independent normals
    _function: Callable[..., Output]
    _dtypes: Mapping[str, jnp.dtype]
    _structure: jax.tree_util.PyTreeDef

    def __repr__(self) -> str:
        lines = [f"BayesianNetwork with {len(self.prior)} random weight(s)"]
        for name, prior in [*self.prior.items()][:20]:
            base = prior.base_dist if isinstance(prior, dist.ExpandedDistribution) else prior
            lines.append(f"  {name}: shape {prior.batch_shape}, prior {type(base).__name__}")
        more = len(self.prior) - 20
        lines += [f"  and {more} more"] if more > 0 else []
        point = [*self.params["point"]]
        shown = ", ".join(point[:6]) + (", …" if len(point) > 6 else "")
        lines += [f"  {len(point)} point weight(s): {shown}"] if point else []
        return "\n".join(lines)

    def posterior(self, params: Params) -> Posterior:
        """The joint distribution of the random weights, by dotted name.

        Its target is their prior alone: the data are in the loss, not in the guide.
        """
        if not (isinstance(params, Mapping) and {"random", "point"} <= set(params)):
            raise TypeError(
                'expected the params of a Bayesian network, {"random": ..., "point": ...} as in '
                "its own .params; got others, of the function that it was made of perhaps."
            )
        return self.guide(params["random"])

    def marginals(self, params: Params) -> dict[str, dist.Normal]:
        """The distribution of each random weight's entries, of the weight's shape, by name.

        Raises:
            TypeError: the marginals of this guide are not normal.
        """
        return self.posterior(params).marginals()

    def mean(self, params: Params) -> Params:
        """Weights at the posterior mean, as the function takes them; for ``interop.load_into``."""
        means = {name: q.mean for name, q in self.marginals(params).items()}
        return self._weights({**params["point"], **means})

    def sample(self, params: Params, key: Key) -> Params:
        """One draw of all weights, as the function takes them."""
        own, noise = jax.random.split(key)
        weights = self._random(params, own, "plain")
        return apply_random(lambda weights: weights, weights, (), noise, "plain")

    def __call__(
        self,
        params: Params,
        *inputs: object,
        key: Key,
        estimator: Estimator | None = "plain",
        plain: Sequence[str] = (),
        state: Params = None,
        **kwargs: object,
    ) -> Output:
        """The function's output for one draw of its weights; with a state, (output, new state).

        Args:
            params: as ``self.params``.
            *inputs: what the function takes after its params; ``kwargs`` too.
            key: for the draw.
            estimator: "plain" draws each weight once for all rows of a batch; "local" and "flipout"
                draw for each row, at a lower variance of the gradient, and refuse what they cannot
                (see :func:`funcvi.networks.local.apply_random`). None is "local" where that keeps
                the law of each row, and one draw of every other weight; all are drawn once if they
                are not independent normals. :func:`layers_found` tells.
            plain: patterns of the names of weights that are drawn once, whatever the estimator.
            state: of a network that has one, as ``self.state``.

        Raises:
            ValueError: "local" or "flipout" cannot move the noise of a layer's weight, which is not
                listed as plain; ``estimator`` is none of the three; or a state is missing, or not
                wanted.
        """
        check_estimator(estimator)
        self._check_state(state)
        check_key(key)
        own, noise = jax.random.split(key)
        weights = self._random(params, own, estimator)
        function, arrays = _of_arrays(self._function, inputs, kwargs)
        return apply_random(function, weights, (arrays, state), noise, estimator, plain)

    def predict(
        self,
        params: Params,
        *inputs: object,
        key: Key,
        num_samples: int,
        state: Params = None,
        **kwargs: object,
    ) -> Output:
        """Outputs for ``num_samples`` draws, each of one network: axes (draw, *output).

        One network after the other. One that convolves runs faster outside jit on CPU. A state
        is read, as in ``fit.state``; what a draw makes of it is dropped.
        """
        check_key(key)
        keys = jax.random.split(key, num_samples)
        function, arrays = _of_arrays(self._function, inputs, kwargs)
        self._check_state(state)

        def one(key: Key, params: Params, arrays: list[jax.Array], state: Params) -> Output:
            own, noise = jax.random.split(key)
            weights = self._random(params, own, "plain")
            output = apply_random(function, weights, (arrays, state), noise, "plain")
            return output if self.state is None else output[0]

        rest = (params, arrays, state)
        step = jax.jit(one)
        if is_concrete((keys, rest)) and slow_in_loops(
            lambda: step.trace(keys[0], *rest).jaxpr.jaxpr
        ):
            draws = [step(k, *rest) for k in keys]
            return jax.tree.map(lambda *each: jnp.stack(each), *draws)
        return jax.lax.map(lambda k: one(k, *rest), keys)

    def kl(self, params: Params, *, key: Key | None = None, num_samples: int = 1) -> jax.Array:
        r"""KL from prior to posterior, summed over every weight.

        In closed form where the posterior is normal and a weight's prior has one; of a correlated
        normal posterior, as the KL of its marginals and what they lose,
        :math:`\sum_i H(q_i) - H(q)`.

        Args:
            params: as ``self.params``.
            key: needed where there is no closed form.
            num_samples: draws of the weights where the posterior is not normal.

        Raises:
            ValueError: there is no closed form, and no key.
        """
        posterior = self.posterior(params)
        q, priors = posterior.unconstrained, dict(self.prior)
        try:
            marginals = posterior.marginals()
        except TypeError:
            if key is None:
                raise ValueError(
                    "kl: this guide's KL to the prior has no closed form: pass key= to estimate it"
                ) from None
            values, log_q = posterior.sample_and_log_prob(key, (num_samples,))
            log_p = [
                jnp.sum(log_prob(p, values[n]).reshape(num_samples, -1), 1)
                for n, p in priors.items()
            ]
            return jnp.mean(log_q - sum(log_p))
        divergence = kl(marginals, priors, key=key)
        if not isinstance(q, Mapping):
            return divergence + sum(jnp.sum(m.entropy()) for m in marginals.values()) - q.entropy()
        for block, sites in posterior.guide.blocks.items():
            apart = sum(jnp.sum(marginals[name].entropy()) for name in sites)
            divergence = divergence + apart - jnp.sum(q[block].entropy())
        return divergence

    def negative_elbo(
        self,
        log_likelihood: Callable[[Output, Inputs], jax.Array],
        *,
        data_size: int,
        num_samples: int = 1,
        estimator: Estimator | None = None,
        plain: Sequence[str] = (),
    ) -> Callable[..., Output]:
        r"""The loss ``loss(params, key, inputs, targets)`` of a minibatch, unbiased for all data.

        .. math:: KL(q(w) \| p(w)) - \frac{N}{B} \sum_{i=1}^B E_q \log p(y_i | x_i, w)

        with the KL summed over weights and each batch scaled to the data's size :math:`N`
        (Graves 2011; Blundell et al. 2015, arXiv:1505.05424). Of a network that has a state,
        ``loss(params, key, inputs, targets, state=state)`` gives ``(value, new state)``, for
        ``fv.fit(..., state=net.state)``; of several draws, the mean of the new states.

        Args:
            log_likelihood: (output, targets) -> log density of each row, of shape (batch,).
            data_size: N, how many rows all the data have.
            num_samples: draws of the weights for one loss.
            estimator: see a call; by default "local" where that keeps the law of each row.
            plain: see a call.

        Raises:
            ValueError: ``data_size`` is no positive integer, or smaller than a batch; the log
                likelihood is not one number a row; what a call raises.
        """
        if not isinstance(data_size, int) or data_size < 1:
            raise ValueError(
                "negative_elbo: data_size must be the number of rows of all data, got "
                f"{data_size!r}"
            )
        check_estimator(estimator)

        def one(
            key: Key, params: Params, inputs: Inputs, targets: Inputs, state: Params
        ) -> tuple[jax.Array, Params]:
            args = inputs if isinstance(inputs, tuple) else (inputs,)
            output = self(params, *args, key=key, estimator=estimator, plain=plain, state=state)
            output, state = (output, None) if self.state is None else output
            rows = log_likelihood(output, targets)
            batch = jax.tree.leaves(inputs)[0].shape[0]
            if jnp.shape(rows) != (batch,):
                raise ValueError(
                    f"negative_elbo: log_likelihood must give one number for each of {batch} "
                    f"rows, got shape {jnp.shape(rows)}: sum over the other axes"
                )
            if batch > data_size:
                raise ValueError(
                    f"negative_elbo: a batch of {batch} rows is larger than data_size={data_size}"
                )
            return data_size / batch * jnp.sum(rows), state

        def loss(
            params: Params, key: Key, inputs: Inputs, targets: Inputs, state: Params = None
        ) -> Output:
            draws, own = jax.random.split(key)
            keys = jax.random.split(draws, num_samples)
            if num_samples == 1:  # without vmap, which would turn convolutions into slower ones
                expected, after = one(keys[0], params, inputs, targets, state)
            else:
                each = jax.vmap(lambda k: one(k, params, inputs, targets, state))(keys)
                expected, after = jax.tree.map(_mean, each)
            value = self.kl(params, key=own, num_samples=num_samples) - expected
            return value if self.state is None else (value, after)

        return loss

    def to_mu_log_sigma(self, params: Params) -> dict[str, jax.Array]:
        """Flat arrays under the names that Bayesian layers in torch use.

        ``fc.weight_mu`` and ``fc.weight_log_sigma``; weights that are not random have their own.
        """
        arrays = dict(params["point"])
        for name, q in self.marginals(params).items():
            arrays[f"{name}_mu"], scale = jnp.broadcast_arrays(q.loc, q.scale)
            arrays[f"{name}_log_sigma"] = jnp.log(scale)
        return arrays

    def from_mu_log_sigma(self, arrays: Mapping[str, ArrayLike]) -> Params:
        """Params of this network from arrays named as :meth:`to_mu_log_sigma` names them.

        Their marginals are these; a correlated guide starts with little correlation, or none.

        Raises:
            ValueError: names are missing or unknown; all are listed.
            TypeError: the marginals of this guide are not normal.
        """
        return from_mu_log_sigma(arrays, self.posterior(self.params), tuple(self.params["point"]))

    def _random(self, params: Params, key: Key, estimator: Estimator | None) -> Params:
        """All weights; those that are still to be drawn as :class:`Gaussian`."""
        check_not_fit(params, "a network")
        posterior = self.posterior(params)
        random: Mapping[str, jax.Array | Gaussian]
        if self._independent:
            random = {
                name: Gaussian(*jnp.broadcast_arrays(q.loc, q.scale))
                for name, q in posterior.marginals().items()
            }
        elif estimator in ("plain", None):
            random = posterior.sample(key)
        else:
            raise ValueError(
                f"estimator={estimator!r} needs independent normal weights, which this guide does "
                "not have: use estimator='plain', or guide='mean_field'"
            )
        return self._weights({**params["point"], **random})

    def _weights(self, named: Mapping[str, jax.Array | Gaussian]) -> Params:
        leaves = [named[name].astype(dtype) for name, dtype in self._dtypes.items()]
        return jax.tree.unflatten(self._structure, leaves)

    def _check_state(self, state: Params) -> None:
        if self.state is None and state is not None:
            raise ValueError(
                "this network has no state, but state= is given: make it by fv.bayesian(..., "
                "state=...) of a function(params, *inputs, state=state) -> (output, new state)"
            )
        if self.state is not None and state is None:
            raise ValueError(
                "this network has a state: pass state=net.state at the start, state=fit.state "
                "after a fit"
            )


def layers_found(
    network: BayesianNetwork | Callable[..., object],
    params: Params,
    *inputs: object,
    **kwargs: object,
) -> dict[str, Layer]:
    """How each weight enters a function, and so what "local" and "flipout" do with it.

    Args:
        network: a Bayesian network, whose random weights are told; or a ``function(params,
            *inputs)``, all of whose weights are.
        params: of the network, or of the function.
        *inputs: as for a call; ``kwargs`` too.

    Returns:
        By dotted name, (kind, why): "local" where the noise moves to the output of the weight's
        product; "flipout" where positions of a row share the weight, so that each row flips the
        signs of one draw; "plain" for a weight that enters no product, which is drawn once for the
        batch, as biases and scales are; "refused" where a product is entered in another way: drawn
        once too by default, an error under ``estimator="local"``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcvi.networks import layers_found
        >>> def network(w, x):
        ...     hidden = jnp.tanh(x @ w["first"] + w["bias"])
        ...     return hidden @ w["shared"] @ w["shared"]
        >>> square = jnp.ones((3, 3))
        >>> weights = {"first": square, "bias": jnp.ones(3), "shared": square}
        >>> for name, layer in layers_found(network, weights, jnp.ones((5, 3))).items():
        ...     print(f"{name}: {layer.kind}, {layer.why}")
        bias: plain, enters no product
        first: local, enters one product with what depends on the inputs
        shared: refused, is used more than once
    """
    if not isinstance(network, BayesianNetwork):
        function, arrays = _of_arrays(network, inputs, kwargs)
        return layers_of(function, params, (arrays, None))
    function, arrays = _of_arrays(network._function, inputs, kwargs)
    weights = network._random(params, jax.random.key(0), "local")
    return layers_of(function, weights, (arrays, network.state))


def _of_arrays(
    function: Callable[..., Output], inputs: tuple[object, ...], kwargs: Mapping[str, object]
) -> tuple[Callable[[Params, list[jax.Array], Params], Output], list[jax.Array]]:
    """The function of (weights, arrays, state), and the arrays among its arguments."""
    leaves, structure = jax.tree.flatten((inputs, dict(kwargs)))
    is_array = [isinstance(x, jax.Array | np.ndarray) for x in leaves]

    def of_arrays(weights: Params, arrays: list[jax.Array], state: Params) -> Output:
        rest = iter(arrays)
        merged = [next(rest) if a else x for a, x in zip(is_array, leaves, strict=True)]
        args, named = jax.tree.unflatten(structure, merged)
        with_state = {} if state is None else {"state": state}
        return function(weights, *args, **named, **with_state)

    return of_arrays, [x for a, x in zip(is_array, leaves, strict=True) if a]


def _mean(draws: jax.Array) -> jax.Array:
    """Over the first axis; of what is no floating-point number, the first."""
    return jnp.mean(draws, axis=0) if jnp.issubdtype(draws.dtype, jnp.inexact) else draws[0]
